"""Submissions as learning platforms hand them out: folders, zip and tar archives, taken over safely.

Only regular files are copied, and no link is followed: what a submission could point at outside of itself stays
outside. Archives are unpacked piece by piece under a limit on files and bytes, whatever they say about themselves.
"""

import bz2
import gzip
import hashlib
import lzma
import os
import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from course.base.manifest import exercises
from course.grading.results import clean
from course.isolation.folders import copy_submission
from course.isolation.limits import MB
from serving import Problem

MOST_FILES, MOST_BYTES, MOST_FOLDERS = 2000, 50 * MB, 20  # folders: one in the other
MOST_SAID, MOST_SAID_AT_ONCE = MB, MB // 64  # what a tar says about its files: long names and the like
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
TAKEN = f"Taken are folders and archives ({', '.join(ARCHIVES)})."
SKIPPED = {"__pycache__", "__MACOSX", ".git", ".venv", "node_modules", ".DS_Store"}
NO_SUBMISSION = {".csv", ".txt", ".md", ".html"}  # of the teacher or the platform, beside the submissions
COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}  # by how they begin

# What reading somebody else's archive can raise.
BROKEN = (OSError, EOFError, ValueError, RuntimeError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)


class Refused(Exception):
    """A submission that cannot be taken over; the message says why, for its author."""


@dataclass
class HandedIn:
    """One submission."""

    name: str
    slug: str  # the name, fit for a file name
    source: Path
    folder: Path | None = None  # a copy of the shape of exercises/, once it was taken over
    refused: str = ""  # why there is none
    left_out: list[str] = field(default_factory=list)  # what was not copied: links and the like, in sentences
    digests: dict[str, str] = field(default_factory=dict)  # of each file

    def take_over(self, into: Path) -> None:
        """Copy or unpack it into an empty folder, and find the exercises in there."""
        if self.refused:
            return
        shutil.rmtree(into, ignore_errors=True)
        unpacked, copied, source = into / "unpacked", into / "submission", self.source
        try:
            source = archive_in(self.source) or self.source
            if not source.is_dir():
                _unpack(source, unpacked)
            self.left_out = copy_submission(unpacked if unpacked.is_dir() else source, copied)
            self.folder = shape(copied)
            self.digests = {
                path.relative_to(self.folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
                for path in sorted(self.folder.rglob("*"))
                if path.is_file()
            }
        except (Refused, Problem) as refused:
            self.refused = str(refused).replace(str(unpacked), "It").replace(str(self.source), "It")
        except BROKEN as error:
            said = str(error)
            for place in (unpacked, copied, source.parent):  # of the grader's machine, nothing is said
                said = said.replace(f"{place}{os.sep}", "")
            self.refused = f"{self.name} cannot be unpacked: {clean(said) or type(error).__name__}."


def archive_in(folder: Path) -> Path | None:
    """The archive that is all there is in a folder, as Moodle hands out what somebody has uploaded."""
    found = [] if not folder.is_dir() else [path for path in folder.iterdir() if not path.name.startswith(".")]
    return found[0] if len(found) == 1 and _is_archive(found[0]) else None


def _unpack(archive: Path, into: Path) -> None:
    into.mkdir(parents=True)
    for path, file in _files_of(archive, _Allowance()):
        target = into / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as copy:
            shutil.copyfileobj(file, copy)


class _Allowance:
    """Counts what is taken over, and refuses more than the limits."""

    def __init__(self) -> None:
        self.files = self.bytes = 0

    def file(self) -> None:
        self.files += 1
        if self.files > MOST_FILES:
            raise Refused(f"It has more than {MOST_FILES} files.")

    def limited(self, file: BinaryIO) -> "_Limited":
        return _Limited(file, self)


class _Limited:
    """A file that is read under the allowance; what an archive says about its size is not asked."""

    def __init__(self, file: BinaryIO, allowance: _Allowance) -> None:
        self.file, self.allowance = file, allowance

    def read(self, size: int) -> bytes:
        piece = self.file.read(size)
        self.allowance.bytes += len(piece)
        if self.allowance.bytes > MOST_BYTES:
            raise Refused(f"It has more than {MOST_BYTES // MB} MB.")
        return piece


def _files_of(source: Path, allowance: _Allowance) -> Iterator[tuple[Path, _Limited]]:
    """Every regular file of an archive: its path in there, and it opened."""
    yield from (_files_of_zip if source.name.lower().endswith(".zip") else _files_of_tar)(source, allowance)


def _files_of_zip(source: Path, allowance: _Allowance) -> Iterator[tuple[Path, _Limited]]:
    with zipfile.ZipFile(source) as archive:
        for info in archive.infolist():
            allowance.file()
            kind = info.external_attr >> 28  # of the file's mode on Unix; 0 where it was made elsewhere
            if info.is_dir() or kind not in (0, 0o10) or (path := inside(info.filename)) is None:
                continue
            with archive.open(info) as file:
                yield path, allowance.limited(file)


def _files_of_tar(source: Path, allowance: _Allowance) -> Iterator[tuple[Path, _Limited]]:
    # Two counts of bytes: a sparse file can be larger than all of the archive, and what is skipped is read as well.
    with _opened(source) as file, _Tar.open(fileobj=_Limited(file, _Allowance()), mode="r|") as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # or it would remember them all
            allowance.file()
            if member.isreg() and (path := inside(member.name)) is not None:
                yield path, allowance.limited(archive.extractfile(member))


def _opened(archive: Path) -> BinaryIO:
    """The archive, without its compression."""
    with archive.open("rb") as file:
        begins = file.read(8)
    opens = next((opens for magic, opens in COMPRESSED.items() if begins.startswith(magic)), open)
    return opens(archive, "rb")


# Members that are no files, and say something about the next one: the kinds whose content tarfile reads.
SAYING = {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE}


class _Member(tarfile.TarInfo):
    """A member of a tar archive. What it says about the next one is read whole, so that there are limits to it, too."""

    def _proc_member(self, archive: "_Tar") -> tarfile.TarInfo:
        if self.type in SAYING:
            archive.said += self.size
            if self.size > MOST_SAID_AT_ONCE or archive.said > MOST_SAID:
                raise Refused("Its archive says more about its files than is ever needed.")
        if self.size < 0:
            raise Refused("Its archive holds a file of less than no bytes.")
        return super()._proc_member(archive)


class _Tar(tarfile.TarFile):
    tarinfo, said = _Member, 0


def inside(name: str) -> Path | None:
    """The path of an archive's member, to be used below a folder; None for what is not taken over.

    Raises:
        Refused: it points outside.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:", name) or "\0" in name:
        raise Refused(f"Its archive holds a path that points outside: {clean(name)[:200]}")
    if SKIPPED & set(path.parts) or not path.parts:
        return None
    if len(path.parts) - 1 > MOST_FOLDERS:
        raise Refused(f"Its archive holds more than {MOST_FOLDERS} folders, one in the other.")
    return Path(path)


def shape(folder: Path, deeper: int = 4) -> Path:
    """Where in a folder the exercises are: at the top, in `exercises/`, or in the one folder that there is.

    Raises:
        Refused: no file of any exercise is in there.
    """
    wanted = [file for exercise in exercises() for file in exercise.files]
    for place in (folder, folder / "exercises"):
        if any((place / file).is_file() for file in wanted):
            return place
    inner = [path for path in folder.iterdir() if path.is_dir()]
    if len(inner) == 1 and deeper:
        return shape(inner[0], deeper - 1)
    raise Refused(f"It holds no file of any exercise, such as {wanted[0]}, neither at its top nor in exercises/.")


def one(path: Path) -> HandedIn:
    """A single submission.

    Raises:
        Problem: there is none.
    """
    if not path.is_dir() and not _is_archive(path):
        raise Problem(f"SUBMISSION={path}: there is no such folder or archive ({', '.join(ARCHIVES)}).")
    return _handed_in([path.resolve()])[0]


def several(folder: Path) -> list[HandedIn]:
    """The submissions in a folder, each a folder or an archive.

    Raises:
        Problem: there is no such folder, or none in it.
    """
    if not folder.is_dir():
        raise Problem(f"SUBMISSIONS={folder}: there is no such folder.")
    there = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".") and path.name not in SKIPPED]
    found = [path for path in there if _is_archive(path) or (path.is_dir() and not path.is_symlink())]
    if any(path.name in exercise.files for path in folder.iterdir() for exercise in exercises()):
        raise Problem(
            f"SUBMISSIONS={folder}: this is one submission, not a folder of them: make grade SUBMISSION={folder}"
        )
    if not found:
        raise Problem(f"SUBMISSIONS={folder}: neither a folder nor an archive ({', '.join(ARCHIVES)}) is in there.")
    handed_in = _handed_in([path for path in there if path in found or not _is_note(path)])
    for one in handed_in:
        if one.source.is_symlink():
            one.refused = f"{one.name} is a link, and none is followed. {TAKEN}"
        elif one.source not in found:
            one.refused = f"{one.name} is neither a folder nor an archive of a known kind. {TAKEN}"
    return handed_in


def _is_note(path: Path) -> bool:
    """Whether it is about the submissions, and none of them."""
    return path.is_file() and (path.suffix.lower() in NO_SUBMISSION or path.stem.upper() == "README")


def _is_archive(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and path.name.lower().endswith(ARCHIVES)


def _handed_in(paths: list[Path]) -> list[HandedIn]:
    found: dict[str, HandedIn] = {}
    for path in paths:
        name = os.fsencode(path.name).decode(errors="replace")  # a name may be no text at all
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")[:60]
        if slug.lower() != name.lower() or slug.lower() in found:
            slug = f"{slug or 'submission'}-{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:8]}"
        found[slug.lower()] = HandedIn(clean(name), slug, path)
    return list(found.values())


def private_folder(folder: Path | None) -> Path | None:
    """A folder of private tests, as an absolute path.

    Raises:
        Problem: there are no such tests in it.
    """
    if folder and not any(folder.glob("test_ex[0-9][0-9]*.py")):
        raise Problem(f"PRIVATE={folder}: there is no file test_exNN_name.py in this folder.")
    return folder and folder.resolve()


def private_files(folder: Path) -> dict[str, Path]:
    """What private tests consist of, data beside them included, by their names in there."""
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path for name, path in found.items() if not SKIPPED & set(name.split("/"))}
