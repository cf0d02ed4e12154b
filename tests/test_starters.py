"""An untouched starter runs and says what is left to do. That it earns nothing: verify/test_starters.py."""

import subprocess
import sys

import pytest

from course import ROOT
from course.base.manifest import exercises, untouched


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
