"""Exercise 10: resnet18 as a BentoML service that survives its callers, and a client for it."""

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import bentoml
import image_service
import numpy as np
import pytest
import under_load
from bad_input import CAT, COFFEE, MEDIUM
from bentoml.exceptions import BentoMLException
from image_api import (  # noqa: F401
    test_classify_answers_the_five_best_labels,
    test_classify_refuses_what_is_no_image,
    test_classify_takes_every_kind_of_image,
    test_classify_takes_what_curl_sends,
    test_each_caller_gets_the_answer_to_their_own_image,
    test_predict_answers_the_models_logits,
    test_predict_refuses_bad_json,
    test_predict_refuses_bad_tensors,
    test_predict_takes_a_batch_of_any_numeric_type,
    test_refuses_a_body_over_the_limit,
    test_refuses_forms,
)
from noted import Notes, assert_opens_its_model_once
from PIL import Image

from course.base.processes import free_port
from course.harness import http
from course.harness.submission import Submission
from course.harness.verdicts import expect, said

SERVICE, CLIENT = "ex10_service.py", "ex10_client.py"


@contextmanager
def listening() -> Iterator[tuple[int, list]]:
    """A port, and who has connected to it; each connection is closed at once."""
    asked = []

    class Note(socketserver.BaseRequestHandler):
        def handle(self):
            asked.append(self.client_address)

    with socketserver.TCPServer(("127.0.0.1", 0), Note) as listener:
        threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield listener.server_address[1], asked
        listener.shutdown()


@pytest.fixture(scope="module")
def proxy() -> Iterator[tuple[int, list]]:
    """Through which the server is told to reach other machines."""
    with listening() as told:
        yield told


@pytest.fixture(scope="module")
def server(submission: Submission, notes: Notes, proxy: tuple[int, list]):
    env = notes.env | {"HTTP_PROXY": f"http://127.0.0.1:{proxy[0]}"}
    with submission.serve(SERVICE, env=env) as running, under_load.Unfinished.during(running):
        yield running


# ------------------------------------------------------------------------------ what only this exercise asks


@pytest.mark.points(2)
def test_opens_the_model_once(server, notes):
    """For each worker, not for each request."""
    assert_opens_its_model_once(server, notes, "ImageClassifierService")


@pytest.mark.points(1.5)
def test_refuses_more_than_it_holds(server):
    under_load.assert_answers_overload(server, MEDIUM)


@pytest.mark.points(0.5)
def test_predict_takes_an_array_from_bentomls_client(server, model):
    images = np.random.default_rng(0).normal(size=(2, 3, 224, 224)).astype("float32")
    called = "SyncHTTPClient(url).predict(image=float32 array of shape (2, 3, 224, 224))"
    try:
        with BentoClient(server.url, timeout=60) as client:
            got = client.predict(image=images)
    except (BentoMLException, AttributeError, TypeError) as error:
        got = error
    image_service.assert_logits(got, model.run(None, {"input": images})[0], called, server)


class BentoClient(bentoml.SyncHTTPClient):
    """BentoML's, with the bounds of every client of the tests."""

    client_cls = http.Client


@pytest.mark.points(0.25)
@pytest.mark.parametrize("path", ["/predict", "/classify"])
def test_refuses_pickles(server, path):
    """To load a pickle is to run what its sender wrote."""
    image_service.assert_still_serves(server, "before that")
    headers = {"content-type": "application/vnd.bentoml+pickle"}
    response = server.request("POST", path, content=CAT.read_bytes(), headers=headers)
    called, right = f"POST {path} with a pickle", response.status_code in (400, 415)
    image_service.expect_answer(
        server, response, right, called, "415 (or 400)", "an entry service of BentoML refuses it"
    )
    image_service.assert_still_serves(server, "after a pickle")


@pytest.mark.points(1.5)
def test_never_fetches_a_url_for_a_caller(server, proxy):
    """An address inside the server's network is a secret that a caller must not reach through it, nor any other.

    BentoML itself refuses private addresses, but no others: what the server asks its proxy for is such a one.
    """
    with listening() as (port, asked):
        for url in (f"http://127.0.0.1:{port}/cat.png", "http://192.0.2.1/cat.png"):
            for path in ("/classify", "/predict"):
                server.request("POST", path, content=url.encode(), headers={"content-type": "text/plain"})
                server.request("POST", path, content=url.encode(), headers={"content-type": "application/json"})
                server.request("POST", path, json={"image": url})
                server.request("POST", path, data={"image": url})
                server.request("POST", path, files={"image": (None, url)})
    expect(
        not asked and not proxy[1],
        called="POST /classify and /predict with the address of an image, as text, JSON and form",
        got=f"{len(asked)} connections to a private address, {len(proxy[1])} to any other",
        expected="none: only a caller named these addresses",
        hint="take bytes; for an argument of type Path or Image, BentoML fetches any URL that it is given",
    )
    image_service.assert_still_serves(server, "after URLs")


# ------------------------------------------------------------------------------ start and stop


@pytest.mark.points(0.75)
@pytest.mark.parametrize("kind", ["missing", "broken"])
def test_does_not_start_without_a_model(submission, tmp_path, kind):
    if kind == "broken":
        (tmp_path / "resnet18.onnx").write_bytes(b"\x08\x0a" + b"not a model" * 100)
    image_service.assert_does_not_start(submission, SERVICE, {"MODELS_DIR": str(tmp_path)}, "resnet18.onnx")


@pytest.mark.points(0.5)
def test_serves_without_torch(submission, small_models_dir, tmp_path):
    with submission.serve(SERVICE, env=image_service.without_torch(tmp_path, small_models_dir)) as server:
        image_service.assert_still_serves(server, "where torch and torchvision cannot be imported")


# ------------------------------------------------------------------------------ the client


def assert_client(submission: Submission, images: list[Path], url: str, ok: bool, says: list[str], hint: str) -> None:
    finished = submission.run(CLIENT, *images, "--url", url)
    right = all(words.lower() in finished.output.lower() for words in says) and "Traceback" not in finished.output
    expect(
        right and (finished.code == 0) == ok,
        called=f"python ex10_client.py {' '.join(image.name for image in images)} --url {url}",
        got=f"exit code {finished.code}: {said(finished.output)}",
        expected=f"{'exit code 0' if ok else 'a non-zero exit code'}, and an output that holds {says}",
        hint=hint,
    )


@pytest.mark.points(1.5)
def test_client_prints_the_labels(submission, server, model):
    """And warns of random weights."""
    best = [image_service.best_five(model, Image.open(image).convert("RGB"))[0]["label"] for image in (CAT, COFFEE)]
    says, hint = [*best, "cat.png", "coffee.png", "random"], "ask(): yield name, client.classify(image)"
    assert_client(submission, [CAT, COFFEE], server.url, True, says, hint)


@pytest.mark.points(0.5)
def test_client_says_what_to_do_when_nothing_listens(submission):
    url, hint = f"http://127.0.0.1:{free_port()}", "ask(): catch only BentoMLException; main() does the rest"
    assert_client(submission, [CAT], url, False, ["make serve"], hint)


@pytest.mark.points(1)
def test_client_goes_on_after_a_file_that_is_refused(submission, server, tmp_path):
    (tmp_path / "note.txt").write_text("not an image")
    hint = "ask(): catch BentoMLException for each file, and yield the reason of a refusal"
    says = ["cat.png", "note.txt", "not an image"]
    assert_client(submission, [tmp_path / "note.txt", CAT], server.url, False, says, hint)


@pytest.mark.points(0.5)
def test_ends_a_request_after_30_s(server):
    image_service.assert_still_serves(server, "while another request does not end")
    server.unfinished.assert_ended()
