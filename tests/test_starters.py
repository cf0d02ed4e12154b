"""An untouched starter runs, says what is left to do, and earns nothing, with a message that helps."""

import os
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from course import ROOT
from course.manifest import Exercise, exercises, untouched
from course.pytest_plugin import no_engine

# What a failure must say: that a function, script or service is not written, or that an earlier test told why.
TOLD = (
    "is not written yet",
    "Still to do",
    "NotImplementedError",
    "failed; see the first test",
    "goes on without a model",
)


@pytest.mark.parametrize("exercise", exercises(), ids=lambda exercise: exercise.stem)
def test_an_untouched_starter_earns_nothing(exercise: Exercise, tmp_path):
    if not untouched(exercise):
        pytest.skip(f"exercises/ has been worked on: {exercise.files}. (If these are new starters: make manifest)")
    if "pytest.mark.docker" in (ROOT / exercise.test).read_text() and (reason := no_engine()):
        pytest.skip(reason)
    report = tmp_path / "report.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--submission",
        "exercises",
        exercise.test,
        f"--junit-xml={report}",
        "-q",
    ]
    env = os.environ | {"PYTEST_ADDOPTS": ""}
    run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=200)
    assert f"{exercise.stem:24} 0 of {exercise.points}" in run.stdout, run.stdout[-3000:]

    for test in ElementTree.parse(report).iter("testcase"):
        failures = [one.text or "" for one in test if one.tag in ("failure", "error")]
        assert failures, f"{test.get('name')} passes on the untouched starter"
        assert any(words in failures[0] for words in TOLD), (
            f"{test.get('name')} does not say what is missing:\n{failures[0]}"
        )
        assert "Traceback" not in failures[0]


@pytest.mark.parametrize(
    ("file", "arguments"),
    [
        ("ex01_export.py", ["--weights", "random", "--output", "{tmp}/mine.onnx"]),
        ("ex02_check.py", ["{models}/resnet18.onnx"]),
        ("ex03_visualize.py", ["{models}/resnet18.onnx", "--no-browser"]),
        ("ex04_inference.py", ["data/cat.png", "--model", "{models}/resnet18.onnx"]),
        ("ex05_benchmark.py", ["--quick", "--size", "64", "--batch", "1", "--rounds", "1"]),
        ("ex06_optimize.py", ["--model", "{models}/resnet18.onnx", "--quick", "--rounds", "1"]),
        ("ex07_providers.py", ["--model", "{models}/resnet18.onnx"]),
        ("ex09_fastapi.py", []),
        ("ex10_client.py", ["data/cat.png"]),
        (
            "ex18_cloud.py",
            ["--project", "my-project", "--region", "europe-west1", "--repository", "course", "--dry-run"],
        ),
        ("ex19_client.py", ["data"]),
        ("ex20_model_store.py", ["save", "{models}/resnet18.onnx"]),
        ("ex21_sklearn.py", ["--output", "{tmp}/forest.onnx"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_starter_runs_and_says_what_is_left_to_do(file, arguments, models_dir, tmp_path):
    exercise = next(one for one in exercises() if file in one.files)
    if not untouched(exercise):
        pytest.skip(f"exercises/{file} has been worked on")
    words = [word.format(tmp=tmp_path, models=models_dir) for word in arguments]
    run = subprocess.run(
        [sys.executable, f"exercises/{file}", *words], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert run.returncode == 1
    assert run.stderr.strip().startswith("Still to do: ")
    assert f"exercises/{file}, line " in run.stderr
    assert "Traceback" not in run.stderr
