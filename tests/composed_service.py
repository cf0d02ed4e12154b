"""What a service that is made of several services must do, beside what every service must (under_load.py)."""

import threading
import time
from pathlib import Path

import httpx
import numpy as np
import onnxruntime as ort
import pytest
from bad_input import QUICK, encoded
from image_service import assert_does_not_start, expect_answer
from PIL import Image
from small_models import small_model
from under_load import assert_answers_each_their_own, metric, stopped, wait_until

from course.harness import http
from course.harness.load import CAT, Answer, ask
from course.harness.server import Server
from course.harness.submission import Submission
from course.harness.verdicts import expect, fail
from serving.model import softmax

WHITE = encoded(Image.new("RGB", (300, 300), "white"), "PNG")
BLACK = encoded(Image.new("RGB", (300, 300), "black"), "PNG")


def mean(sessions: list[ort.InferenceSession], batch: np.ndarray) -> np.ndarray:
    """The mean of the models' probabilities, (batch, 1000)."""
    return np.mean([softmax(session.run(None, {"input": batch})[0]) for session in sessions], axis=0)


# ------------------------------------------------------------------------------ graded tests of all three


@pytest.mark.points(2)
def test_each_of_400_requests_gets_the_answer_to_its_own_image(server):
    """So many requests that BentoML's client between services would close connections in use."""
    assert_answers_each_their_own(server, QUICK, requests=400, users=8)


@pytest.mark.points(1)
def test_listens_while_an_image_is_decoded(server):
    """A file of 85 kB with nearly as many pixels as are allowed: decoding it takes half a second."""
    image = encoded(Image.linear_gradient("L").resize((5000, 4900)).convert("RGB"), "PNG")
    hint = "a `def` runs in a thread, an `async def` in the event loop: there, await to_thread.run_sync(...) leaves it free."
    assert_listens_while(server, image, "an image of 24.5 megapixels", hint)


@pytest.mark.points(1)
def test_refuses_in_one_sentence(server):
    """The dependency's own sentence, without JSON in it."""
    response = server.request("POST", "/classify", content=b"not an image", headers={"content-type": "image/png"})
    text = response.text
    right = response.status_code == 400 and "these 12 bytes are not an image" in text
    right = right and text.count("error") == 1 and "\\" not in text
    called, expected = "POST /classify with b'not an image'", "400, and the sentence of open_image, without JSON in it"
    hint = "reason(error), from serving.service, is the sentence with which a dependency refused"
    expect_answer(server, response, right, called, expected, hint)


# ------------------------------------------------------------------------------ what they have in common


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
        hint="async def __is_ready__(self): return await all_ready(...), from serving.service, with every dependency",
    )
    if not wait_until(lambda: http.get(f"{server.url}/readyz", timeout=20).is_success, seconds=20):
        fail(f"GET /readyz still says no 20 s after {service} goes on.{server.last_words()}")


def assert_listens_while(server: Server, body: bytes, what: str, hint: str) -> None:
    """/livez, /readyz and /metrics answer while one image is in work: an event loop that is blocked answers nobody.

    The longest of them is compared with the time that the image takes, so that the machine's speed does not matter;
    three tries, since something else may hold the machine up for a moment.
    """
    for _ in range(3):
        answer, seconds, waits = classify_and_look(server, body)
        longest, (path, _) = max(waits.items())
        if (
            right := answer.status == 200
            and longest < seconds / 2
            and {status for _, status in waits.values()} == {200}
        ):
            break
    expect(
        right,
        called=f"POST /classify with {what}, and meanwhile GET /livez, /readyz and /metrics, again and again",
        got=f"{answer.status} after {seconds:.2f} s; the longest of the others: {path} after {longest:.2f} s",
        expected="200 for all, the others at once, not when the image is done",
        hint=f"{hint}{server.last_words()}",
    )


def classify_and_look(server: Server, body: bytes) -> tuple[Answer, float, dict[float, tuple[str, int]]]:
    """The answer to an image, its seconds, and meanwhile of each GET: its seconds, its path and its status."""
    took, waits = [], {}

    def classify() -> None:
        begun = time.monotonic()
        with http.Client(timeout=60) as client:
            took.append((ask(client, server, body=body), time.monotonic() - begun))

    thread = threading.Thread(target=classify)
    thread.start()
    while thread.is_alive():
        for path in ("/livez", "/readyz", "/metrics"):
            begun = time.monotonic()
            status = server.request("GET", path).status_code
            waits[time.monotonic() - begun] = path, status
    thread.join()
    return *took[0], waits


def requests_counted(server: Server, service: str) -> int:
    """How many API calls one of the services has answered."""
    return metric(server, "bentoml_service_request_total", service, lambda line: 'endpoint="/readyz"' not in line)


def assert_asks_both(server: Server, late: str, early: str, path: str = "/classify", body: bytes = CAT) -> None:
    """A service that asks one model after the other waits for the first, and the second hears nothing."""
    given = []
    before = requests_counted(server, early)
    kind = {"content-type": "application/json" if path == "/predict" else "image/png"}

    def send() -> None:
        with http.Client(timeout=60, headers=kind) as client:
            given.append(ask(client, server, path, body))

    thread = threading.Thread(target=send)
    with stopped(server, late):
        thread.start()
        answered = wait_until(lambda: requests_counted(server, early) > before, seconds=10)
        already = len(given)
    thread.join()
    expect(
        answered and not already and given[0].status == 200,
        called=f"POST {path} while the worker of {late} stands still (kill -STOP), until {early} has answered",
        got=f"{early} was {'' if answered else 'not '}asked; the answer came {'before' if already else 'after'} {late}'s",
        expected=f"{early} answers meanwhile, and the whole when {late} goes on",
        hint="await asyncio.gather(a, b) asks both and waits then; `await a`, `await b` asks b when a has answered",
    )


def assert_needs_its_model(submission: Submission, file: str, folder: Path, problem: str) -> None:
    """With a folder that cannot be served, `bentoml serve` ends with a sentence that names the problem."""
    (folder / problem).unlink(missing_ok=True)
    assert_does_not_start(submission, file, {"MODELS_DIR": str(folder)}, problem)


def assert_needs_the_same_labels(submission: Submission, file: str, folder: Path) -> None:
    """With two models whose labels differ, `bentoml serve` ends with a sentence that says so."""
    small_model(folder / "model_b.onnx", metadata={"labels": '["other"' + ', "other"' * 999 + "]"})
    assert_needs_its_model(submission, file, folder, "labels")
