"""Checks each exercise whose file is saved, until Ctrl-C."""

import os
import signal
import sys
from pathlib import Path

from watchfiles import watch

from course import ROOT
from course.base import manifest
from course.base.manifest import Exercise
from course.base.processes import end, start
from course.student.guide import console

FOLDER = ROOT / "exercises"
PAUSE = 200  # milliseconds between two looks; changes within it count as one


def stamps(exercise: Exercise) -> list[tuple[int, int] | None]:
    """What differs between two saves of an exercise's files."""
    paths = [FOLDER / file for file in exercise.files]
    found = [path.stat() if path.is_file() else None for path in paths]
    return [one and (one.st_mtime_ns, one.st_size) for one in found]


def saved_exercises(changes: set) -> list[Exercise]:
    """The exercises that the changed files belong to. The backup files of editors belong to none."""
    files = {str(Path(path).relative_to(FOLDER)) for _, path in changes}
    return [exercise for exercise in manifest.exercises() if files & set(exercise.files)]


def watch_exercises() -> None:
    """Check each exercise whose file you save, until Ctrl-C. A save during its check starts the check again."""
    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop, signal.default_int_handler)
    console.print("Watching exercises/: save a file, and its exercise is checked. Stop: Ctrl-C")
    checked, saved, process = None, None, None  # the exercise of the last check, its files' stamps, and its process
    waiting: list[Exercise] = []
    try:
        for changes in watch(FOLDER, step=50, debounce=PAUSE, rust_timeout=PAUSE, yield_on_timeout=True):
            for exercise in saved_exercises(changes):
                if exercise == checked:
                    if stamps(exercise) == saved:
                        continue  # another message about the same save
                    end(process, patience=10)
                if exercise not in waiting:
                    waiting.append(exercise)
            if waiting and (process is None or process.poll() is not None):
                if process:
                    end(process, patience=10)
                checked = waiting.pop(0)
                saved = stamps(checked)
                # In a session of its own: Ctrl-C reaches only this process, which ends the check and all it started.
                process = start([sys.executable, "-m", "course", "check", checked.number], cwd=ROOT, env=os.environ)
    except KeyboardInterrupt:
        console.print("\nStopped.")
    finally:
        if process:
            end(process, patience=10)
