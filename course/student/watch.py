"""Checks each exercise whose file is saved, until Ctrl-C."""

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

from rich.console import Console
from watchfiles import watch

from course import ROOT
from course.base import manifest
from course.base.manifest import Exercise
from course.base.processes import MARK, end

FOLDER = ROOT / "exercises"
PAUSE = 200  # milliseconds between two looks; changes within it count as one


class Check:
    """A check of one exercise, in a process of its own: the next save ends it with all that it started."""

    def __init__(self, exercise: Exercise) -> None:
        self.exercise = exercise
        self.saved = stamps(exercise)
        mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [sys.executable, "-m", "course", "check", exercise.number],
            cwd=ROOT,
            env=os.environ | {MARK: f"{os.environ.get(MARK, '')} {mark}"},
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches only this process, which ends the check
        )
        self.process.mark = mark

    def end(self) -> None:
        """End it with its servers, also when it has finished."""
        end(self.process, patience=10)


def stamps(exercise: Exercise) -> list[tuple[int, int] | None]:
    """What differs between two saves of an exercise's files."""
    paths = [FOLDER / file for file in exercise.files]
    found = [path.stat() if path.is_file() else None for path in paths]
    return [one and (one.st_mtime_ns, one.st_size) for one in found]


def saved_exercises(changes: set) -> list[Exercise]:
    """The exercises that the changed files belong to. The backup files of editors belong to none."""
    files = {str(Path(path).relative_to(FOLDER)) for _, path in changes}
    return [exercise for exercise in manifest.exercises() if files & set(exercise.files)]


def watch_exercises(console: Console) -> None:
    """Check what is saved. A save during a check starts it again."""
    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop, signal.default_int_handler)
    console.print("Watching exercises/: save a file, and its exercise is checked. Stop: Ctrl-C")
    current: Check | None = None
    waiting: list[Exercise] = []
    try:
        for changes in watch(FOLDER, step=50, debounce=PAUSE, rust_timeout=PAUSE, yield_on_timeout=True):
            for exercise in saved_exercises(changes):
                if current and exercise == current.exercise:
                    if stamps(exercise) == current.saved:
                        continue  # another message about the same save
                    current.end()
                if exercise not in waiting:
                    waiting.append(exercise)
            if waiting and (current is None or current.process.poll() is not None):
                if current:
                    current.end()
                current = Check(waiting.pop(0))
    except KeyboardInterrupt:
        console.print("\nStopped.")
    finally:
        if current:
            current.end()
