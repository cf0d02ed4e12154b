"""The starters of the exercises: kept while nobody has worked on them, put back when somebody asks for them."""

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

from course import ROOT
from course.base.files import write_whole
from course.base.manifest import STARTERS, Exercise, exercises, untouched
from course.student.progress import FOLDER, unused
from serving import Problem

KEPT_STARTERS = FOLDER / "starters"  # for a course that came as an archive, without git's history
KEPT = FOLDER / "kept"  # what students wrote


def keep_starters() -> None:
    """Keep a copy of each starter that is still as it was; a folder that cannot be written is no reason to stop."""
    for exercise in exercises():
        if untouched(exercise):
            for file in exercise.files:
                starter, kept = (ROOT / "exercises" / file).read_bytes(), KEPT_STARTERS / file
                try:
                    if not kept.exists() or kept.read_bytes() != starter:
                        write_whole(kept, starter)
                except OSError:
                    return


def reset(exercise: Exercise) -> list[tuple[str, Path | None]]:
    """Put the starter back.

    Returns:
        The files that were not the starter's any more, each with where the student's own was put (None: it was gone).

    Raises:
        Problem: there is no starter to be found.
    """
    changed = []
    for file, starter in _starter(exercise).items():
        path = ROOT / "exercises" / file
        own = path.read_bytes() if path.is_file() else None
        if own == starter:
            continue
        kept = None
        if own is not None:  # first what could be lost
            kept = unused(KEPT / file)
            write_whole(kept, own)
        write_whole(path, starter)
        changed.append((file, kept))
    return changed


def _starter(exercise: Exercise) -> dict[str, bytes]:
    """The starter's files: as they are, as they were kept, or from git's history; the digest says which are right."""
    wanted = json.loads(STARTERS.read_text()).get(exercise.number)
    for files in _candidates(exercise):
        if hashlib.sha256(b"".join(files.values())).hexdigest() == wanted:
            return files
    raise Problem(
        f"The starter of exercise {exercise.number} is nowhere to be found: it was edited before it was kept, and git's "
        f"history does not have it. Take {' and '.join(f'exercises/{file}' for file in exercise.files)} from a new clone."
    )


def _candidates(exercise: Exercise) -> Iterator[dict[str, bytes]]:
    kept = {file: KEPT_STARTERS / file for file in exercise.files}
    if all(path.is_file() for path in kept.values()):
        yield {file: path.read_bytes() for file, path in kept.items()}
    for commit in _git("log", "--all", "--format=%H", "--", *(f"exercises/{file}" for file in exercise.files)).split():
        yield {file: _git("show", f"{commit.decode()}:./exercises/{file}") for file in exercise.files}


def _git(*words: str) -> bytes:
    """What git prints; nothing where there is no git, or no repository."""
    try:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return b""
