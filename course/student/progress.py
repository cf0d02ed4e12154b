"""What a student has done so far: .course/progress.json, ignored by git.

Written whole or not at all, by one process at a time. A file that cannot be read is set aside, never in the way.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from filelock import FileLock
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from course import ROOT
from course.base.files import write_whole
from course.base.manifest import Exercise, digest, exercises, untouched
from serving import Problem

# Also holds the starters and the student's files that `make reset` keeps.
FOLDER = ROOT / ".course"
FILE = FOLDER / "progress.json"


class Checked(BaseModel):
    """What the last check of an exercise found."""

    passed: int
    tests: int
    points: float  # of the tests that passed
    done: bool
    fingerprint: str  # of the files that were checked, and of their tests
    when: datetime = Field(default_factory=lambda: datetime.now(UTC))


class Entry(BaseModel):
    """One exercise."""

    hints: int = Field(0, ge=0)  # how many were opened
    solved: bool = False  # whether all its tests have passed at some time
    last: Checked | None = None


ENTRIES = TypeAdapter(dict[str, Entry])


def load() -> dict[str, Entry]:
    """The entries by number; all exercises have one."""
    entries = {exercise.number: Entry() for exercise in exercises()}
    try:
        return entries | ENTRIES.validate_json(FILE.read_bytes())
    except (ValidationError, OSError):  # not there yet, or broken: the next change sets it aside
        return entries


@contextmanager
def changing() -> Iterator[dict[str, Entry]]:
    """The entries, saved at the end of the block.

    Raises:
        Problem: they cannot be saved.
    """
    try:
        FOLDER.mkdir(exist_ok=True)
        with FileLock(FOLDER / "lock", timeout=10):
            _set_aside_if_broken()
            entries = load()
            yield entries
            write_whole(FILE, ENTRIES.dump_json(entries, indent=2) + b"\n")
    except OSError as error:  # a full disk, a folder that is read-only, another process that holds the lock
        raise Problem(f"Your progress cannot be kept in {FILE.relative_to(ROOT)}: {error}.") from error


def _set_aside_if_broken() -> None:
    """Give a file that cannot be read another name, and say which."""
    if not FILE.exists():
        return
    try:
        ENTRIES.validate_json(FILE.read_bytes())
    except ValidationError:
        aside = unused(FOLDER / "progress.broken.json")
        FILE.rename(aside)
        print(
            f"{FILE.relative_to(ROOT)} could not be read. It is now {aside.relative_to(ROOT)}; `make check` counts anew."
        )


def unused(path: Path) -> Path:
    """A path that no file has: name-1.py, name-2.py, ..."""
    number = 1
    while (candidate := path.with_stem(f"{path.stem}-{number}")).exists():
        number += 1
    return candidate


def fingerprint(exercise: Exercise) -> str:
    """Of what a check looks at: the student's files and the tests."""
    return sha256(digest(exercise).encode() + (ROOT / exercise.test).read_bytes()).hexdigest()


def changed(exercise: Exercise, entry: Entry) -> bool:
    """Whether a file was edited, or the course updated, since the last check."""
    return entry.last is not None and entry.last.fingerprint != fingerprint(exercise)


def is_done(exercise: Exercise, entry: Entry) -> bool:
    """Whether the last check passed, and the starter was not put back since."""
    return entry.last is not None and entry.last.done and not untouched(exercise)


def points(exercise: Exercise, entry: Entry) -> float:
    """What the last check was worth."""
    return entry.last.points if entry.last and not untouched(exercise) else 0


def current() -> Exercise:
    """What a student works on: of the exercises that are not done, the one checked last, or else the first."""
    entries = load()
    left = [exercise for exercise in exercises() if not is_done(exercise, entries[exercise.number])]
    if not left:
        return exercises()[-1]
    checked = [exercise for exercise in left if entries[exercise.number].last]
    return max(checked, key=lambda exercise: entries[exercise.number].last.when, default=left[0])
