"""Starts processes so that they, and whatever they start, can always be ended."""

import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil


class GraderFailure(RuntimeError):
    """Trouble of the grader's own, which says nothing about the submission: there is no verdict, and another run."""


# Inherited by every descendant: BentoML's workers leave their parent's process group, this they keep.
MARK = "COURSE_RUN"


@contextmanager
def running(
    command: list[str],
    *,
    cwd: Path,
    env: dict[str, str],
    log: Path,
    stdin: int = subprocess.DEVNULL,
    launch: Callable = subprocess.Popen,
) -> Iterator[subprocess.Popen]:
    """Start a command with its output in a file; at the end of the block, end it with all that it started.

    launch: what starts it; takes Popen's arguments, and gives what can be used as one.
    """
    mark = uuid.uuid4().hex
    with log.open("wb") as output:
        process = launch(
            command,
            cwd=cwd,
            # Added to a mark that is there already: whoever started us must find our processes, too.
            env={**env, MARK: f"{os.environ.get(MARK, '')} {mark}"},
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    process.mark = mark
    try:
        yield process
    finally:
        end(process)


def wait(process: subprocess.Popen, timeout: float) -> int | None:
    """The exit code of a process; None where it is still running after timeout seconds."""
    with suppress(subprocess.TimeoutExpired):
        return process.wait(timeout)
    return None


def signal_name(number: int) -> str:
    """SIGKILL for 9; real-time signals have no names."""
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def end(process: subprocess.Popen, patience: float = 5) -> None:
    """End a process and everything that carries its mark: politely, then not."""
    if process.poll() is None:
        with suppress(ProcessLookupError):  # gone meanwhile
            os.killpg(process.pid, signal.SIGTERM)
        wait(process, patience)
    if close := getattr(process, "close", None):  # a sandbox ends as a whole
        close()
    end_marked(process.mark, patience)
    process.wait(patience)


def end_marked(mark: str, patience: float = 5) -> None:
    """End every process that carries a mark.

    Raises:
        GraderFailure: some would not end.
    """
    deadline = time.monotonic() + patience
    while left := marked(mark):
        for one in left:
            try:
                one.kill()
            except psutil.NoSuchProcess:
                continue
        if time.monotonic() > deadline:
            raise GraderFailure(f"processes could not be ended: {left}")
        time.sleep(0.05)


def marked(mark: str) -> list[psutil.Process]:
    """Every living process that carries the mark in its environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if mark in process.environ().get(MARK, "").split() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:  # gone meanwhile, or somebody else's
            continue
    return found


def left_behind(process: subprocess.Popen, patience: float = 5) -> list[psutil.Process]:
    """What a process that has ended left running; some helpers of Python's end a moment after it."""
    deadline = time.monotonic() + patience
    while (left := marked(process.mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def free_port() -> int:
    """A TCP port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def is_free(port: int) -> bool:
    """Whether a server could listen on a TCP port, on every address of this machine."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do
        try:
            listener.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True
