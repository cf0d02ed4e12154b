"""Exercise 09: the model behind FastAPI, as robust as exercise 10's service, with a free event loop."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import image_service
import numpy as np
import pytest
from bad_input import CAT
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
from noted import Notes
from under_load import UNFINISHED

from course.base.processes import free_port, left_behind, wait
from course.harness import http
from course.harness.server import Server
from course.harness.submission import Submission
from course.harness.verdicts import expect, said

FILE = "ex09_fastapi.py"


@pytest.fixture(scope="module")
def folder(fresh_models_dir: Path) -> Path:
    return fresh_models_dir


@pytest.fixture(scope="module")
def server(submission: Submission, fresh_models_dir: Path):
    with submission.serve_app(FILE, env={"MODELS_DIR": str(fresh_models_dir)}) as running:
        yield running


# ------------------------------------------------------------------------------ liveness, readiness, the event loop


def answer(server: Server, path: str, patience: float = 15) -> int | str:
    """The status of a GET, or why none came. A server whose event loop is held does not answer at all."""
    give_up = time.monotonic() + patience
    while time.monotonic() < give_up:
        try:
            return http.get(server.url + path, timeout=patience).status_code
        except httpx.ConnectError:
            time.sleep(0.1)  # not listening yet
        except httpx.TransportError as error:
            return type(error).__name__
    return "nothing listens"


@pytest.mark.points(1.5)
def test_is_alive_but_not_ready_while_the_model_is_loaded(submission, fresh_models_dir, tmp_path):
    notes = Notes(tmp_path, fresh_models_dir)
    notes.hold("load")
    with submission.starting_app(FILE, env=notes.env) as server:
        notes.wait_until_held(server, "load")
        got = {path: answer(server, path) for path in ("/livez", "/readyz")}
        got["/classify"] = server.request("POST", "/classify", content=CAT.read_bytes()).status_code
        expect(
            got == {"/livez": 200, "/readyz": 503, "/classify": 503},
            called="GET /livez, GET /readyz and POST /classify while the model is being loaded",
            got=got,
            expected="200 from /livez, 503 from the others: alive, but send nothing here yet",
            hint="uvicorn listens once lifespan yields: start the loading before that as a task, and in a thread; "
            "Depends(loaded), with a function `loaded` that raises HTTPException(503, ...)",
        )
        notes.go_on("load")
        server.wait_until_ready("uvicorn ex09_fastapi:app, the model loaded", 60)
        image_service.assert_still_serves(server, "once ready")


@contextmanager
def in_the_background(server: Server, notes: Notes) -> Iterator[dict[int, object]]:
    """Three batches sent at once, 1 to 3 images, held in the model; their answers as they come."""
    answers: dict[int, object] = {}

    def send(number: int) -> None:
        body = {"image": np.full((number, 3, 224, 224), number).tolist()}
        try:
            answers[number] = http.post(f"{server.url}/predict", json=body, timeout=120).json()
        except (httpx.TransportError, json.JSONDecodeError) as error:
            answers[number] = error

    threads = [threading.Thread(target=send, args=(number,)) for number in (1, 2, 3)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        notes.go_on("run")
        for thread in threads:
            thread.join()


@pytest.mark.points(2)
def test_answers_others_while_the_model_runs_and_loads_it_once(submission, model, fresh_models_dir, tmp_path):
    notes = Notes(tmp_path, fresh_models_dir)
    with submission.serve_app(FILE, env=notes.env) as server:
        notes.note_runs()
        notes.hold("run")
        with in_the_background(server, notes) as answers:
            notes.wait_until_held(server, "run")
            got = [answer(server, path) for path in ("/livez", "/readyz", "/livez")]
            expect(
                got == [200, 200, 200] and not answers,
                called="GET /livez, /readyz, /livez while batches are in the model",
                got=f"{got}, and {len(answers)} of the batches were answered before",
                expected="200 each, before any of the batches is answered",
                hint="`async def` runs in the event loop and holds it: `def`, or anyio.to_thread.run_sync",
            )
        for number, got in answers.items():
            images = np.full((number, 3, 224, 224), number, "float32")
            called = f"POST /predict with {number} images, three batches at once"
            image_service.assert_logits(got, model.run(None, {"input": images})[0], called, server)
        called, got = "uvicorn ex09_fastapi:app, and three requests", f"{len(notes.threads('load'))} loads of the model"
        hint = "open_model() belongs into lifespan, not into a request and not beside it"
        expect(got.startswith("1 "), called=called, got=got, expected="one, when the application starts", hint=hint)


# ------------------------------------------------------------------------------ start and stop


@pytest.mark.points(0.25)
@pytest.mark.parametrize("kind", ["missing", "broken"])
def test_does_not_start_without_a_model(submission, tmp_path, kind):
    if kind == "broken":
        (tmp_path / "resnet18.onnx").write_bytes(b"\x08\x0a" + b"not a model" * 100)
    env, hint = (
        {"MODELS_DIR": str(tmp_path)},
        "catch what open_model() raises, log it, signal.raise_signal(signal.SIGTERM)",
    )
    with submission.starting_app(FILE, env=env) as server:
        image_service.assert_ends_with(server, "uvicorn ex09_fastapi:app", env, "resnet18.onnx", hint)


@contextmanager
def script(submission: Submission, models_dir: Path) -> Iterator[Server]:
    """python ex09_fastapi.py, once it is ready."""
    port = free_port()
    with submission.start(FILE, "--port", port, env={"MODELS_DIR": str(models_dir)}) as process:
        server = Server(f"http://127.0.0.1:{port}", process, process.log.path)
        server.wait_until_ready(f"python ex09_fastapi.py --port {port}", 60)
        yield server


def assert_ends(server: Server, stop: signal.Signals, called: str, without: str = "") -> None:
    os.killpg(server.process.pid, stop)
    code, left = wait(server.process, 20), left_behind(server.process)
    log = server.log.read_text()
    expect(
        code is not None and not left and not (without and without in log),
        called=f"python ex09_fastapi.py, then {stop.name}{called}",
        got=f"exit code {code}, processes left: {left}. {said(log)}",
        expected=f"its end within 20 s, with no process left{f' and no {without} in its log' if without else ''}",
        hint="uvicorn.run(app, port=port, timeout_graceful_shutdown=5) handles both signals",
    )


@pytest.mark.points(0.25)
def test_the_script_serves_so_many_connections_and_ends_with_ctrl_c(submission, small_models_dir):
    """It accepts 256 connections, whatever they are for, and a client that never finishes does not keep it."""
    with script(submission, small_models_dir) as server, ExitStack() as clients:
        address = ("127.0.0.1", httpx.URL(server.url).port)
        for _ in range(256):
            clients.enter_context(socket.create_connection(address)).sendall(UNFINISHED)
        got = answer(server, "/livez")
        hint = "limit_concurrency=256"
        expect(got == 503, called="GET /livez from the 257th connection", got=got, expected="503", hint=hint)
        assert_ends(server, signal.SIGINT, ", while clients are still sending")


@pytest.mark.points(0.25)
def test_sigterm_leaves_no_process(submission, small_models_dir):
    with script(submission, small_models_dir) as server:
        assert_ends(server, signal.SIGTERM, "", without="Traceback")


@pytest.mark.points(0.25)
def test_says_what_was_expected(server):
    """Also where FastAPI refuses by itself."""
    image_service.assert_refused(server, "POST /predict with `{`", image_service.post_json(server, "{"))


@pytest.mark.points(0.25)
def test_a_port_that_is_taken_is_one_sentence(submission, server):
    port = httpx.URL(server.url).port
    finished = submission.run(FILE, "--port", port)
    expect(
        finished.code != 0 and str(port) in finished.output and len(finished.output.strip().splitlines()) == 1,
        called=f"python ex09_fastapi.py --port {port}, where something listens already",
        got=f"exit code {finished.code}: {said(finished.output)}",
        expected="a non-zero exit code and one sentence that names the port",
        hint="`if not is_free(port): raise Problem(...)` before uvicorn.run",
    )


@pytest.mark.points(0.5)
def test_serves_without_torch(submission, small_models_dir, tmp_path):
    with submission.serve_app(FILE, env=image_service.without_torch(tmp_path, small_models_dir)) as server:
        image_service.assert_still_serves(server, "where torch and torchvision cannot be imported")
