"""What a process with student code must see of this machine: worked out from what it is called with."""

import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from course import ROOT
from course.isolation.bubblewrap import Folders

# Arguments and options that say where to write, even if something is there already.
OUTPUTS = ("output", "--output")
# Variables that name folders which no student code has to write to.
READ_ONLY = ("MODELS_DIR", "PYTHONPATH", "PATH", "TORCH_HOME")


def folders(submission: Path, read: Iterable[Path], write: Iterable[Path], named: dict[str, Any]) -> Folders:
    """The folders and files that a process may read and write; `named` are its arguments and variables.

    A file or folder that is there is read. One that is not is written, and so are those of the arguments called as in
    OUTPUTS, temporary folders, and `write`. A file that a test gives to read stays as it is even in a folder that may
    be written to: the test often works out from it what to expect.
    """
    reads, writes = {submission, *read}, set(write)
    for key, path in _named_paths(named):
        if ROOT.is_relative_to(path):
            continue  # the project as a whole, for imports: the sandbox shows what may be seen of it
        temporary = path.is_relative_to(tempfile.gettempdir()) and not path.is_relative_to(submission)
        if path.is_dir():
            (writes if temporary and key not in READ_ONLY else reads).add(path)
        elif path.is_file() and key not in OUTPUTS:
            reads.add(path)
            if temporary:
                reads.add(path.parent)  # a model's weights may be in a second file
        elif temporary:
            folder = next(folder for folder in path.parents if folder.exists())
            writes.add(folder if folder.is_dir() else folder.parent)
    return Folders(reads - writes, writes)


def options(arguments: Iterable[Any]) -> dict[str, Any]:
    """A script's arguments by the options that they follow, the others by their places."""
    words = [str(word) for word in arguments]
    return {
        before if before.startswith("-") else str(place): word
        for place, (before, word) in enumerate(zip(["", *words], words, strict=False))
    }


def _named_paths(value: Any, key: str = "") -> Iterator[tuple[str, Path]]:
    """Every absolute path in arguments or variables, with the name of the argument or variable."""
    match value:
        case dict():
            for name, child in value.items():
                yield from _named_paths(child, key or name)
        case list() | tuple():
            for child in value:
                yield from _named_paths(child, key)
        case Path() if value.is_absolute():
            yield key, value
        case str() if value.startswith("/"):
            for part in value.split(os.pathsep):
                if part.startswith("/"):
                    yield key, Path(part)
