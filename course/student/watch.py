"""Checks the exercise whose file was saved, until Ctrl-C."""

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
PAUSE = 200  # milliseconds between two looks, and how long a burst of changes is taken for one


class Check:
    """A check of one exercise, in a process of its own: a new save can end it with all that it started."""

    def __init__(self, exercise: Exercise) -> None:
        self.exercise = exercise
        self.saved = stamps(exercise)
        mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [sys.executable, "-m", "course", "check", exercise.number],
            cwd=ROOT,
            env=os.environ | {MARK: f"{os.environ.get(MARK, '')} {mark}"},
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C comes to us alone, and we end it: once
        )
        self.process.mark = mark

    def end(self) -> None:
        """End it, finished or not, with its servers."""
        end(self.process, patience=10)


def stamps(exercise: Exercise) -> list[tuple[int, int] | None]:
    """What tells one save of an exercise's files from the next."""
    paths = [FOLDER / file for file in exercise.files]
    found = [path.stat() if path.is_file() else None for path in paths]
    return [one and (one.st_mtime_ns, one.st_size) for one in found]


def saved_exercises(changes: set) -> list[Exercise]:
    """The exercises that changed files belong to; editors' own files beside them belong to none."""
    files = {str(Path(path).relative_to(FOLDER)) for _, path in changes}
    return [exercise for exercise in manifest.exercises() if files & set(exercise.files)]


def watch_exercises(console: Console) -> None:
    """Check what is saved. A save during a check begins anew."""
    for stop in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    console.print("Watching exercises/: whatever you save is checked. Stop: Ctrl-C")
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
