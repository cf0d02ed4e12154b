"""Results that are kept for the next run, each under a digest of all that it depends on."""

import hashlib
import json
import re
from functools import cache
from pathlib import Path

from course import ROOT
from course.base.manifest import Exercise
from course.grading import handed_in
from course.grading.handed_in import HandedIn
from course.grading.results import ExerciseResult
from course.grading.run import Options, private_tests


def earlier(file: Path, key: str) -> ExerciseResult | None:
    """The result of an earlier run, if nothing that it depends on has changed."""
    try:
        result = ExerciseResult.model_validate_json(file.read_text())
    except (OSError, ValueError):  # pydantic's errors are ValueErrors
        return None
    return result if result.key == key else None


def again(result: ExerciseResult, before: ExerciseResult | None) -> ExerciseResult:
    """A result, marked as suspicious where it is `not graded` for the same reason as before."""
    again = before and result.problem and _reason(result) == _reason(before)
    return result.model_copy(update={"suspicious": True}) if again else result


def _reason(result: ExerciseResult) -> str:
    """Why it was not graded, without numbers and paths, which differ from run to run."""
    return re.sub(r"[0-9a-f]*\d[0-9a-f]*|/\S+", "", result.problem)


def key_of(submission: HandedIn, exercise: Exercise, options: Options) -> str:
    """A digest of all that a result depends on: the submission's files, the tests, the grader, how it grades."""
    private = handed_in.private_files(options.private) if private_tests(exercise, options) else {}
    depends_on = [
        submission.digests or submission.refused,
        exercise.model_dump(exclude={"hints", "goal", "title", "run", "part"}),
        [_digest(ROOT / exercise.test), {name: _digest(path) for name, path in private.items()}],
        _grader(),
        [options.isolation, options.limit],
    ]
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()


@cache
def _grader() -> list[str]:
    """Digests of what all exercises are graded with."""
    helpers = [path for path in sorted((ROOT / "tests").glob("*.py")) if not path.name.startswith("test_")]
    ours = [*sorted((ROOT / "course").rglob("*.py")), *sorted((ROOT / "serving").glob("*.py"))]
    return [_digest(path) for path in [*ours, *helpers, ROOT / "requirements.lock"]]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
