"""How a test ends: it fails with one sentence, or says that it could not decide."""

import re
from pathlib import Path
from typing import Any, NoReturn

import pytest

from course import ROOT

# A frame of a stack trace, as Python prints it or in a box: its file, its line, its function, and the code.
FRAME = re.compile(r'(?:File "|^│ )(/.*?)(?:", line |:)(\d+),? in (\S+)(?: +│)?(?:\n +(\S.*))?', re.MULTILINE)


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


def said(output: str, most: int = 500) -> str:
    """The end of what a program printed, in about so many characters.

    Of a stack trace: the line of the exception, then the last frame in a file of the student's own.
    """
    _, trace, after = output.rpartition("Traceback (most recent call last)")
    error = next((line for line in after.splitlines()[1:] if line and line[0] not in " │╭╰"), "")
    if trace and error:
        own = [frame for frame in FRAME.findall(after) if _is_own(Path(frame[0]))]
        where = [
            f"{Path(file).name}, line {line}, in {name}: {code}".strip(": ") for file, line, name, code in own[-1:]
        ]
        return " | ".join([short(error, most // 2), *where])
    text = output.strip()
    end = text[-most:]
    return text if len(text) <= most else "... " + (end.partition("\n")[2] or end)


def _is_own(file: Path) -> bool:
    """Whether a student wrote the file: it is of no library, and not of the course."""
    of_course = [ROOT / name for name in ("course", "serving", "tests", ".venv")]
    library = {"site-packages", "dist-packages"} & set(file.parts) or re.search(r"/lib/python3[.]\d+/", str(file))
    return not library and file.name != "driver.py" and not any(file.is_relative_to(folder) for folder in of_course)
