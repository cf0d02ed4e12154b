"""How tests meet a submission: its functions, its scripts, its services, always in processes of their own.

What goes wrong in student code fails the test with one sentence, never with the grader's stack trace.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import httpx
import pytest

from course import ROOT
from course.base import processes
from course.base.manifest import solution
from course.base.processes import end, free_port, signal_name, wait
from course.harness import worker
from course.isolation import sandbox
from course.isolation.bubblewrap import Folders
from course.isolation.limits import LIMITS, Limits


class Finished(NamedTuple):
    """A script that has ended."""

    code: int
    output: str  # standard output and error together


class Server:
    """A service that is running."""

    def __init__(self, url: str, process: subprocess.Popen, log: Path) -> None:
        self.url = url
        self.process = process
        self.log = Log(log)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send one request; fail the test, with the server's log, where no answer comes within 60 s."""
        try:
            return _request(method, self.url + path, timeout=60, **options)
        except httpx.HTTPError as error:
            fail(f"{method} {path} got no answer: {error!r}.{self.last_words()}")

    def exit_code(self, patience: float = 30) -> int | None:
        """How a service that ought not to start ends; None where it goes on.

        It goes on when it is ready, when it fails to start again and again, or still runs after patience seconds.
        """
        give_up = time.monotonic() + patience
        while self.process.poll() is None:
            if time.monotonic() > give_up or self.starts_in_vain() or self.is_ready():
                return None
            time.sleep(0.1)
        return self.process.returncode

    def starts_in_vain(self) -> bool:
        """Whether its workers failed to start twice: BentoML goes on starting them without end."""
        return self.log.read_text(errors="replace").count("Application startup failed") > 1

    def is_ready(self) -> bool:
        """Whether GET /readyz says so; False also where nothing listens yet."""
        try:
            return _request("GET", f"{self.url}/readyz", timeout=5).is_success
        except httpx.TransportError:
            return False

    def last_words(self, lines: int = 15) -> str:
        """The last exception in the log, or else its end, as a sentence to end a failure message with."""
        if excess := _excess(self.process):
            return f" The service was ended: {excess}."
        log = self.log.read_text(errors="replace")
        exceptions = re.findall(r"^(?:[\w.]+\.)?(\w*(?:Error|Exception|Exit|Interrupt)\b.*)$", log, re.MULTILINE)
        if exceptions:
            return f" The service's log says: {exceptions[-1]}"
        tail = "\n".join(log.splitlines()[-lines:])
        return f" The end of the service's log:\n{tail}"


class Log:
    """What a process has printed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read_text(self, errors: str = "replace") -> str:
        """Its first 10 MB: a process that prints on may have printed gigabytes when somebody looks."""
        with self.path.open("rb") as file:
            return file.read(LIMITS.output).decode(errors=errors)


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
        name = f"{file}: {function}({_shown(arguments)})"
        path = self.existing(file)
        folder = self.new_folder("call")
        encoded = worker.encode(arguments, folder, "argument")
        call = {"file": str(path), "function": function, "arguments": encoded}
        (folder / "call.json").write_text(json.dumps(call))
        folders = self.folders(arguments, write=[folder])
        command = [sys.executable, "-m", "course.harness.worker", str(folder)]
        code, output = self._finish(command, {}, timeout, name, folders)

        try:
            if (folder / "error.json").exists():
                fail(_told(file, function, name, worker.read_error(folder)))
            if code < 0:
                fail(f"{name} crashed the interpreter ({signal_name(-code)}).\n{_tail(output)}")
            if not (folder / "result.json").exists():
                fail(f"{name} ended the program (exit code {code}) instead of returning. Does it call sys.exit()?")
            return worker.read_result(folder)
        except (ValueError, OSError) as error:
            fail(f"{name}: its result cannot be read: {_short(str(error))}.")

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
        path = self.existing(file)
        name = " ".join(["python", file, *map(str, arguments)])
        command = [sys.executable, str(path), *map(str, arguments)]
        finished = self._finish(command, env or {}, timeout, name, self.folders(_options(arguments), env, write=writes))
        if finished.code < 0:
            fail(f"`{name}` crashed the interpreter ({signal_name(-finished.code)}).\n{_tail(finished.output)}")
        return finished

    @contextmanager
    def start(
        self, file: str, *arguments: Any, env: dict[str, str] | None = None, writes: Iterable[Path] = ()
    ) -> Iterator[subprocess.Popen]:
        """Run one of its files as a script and do not wait; it is ended with the block. Its log: process.log."""
        path = self.existing(file)
        log = self.new_folder("run") / "log"
        command = [sys.executable, str(path), *map(str, arguments)]
        folders = self.folders(_options(arguments), env, write=writes)
        with self.running(command, cwd=ROOT, env=env, log=log, folders=folders) as process:
            process.log = Log(log)
            yield process

    @contextmanager
    def serve(self, file: str, *, env: dict[str, str] | None = None, deadline: float = 60) -> Iterator[Server]:
        """Start the ImageClassifierService of one of its files and wait until it is ready.

        It has a free port and a BENTOML_HOME of its own; it is ended with the block. Fails the test
        where it ends before it is ready, or is not ready after deadline seconds.
        """
        with self.starting(file, env=env) as server:
            _wait_until_ready(server, f"bentoml serve {Path(file).stem}:ImageClassifierService", deadline)
            yield server

    @contextmanager
    def serve_app(self, file: str, *, env: dict[str, str] | None = None, deadline: float = 60) -> Iterator[Server]:
        """As serve(), with uvicorn, for the ASGI application called `app` of one of its files."""
        with self.starting_app(file, env=env) as server:
            _wait_until_ready(server, f"uvicorn {Path(file).stem}:app", deadline)
            yield server

    @contextmanager
    def starting(self, file: str, *, env: dict[str, str] | None = None) -> Iterator[Server]:
        """As serve(), but without waiting: for services that are meant not to start."""
        path = self.existing(file)
        folder = self.new_folder("serve")
        port = free_port()
        command = [sys.executable, "-m", "bentoml", "serve", f"{path.stem}:ImageClassifierService"]
        command += ["--working-dir", str(path.parent), "--host", "127.0.0.1", "--port", str(port)]
        env = {"BENTOML_HOME": str(folder / "bentoml")} | (env or {})
        log, folders = self.new_folder("log") / "log", self.folders({}, env, write=[folder])
        with self.running(command, cwd=folder, env=env, log=log, folders=folders) as process:
            yield Server(f"http://127.0.0.1:{port}", process, log)

    @contextmanager
    def starting_app(self, file: str, *, env: dict[str, str] | None = None) -> Iterator[Server]:
        """As serve_app(), but without waiting."""
        path = self.existing(file)
        folder = self.new_folder("serve")
        port = free_port()
        command = [sys.executable, "-m", "uvicorn", f"{path.stem}:app", "--app-dir", str(path.parent)]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        log, folders = self.new_folder("log") / "log", self.folders({}, env, write=[folder])
        with self.running(command, cwd=folder, env=env, log=log, folders=folders) as process:
            yield Server(f"http://127.0.0.1:{port}", process, log)

    def existing(self, file: str) -> Path:
        """Where one of its files is; fails the test where it is missing."""
        path = solution(file) if self.folder == ROOT / "solutions" else self.folder / file
        if not path.is_file():
            fail(f"{file} is missing in {self.folder}.")
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
        environment = self.environment(env)
        if self.trusted:
            context = processes.running(command, cwd=cwd, env=environment, log=log)
        else:
            context = sandbox.running(command, cwd=cwd, env=environment, log=log, folders=folders, limits=self.limits)
        begun = time.monotonic()
        try:
            with context as process:
                yield process
        finally:
            if not self.trusted:
                _PERIODS.append((begun, time.monotonic()))

    def folders(
        self,
        arguments: dict[str, Any],
        env: dict[str, str] | None = None,
        *,
        write: Iterable[Path] = (),
    ) -> Folders:
        """What a process must see of this machine: its own files, and what its arguments and variables name.

        A file or folder that is there is read; one that is not is written, and so are those of the arguments called
        as in OUTPUTS, temporary folders, and write. The file that a test gives to read stays as it is even in a
        folder that may be written to: what is expected is often worked out from it.
        """
        reads, writes = {self.folder, *(path.parent for path in self._used)}, set(write)
        for key, path in _named_paths({**(env or {}), **arguments}):
            if ROOT.is_relative_to(path):
                continue  # the project as a whole, for imports: what may be seen of it is there already
            temporary = path.is_relative_to(tempfile.gettempdir()) and not path.is_relative_to(self.folder)
            if path.is_dir():
                (writes if temporary and key not in READ_ONLY else reads).add(path)
            elif path.is_file() and key not in OUTPUTS:
                reads.add(path)
                if temporary:
                    reads.add(path.parent)  # a model's weights may be in a second file
            elif temporary:
                folder = next(folder for folder in path.parents if folder.exists())
                writes.add(folder if folder.is_dir() else folder.parent)
        return Folders(reads - writes, writes)

    def _finish(self, command: list[str], env: dict[str, str], timeout: float, name: str, folders: Folders) -> Finished:
        log = self.new_folder("run") / "log"
        with self.running(command, cwd=ROOT, env=env, log=log, folders=folders) as process:
            # A process that once did not end gets less time from then on: an endless loop would cost it in every test.
            if self._endless:
                timeout = max(min(timeout, 10), timeout / 4)
            code = wait(process, timeout)
            if code is None:
                self._endless = True
                end(process, patience=1)
                if not _excess(process):
                    fail(f"{name} had not ended after {timeout:.0f} s. Is there an endless loop?")
        if excess := _excess(process):
            fail(f"{name} was ended: {excess}.")
        if code == -signal.SIGXCPU:
            fail(f"{name} was ended: it used more than {self.limits.cpu} s of CPU time.")
        return Finished(code, Log(log).read_text())

    def environment(self, extra: dict[str, str] | None) -> dict[str, str]:
        """The environment variables that its processes get: few of ours, and extra."""
        kept = {
            name: os.environ[name]
            for name in ("PATH", "HOME", "TORCH_HOME", "LD_LIBRARY_PATH", "PYTHONPATH")
            if name in os.environ
        }
        own = {
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "BENTOML_DO_NOT_TRACK": "True",
            "TERM": "dumb",
            "COLUMNS": "200",
        }
        return kept | own | (extra or {})


_PERIODS: list[tuple[float, float]] = []  # when processes with student code ran: from, until


def seconds_of_submissions() -> float:
    """For how long at least one process with student code was running, of those that have ended by now."""
    total, last = 0.0, 0.0
    for begun, ended in sorted(_PERIODS):
        total += max(0.0, ended - max(begun, last))
        last = max(last, ended)
    return total


# Arguments and options that say where to write, even where there is something already.
OUTPUTS = ("output", "--output")
# Variables that name folders which no student code has to write to.
READ_ONLY = ("MODELS_DIR", "PYTHONPATH", "PATH", "TORCH_HOME")


def _options(arguments: Iterable[Any]) -> dict[str, Any]:
    """A script's arguments by the options that they follow, the others by their places."""
    words = [str(word) for word in arguments]
    return {
        before if before.startswith("-") else str(place): word
        for place, (before, word) in enumerate(zip(["", *words], words, strict=False))
    }


def _named_paths(value: Any, key: str = "") -> Iterator[tuple[str, Path]]:
    """Every absolute path in arguments or variables, with the name of the argument or variable."""
    match value:
        case dict():
            for name, child in value.items():
                yield from _named_paths(child, key or name)
        case list() | tuple():
            for child in value:
                yield from _named_paths(child, key)
        case Path() if value.is_absolute():
            yield key, value
        case str() if value.startswith("/"):
            for part in value.split(os.pathsep):
                if part.startswith("/"):
                    yield key, Path(part)


def _excess(process: subprocess.Popen) -> str:
    """Which limit it was ended for, if any."""
    return getattr(process, "exceeded", "")


def _request(method: str, url: str, timeout: float, **options: Any) -> httpx.Response:
    """As httpx.request(), but of an answer without end it takes 32 MB, and for no longer than the timeout."""
    give_up, body = time.monotonic() + timeout, bytearray()
    with httpx.Client(timeout=timeout) as client:
        # httpx restarts its timeout with each byte, and a server may send one a second, headers among them.
        late = threading.Timer(timeout, client.close)
        late.start()
        try:
            with client.stream(method, url, **options) as answer:
                for part in answer.iter_bytes():
                    body += part
                    if len(body) > 32 * 2**20:
                        raise httpx.ReadError("the answer is longer than 32 MB")
        except (httpx.TransportError, RuntimeError) as error:
            if time.monotonic() > give_up:
                raise httpx.ReadTimeout(f"the answer had not ended after {timeout:.0f} s") from error
            raise
        finally:
            late.cancel()
    headers = [pair for pair in answer.headers.multi_items() if pair[0] not in ("content-encoding", "content-length")]
    return httpx.Response(answer.status_code, headers=headers, content=bytes(body), request=answer.request)


def _wait_until_ready(server: Server, name: str, deadline: float) -> None:
    give_up = time.monotonic() + deadline
    while True:
        if server.process.poll() is not None:
            fail(f"`{name}` ended (exit code {server.process.returncode}).{server.last_words()}")
        if server.starts_in_vain():
            fail(f"`{name}` fails to start, again and again.{server.last_words()}")
        if time.monotonic() > give_up:
            fail(f"`{name}` was not ready after {deadline:.0f} s (GET /readyz).{server.last_words()}")
        if server.is_ready():
            return
        time.sleep(0.1)


def fail(sentence: str) -> NoReturn:
    """Fail the running test with this sentence and no stack trace, nor the exception that it tells of."""
    raise pytest.fail.Exception(sentence, pytrace=False) from None


class Inconclusive(pytest.skip.Exception):
    """Neither passed nor failed: a measurement that was too noisy to tell. The grader asks once more."""


def inconclusive(sentence: str) -> NoReturn:
    """End the running test without a verdict: the machine was too busy for a fair comparison of speed.

    The test is then neither won nor lost. The sentence says what was measured and how much it varied.
    """
    raise Inconclusive(f"inconclusive, run again: {sentence}")


def expect(holds: bool, *, called: str, got: Any, expected: str, hint: str) -> None:
    """Fail the running test unless something holds, and say all that helps to find out why.

    Args:
        holds: what must be true.
        called: the call or command, as the student would type it.
        got: what came back.
        expected: what should have come back.
        hint: what to look at.
    """
    if not holds:
        fail(f"called    {called}\ngot       {_short(got)}\nexpected  {expected}\ntry       {hint}")


def _short(value: Any, limit: int = 400) -> str:
    if type(value).__module__ == "numpy" and hasattr(value, "shape"):
        numbers = value.size and value.dtype.kind in "biuf"
        values = f", values {value.min():.4g} to {value.max():.4g}" if numbers else ""
        return f"an array of shape {value.shape}, {value.dtype}{values}"
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= limit else f"{text[:limit]} ..."


def _shown(arguments: dict[str, Any]) -> str:
    return ", ".join(
        f"{key}={value.name if isinstance(value, Path) else _short(value, 60)}" for key, value in arguments.items()
    )


def _tail(output: str, lines: int = 15) -> str:
    return "\n".join(output.splitlines()[-lines:])


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
