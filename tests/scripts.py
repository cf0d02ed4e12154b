"""What a test expects of a script that has ended, and of a function that has returned or raised."""

from typing import Any

import numpy as np
import pytest

from course.harness.submission import Finished, Submission
from course.harness.verdicts import expect, said, short


def expect_success(finished: Finished, *words: str, called: str, expected: str, hint: str) -> None:
    """Fail unless a script ended with exit code 0 and printed these words."""
    holds = finished.code == 0 and all(word in finished.output for word in words)
    got = f"exit code {finished.code}: {said(finished.output)}"
    expect(holds, called=called, got=got, expected=f"exit code 0, {expected}", hint=hint)


def expect_one_sentence(finished: Finished, *words: str, called: str, hint: str) -> None:
    """Fail unless a script failed, and its last line, which is not the end of a stack trace, holds these words."""
    sentence = (finished.output.strip() or " ").splitlines()[-1]
    expect(
        finished.code != 0 and all(word in sentence for word in words) and "Traceback" not in finished.output,
        called=called,
        got=f"exit code {finished.code}: {said(finished.output)}",
        expected=f"a non-zero exit code and one sentence with {' and '.join(words)}, without a stack trace",
        hint=hint,
    )


def expect_equal(got: Any, expected: Any, *, called: str, hint: str) -> None:
    """Fail unless what came back is what should have come back; both are shown."""
    expect(is_equal(got, expected), called=called, got=got, expected=short(f"{expected!r}"), hint=hint)


def expect_close(got: Any, expected: np.ndarray, within: float, *, called: str, hint: str) -> None:
    """Fail unless an array of numbers has the expected shape, and no value is further away than `within`."""
    fits = isinstance(got, np.ndarray) and (got.shape, got.dtype.kind) == (expected.shape, "f")
    difference = float(abs(got - expected).max()) if fits else np.nan
    got = f"{short(got)}, up to {difference:.1e} away" if fits else got
    expected = f"{short(expected)}, at most {within} away"
    expect(difference <= within, called=called, got=got, expected=expected, hint=hint)


def is_equal(got: Any, expected: Any) -> bool:
    """got == expected, and False where an array cannot say so."""
    try:
        return bool(got == expected)
    except ValueError:
        return False


def expect_problem(
    submission: Submission,
    file: str,
    function: str,
    *words: str,
    called: str,
    hint: str,
    kind: str = "Problem",
    **given,
) -> None:
    """Fail unless a function, given these arguments, raises a Problem (or another kind) that holds these words."""
    try:
        got = submission.call(file, function, **given)
    except pytest.fail.Exception as failure:
        got = str(failure)
    raised = isinstance(got, str) and all(word in got for word in ("raised", kind, *words))
    expect(raised, called=called, got=got, expected=" with ".join([f"a {kind}", *map(repr, words)]), hint=hint)
