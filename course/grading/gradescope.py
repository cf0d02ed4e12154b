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
from course.grading.results import ExerciseResult, Isolation, SubmissionResult, TestResult
from serving import Problem

# What goes into the archive. Of the solutions, the one that exports the models which the tests serve;
# setup.sh removes it once they are made.
TREE = ["course", "serving", "data", "tests", "models/README.md", "solutions/ex01_export.py"]
TREE += ["course.toml", "pyproject.toml", "requirements.lock"]
TEMPLATES = ROOT / "course" / "grading" / "templates"


def as_gradescope(result: SubmissionResult) -> str:
    """The content of results.json. Private tests are hidden; what has no verdict has no score, and no maximum."""
    lines = [f"{exercise.number}  {exercise.title}" for exercise in result.exercises]
    if again := [exercise.number for exercise in result.exercises if not exercise.final]:
        lines.append(f"No final verdict: {', '.join(again)}. Ask for another run.")
    content = {
        "score": result.reached,
        "execution_time": round(result.seconds),
        "output": "\n".join([*lines, result.warning]).strip(),
        "output_format": "text",
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "tests": [
            _entry(exercise, test, f"{exercise.number}.{number}")
            for exercise in result.exercises
            for number, test in enumerate(exercise.shown, 1)
        ],
        "extra_data": {"final": result.final, "open": result.open, "isolation": result.isolation},
    }
    return json.dumps(content, indent=2)


def _entry(exercise: ExerciseResult, test: TestResult, number: str) -> dict:
    entry = {
        "name": f"{exercise.number} {test.name}",
        "name_format": "text",
        "number": number,
        "status": "passed" if test.outcome == "passed" else "failed",
        "output": test.message,
        "output_format": "text",
        "tags": [f"exercise {exercise.number}", *["extra"] * exercise.optional, *["private"] * test.private],
        "visibility": "hidden" if test.private else "visible",
        "extra_data": {"outcome": test.outcome, "seconds": round(test.seconds, 3)},
    }
    # What is open is neither won nor lost; what is won in optional exercises comes on top.
    return entry if test.open else entry | {"score": test.reached, "max_score": test.points * (not exercise.optional)}


def choose(named: Sequence[Exercise] | None) -> list[Exercise]:
    """The exercises to grade there: those named, or all that need no containers; raises Problem where one named does."""
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
    """Write the archive for Gradescope, with the tests of these exercises alone; the names of what is in it."""
    options = (
        f'--ex "{" ".join(one.number for one in exercises)}" --isolation {isolation} --jobs {jobs} --limit {limit}'
    )
    scripts = {name: (TEMPLATES / name).read_text() for name in ("setup.sh", "run_autograder")}
    options += " --private private" if private else ""
    scripts["run_autograder"] = scripts["run_autograder"].replace("OPTIONS", options)
    wanted = {one.test for one in exercises}
    files = {}
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
        for name, text in scripts.items():
            _add(archive, name, text.encode(), 0o755)
        for name, file in sorted(files.items()):
            _add(archive, name, file.read_bytes(), 0o644)
    write_whole(path, content.getvalue())
    return [*scripts, *sorted(files)]


def _add(archive: zipfile.ZipFile, name: str, content: bytes, mode: int) -> None:
    """Add a file with a fixed date: the same tree gives the same archive."""
    info = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
    info.external_attr = (0o100000 | mode) << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(info, content)
