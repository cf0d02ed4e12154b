"""Grades one exercise of one folder as `make grade` does, with its own isolation."""

import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from course.base.manifest import Exercise
from course.grading.run import Options, run_twice


@dataclass(frozen=True)
class Graded:
    """The tests that failed and passed."""

    failed: dict[str, str]  # by test: all that a student reads
    passed: set[str]


def grade(exercise: Exercise, folder: Path, scratch: Path, *, only: list[str] = (), limit: float = 600) -> Graded:
    """Hold a folder against the tests of one exercise, or against some of them.

    Raises:
        RuntimeError: there is no verdict, which is never the folder's doing.
    """
    tests = [f"{exercise.test}::{test}" for test in only] or [exercise.test]
    worth = None if only else exercise.points
    run = run_twice(tests, worth, folder, scratch / "work", Options(limit=limit), threading.Event())
    noisy = [f"{test.id}: {test.message}" for test in run.tests if test.outcome == "inconclusive"]
    if run.problem or noisy:
        raise RuntimeError(run.problem or noisy[0])
    outcomes = {test.id.partition("::")[2]: test for test in run.tests}
    return Graded(
        failed={name: f"{test.message}\n{test.details}" for name, test in outcomes.items() if test.outcome == "failed"},
        passed={name for name, test in outcomes.items() if test.outcome == "passed"},
    )


def marks(exercise: Exercise) -> list[pytest.MarkDecorator]:
    """What a test that grades this exercise needs."""
    return [pytest.mark.docker] if exercise.needs_docker else []
