"""Checks each exercise whose file is saved, until Ctrl-C; in a terminal it takes keys."""

import os
import select
import signal
import sys
import termios
import tty
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from subprocess import DEVNULL, Popen
from threading import Thread

from watchfiles import watch

from course import ROOT
from course.base import manifest
from course.base.manifest import Exercise
from course.base.processes import comes_true, end, is_free, start
from course.student import guide, progress
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
    files = {os.path.relpath(path, FOLDER) for _, path in changes}
    return [exercise for exercise in manifest.exercises() if files & set(exercise.files)]


class Watch:
    """What is being watched: the exercise that keys are about, its check, those that wait, the page's server."""

    def __init__(self) -> None:
        self.at = progress.current()
        self.checked: Exercise | None = None
        self.saved: list | None = None  # the stamps of its files when that check began
        self.check: Popen | None = None
        self.waiting: list[Exercise] = []
        self.page: Popen | None = None
        self.address = ""

    def note(self, saved: list[Exercise]) -> None:
        """Let saved exercises wait for their check; a check of an older state ends."""
        for exercise in saved:
            if exercise == self.checked:
                if stamps(exercise) == self.saved:
                    continue  # another message about the same save
                end(self.check, patience=10)
            if exercise not in self.waiting:
                self.waiting.append(exercise)

    def check_next(self) -> None:
        """Begin the check of the exercise that has waited longest, once no other check runs."""
        if not self.waiting or (self.check and self.check.poll() is None):
            return
        if self.check:
            end(self.check, patience=10)
        self.at = self.checked = self.waiting.pop(0)
        self.saved = stamps(self.checked)
        # In a session of its own: Ctrl-C reaches only this process, which ends the check and all it started.
        self.check = start([sys.executable, "-m", "course", "check", self.checked.number], cwd=ROOT, env=os.environ)

    def press(self, key: str) -> bool:
        """Do what a key asks for; False for q, which quits."""
        match key:
            case "h":
                guide.hint(self.at)
            case "l":
                guide.list_exercises()
            case "n":
                self.at = progress.following(self.at) or self.at
                guide.show(self.at)
            case "o":
                self.open_page()
        return key != "q"

    def open_page(self) -> None:
        """Open the page of the exercise in a browser. Its server starts with the first page, which takes seconds."""
        if self.page is None:
            self.address, words = guide.page_server()
            self.page = start([sys.executable, *words], cwd=ROOT, env=os.environ, stdout=DEVNULL, stderr=DEVNULL)
        url, port = f"http://{self.address}/{self.at.stem}/", int(self.address.partition(":")[2])
        console.print(f"Opening {url}")
        opening = Thread(target=lambda: comes_true(lambda: not is_free(port), 60) and webbrowser.open(url), daemon=True)
        opening.start()

    def stop(self) -> None:
        """End what was started."""
        for process in filter(None, (self.check, self.page)):
            end(process, patience=10)


@contextmanager
def keys() -> Iterator[Callable[[], str]]:
    """Give a function that returns the key that was pressed, or "". Without a terminal, it is always "".

    Within the block, keys need no Enter and are not shown; Ctrl-C works. After it the terminal is as it was.
    """
    if not (sys.stdin.isatty() and console.is_terminal):
        yield lambda: ""
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    try:
        tty.setcbreak(terminal)
        console.print("Keys: h next hint, l list, n next exercise, o open the page, q quit")
        yield lambda: os.read(terminal, 1).decode(errors="ignore") if select.select([terminal], [], [], 0)[0] else ""
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def watch_exercises() -> None:
    """Check each exercise whose file you save, until Ctrl-C or q. A save during its check starts the check again."""
    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop, signal.default_int_handler)
    console.print("Watching exercises/: save a file, and its exercise is checked. Stop: Ctrl-C")
    watching = Watch()
    try:
        with keys() as pressed:
            for changes in watch(FOLDER, step=50, debounce=PAUSE, rust_timeout=PAUSE, yield_on_timeout=True):
                watching.note(saved_exercises(changes))
                watching.check_next()
                if not watching.press(pressed()):
                    break
    except KeyboardInterrupt:
        pass
    finally:
        watching.stop()
    console.print("\nStopped.")
