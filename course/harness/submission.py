"""How tests meet a submission: its functions, its scripts, its services, always in processes of their own.

What goes wrong in student code fails the test with one sentence, never with the grader's stack trace.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partialmethod
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from course import ROOT
from course.base.files import tail
from course.base.manifest import solution
from course.base.processes import end, free_port, signal_name, wait
from course.harness import visible, worker
from course.harness.server import Log, Server
from course.harness.verdicts import fail, short
from course.isolation import sandbox
from course.isolation.bubblewrap import Folders
from course.isolation.limits import LIMITS, Limits

VARIABLES = {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", "BENTOML_DO_NOT_TRACK": "True"}
VARIABLES |= {"TERM": "dumb", "COLUMNS": "200"}


class Finished(NamedTuple):
    """A script that has ended."""

    code: int
    output: str  # standard output and error together


class Submission:
    """A folder of the same shape as solutions/."""

    def __init__(self, folder: Path, scratch: Path, *, trusted: bool = False, limits: Limits = LIMITS) -> None:
        """scratch: an empty folder for what the submission's processes write. trusted: it is ours; no isolation."""
        self.folder = folder.resolve()
        self.scratch = scratch
        self.trusted = trusted
        self.limits = limits
        self._numbers = count()
        self._used: set[Path] = set()
        self._endless = False  # whether one of its programs had to be ended

    def call(self, file: str, function: str, *, timeout: float = 30, **arguments: Any) -> Any:
        """What a function of one of its files returns: arrays, numbers, text, paths, lists and dicts of them.

        Fails the test where the file or the function is missing or not written yet, where it raises,
        runs longer than timeout seconds, ends the interpreter, or returns anything else.
        """
        shown = {key: value.name if isinstance(value, Path) else short(value, 60) for key, value in arguments.items()}
        name = f"{file}: {function}({', '.join(f'{key}={value}' for key, value in shown.items())})"
        path = self.existing(file)
        folder = self.new_folder("call")
        encoded = worker.encode(arguments, folder, "argument")
        call = {"file": str(path), "function": function, "arguments": encoded}
        (folder / "call.json").write_text(json.dumps(call))
        command = [sys.executable, "-m", "course.harness.worker", str(folder)]
        code, output = self._finish(command, {}, timeout, name, self.folders(arguments, write=[folder]))
        try:
            if (folder / "error.json").exists():
                fail(_told(file, function, name, worker.read_error(folder)))
            if code < 0:
                fail(f"{name} crashed the interpreter ({signal_name(-code)}).\n{tail(output)}")
            if not (folder / "result.json").exists():
                fail(f"{name} ended the program (exit code {code}) instead of returning. Does it call sys.exit()?")
            return worker.read_result(folder)
        except (ValueError, OSError) as error:
            fail(f"{name}: its result cannot be read: {short(str(error))}.")

    def run(
        self,
        file: str,
        *arguments: Any,
        timeout: float = 120,
        env: dict[str, str] | None = None,
        writes: Iterable[Path] = (),
    ) -> Finished:
        """Run one of its files as a script. Fails the test where it is missing, runs too long or crashes.

        writes: folders that it writes to, where its arguments do not show it; see folders().
        """
        name = " ".join(["python", file, *map(str, arguments)])
        command = [sys.executable, str(self.existing(file)), *map(str, arguments)]
        folders = self.folders(visible.options(arguments), env, write=writes)
        finished = self._finish(command, env or {}, timeout, name, folders)
        if finished.code < 0:
            fail(f"`{name}` crashed the interpreter ({signal_name(-finished.code)}).\n{tail(finished.output)}")
        return finished

    @contextmanager
    def start(
        self, file: str, *arguments: Any, env: dict[str, str] | None = None, writes: Iterable[Path] = ()
    ) -> Iterator[subprocess.Popen]:
        """As run(), but without waiting; the script is ended with the block. Its log: process.log."""
        command = [sys.executable, str(self.existing(file)), *map(str, arguments)]
        log = self.new_folder("run") / "log"
        folders = self.folders(visible.options(arguments), env, write=writes)
        with self.running(command, cwd=ROOT, env=env, log=log, folders=folders) as process:
            process.log = Log(log)
            yield process

    @contextmanager
    def serve(
        self,
        file: str,
        *,
        service: str = "ImageClassifierService",
        app: bool = False,
        env: dict[str, str] | None = None,
        deadline: float | None = 60,
    ) -> Iterator[Server]:
        """Start a service and wait until it is ready.

        It has a free port of loopback and a BENTOML_HOME of its own, and is ended with the block. Fails the test
        if it ends before it is ready, or is not ready in time.

        service: what the file calls it.
        app: whether it is the ASGI application `app` of the file, run in uvicorn, and not a service of BentoML's.
        deadline: seconds; None for services that should not start, then it does not wait.
        """
        path, folder, port = self.existing(file), self.new_folder("serve"), str(free_port())
        env = {"BENTOML_HOME": str(folder / "bentoml")} | (env or {})
        if app:
            command, place = ["uvicorn", f"{path.stem}:app"], "--app-dir"
        else:
            command, place = ["bentoml", "serve", f"{path.stem}:{service}"], "--working-dir"
        options = [place, str(path.parent), "--host", "127.0.0.1", "--port", port]
        log, folders = self.new_folder("log") / "log", self.folders({}, env, write=[folder])
        whole = [sys.executable, "-m", *command, *options]
        with self.running(whole, cwd=folder, env=env, log=log, folders=folders) as process:
            server = Server(f"http://127.0.0.1:{port}", process, log)
            if deadline is not None:
                server.wait_until_ready(" ".join(command), deadline)
            yield server

    serve_app = partialmethod(serve, app=True)
    starting = partialmethod(serve, deadline=None)
    starting_app = partialmethod(serve, app=True, deadline=None)

    def existing(self, file: str) -> Path:
        """Where one of its files is; fails the test where it is missing."""
        path = solution(file) if self.folder == ROOT / "solutions" else self.folder / file
        if not path.is_file():
            names = [one.name for one in path.parent.glob("*") if one.name.lower() == path.name.lower()]
            renamed = f" {names[0]} has another name: upper and lower case differ." if names else ""
            fail(f"{file} is missing in {self.folder}.{renamed}")
        self._used.add(path)
        return path

    def new_folder(self, kind: str) -> Path:
        """An empty folder, for what one process writes."""
        folder = self.scratch / f"{kind}-{next(self._numbers)}"
        folder.mkdir(parents=True)
        return folder

    @contextmanager
    def running(
        self, command: list[str], *, cwd: Path, env: dict[str, str] | None, log: Path, folders: Folders
    ) -> Iterator[subprocess.Popen]:
        """Run a command with its student code, isolated as this run of pytest wants it; see also folders()."""
        options = {"env": self.environment(env), "log": log, "folders": folders, "limits": self.limits}
        begun = time.monotonic()
        try:
            with sandbox.running(command, cwd=cwd, how="none" if self.trusted else None, **options) as process:
                yield process
        finally:
            if not self.trusted:
                _PERIODS.append((begun, time.monotonic()))

    def folders(self, arguments: dict, env: dict[str, str] | None = None, *, write: Iterable[Path] = ()) -> Folders:
        """What a process must see of this machine: see visible.folders()."""
        read = [path.parent for path in self._used]
        return visible.folders(self.folder, read, write, {**(env or {}), **arguments})

    def _finish(self, command: list[str], env: dict[str, str], timeout: float, name: str, folders: Folders) -> Finished:
        log = self.new_folder("run") / "log"
        with self.running(command, cwd=ROOT, env=env, log=log, folders=folders) as process:
            # After one program that did not end, the others have less time: an endless loop would cost it in every test.
            if self._endless:
                timeout = max(min(timeout, 10), timeout / 4)
            code = wait(process, timeout)
            if code is None:
                self._endless = True
                end(process, patience=1)
                if not process.exceeded:
                    fail(f"{name} had not ended after {timeout:.0f} s. Is there an endless loop?")
        if process.exceeded:
            fail(f"{name} was ended: {process.exceeded}.")
        if code == -signal.SIGXCPU:
            fail(f"{name} was ended: it used more than {self.limits.cpu} s of CPU time.")
        return Finished(code, Log(log).read_text())

    def environment(self, extra: dict[str, str] | None) -> dict[str, str]:
        """The environment variables that its processes get: few of ours, and extra."""
        ours = ("PATH", "HOME", "TORCH_HOME", "LD_LIBRARY_PATH", "PYTHONPATH")
        kept = {name: os.environ[name] for name in ours if name in os.environ}
        return kept | VARIABLES | (extra or {})


_PERIODS: list[tuple[float, float]] = []  # when processes with student code ran: from, until


def seconds_of_submissions() -> float:
    """For how long at least one process with student code was running, of those that have ended by now."""
    total, last = 0.0, 0.0
    for begun, ended in sorted(_PERIODS):
        total += max(0.0, ended - max(begun, last))
        last = max(last, ended)
    return total


def _told(file: str, function: str, name: str, error: dict) -> str:
    where = f" on line {error['line']}" if error["line"] else ""
    match error["kind"]:
        case "NotImplementedError":
            return f"{file}: {function}() is not written yet{where}. {error['message']}"
        case "SyntaxError" | "IndentationError" | "TabError":
            return f"{file} has a syntax error{where}: {error['message']}."
        case "AttributeError" if f"no attribute '{function}'" in error["message"]:
            return f"{file} has no function {function}()."
    return f"{name} raised {error['kind']}{where}: {error['message']}"
