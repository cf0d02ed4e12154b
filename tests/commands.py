"""Commands as people type them: in a terminal of their own, not in that of the make or the pytest that runs the tests."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from course import ROOT

INHERITED = ("COLUMNS", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "PYTEST_ADDOPTS", "PYTHON")
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in INHERITED}
COURSE = [sys.executable, "-m", "course"]


def run(
    *command: object,
    cwd: Path = ROOT,
    timeout: float = 120,
    input: str | None = None,
    encoding: str = "utf-8",
    **env: str,
) -> subprocess.CompletedProcess:
    """Run a command to its end; `stdout` and `stderr` are text. env: variables to add."""
    options = {"cwd": cwd, "env": ENVIRONMENT | env, "timeout": timeout, "input": input, "encoding": encoding}
    return subprocess.run([*map(str, command)], capture_output=True, check=False, **options)


def make(*words: object, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess:
    """`make ...`, as run()."""
    return run("make", *words, cwd=cwd, **env)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen, log: Path, deadline: float = 60) -> None:
    """Wait until something is so; fail where the process ends before, or after so many seconds."""
    give_up = time.monotonic() + deadline
    while not condition():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < give_up, log.read_text()
        time.sleep(0.1)


def words_of(process: psutil.Process) -> str:
    """The command of a process; "" where it has ended meanwhile."""
    with suppress(psutil.Error):
        return " ".join(process.cmdline()) if process.status() != psutil.STATUS_ZOMBIE else ""
    return ""


def processes_with(words: str) -> list[psutil.Process]:
    """Every living process whose command holds these words."""
    return [one for one in psutil.process_iter() if words in words_of(one)]
