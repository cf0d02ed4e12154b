"""Runs student code: `none` starts it as it is, `limits` adds limits, `process` puts it into a sandbox with limits.

docs/instructors.md says what each protects against.
"""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, Literal, get_args

import psutil

from course import ROOT
from course.base import processes
from course.base.files import tail
from course.base.processes import GraderFailure
from course.isolation import bubblewrap
from course.isolation.bubblewrap import Folders, Own
from course.isolation.folders import defuse, empty, removed
from course.isolation.limits import LIMITS, Limits, excess, of_kernel
from serving import Problem

Mode = Literal["none", "limits", "process"]
MODES = get_args(Mode)

# What `--isolation` says, for every submission of this run of pytest.
mode: Mode = "none"

MEANS = {
    "none": "No isolation: student code can do all that you can, such as reading the tests and changing files.",
    "limits": "Weak isolation, limits alone: student code can read and change every file that you can, tests included.",
    "process": "bubblewrap: tests, solutions and other submissions do not exist for student code.",
}
OTHERWISE = "Nothing is graded without isolation. If you trust the code, type ISOLATION=limits."
# Settings that keep ordinary users from making namespaces: the file, the value that does, the command that allows it.
FORBIDDEN = [
    (f"/proc/sys/{name.replace('.', '/')}", value, f"sudo sysctl -w {name}={allowed}")
    for name, value, allowed in [
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("user.max_user_namespaces", "0", "10000"),
    ]
]


@cache
def need(how: Mode) -> None:
    """Try an isolation with a program as the tests start them.

    Raises:
        Problem: it does not work here; one sentence with the command that installs or allows it.
    """
    if how == "none":
        return
    if how == "process":
        need_bubblewrap()
    with tempfile.TemporaryDirectory(prefix="tried-") as folder:
        log, folders = Path(folder) / "log", Folders(set(), set())
        command = [sys.executable, "-c", "import onnxruntime, course.harness.worker"]
        env = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
        env |= {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            with running(command, cwd=ROOT, env=env, log=log, folders=folders, how=how) as process:
                code = processes.wait(process, 120)
            said = "" if code == 0 else f"exit code {code}: {tail(log.read_text(errors='replace'), 3)}"
        except GraderFailure as failure:
            said = str(failure)
    if said:
        allow = [command for file, value, command in FORBIDDEN if how == "process" and _says(file, value)]
        remedy = f"Allow it with: {' && '.join(allow)}." if allow else "Grade where it works, or with ISOLATION=docker."
        raise Problem(f"ISOLATION={how} does not work here. {remedy} {OTHERWISE} The program that was tried: {said}")


def need_bubblewrap() -> None:
    """Look for bubblewrap, without trying it.

    Raises:
        Problem: it is missing; one sentence with the command that installs it.
    """
    if sys.platform != "linux":
        raise Problem(f"ISOLATION=process needs bubblewrap, which only Linux has. Grade on Linux. {OTHERWISE}")
    if not shutil.which("bwrap"):
        raise Problem(
            "ISOLATION=process needs bubblewrap. Install it with: sudo apt-get install bubblewrap (Debian, Ubuntu) or"
            f" sudo dnf install bubblewrap (Fedora). {OTHERWISE}"
        )


def _says(file: str, value: str) -> bool:
    with suppress(OSError):
        return Path(file).read_text().strip() == value
    return False


@contextmanager
def running(
    command: list[str],
    *,
    cwd: Path,
    env: dict[str, str],
    log: Path,
    folders: Folders,
    limits: Limits = LIMITS,
    how: Mode | None = None,
) -> Iterator[subprocess.Popen]:
    """As processes.running(), isolated; process.exceeded says which limit the program exceeded, if any.

    how: the isolation, if it is not `mode`.

    Raises:
        GraderFailure: the program did not start.
    """
    how = how or mode
    if how == "none":
        with processes.running(command, cwd=cwd, env=env, log=log) as process:
            yield process
        return
    with removed(Path(tempfile.mkdtemp(prefix="sandbox-"))) as folder:
        own = Own.make(folder)
        env = {**env, "HOME": str(own.home), "USER": "student", "LOGNAME": "student"}
        if how == "limits":
            env["TMPDIR"] = str(own.tmp)

        def launch(command: list[str], **options: Any) -> "Confined":
            try:
                return Confined(command, limits, sandbox=(own, folders) if how == "process" else None, **options)
            except GraderFailure as failure:
                raise GraderFailure(f"{failure}. {tail(log.read_text(errors='replace'), 3)}".strip()) from failure

        with processes.running(command, cwd=cwd, env=env, log=log, launch=launch) as process:
            everything = [*own, *folders.write]
            watch = threading.Thread(target=process.watch, args=(log, everything, limits), daemon=True)
            watch.start()
            try:
                yield process
            finally:
                process.over.set()
                watch.join()
        defuse(folders.write)


class Confined:
    """A program under limits, alone or in a sandbox; to be used as a Popen is."""

    def __init__(
        self, command: list[str], limits: Limits, *, sandbox: tuple[Own, Folders] | None = None, **options: Any
    ) -> None:
        """Start it; options are Popen's.

        Raises:
            GraderFailure: it did not start.
        """
        self.args = command
        self.returncode: int | None = None
        self.exceeded = ""
        self.over = threading.Event()
        self._said = b""
        ours, status = os.pipe()
        self._status = open(ours, "rb", buffering=0)  # noqa: SIM115, close() closes it
        # The sandbox's own processes do not count as left behind by the program: they carry the outer marks alone.
        mark, outer = options["env"][processes.MARK], os.environ.get(processes.MARK, "")
        options["env"] = {**options["env"], processes.MARK: outer}
        rlimits = of_kernel(limits, alone=sandbox is not None)
        spec = {"rlimits": rlimits, "status": status, "stay": sandbox is not None, "mark": mark}
        confine = str(ROOT / "course" / "isolation" / "confine.py")
        words = [sys.executable, "-I", "-S", confine, json.dumps(spec), *command]
        if sandbox:
            words = bubblewrap.isolated(words, options["cwd"], *sandbox)
        try:
            self._popen = subprocess.Popen(words, pass_fds=[status], **options)
        except OSError as error:
            self._status.close()
            raise GraderFailure(f"the program did not start: {error}") from error
        finally:
            os.close(status)
        self._sandboxed = sandbox is not None
        try:
            self._wait_until_started()
        except (GraderFailure, IndexError, psutil.Error) as error:  # the sandbox stays until we end it
            self._popen.kill()
            self._popen.wait()
            self._status.close()
            reason = error if isinstance(error, GraderFailure) else "bubblewrap ended at once"
            raise GraderFailure(f"the program did not start: {reason}") from error

    def _wait_until_started(self) -> None:
        """Until confine.py says so; without a sandbox, it says nothing where all is well."""
        while self._listen(60) and b"\n" not in self._said:  # a tenth of a second on a quiet machine
            pass
        if self._said.startswith(b"failed"):
            raise GraderFailure(self._said.decode(errors="replace").strip())
        if self._sandboxed and not self._said.startswith(b"started"):
            raise GraderFailure("bubblewrap did not start the sandbox")
        self._first = psutil.Process(self._popen.pid)
        self.pid = self._popen.pid
        if self._sandboxed:
            self._first = self._first.children()[0]
            self.pid = min(self._first.children(), key=psutil.Process.create_time, default=self._first).pid

    def _listen(self, timeout: float) -> bool:
        """Take in what confine.py has to say; False where nothing more will come, or nothing came."""
        if not select.select([self._status], [], [], timeout)[0]:
            return False
        heard = self._status.read(1000)
        self._said += heard
        return bool(heard)

    def poll(self) -> int | None:
        """The exit code, negative for a signal, or None while it runs."""
        if self.returncode is None:
            with suppress(subprocess.TimeoutExpired):
                self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """As Popen's."""
        if not self._sandboxed:
            self.returncode = self._popen.wait(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            if b"ended" in self._said and self._said.endswith(b"\n"):
                self.returncode = int(self._said.split()[-1])
            elif not self._listen(60 if deadline is None else max(0, deadline - time.monotonic())):
                if self._popen.poll() is not None:
                    self.returncode = -signal.SIGKILL  # the sandbox as a whole was ended
                elif deadline is not None and time.monotonic() >= deadline:
                    raise subprocess.TimeoutExpired(self.args, timeout)
                else:
                    time.sleep(0.02)  # its end of the pipe is closed, and it is about to end
        return self.returncode

    def send_signal(self, number: int) -> None:
        """To the program itself."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def tear_down(self) -> None:
        """End it with all that it started; when the first process of a sandbox ends, the kernel ends the others."""
        for process in [self._first] if self._sandboxed else [*self._tree(), self._first]:
            with suppress(psutil.Error):
                process.kill()
        self._popen.wait()

    def close(self) -> None:
        """End the sandbox, if there is one, and forget the program."""
        if self._sandboxed and not self._status.closed:
            self.tear_down()
            self.wait()
        self._status.close()

    def _tree(self) -> list[psutil.Process]:
        """The program, and what it started."""
        with suppress(psutil.Error):
            below = self._first.children(recursive=True)
            return below if self._sandboxed else [self._first, *below]
        return []

    def watch(self, log: Path, folders: list[Path], limits: Limits) -> None:
        """End it as soon as it exceeds a limit; a last look tells what it did in the moment before it ended."""
        for turn in count():
            over = self.over.wait(0.2)
            self.exceeded = excess(self._tree(), log, folders if over or turn % 5 == 0 else [], limits)
            if self.exceeded:
                self.tear_down()
                if log.stat().st_size > limits.output:
                    os.truncate(log, limits.output)
                if "disk" in self.exceeded:
                    for folder in folders:
                        empty(folder)
            if self.exceeded or over:
                return
