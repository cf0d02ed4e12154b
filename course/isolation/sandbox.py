"""Runs student code: `none` starts it as it is, `limits` adds limits, `process` puts it into a sandbox with limits.

docs/instructors.md says what each protects against.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
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
from course.isolation.folders import defuse, empty, remove
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
# Settings that keep ordinary users from making namespaces: the value that does, and the one that allows it.
FORBIDDEN = {
    "kernel.apparmor_restrict_unprivileged_userns": ("1", "0"),
    "kernel.unprivileged_userns_clone": ("0", "1"),
    "user.max_user_namespaces": ("0", "10000"),
}


@cache
def need(how: Mode) -> None:
    """Try an isolation with a program as the tests start them.

    Raises Problem where it does not work, with the command that installs or allows it.
    """
    if how == "none":
        return
    if how == "process":
        need_bubblewrap()
    with tempfile.TemporaryDirectory(prefix="tried-") as folder:
        log = Path(folder) / "log"
        command = [sys.executable, "-c", "import onnxruntime, course.harness.worker"]
        env = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
        env |= {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            with running(command, cwd=ROOT, env=env, log=log, folders=Folders(set(), set()), how=how) as process:
                code = processes.wait(process, 120)
            said = "" if code == 0 else f"exit code {code}: {tail(log.read_text(errors='replace'), 3)}"
        except GraderFailure as failure:
            said = str(failure)
    if said:
        forbidden = [name for name, (value, _) in FORBIDDEN.items() if how == "process" and _setting(name) == value]
        allow = " && ".join(f"sudo sysctl -w {name}={FORBIDDEN[name][1]}" for name in forbidden)
        remedy = f"Allow it with: {allow}." if allow else "Grade where it works, or with ISOLATION=docker."
        raise Problem(f"ISOLATION={how} does not work here. {remedy} {OTHERWISE} The program that was tried: {said}")


def need_bubblewrap() -> None:
    """Look for bubblewrap, without trying it; raises Problem where it is missing, with the command that installs it."""
    if sys.platform != "linux":
        raise Problem(f"ISOLATION=process needs bubblewrap, which only Linux has. Grade on Linux. {OTHERWISE}")
    if not shutil.which("bwrap"):
        raise Problem(
            "ISOLATION=process needs bubblewrap. Install it with: sudo apt-get install bubblewrap (Debian, Ubuntu) or"
            f" sudo dnf install bubblewrap (Fedora). {OTHERWISE}"
        )


def _setting(name: str) -> str:
    """The value of one of the kernel's settings; nothing where there is no such setting."""
    with suppress(OSError):
        return Path("/proc/sys", *name.split(".")).read_text().strip()
    return ""


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

    how: the isolation, if it is not `mode`. Raises GraderFailure where the program does not start.
    """
    how = how or mode
    if how == "none":
        with processes.running(command, cwd=cwd, env=env, log=log) as process:
            process.exceeded = ""
            yield process
        return
    folder = Path(tempfile.mkdtemp(prefix="sandbox-"))
    own = Own.make(folder)
    env = {**env, "HOME": str(own.home), "USER": "student", "LOGNAME": "student"}
    if how == "limits":
        env["TMPDIR"] = str(own.tmp)

    def launch(command: list[str], **options: Any) -> "Confined":
        try:
            return Confined(command, limits, (own, folders) if how == "process" else None, **options)
        except GraderFailure as failure:
            said = tail(log.read_text(errors="replace"), 3)
            raise GraderFailure(f"the program did not start: {failure}. {said}".strip()) from failure

    try:
        with processes.running(command, cwd=cwd, env=env, log=log, launch=launch) as process:
            watch = threading.Thread(target=process.watch, args=(log, [*own, *folders.write], limits), daemon=True)
            watch.start()
            try:
                yield process
            finally:
                process.over.set()
                watch.join()
        defuse(folders.write)
    finally:
        remove(folder)


class Confined:
    """A program under limits, alone or in a sandbox; to be used as a Popen is."""

    def __init__(
        self, command: list[str], limits: Limits, sandbox: tuple[Own, Folders] | None, *, env: dict[str, str], **options
    ) -> None:
        """Start it; options are Popen's. Raises GraderFailure where it does not start."""
        self.args = command
        self.returncode: int | None = None
        self.exceeded = ""
        self.over = threading.Event()  # set from outside: look once more at the limits, for the last time
        self._sandboxed = sandbox is not None
        self._begun, self._ended, self._failure = threading.Event(), threading.Event(), ""
        ours, status = os.pipe()
        rlimits = of_kernel(limits, alone=self._sandboxed)
        spec = {"rlimits": rlimits, "status": status, "stay": self._sandboxed, "mark": env[processes.MARK]}
        confine = str(ROOT / "course" / "isolation" / "confine.py")
        words = [sys.executable, "-I", "-S", confine, json.dumps(spec), *command]
        if sandbox:
            words = bubblewrap.isolated(words, options["cwd"], *sandbox)
        # The sandbox's own processes do not count as left behind by the program: they carry the outer marks alone.
        env = {**env, processes.MARK: os.environ.get(processes.MARK, "")}
        try:
            self._popen = subprocess.Popen(words, pass_fds=[status], env=env, **options)
        except OSError as error:
            os.close(ours)
            raise GraderFailure(str(error)) from error
        finally:
            os.close(status)
        self.pid = self._popen.pid
        self._first = psutil.Process(self.pid)  # before it can have ended and be forgotten
        threading.Thread(target=self._listen, args=(ours,), daemon=True).start()
        try:
            self._find_program()
        except GraderFailure:
            self._popen.kill()  # the sandbox stays until we end it
            self._popen.wait()
            raise

    def _listen(self, status: int) -> None:
        """Note what confine.py says; without a sandbox, it says nothing where all is well."""
        with open(status, errors="replace") as lines:
            for line in lines:
                match line.strip().partition(" "):
                    case "failed", _, reason:
                        self._failure = reason
                    case "ended", _, code:
                        self.returncode = int(code)
                        self._ended.set()
                self._begun.set()
        self._begun.set()
        code = self._popen.wait()
        if self.returncode is None:
            self.returncode = -signal.SIGKILL if self._sandboxed else code  # a sandbox that was ended as a whole
        self._ended.set()

    def _find_program(self) -> None:
        if not self._begun.wait(60):  # a tenth of a second on a quiet machine
            raise GraderFailure("bubblewrap did not start the sandbox")
        if self._failure:
            raise GraderFailure(self._failure)
        if self._sandboxed:
            try:
                self._first = self._first.children()[0]
                self.pid = min(self._first.children(), key=psutil.Process.create_time, default=self._first).pid
            except (IndexError, psutil.Error) as error:
                raise GraderFailure("bubblewrap ended at once") from error

    def poll(self) -> int | None:
        """The exit code, negative for a signal, or None while it runs."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """As Popen's."""
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """To the program itself."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def close(self) -> None:
        """End the sandbox, if there is one."""
        if self._sandboxed:
            self.tear_down()

    def tear_down(self) -> None:
        """End it with all that it started; when the first process of a sandbox ends, the kernel ends the others."""
        for process in [self._first] if self._sandboxed else self._tree():
            with suppress(psutil.Error):
                process.kill()
        self._ended.wait()
        self._popen.wait()

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
