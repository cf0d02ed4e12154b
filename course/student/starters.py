"""The starters of the exercises: a copy is kept while they are untouched, and put back on request."""

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

KEPT_STARTERS = FOLDER / "starters"  # for a copy of the course that has no git history
KEPT = FOLDER / "kept"  # what students wrote


def keep_starters() -> None:
    """Keep a copy of each starter that is untouched. A folder that cannot be written is no reason to stop."""
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
    """Put the starter back; raises Problem where it cannot be found.

    Returns:
        The files that differed from the starter, each with where the student's file is now (None: it did not exist).
    """
    changed = []
    for file, starter in starter_files(exercise).items():
        path = ROOT / "exercises" / file
        own = path.read_bytes() if path.is_file() else None
        if own == starter:
            continue
        kept = unused(KEPT / file) if own is not None else None
        if kept:  # first what could be lost
            write_whole(kept, own)
        write_whole(path, starter)
        changed.append((file, kept))
    return changed


def starter_files(exercise: Exercise) -> dict[str, bytes]:
    """The starter's files, from the kept copy or from git's history: the digest tells. Raises Problem without any."""
    wanted = json.loads(STARTERS.read_text()).get(exercise.number)
    for files in _candidates(exercise):
        if hashlib.sha256(b"".join(files.values())).hexdigest() == wanted:
            return files
    raise Problem(
        f"The starter of exercise {exercise.number} cannot be found: there is no copy of it, and it is not in git's "
        f"history. Take {' and '.join(f'exercises/{file}' for file in exercise.files)} from a new clone."
    )


def _candidates(exercise: Exercise) -> Iterator[dict[str, bytes]]:
    kept = {file: KEPT_STARTERS / file for file in exercise.files}
    if all(path.is_file() for path in kept.values()):
        yield {file: path.read_bytes() for file, path in kept.items()}
    for commit in _git("log", "--all", "--format=%H", "--", *(f"exercises/{file}" for file in exercise.files)).split():
        yield {file: _git("show", f"{commit.decode()}:./exercises/{file}") for file in exercise.files}


def _git(*words: str) -> bytes:
    """What git prints; nothing where there is no git or no repository."""
    try:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return b""
