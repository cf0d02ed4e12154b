"""Folders that students' code has written, or that students hand in: removed, made harmless, copied."""

import os
import shutil
import stat
import subprocess
from collections.abc import Iterable
from pathlib import Path

from course.isolation.limits import MB
from course.isolation.unpack import is_answer
from serving import Problem


def empty(folder: Path) -> None:
    """Remove all that is in a folder."""
    remove(folder)
    folder.mkdir(parents=True, exist_ok=True)


def remove(folder: Path) -> None:
    """Remove a folder with all that is in it, if it is there. No link is followed.

    Student code may have closed folders in it, and nested more of them than Python can follow.
    """
    open_up(folder)
    subprocess.run(["rm", "-rf", "--", str(folder)], capture_output=True, check=False)


def open_up(folder: Path) -> None:
    """Let the owner into a folder and all that is in it."""
    subprocess.run(["chmod", "-R", "u+rwX", "--", str(folder)], capture_output=True, check=False)


def defuse(folders: Iterable[Path]) -> None:
    """Remove from folders what must not be opened: links that lead out of them, pipes, sockets, devices.

    Through a link to the solutions, the grader would read what the student cannot; a pipe would stop it forever.
    """
    for folder in folders:
        inside = folder.resolve()
        open_up(folder)  # a closed folder would hide links, which still lead somewhere
        for place, below, names in os.walk(folder):
            for name in [*below, *names]:
                path = Path(place, name)
                if path.is_symlink():
                    harmless = path.resolve().is_relative_to(inside)
                else:
                    harmless = stat.S_IFMT(path.lstat().st_mode) in (stat.S_IFREG, stat.S_IFDIR)
                if not harmless:
                    path.unlink()


def copy_submission(folder: Path, into: Path, most: int = 50 * MB, files: int = 2000) -> list[str]:
    """Copy a submission's files to a new folder, and say in sentences what was left out.

    Links are not followed, so nothing comes from outside the folder. Raises Problem where there is no such folder, or
    too much in it.
    """
    if not folder.is_dir():
        raise Problem(f"There is no folder {folder}.")
    left_out, size, count = [], 0, 0
    into.mkdir(parents=True)
    for place, below, names in os.walk(folder):
        links = [name for name in below if Path(place, name).is_symlink()]
        below[:] = sorted(name for name in below if is_answer(name) and name not in links)
        for name in below:
            (into / Path(place, name).relative_to(folder)).mkdir()
        for name in filter(is_answer, [*sorted(links), *sorted(names)]):
            path = Path(place, name)
            within = path.relative_to(folder)
            if path.is_symlink() or not path.is_file():
                what = "a link" if path.is_symlink() else "no regular file"
                left_out.append(f"{within} is {what}, and was left out.")
                continue
            size, count = size + path.stat().st_size, count + 1
            if size > most or count > files:
                bound = f"{most // MB} MB or {files} files"
                raise Problem(f"{folder} holds more than {bound}; submissions are source files.")
            shutil.copyfile(path, into / within, follow_symlinks=False)
    return left_out
