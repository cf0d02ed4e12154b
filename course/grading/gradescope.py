"""Gradescope: its results.json, and the archive that its machines grade with.

The fields are those of Gradescope's autograder specification:
https://gradescope-autograders.readthedocs.io/en/latest/specs/
"""

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

from course import ROOT
from course.base import manifest
from course.base.files import write_whole
from course.base.manifest import Exercise
from course.grading.handed_in import private_files
from course.grading.results import AGAIN, ExerciseResult, Isolation, SubmissionResult, TestResult
from serving import Problem

# What goes into the archive. Of the solutions, the one that exports the models which the tests serve;
# setup.sh removes it once they are made.
TREE = (
    "course",
    "serving",
    "data",
    "tests",
    "models/README.md",
    "solutions/ex01_export.py",
    "course.toml",
    "pyproject.toml",
)
REQUIREMENTS = ("requirements.lock",)


def as_gradescope(result: SubmissionResult) -> str:
    """The content of results.json. Private tests are hidden; what has no verdict has no score, and no maximum."""
    tests = [entry for exercise in result.exercises for entry in _entries(exercise)]
    content = {
        "score": result.reached,
        "execution_time": round(result.seconds),
        "output": _summary(result),
        "output_format": "text",
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "tests": tests,
        "extra_data": {"final": result.final, "open": result.open, "isolation": result.isolation},
    }
    return json.dumps(content, indent=2)


def _summary(result: SubmissionResult) -> str:
    again = [exercise.number for exercise in result.exercises if not exercise.final]
    lines = [f"{exercise.number}  {exercise.title}" for exercise in result.exercises]
    lines += [f"No final verdict: {', '.join(again)}. Ask for another run."] if again else []
    return "\n".join([*lines, result.warning] if result.warning else lines)


def _entries(exercise: ExerciseResult) -> list[dict]:
    """The entries of one exercise: its tests, or one that says why there are none."""
    entry = {"name_format": "text", "output_format": "text", "visibility": "visible"}
    tags = [f"exercise {exercise.number}", *(["extra"] if exercise.optional else [])]
    name = f"{exercise.number} {exercise.title}"
    if exercise.problem:
        # The sentence for students; what exactly failed is in the grader's own output.
        return [entry | {"name": name, "number": exercise.number, "status": "failed", "output": AGAIN, "tags": tags}]
    if not exercise.tests:
        score = {"score": 0.0, "max_score": 0.0 if exercise.optional else exercise.worth, "status": "failed"}
        return [entry | score | {"name": name, "number": exercise.number, "output": exercise.failure, "tags": tags}]
    return [
        entry
        | _score(test, exercise.optional)
        | {
            "name": f"{exercise.number} {test.name}",
            "number": f"{exercise.number}.{number}",
            "output": test.message,
            "tags": [*tags, *(["private"] if test.private else [])],
            "visibility": "hidden" if test.private else "visible",
            "extra_data": {"outcome": test.outcome, "seconds": round(test.seconds, 3)},
        }
        for number, test in enumerate(exercise.tests, 1)
    ]


def _score(test: TestResult, optional: bool) -> dict:
    if test.open:  # informational: neither won nor lost
        return {"status": "failed"}
    most = 0.0 if optional else test.points  # what is won in optional exercises comes on top
    return {"score": test.reached, "max_score": most, "status": "passed" if test.outcome == "passed" else "failed"}


SETUP = """\
#!/usr/bin/env bash
# Run once, as root, when Gradescope builds the image.
set -euo pipefail
cd "$(dirname "$0")"
export DEBIAN_FRONTEND=noninteractive

newest() {
  for python in python3 python3.13 python3.12 python3.11; do
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$python" && return
  done
}
apt-get update
# bubblewrap: what student code runs in. The others: for an image whose own Python is too old.
apt-get install -y --no-install-recommends bubblewrap
apt-get install -y --no-install-recommends python3 python3-venv
[ -n "$(newest)" ] || apt-get install -y --no-install-recommends python3.11 python3.11-venv

"$(newest)" -m venv .venv
.venv/bin/python -m pip install --index-url https://download.pytorch.org/whl/cpu \\
  $(grep -Eo '^torch(vision)?==[0-9.]+' requirements.lock)
.venv/bin/python -m pip install -r requirements.lock
.venv/bin/python -m pip install --no-deps --no-build-isolation -e .

# The models that tests serve; then the solution that made them goes.
.venv/bin/python -m course.harness.models_for_tests models-of-the-tests
rm -rf solutions
mkdir solutions
"""

RUN = """\
#!/usr/bin/env bash
# Run for each submission. If the grader fails, Gradescope's page for instructors says why.
set -uo pipefail
autograder="${{AUTOGRADER:-/autograder}}"
grades="$(mktemp -d)"
trap 'rm -rf "$grades"' EXIT

cd "$autograder/source" || exit 1
export COURSE_TEST_MODELS="$PWD/models-of-the-tests"
.venv/bin/python -m course grade --submission "$autograder/submission" --output "$grades" {options}
# 1: graded, but something has to be run again; results.json says what.
code=$?
cp "$grades/submission/gradescope.json" "$autograder/results/results.json" || exit "$code"
"""


def choose(named: Sequence[Exercise] | None) -> list[Exercise]:
    """The exercises to grade there: those named, or all that need no containers.

    Raises:
        Problem: one of those named needs a Docker engine, which Gradescope's machines do not have.
    """
    if not named:
        return [one for one in manifest.exercises() if not one.needs_docker]
    if needing := [one.number for one in named if one.needs_docker]:
        raise Problem(
            f"The tests of {' and '.join(needing)} start containers, and Gradescope's machines have no Docker engine."
            f' Grade these with: make grade SUBMISSIONS=folder EX="{" ".join(needing)}"'
        )
    return list(named)


def write_archive(
    path: Path, exercises: list[Exercise], *, private: Path | None, isolation: Isolation, jobs: int, limit: int
) -> list[str]:
    """Write the archive for Gradescope; the names of what is in it.

    It has the tests of these exercises only, no models, and one solution, which setup.sh runs and removes.
    """
    options = (
        f'--ex "{" ".join(one.number for one in exercises)}" --isolation {isolation} --jobs {jobs} --limit {limit}'
    )
    if private:
        options += " --private private"
    wanted = {one.test for one in exercises}
    files = {name: ROOT / name for name in REQUIREMENTS}
    for top in TREE:
        for file in sorted((ROOT / top).rglob("*")) if (ROOT / top).is_dir() else [ROOT / top]:
            name = file.relative_to(ROOT).as_posix()
            of_others = name.startswith("tests/test_") and name not in wanted
            if file.is_file() and "__pycache__" not in name and not of_others:
                files[name] = file
    if private:
        files |= {f"private/{name}": file for name, file in private_files(private).items()}

    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        _add(archive, "setup.sh", SETUP.encode(), 0o755)
        _add(archive, "run_autograder", RUN.format(options=options).encode(), 0o755)
        for name, file in sorted(files.items()):
            _add(archive, name, file.read_bytes(), 0o644)
    write_whole(path, content.getvalue())
    return ["setup.sh", "run_autograder", *sorted(files)]


def _add(archive: zipfile.ZipFile, name: str, content: bytes, mode: int) -> None:
    """Add a file with a fixed date: the same tree gives the same archive."""
    info = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
    info.external_attr = (0o100000 | mode) << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(info, content)
