"""Graded tests of the locust file of exercise 11: it runs against a server that notes what it was sent."""

import io
import json
import re
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import numpy as np
import pytest
from bad_input import CAT
from image_service import tensor
from PIL import Image

from course import ROOT
from course.base.processes import wait
from course.harness import written
from course.harness.server import Log
from course.harness.submission import Submission
from course.harness.verdicts import expect, fail

FILE = "locustfiles/ex11_locustfile.py"
PATHS = {"image": "/classify", "json": "/predict", "npy": "/predict_npy"}


class Run(NamedTuple):
    """What locust did."""

    code: int
    log: str
    samples: dict  # what course/loadtest/samples.py wrote


class Received(NamedTuple):
    path: str
    content_type: str
    body: bytes


class StandIn(ThreadingHTTPServer):
    """Takes its time, answers always the same, and keeps what it was sent."""

    def __init__(self, status: int = 200, seconds: float = 0.05) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.status, self.seconds = status, seconds
        self.received: list[Received] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept, as by a real service

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append(Received(self.path, self.headers.get("Content-Type", ""), body))
        time.sleep(self.server.seconds)
        said = b'{"error": "the stand-in says no"}' if self.server.status >= 400 else b'{"predictions": []}'
        head = f"HTTP/1.1 {self.server.status} Said\r\nContent-Type: application/json\r\nContent-Length: {len(said)}\r\n\r\n"
        self.wfile.write(head.encode() + said)  # in one piece: two would wait for an acknowledgement of the first

    def log_message(self, *_):
        pass


@contextmanager
def stand_in(status: int = 200, seconds: float = 0.05):
    with StandIn(status, seconds) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield server
        server.shutdown()


def run_locust(submission: Submission, url: str, *options: str, users: int = 2, seconds: float = 1) -> Run:
    """Run the submission's locust file without its web page. Fails the test where it sends nothing."""
    folder, log_file = submission.new_folder("locust"), submission.new_folder("log") / "log"
    file = submission.existing(FILE)
    files = f"{file},{ROOT / 'course' / 'loadtest' / 'samples.py'}"
    command = [sys.executable, "-m", "locust", "-f", files, "--headless"]
    command += ["--only-summary", "--host", url, "--users", str(users), "--spawn-rate", str(users), *options]
    command += ["--samples", str(folder), "--warm-up", "0", "--window", str(seconds), "--stop-timeout", "5"]
    folders = submission.folders({}, write=[folder])
    with submission.running(command, cwd=ROOT, env=None, log=log_file, folders=folders) as process:
        code = wait(process, 60)
    log = Log(log_file).read_text()
    samples = json.loads(written.read(folder / "samples.json")) if (folder / "samples.json").exists() else None
    if not samples or not samples["ends"]:
        # The first exception is the reason; what locust logs while it stops follows from it.
        reason = re.search(r"^\w+(Error|Exception): .*", log, re.MULTILINE)
        said = reason[0] if reason else log[-500:] or "nothing"
        fail(f"locust -f {FILE} {' '.join(options)} sent nothing. It says: {said}")
    return Run(code, log, samples)


@pytest.mark.points(1)
def test_the_locust_file_sends_each_payload(submission: Submission) -> None:
    expected = tensor(CAT)
    for payload, path in PATHS.items():
        with stand_in() as server:
            run_locust(submission, server.url, "--payload", payload, seconds=0.5)
        first = server.received[0]
        try:
            same = first.path == path and all(one == first for one in server.received)
            if payload == "image":
                same &= Image.open(io.BytesIO(first.body)).size == Image.open(CAT).size
            else:
                sent = json.loads(first.body)["image"] if payload == "json" else np.load(io.BytesIO(first.body))
                same &= first.content_type == f"application/{'json' if payload == 'json' else 'octet-stream'}"
                same &= np.allclose(sent, expected, atol=1e-4)
        except (ValueError, LookupError, TypeError, OSError):
            same = False
        expect(
            same,
            called=f"locust -f {FILE} --payload {payload}",
            got=f"POST {first.path} of type {first.content_type!r}, {len(first.body)} bytes: {first.body[:60]!r}",
            expected=f"POST {path} with data/cat.png, {'as it is' if payload == 'image' else 'preprocessed'}, each time",
            hint="request_for() says what goes where; self.client.post(**self.request, ...) sends it.",
        )


@pytest.mark.points(1)
def test_the_locust_file_neither_waits_nor_prepares_between_requests(submission: Submission) -> None:
    """What is not a request's time is spent waiting, or preparing what could have been prepared before."""
    with stand_in(seconds=0.05) as server:
        samples = run_locust(submission, server.url, "--payload", "json", users=1, seconds=1).samples
    opened, closed = samples["window"]
    requests = zip(samples["ends"], samples["seconds"], strict=True)
    share = sum(seconds for end, seconds in requests if opened < end <= closed) / (closed - opened)
    expect(
        share > 0.5,
        called=f"locust -f {FILE} --payload json --users 1, on a server that takes 0.05 s",
        got=f"the user spent {share:.0%} of its time with a request",
        expected="nearly all of it",
        hint="a `wait_time` hides what the server can do: leave it out. Prepare the request once, not in the task.",
    )


@pytest.mark.points(1)
def test_the_locust_file_counts_refusals_as_failures(submission: Submission) -> None:
    with stand_in(status=429) as server:
        run = run_locust(submission, server.url, "--payload", "image", seconds=0.5)
    told = set(run.samples["failures"].values())
    expect(
        len(run.samples["failures"]) == len(run.samples["ends"])
        and run.code == 1
        and all("429" in one and "the stand-in says no" in one for one in told),
        called=f"locust -f {FILE}, on a server that answers 429 and says why",
        got=f"exit code {run.code}, {len(run.samples['failures'])} failures of {len(run.samples['ends'])}: {told}",
        expected="every request a failure, with the status and the body in its message",
        hint="with self.client.post(..., catch_response=True) as response: ... response.failure(f'{status} {text}')",
    )
