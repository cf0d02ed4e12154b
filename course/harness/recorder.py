"""pytest's --results: the result of each graded test, written when the run has ended, whole and signed.

The key arrives on standard input and is in no file, argument or environment variable. A results file that
somebody else wrote, or changed, does not carry the right signature.
"""

import hashlib
import hmac
import json
import os
import time
from pathlib import Path

import pytest

from course.base.files import write_whole
from course.harness.submission import seconds_of_submissions


def sign(payload: str, key: bytes) -> str:
    """The signature of a text."""
    return hmac.new(key, payload.encode(), hashlib.sha256).hexdigest()


def read_results(file: Path, key: bytes) -> dict | None:
    """What a Recorder with that key wrote; None where there is nothing, or something else."""
    try:
        signed = json.loads(file.read_text())
        if hmac.compare_digest(str(signed["signature"]), sign(signed["results"], key)):
            return json.loads(signed["results"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    return None


class Recorder:
    """A pytest plugin that notes the graded tests and their results."""

    def __init__(self, file: Path, limit: float) -> None:
        """limit: seconds after which no further test is begun. Raises pytest.UsageError where no key comes in."""
        self.file = file
        self.key = os.read(0, 100).strip()
        if len(self.key) < 32:
            raise pytest.UsageError("--results needs a key of 32 characters or more on standard input, and -s.")
        self.limit = limit
        self.begun = time.monotonic()
        self.collected: dict[str, float] = {}
        self.tests: dict[str, dict] = {}
        self.problems: list[str] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note the graded tests and what they are worth."""
        for item in session.items:
            if marker := item.get_closest_marker("points"):
                self.collected[item.nodeid] = marker.args[0]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A test file that cannot be read is a mistake of the course."""
        if report.failed:
            self.problems.append(f"{report.nodeid} cannot be read: {_message(report)}")

    def pytest_internalerror(self, excrepr: object) -> None:
        """And so is an error in pytest or a plugin."""
        self.problems.append(f"pytest failed: {str(excrepr).strip().splitlines()[-1]}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        """Start no test after the limit: what was reached until then counts."""
        if time.monotonic() - self.begun > self.limit:
            pytest.fail(f"not run: the tests before it took more than {self.limit:.0f} s, the limit", pytrace=False)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the result of one part of one test: its setup, its call, its teardown."""
        unknown = {"outcome": "skipped", "message": "", "details": "", "seconds": 0.0}
        test = self.tests.setdefault(report.nodeid, unknown)
        test["seconds"] += report.duration
        properties = dict(report.user_properties)
        if why := properties.get("grader failed"):
            self.problems.append(why[:500])
        if report.failed and test["outcome"] != "failed":
            message = _message(report)
            details = "" if report.longreprtext.strip() == message else report.longreprtext
            test |= {"outcome": "failed", "message": message, "details": details}
        elif report.skipped:
            outcome = "inconclusive" if "inconclusive" in properties else "skipped"
            test |= {"outcome": outcome, "message": properties.get("inconclusive") or _message(report)}
        elif report.when == "call" and report.passed:
            test["outcome"] = "passed"

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Write everything."""
        content = {
            "exit": int(exitstatus),
            "problems": self.problems,
            "collected": self.collected,
            "tests": {node: test for node, test in self.tests.items() if node in self.collected},
            "own_seconds": seconds_of_submissions(),
        }
        results = json.dumps(content)
        write_whole(self.file, json.dumps({"signature": sign(results, self.key), "results": results}))


def _message(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why, without what pytest puts around it."""
    longrepr = report.longrepr
    if isinstance(longrepr, tuple):  # a skip: file, line, reason
        return longrepr[2].partition(": ")[2] or longrepr[2]
    crash = getattr(longrepr, "reprcrash", None)
    # What fail() says needs no name of an exception in front.
    return crash.message.removeprefix("Failed: ") if crash else str(longrepr).strip()
