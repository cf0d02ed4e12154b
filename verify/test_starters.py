"""Every untouched starter earns nothing, and each of its failures says what is missing."""

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
