"""Files and folders that are whole or not there, and the end of a log."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serving import Problem

# A line with an exception, as Python and Docker's builds write it, or an error in a log.
ERROR = re.compile(r"^.*(?:ERROR|\b\w*(?:Error|Exception|Exit|Interrupt|Problem|BadModel)\b).*$", re.MULTILINE)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that nobody ever sees half of it: beside its place, then moved there. Text is UTF-8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        os.chmod(beside, 0o644)
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


@contextmanager
def whole_folder(folder: Path, prefix: str = ".making-") -> Iterator[Path]:
    """A temporary folder beside the files of a folder; at the end of the block its files move there, by their names.

    After an error nothing is moved, and what was in the folder before is still there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=prefix) as name:
        yield Path(name)
        for file in sorted(Path(name).iterdir()):
            os.replace(file, folder / file.name)


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Check that a folder can be written to before a block that takes long writes its results there.

    Raises:
        Problem: it cannot, now or within the block; the folder is made where it is missing.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        yield
    except OSError as error:
        raise Problem(f"{error.filename or folder} could not be written: {error.strerror or error}.") from error


def tail(text: str, lines: int = 12) -> str:
    """The last lines of what a program printed."""
    return "\n".join(text.rstrip().splitlines()[-lines:])


def last_error(text: str) -> str:
    """The last error in what a program printed, or else its last line."""
    return (ERROR.findall(text) or [tail(text, 1) or "it printed nothing"])[-1].strip()
