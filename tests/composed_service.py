"""What a service that is made of several services must do, beside what every service must (under_load.py)."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from bad_input import encoded
from image_service import assert_does_not_start
from PIL import Image
from small_models import small_model

from course.harness import http
from course.harness.load import CLIENTS, answers, ask, tally, workers
from course.harness.server import Server
from course.harness.submission import Submission
from course.harness.verdicts import expect, fail

WHITE = encoded(Image.new("RGB", (300, 300), "white"), "PNG")
BLACK = encoded(Image.new("RGB", (300, 300), "black"), "PNG")


def small_models(folder: Path, **traps: dict[str, str]) -> Path:
    """A MODELS_DIR with models that answer in a millisecond; traps, by name: what small_model makes of an image."""
    for seed, name in enumerate(("resnet18", "model_a", "model_b")):
        small_model(folder / f"{name}.onnx", seed=seed, **traps.get(name, {}))
    return folder


def big_image() -> bytes:
    """A file of 85 kB with nearly as many pixels as are allowed: decoding it takes half a second."""
    return encoded(Image.linear_gradient("L").resize((5000, 4900)).convert("RGB"), "PNG")


def assert_answers_all(server: Server, requests: int = 600) -> None:
    """So many requests from CLIENTS clients at once, and not one that fails."""
    answered = answers(server, requests)
    expect(
        all(one.status == 200 for one in answered),
        called=f"{requests} POST /classify from {CLIENTS} clients",
        got=tally(answered),
        expected="200 for all of them",
        hint=f'runner_connection={{"max_requests": 1_000_000, "max_age": 86400.0}} on each dependency.{server.last_words()}',
    )


@contextmanager
def stopped(server: Server, service: str) -> Iterator[None]:
    """The workers of one of the services stand still during the block: they listen, and answer nothing."""
    processes = workers(server, service)
    if not processes:
        fail(f"There is no service called {service}: no process with --service-name {service}.{server.last_words()}")
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)


def assert_ready_only_with(server: Server, service: str) -> None:
    """/readyz says no, soon, while a dependency stands still; /livez says yes: a restart would not help."""
    statuses = {}
    with stopped(server, service):
        for path in ("/readyz", "/livez"):
            try:
                statuses[path] = http.get(server.url + path, timeout=8).status_code
            except httpx.HTTPError as error:
                statuses[path] = repr(error)
    expect(
        statuses == {"/readyz": 503, "/livez": 200},
        called=f"GET /readyz and /livez while the worker of {service} stands still (kill -STOP)",
        got=statuses,
        expected="503 and 200, each within 8 s",
        hint="async def __is_ready__(self): return await all_ready(...), from serving.http, with every dependency",
    )
    give_up = time.monotonic() + 20
    while not http.get(f"{server.url}/readyz", timeout=20).is_success:
        if time.monotonic() > give_up:
            fail(f"GET /readyz still says no 20 s after {service} goes on.{server.last_words()}")
        time.sleep(0.1)


def assert_listens_while(server: Server, body: bytes, what: str, hint: str) -> None:
    """/livez, /readyz and /metrics answer while one image is in work: an event loop that is blocked answers nobody.

    The longest of them is compared with the time that the image takes, so that the machine's speed does not matter.
    """
    took = []

    def classify() -> None:
        begun = time.monotonic()
        with http.Client(timeout=60) as client:
            took.append((ask(client, server, body=body), time.monotonic() - begun))

    thread = threading.Thread(target=classify)
    thread.start()
    waits = {}
    while thread.is_alive():
        for path in ("/livez", "/readyz", "/metrics"):
            begun = time.monotonic()
            status = server.request("GET", path).status_code
            waits[time.monotonic() - begun] = path, status
    thread.join()
    answer, seconds = took[0]
    longest = max(waits)
    expect(
        answer.status == 200 and longest < seconds / 2 and {status for _, status in waits.values()} == {200},
        called=f"POST /classify with {what}, and meanwhile GET /livez, /readyz and /metrics, again and again",
        got=f"{answer.status} after {seconds:.2f} s; the longest of the others: {waits[longest]} after {longest:.2f} s",
        expected="200 for all, the others at once, not when the image is done",
        hint=f"{hint}{server.last_words()}",
    )


def assert_refuses_in_one_sentence(server: Server) -> None:
    response = server.request("POST", "/classify", content=b"not an image", headers={"content-type": "image/png"})
    expect(
        response.status_code == 400
        and "got 12 bytes that are none" in response.text
        and response.text.count("error") == 1
        and "\\" not in response.text,
        called="POST /classify with b'not an image'",
        got=f"{response.status_code} {response.text[:300]}",
        expected="400, and the sentence of open_image, without JSON in it",
        hint=f"reason(error), from serving.http, is the sentence with which a dependency refused.{server.last_words()}",
    )


def requests_counted(server: Server, service: str) -> int:
    """How many API calls one of the services has answered, from the server's metrics."""
    lines = server.request("GET", "/metrics").text.splitlines()
    counts = [line for line in lines if line.startswith("bentoml_service_request_total{")]
    own = [line for line in counts if f'runner_name="{service}"' in line and 'endpoint="/readyz"' not in line]
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in own)


def assert_needs_its_model(submission: Submission, file: str, folder: Path, problem: str) -> None:
    """With a folder that cannot be served, `bentoml serve` ends with a sentence that names the problem."""
    (folder / problem).unlink(missing_ok=True)
    assert_does_not_start(submission, file, {"MODELS_DIR": str(folder)}, problem)
