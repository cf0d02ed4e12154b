"""Starts processes so that they, and all that they start, can always be ended."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from course import ROOT
from course.base.files import last_error
from serving import Problem


class GraderFailure(RuntimeError):
    """The grader failed, not the submission: there is no verdict, and the submission is graded again."""


def is_ours(error: BaseException) -> bool:
    """Whether an exception says nothing about a submission: this machine is short of something."""
    short_of = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
    return isinstance(error, GraderFailure | MemoryError) or (isinstance(error, OSError) and error.errno in short_of)


# Inherited by every descendant: BentoML's workers leave their parent's process group, this they keep.
MARK = "COURSE_RUN"


def start(
    command: list[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdin: int = subprocess.DEVNULL,
    launch: Callable = subprocess.Popen,
    **options: Any,
) -> subprocess.Popen:
    """Start a command in a session of its own, with a mark by which end() finds all that it starts.

    launch: what starts it; takes Popen's arguments, and gives what can be used as one.
    """
    mark = uuid.uuid4().hex
    # Added to a mark that is there already: the process that started us must find our processes, too.
    env = {**env, MARK: f"{os.environ.get(MARK, '')} {mark}"}
    process = launch(command, cwd=cwd, env=env, stdin=stdin, start_new_session=True, **options)
    process.mark = mark
    return process


@contextmanager
def running(
    command: list[str], *, cwd: Path, env: Mapping[str, str], log: Path, **options: Any
) -> Iterator[subprocess.Popen]:
    """start() with the output in a file; at the end of the block, end the command with all that it started."""
    with log.open("wb") as output:
        process = start(command, cwd=cwd, env=env, stdout=output, stderr=subprocess.STDOUT, **options)
    try:
        yield process
    finally:
        end(process)


def wait(process: subprocess.Popen, timeout: float | None) -> int | None:
    """The exit code of a process; None where it is still running after timeout seconds."""
    with suppress(subprocess.TimeoutExpired):
        return process.wait(timeout)
    return None


def run_logged(command: list[str], log: Path, timeout: float | None = None, **env: str) -> int | None:
    """Run a command from the project's folder, its output in a file; None as the exit code if it took too long."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with running(command, cwd=ROOT, env=os.environ | env, log=log) as process:
        return wait(process, timeout)


def comes_true(holds: Callable[[], Any], patience: float, pause: float = 0.1) -> bool:
    """Wait until something holds; False if it does not within so many seconds, asked every `pause` seconds."""
    give_up = time.monotonic() + patience
    while not holds():
        if time.monotonic() > give_up:
            return False
        time.sleep(pause)
    return True


@contextmanager
def job(name: str, module: str, task: dict, *arguments: str | Path, limit: float) -> Iterator[Path]:
    """Do a task in a process of its own: `python -m MODULE FOLDER ARGUMENTS`, with the task in FOLDER/job.json.
    Gives the folder, with all that the process has written there; it is removed with the block.

    Raises Problem where it fails or takes longer than `limit` seconds: what failed (`name`), and its last error.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "job.json").write_text(json.dumps(task))
        code = run_logged([sys.executable, "-m", module, scratch, *map(str, arguments)], folder / "log", limit)
        if code is None:
            raise Problem(f"{name} failed: it was stopped after {limit:.0f} s")
        if code:
            raise Problem(f"{name} failed: {last_error((folder / 'log').read_text(errors='replace'))}")
        yield folder


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
    """End every process that carries a mark; raises GraderFailure where some would not end."""

    def all_ended() -> bool:
        for one in (left := marked(mark)):
            with suppress(psutil.NoSuchProcess):
                one.kill()
        return not left

    if not comes_true(all_ended, patience, pause=0.05):
        raise GraderFailure(f"processes could not be ended: {marked(mark)}")


def marked(mark: str) -> list[psutil.Process]:
    """Every living process that carries the mark in its environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if mark in process.environ().get(MARK, "").split() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:  # gone meanwhile, or another user's
            continue
    return found


def used(processes: Iterable[psutil.Process]) -> tuple[float, float]:
    """Seconds of CPU time and megabytes of resident memory, of those that still run; shared memory counts for each."""
    seconds = megabytes = 0.0
    for process in processes:
        with suppress(psutil.Error):
            times, memory = process.cpu_times(), process.memory_info()
            seconds, megabytes = seconds + times.user + times.system, megabytes + memory.rss / 1e6
    return seconds, megabytes


def left_behind(process: subprocess.Popen, patience: float = 5) -> list[psutil.Process]:
    """What a process that has ended left running; some helpers of Python's end a moment after it."""
    comes_true(lambda: not marked(process.mark), patience)
    return marked(process.mark)


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


def need_free(port: int, command: str) -> None:
    """Raise a Problem where no server could listen on a port; command: the one of make that wants to."""
    if not is_free(port):
        taken = f"by {found}. Stop it" if (found := _listener(port)) else "or not allowed. Stop what listens there"
        separator = " " if found else ", "
        raise Problem(f"Port {port} is taken{separator}{taken}, or: {command} PORT={port + 1}")


def _listener(port: int) -> str:
    """The process that listens on a TCP port; "" where the system does not say."""
    with suppress(psutil.Error):
        found = {
            one.pid
            for one in psutil.net_connections("tcp")
            if one.status == psutil.CONN_LISTEN and one.laddr.port == port and one.pid
        }
        for pid in sorted(found):  # workers inherit the socket of the process that started them
            program, *words = psutil.Process(pid).cmdline()
            return f"process {pid} ({' '.join([Path(program).name, *words])[:100]})"
    return ""
