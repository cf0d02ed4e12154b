"""Submissions as learning platforms hand them out: folders, zip and tar archives, copied safely.

Only regular files are copied, and no link is followed, so nothing outside of a submission becomes part of it. Archives
are unpacked in a sandbox, under limits on memory, disk and time.
"""

import hashlib
import os
import re
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

from course import ROOT
from course.base.manifest import exercises
from course.base.processes import is_ours, signal_name, wait
from course.grading.results import one_line
from course.isolation import sandbox
from course.isolation.bubblewrap import Folders
from course.isolation.folders import copy_submission, remove
from course.isolation.limits import MB, Limits
from serving import Problem

# For one archive. Its disk is larger than a submission may be, so that copy_submission() can say what is too much.
UNPACKING = Limits(memory=256 * MB, processes=10, output=MB, disk=80 * MB, cpu=10)
PATIENCE = 60  # seconds
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
ACCEPTED = f"Hand in a folder or an archive ({', '.join(ARCHIVES)})."
NO_SUBMISSION = {".csv", ".txt", ".md", ".html"}  # from the teacher or the platform, beside the submissions
OURS = {"index.html", "class.csv"}  # what reports are called beside the submissions' folders


@dataclass
class HandedIn:
    """One submission."""

    name: str
    slug: str  # the name, fit for a file name
    source: Path
    folder: Path | None = None  # a copy like exercises/, once it was copied
    refused: str = ""  # why there is none
    left_out: list[str] = field(default_factory=list)  # what was not copied: links and the like, in sentences
    digests: dict[str, str] = field(default_factory=dict)  # of each file

    def take_over(self, into: Path) -> None:
        """Copy or unpack it into an empty folder, and find the exercises in it.

        Raises GraderFailure or OSError where this machine is at fault: its disk is full, say.
        """
        if self.refused:
            return
        remove(into)
        unpacked, copied = into / "unpacked", into / "submission"
        try:
            source = archive_in(self.source) or self.source
            if not source.is_dir():
                unpack(source, unpacked)
                source = unpacked
            self.left_out = copy_submission(source, copied)
            self.folder = shape(copied)
            for path in sorted(self.folder.rglob("*")):
                if path.is_file():
                    name = path.relative_to(self.folder).as_posix()
                    self.digests[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        except (Problem, OSError) as refused:
            if is_ours(refused):
                raise
            said = str(refused).replace(str(unpacked), "It").replace(str(self.source), "It")
            self.refused = said.replace(f"{into}{os.sep}", "")  # nothing about the grader's machine
        finally:
            remove(unpacked)

    def lacks(self, files: list[str]) -> str:
        """Why no file of an exercise is there, with what was handed in that may be meant."""
        missing = f"Nothing was handed in: there is no {' and no '.join(files)}."
        links = [sentence for sentence in self.left_out if any(file in sentence for file in files)]
        alike = [name for name in self.digests if name.lower() in map(str.lower, files)]
        renamed = [f"{name} has another name: upper and lower case differ." for name in alike]
        return " ".join([missing, *links, *renamed])


def archive_in(folder: Path) -> Path | None:
    """The archive that is all there is in a folder, as Moodle hands out what somebody has uploaded."""
    found = [] if not folder.is_dir() else [path for path in folder.iterdir() if not path.name.startswith(".")]
    return found[0] if len(found) == 1 and _is_archive(found[0]) else None


def unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive into a new folder, in the strongest isolation that works here.

    Raises Problem where it cannot be unpacked under the limits, GraderFailure where the program does not start.
    """
    folder.mkdir(parents=True)
    try:
        sandbox.need("process")
        how = "process"
    except Problem:
        how = "limits"
    command = [sys.executable, "-I", "-S", str(ROOT / "course" / "isolation" / "unpack.py"), str(archive), str(folder)]
    log, folders = folder.with_name("log"), Folders({archive}, {folder})
    options = {"log": log, "folders": folders, "limits": UNPACKING, "how": how}
    with sandbox.running(command, cwd=Path("/"), env={}, **options) as process:
        code = wait(process, PATIENCE)
    if code == 0 and not process.exceeded:
        return
    slow = code in (None, -signal.SIGXCPU)
    said = process.exceeded or ("it takes too long" if slow else one_line(log.read_text(errors="replace"))[-300:])
    raise Problem(f"{one_line(archive.name)} cannot be unpacked: {said or signal_name(-code)}.")


def shape(folder: Path, deeper: int = 4) -> Path:
    """Where in a folder the exercises are: at the top, in `exercises/`, or in the only folder that there is.

    Raises Problem where it holds no file of any exercise.
    """
    wanted = [file for exercise in exercises() for file in exercise.files]
    for place in (folder, folder / "exercises"):
        if any((place / file).is_file() for file in wanted):
            return place
    inner = [path for path in folder.iterdir() if path.is_dir()]
    if len(inner) == 1 and deeper:
        return shape(inner[0], deeper - 1)
    raise Problem(f"It holds no file of any exercise, such as {wanted[0]}, neither at its top nor in exercises/.")


def chosen(submission: Path | None, submissions: Path | None) -> list[HandedIn]:
    """What was typed: one submission or a folder of them. Raises Problem where that is not there, or both were typed."""
    if bool(submission) == bool(submissions):
        raise Problem("Name one submission, make grade SUBMISSION=folder, or a folder of them, SUBMISSIONS=folder.")
    return [one(submission)] if submission else several(submissions)


def one(path: Path) -> HandedIn:
    """A single submission; raises Problem where there is none."""
    if not path.is_dir() and not _is_archive(path):
        raise Problem(f"SUBMISSION={path}: there is no such folder or archive ({', '.join(ARCHIVES)}).")
    return _handed_in([path.resolve()])[0]


def several(folder: Path) -> list[HandedIn]:
    """The submissions in a folder, each a folder or an archive; raises Problem where there are none."""
    if not folder.is_dir():
        raise Problem(f"SUBMISSIONS={folder}: there is no such folder.")
    there = [path for path in sorted(folder.iterdir()) if not path.name.startswith((".", "__"))]
    found = [path for path in there if _is_archive(path) or (path.is_dir() and not path.is_symlink())]
    if any(path.name in exercise.files for path in there for exercise in exercises()):
        one_submission = f"this is one submission, not a folder of them: make grade SUBMISSION={folder}"
        raise Problem(f"SUBMISSIONS={folder}: {one_submission}")
    if not found:
        kinds = ", ".join(ARCHIVES)
        raise Problem(f"SUBMISSIONS={folder}: there is neither a folder nor an archive ({kinds}) in this folder.")
    handed_in = _handed_in([path for path in there if path in found or not _is_note(path)])
    for one in handed_in:
        if one.source.is_symlink():
            one.refused = f"{one.name} is a link, and links are not followed. {ACCEPTED}"
        elif one.source not in found:
            one.refused = f"{one.name} is neither a folder nor an archive of a known kind. {ACCEPTED}"
    return handed_in


def _is_note(path: Path) -> bool:
    """Whether it is about the submissions, and not one of them."""
    return path.is_file() and (path.suffix.lower() in NO_SUBMISSION or path.stem.upper() == "README")


def _is_archive(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and path.name.lower().endswith(ARCHIVES)


def _handed_in(paths: list[Path]) -> list[HandedIn]:
    found: dict[str, HandedIn] = {}
    for path in paths:
        name = os.fsencode(path.name).decode(errors="replace")  # a name may be something else than text
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")[:60]
        if slug.lower() != name.lower() or slug.lower() in {*found, *OURS}:
            slug = f"{slug or 'submission'}-{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:8]}"
        found[slug.lower()] = HandedIn(one_line(name), slug, path)
    return list(found.values())


def private_folder(folder: Path | None) -> Path | None:
    """A folder of private tests, as an absolute path; raises Problem where it has none."""
    if folder and not any(folder.glob("test_ex[0-9][0-9]*.py")):
        raise Problem(f"PRIVATE={folder}: there is no file test_exNN_name.py in this folder.")
    return folder and folder.resolve()


def private_files(folder: Path) -> dict[str, Path]:
    """The files of private tests, with the data beside them, by their names in the folder."""
    found = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    ours = {name for name in found if not any(part.startswith(".") or part == "__pycache__" for part in name.parts)}
    return {name.as_posix(): path for name, path in found.items() if name in ours}
