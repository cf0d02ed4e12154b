"""What a student has done so far: .course/progress.json, ignored by git.

One process at a time writes it, whole. A file that cannot be read is set aside.
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

# Also contains the starters and the student's files that `make reset` keeps.
FOLDER = ROOT / ".course"
FILE = FOLDER / "progress.json"


class Checked(BaseModel):
    """What the last check of an exercise found."""

    fingerprint: str  # of the files that were checked, and of their tests
    tests: int = 0
    passed: int = 0
    points: float = 0  # of the tests that passed
    failed: str = ""  # the test that failed: the next check runs it first
    done: bool = False
    when: datetime = Field(default_factory=lambda: datetime.now(UTC))


class Entry(BaseModel):
    """One exercise."""

    hints: int = Field(0, ge=0)  # how many are open
    solved: bool = False  # whether all its tests passed at some time
    best: float = 0  # the most points of any check
    last: Checked | None = None


ENTRIES = TypeAdapter(dict[str, Entry])


def load() -> dict[str, Entry]:
    """The entries of all exercises, by number."""
    entries = {exercise.number: Entry() for exercise in exercises()}
    try:
        return entries | ENTRIES.validate_json(FILE.read_bytes())
    except (ValidationError, OSError):  # not there yet, or broken: the next change sets it aside
        return entries


@contextmanager
def changing() -> Iterator[dict[str, Entry]]:
    """The entries, saved at the end of the block; raises Problem where they cannot be."""
    try:
        FOLDER.mkdir(exist_ok=True)
        with FileLock(FOLDER / "lock", timeout=10):
            _set_aside_if_broken()
            yield (entries := load())
            write_whole(FILE, ENTRIES.dump_json(entries, indent=2) + b"\n")
    except OSError as error:  # a full disk, a read-only folder, another process that holds the lock
        raise Problem(f"Your progress cannot be saved in {FILE.relative_to(ROOT)}: {error}.") from error


def _set_aside_if_broken() -> None:
    """Rename a file that cannot be read, and say so."""
    try:
        ENTRIES.validate_json(FILE.read_bytes())
    except FileNotFoundError:
        pass
    except ValidationError:
        aside = unused(FOLDER / "progress.broken.json")
        FILE.rename(aside)
        print(f"{FILE.relative_to(ROOT)} could not be read. It is now {aside.relative_to(ROOT)}; a new one begins.")


def unused(path: Path) -> Path:
    """A path that does not exist yet: name-1.py, name-2.py, ..."""
    number = 1
    while (candidate := path.with_stem(f"{path.stem}-{number}")).exists():
        number += 1
    return candidate


def fingerprint(exercise: Exercise) -> str:
    """A digest of what a check looks at: the student's files and the tests."""
    return sha256(digest(exercise).encode() + (ROOT / exercise.test).read_bytes()).hexdigest()


def is_done(exercise: Exercise, entries: dict[str, Entry]) -> bool:
    """Whether the last check passed, and the starter was not put back since."""
    last = entries[exercise.number].last
    return last is not None and last.done and not untouched(exercise)


def points(exercise: Exercise, entries: dict[str, Entry]) -> float:
    """The points of the last check."""
    last = entries[exercise.number].last
    return last.points if last and not untouched(exercise) else 0


def following(exercise: Exercise) -> Exercise | None:
    """The next exercise that is not done, from the first again after the last; None where all are done."""
    entries = load()
    left = [one for one in exercises() if not is_done(one, entries)]
    return next((one for one in left if one.number > exercise.number), left[0] if left else None)


def current() -> Exercise:
    """What a student works on: of the exercises that are not done, the one checked last, or else the first."""
    entries = load()
    left = [exercise for exercise in exercises() if not is_done(exercise, entries)]
    checked = [exercise for exercise in left if entries[exercise.number].last]
    if checked:
        return max(checked, key=lambda exercise: entries[exercise.number].last.when)
    return left[0] if left else exercises()[-1]
