"""How a test ends: it fails with one sentence, or says that it could not decide."""

from typing import Any, NoReturn

import pytest


def fail(sentence: str) -> NoReturn:
    """Fail the running test with this sentence, without a stack trace and without the exception that led to it."""
    raise pytest.fail.Exception(sentence, pytrace=False) from None


class Inconclusive(pytest.skip.Exception):
    """Neither passed nor failed: a measurement was too noisy. The grader runs the test once more."""


def inconclusive(sentence: str) -> NoReturn:
    """End the running test without a verdict, because the machine was too busy to compare speeds fairly.

    The sentence says what was measured and how much it varied.
    """
    raise Inconclusive(f"inconclusive, run again: {sentence}")


def expect(holds: bool, *, called: str, got: Any, expected: str, hint: str) -> None:
    """Fail the running test unless something holds, and say all that helps to find out why.

    Args:
        holds: what must be true.
        called: the call or command, as the student would type it.
        got: what came back.
        expected: what should have come back.
        hint: what to look at.
    """
    if not holds:
        fail(f"called    {called}\ngot       {short(got)}\nexpected  {expected}\ntry       {hint}")


def short(value: Any, limit: int = 400) -> str:
    """A value in at most so many characters; of an array, its shape, type and range."""
    if type(value).__module__ == "numpy" and hasattr(value, "shape"):
        numbers = value.size and value.dtype.kind in "biuf"
        values = f", values {value.min():.4g} to {value.max():.4g}" if numbers else ""
        return f"an array of shape {value.shape}, {value.dtype}{values}"
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= limit else f"{text[:limit]} ..."
