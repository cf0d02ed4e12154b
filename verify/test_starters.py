"""Every untouched starter earns nothing, and each of its failures says what is missing."""

import pytest
from graded import grade, marks

from course import ROOT
from course.base.manifest import Exercise, exercises, untouched

# What a failure must say: that a function, script or service is not written, or that an earlier test told why.
TOLD = (
    "is not written yet",
    "Still to do",
    "NotImplementedError",
    "failed; see the first test",
    "goes on without a model",
    "The script refuses good files, too: see test_",
    "RequestLimits lets curl's bodies through",  # TODO 7 of exercise 10
    "raise InvalidArgument('expected ...')",  # TODO 1 of exercise 10
)


@pytest.mark.parametrize("exercise", [pytest.param(one, marks=marks(one), id=one.stem) for one in exercises()])
def test_an_untouched_starter_earns_nothing(exercise: Exercise, tmp_path):
    assert untouched(exercise), f"exercises/ has other files than the starters of {exercise.stem}: run make manifest"
    graded = grade(exercise, ROOT / "exercises", tmp_path)
    assert not graded.passed, f"{graded.passed} pass on the untouched starter"
    assert graded.failed
    silent = {test: said for test, said in graded.failed.items() if not any(words in said for words in TOLD)}
    assert not silent, f"These do not say what is missing: {silent}"
    assert not [test for test, said in graded.failed.items() if "Traceback" in said]
