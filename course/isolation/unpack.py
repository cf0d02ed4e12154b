"""Unpacks an archive into a folder: python -I -S course/isolation/unpack.py ARCHIVE FOLDER.

It runs in a sandbox, under limits. What cannot be unpacked ends it with one sentence. Only regular files are unpacked,
and only those that may be part of an answer.
"""

import os
import re
import sys
import tarfile
import zipfile
from pathlib import PurePosixPath

NO_ANSWER = {"__pycache__", "__MACOSX", "node_modules", "venv", "site", "reports"}


def is_answer(name: str) -> bool:
    """Whether a file may be part of an answer: neither hidden nor in an environment or a cache."""
    return not any(part.startswith(".") or part in NO_ANSWER for part in PurePosixPath(name).parts)


def wanted(name: str) -> bool:
    """Whether a member is part of an answer. One that points outside ends the program."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:", name):
        sys.exit(f"it holds a path that points outside: {name[:200]!r}")
    return bool(path.parts) and is_answer(name)


def unpack_zip(archive: str, folder: str) -> None:
    """Windows separates folders with backslashes, and some archives with it."""
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            member.filename = member.filename.replace("\\", "/")
            kind = member.external_attr >> 28  # of the file's mode on Unix; 0 where it was made elsewhere
            if kind in (0, 0o10) and wanted(member.filename):
                file.extract(member, folder)


def unpack_tar(archive: str, folder: str) -> None:
    """Any tar archive, compressed or not."""
    # Python has these filters from 3.11.4 on. Without, regular files with harmless names are taken as they are.
    options = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    with tarfile.open(archive) as file:
        for member in file:
            if member.isreg() and wanted(member.name):
                file.extract(member, folder, **options)


if __name__ == "__main__":
    archive, folder = sys.argv[1:]
    try:
        (unpack_zip if archive.lower().endswith(".zip") else unpack_tar)(archive, folder)
    except (tarfile.ReadError, zipfile.BadZipFile):
        sys.exit("it is broken, or not the kind of archive that its name says")
    except MemoryError:
        sys.exit("it takes too much memory")
    except Exception as error:
        sys.exit(f"{error or type(error).__name__}".replace(f"{folder}{os.sep}", ""))
