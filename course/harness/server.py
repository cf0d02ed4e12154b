"""A service of a submission that is running, and what processes of submissions have printed."""

import re
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx

from course.base.files import tail
from course.harness import http
from course.harness.verdicts import fail, short
from course.isolation.limits import LIMITS


class Log:
    """What a process has printed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read_text(self, errors: str = "replace") -> str:
        """Its first 10 MB: a process that goes on printing may have printed gigabytes by now."""
        with self.path.open("rb") as file:
            return file.read(LIMITS.output).decode(errors=errors)


class Server:
    """A service that is running."""

    def __init__(self, url: str, process: subprocess.Popen, log: Path) -> None:
        self.url = url
        self.process = process
        self.log = Log(log)
        self._before = 0  # how long the log was before the last request

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send one request; fail the test, with the server's log, if no answer comes within 60 s."""
        self._before = len(self.log.read_text())
        try:
            return http.request(method, self.url + path, **options)
        except httpx.HTTPError as error:
            fail(f"{method} {path} got no answer: {error!r}.{self.last_words()}")

    def wait_until_ready(self, name: str, deadline: float) -> None:
        """Fail the test if the service ends or is not ready after deadline seconds; name: how it was started."""
        if why := self._why_not_ready(deadline):
            fail(f"`{name}` {why}.{self.last_words()}")

    def exit_code(self, patience: float = 30) -> int | None:
        """How a service that should not start ends; None where it goes on.

        It goes on if it is ready, if it fails to start again and again, or if it still runs after patience seconds.
        """
        self._why_not_ready(patience)
        return self.process.poll()

    def _why_not_ready(self, patience: float) -> str:
        """What it did in this time instead of becoming ready; nothing once it is."""
        give_up = time.monotonic() + patience
        while not self.is_ready():
            if self.process.poll() is not None:
                return f"ended (exit code {self.process.returncode})"
            if self.log.read_text().count("Application startup failed") > 1:  # BentoML starts workers without end
                return "fails to start, again and again"
            if time.monotonic() > give_up:
                return f"was not ready after {patience:.0f} s (GET /readyz)"
            time.sleep(0.1)
        return ""

    def is_ready(self) -> bool:
        """Whether GET /readyz says so; False also where nothing listens yet."""
        try:
            return http.get(f"{self.url}/readyz", timeout=5).is_success
        except httpx.TransportError:
            return False

    def last_words(self) -> str:
        """Of what the log says since the last request: the last exception, or else the end, cut. "" where it is silent."""
        if excess := getattr(self.process, "exceeded", ""):
            return f" The service was ended: {excess}."
        log = self.log.read_text()[self._before :]
        if exceptions := re.findall(r"^(?:[\w.]+\.)?(\w*(?:Error|Exception|Exit|Interrupt)\b.*)$", log, re.MULTILINE):
            return f" The service's log says: {short(exceptions[-1], 300)}"
        lines = [short(line, 120) for line in tail(log, 5).splitlines()]
        return "\n".join([" The service's log says:", *lines]) if lines else ""
