"""How tests meet a submission: its functions, its scripts, its services, always in processes of their own.

What goes wrong in student code fails the test with one sentence, never with the grader's stack trace.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import httpx
import pytest

from course import ROOT, worker
from course.manifest import solution
from course.processes import end, free_port, running, wait


class Finished(NamedTuple):
    """A script that has ended."""

    code: int
    output: str  # standard output and error together


class Server:
    """A service that is running."""

    def __init__(self, url: str, process: subprocess.Popen, log: Path) -> None:
        self.url = url
        self.process = process
        self.log = log

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send one request; fail the test, with the server's log, where no answer comes within 60 s."""
        try:
            return httpx.request(method, self.url + path, timeout=60, **options)
        except httpx.HTTPError as error:
            fail(f"{method} {path} got no answer: {error!r}.{self.last_words()}")

    def last_words(self, lines: int = 15) -> str:
        """The last exception in the log, or else its end, as a sentence to end a failure message with."""
        log = self.log.read_text(errors="replace")
        exceptions = re.findall(r"^(?:[\w.]+\.)?(\w*(?:Error|Exception|Exit|Interrupt)\b.*)$", log, re.MULTILINE)
        if exceptions:
            return f" The service's log says: {exceptions[-1]}"
        tail = "\n".join(log.splitlines()[-lines:])
        return f" The end of the service's log:\n{tail}"


class Submission:
    """A folder of the same shape as solutions/."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        """scratch: an empty folder for what the submission's processes write."""
        self.folder = folder.resolve()
        self.scratch = scratch
        self._numbers = count()

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
        code, output = self._finish([sys.executable, "-m", "course.worker", str(folder)], {}, timeout, name)

        if (folder / "error.json").exists():
            fail(_told(file, function, name, json.loads((folder / "error.json").read_text())))
        if code < 0:
            fail(f"{name} crashed the interpreter ({signal.Signals(-code).name}).\n{_tail(output)}")
        if not (folder / "result.json").exists():
            fail(f"{name} ended the program (exit code {code}) instead of returning. Does it call sys.exit()?")
        try:
            return worker.decode(json.loads((folder / "result.json").read_text()), folder)
        except (ValueError, OSError) as error:
            fail(f"{name}: its result cannot be read: {error}.")

    def run(self, file: str, *arguments: Any, timeout: float = 120, env: dict[str, str] | None = None) -> Finished:
        """Run one of its files as a script. Fails the test where it is missing, runs too long or crashes."""
        path = self.existing(file)
        name = " ".join(["python", file, *map(str, arguments)])
        finished = self._finish([sys.executable, str(path), *map(str, arguments)], env or {}, timeout, name)
        if finished.code < 0:
            fail(f"`{name}` crashed the interpreter ({signal.Signals(-finished.code).name}).\n{_tail(finished.output)}")
        return finished

    @contextmanager
    def start(self, file: str, *arguments: Any, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen]:
        """Run one of its files as a script and do not wait; it is ended with the block. Its log: process.log."""
        path = self.existing(file)
        log = self.new_folder("run") / "log"
        command = [sys.executable, str(path), *map(str, arguments)]
        with running(command, cwd=ROOT, env=self.environment(env), log=log) as process:
            process.log = log
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
        own = {"BENTOML_HOME": str(folder / "bentoml")}
        environment = self.environment(own | (env or {}))
        with running(command, cwd=folder, env=environment, log=folder / "log") as process:
            yield Server(f"http://127.0.0.1:{port}", process, folder / "log")

    @contextmanager
    def starting_app(self, file: str, *, env: dict[str, str] | None = None) -> Iterator[Server]:
        """As serve_app(), but without waiting."""
        path = self.existing(file)
        folder = self.new_folder("serve")
        port = free_port()
        command = [sys.executable, "-m", "uvicorn", f"{path.stem}:app", "--app-dir", str(path.parent)]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        with running(command, cwd=folder, env=self.environment(env), log=folder / "log") as process:
            yield Server(f"http://127.0.0.1:{port}", process, folder / "log")

    def existing(self, file: str) -> Path:
        """Where one of its files is; fails the test where it is missing."""
        path = solution(file) if self.folder == ROOT / "solutions" else self.folder / file
        if not path.is_file():
            fail(f"{file} is missing in {self.folder}.")
        return path

    def new_folder(self, kind: str) -> Path:
        """An empty folder, for what one process writes."""
        folder = self.scratch / f"{kind}-{next(self._numbers)}"
        folder.mkdir(parents=True)
        return folder

    def _finish(self, command: list[str], env: dict[str, str], timeout: float, name: str) -> Finished:
        log = self.new_folder("run") / "log"
        with running(command, cwd=ROOT, env=self.environment(env), log=log) as process:
            code = wait(process, timeout)
            if code is None:
                end(process, patience=1)
                fail(f"{name} had not ended after {timeout:.0f} s. Is there an endless loop?")
        return Finished(code, log.read_text(errors="replace"))

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


def _wait_until_ready(server: Server, name: str, deadline: float) -> None:
    give_up = time.monotonic() + deadline
    while True:
        if server.process.poll() is not None:
            fail(f"`{name}` ended (exit code {server.process.returncode}).{server.last_words()}")
        if server.log.read_text(errors="replace").count("Application startup failed") > 2:
            fail(f"`{name}` fails to start, again and again.{server.last_words()}")
        if time.monotonic() > give_up:
            fail(f"`{name}` was not ready after {deadline:.0f} s (GET /readyz).{server.last_words()}")
        try:
            if httpx.get(f"{server.url}/readyz", timeout=5).is_success:
                return
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(0.1)


def fail(sentence: str) -> NoReturn:
    """Fail the running test with this sentence and no stack trace."""
    pytest.fail(sentence, pytrace=False)


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
        return f"an array of shape {value.shape}, {value.dtype}, values {value.min():.4g} to {value.max():.4g}"
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
