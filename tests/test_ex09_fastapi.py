"""Exercise 09: the model behind FastAPI, as robust as exercise 10's service, with a free event loop."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import image_service
import numpy as np
import pytest
from bad_input import BAD_IMAGES, BAD_JSON, BAD_TENSORS, CAT, COFFEE, IMAGES

from course import ROOT
from course.base.processes import free_port, left_behind, wait
from course.harness import http
from course.harness.server import Server
from course.harness.submission import Submission
from course.harness.verdicts import expect, fail

FILE = "ex09_fastapi.py"


@pytest.fixture(scope="module")
def server(submission: Submission, fresh_models_dir: Path):
    with submission.serve_app(FILE, env={"MODELS_DIR": str(fresh_models_dir)}) as running:
        yield running


# ------------------------------------------------------------------------------ answers


@pytest.mark.points(1)
def test_predict_answers_the_models_logits(server, session):
    image_service.assert_predicts(
        server, session, image_service.tensor(CAT), "POST /predict with one preprocessed photograph as JSON"
    )


@pytest.mark.points(0.25)
@pytest.mark.parametrize("dtype", ["float64", "uint8"])
def test_predict_takes_a_batch_of_any_numeric_type(server, session, dtype):
    images = np.random.default_rng(0).integers(0, 4, size=(5, 3, 224, 224)).astype(dtype)
    image_service.assert_predicts(server, session, images, f"POST /predict with five images of {dtype} numbers")


@pytest.mark.points(0.5)
@pytest.mark.parametrize("image", [CAT, COFFEE], ids=lambda path: path.stem)
def test_classify_answers_the_five_best_labels(server, session, image):
    image_service.assert_classifies(server, session, image)


@pytest.mark.points(0.125)
@pytest.mark.parametrize("kind", IMAGES)
def test_classify_takes_every_kind_of_image(server, session, kind):
    image_service.assert_classifies(server, session, kind)


@pytest.mark.points(0.5)
def test_classify_says_where_the_weights_came_from(server):
    """Sent as `curl --data-binary` does, which calls every body a form."""
    headers = {"content-type": "application/x-www-form-urlencoded"}
    response = server.request("POST", "/classify", content=CAT.read_bytes(), headers=headers)
    expect(
        response.status_code == 200 and response.json().get("weights") == "random seed 7",
        called="curl --data-binary @data/cat.png .../classify",
        got=f"{response.status_code} {response.text[:300]}",
        expected='{"predictions": [...], "weights": "random seed 7"}: who sees these labels must know where they came from',
        hint=f"weights(session) reads it from the model's metadata; RequestLimits lets curl's bodies through.{server.last_words()}",
    )


# ------------------------------------------------------------------------------ bad input


@pytest.mark.points(0.05)
@pytest.mark.parametrize("kind", BAD_TENSORS)
def test_predict_refuses_bad_tensors(server, kind):
    response = image_service.post_json(server, image_service.bad_tensor(kind))
    called = f"POST /predict with {kind.replace('_', ' ')}"
    image_service.assert_refused(server, called, response)
    expect(
        len(response.content) < 1000,
        called=called,
        got=f"an answer of {len(response.content):,} bytes: {response.text[:100]} ...",
        expected="one sentence",
        hint="FastAPI's own handler of RequestValidationError sends the input back: write another",
    )


@pytest.mark.points(0.05)
@pytest.mark.parametrize("kind", BAD_JSON)
def test_predict_refuses_bad_json(server, kind):
    hint = "FastAPI does this where `image` is a declared parameter: Body(embed=True)."
    image_service.assert_refuses_json(server, kind, BAD_JSON[kind], hint)
    image_service.assert_still_serves(server, "after bad JSON")


@pytest.mark.points(0.05)
@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_classify_refuses_what_is_no_image(server, kind):
    image_service.assert_refuses_bad_image(server, kind)


@pytest.mark.points(0.25)
@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
@pytest.mark.parametrize(("path", "megabytes"), [("/classify", 11), ("/predict", 65)], ids=["classify", "predict"])
def test_refuses_a_body_over_the_limit(server, path, megabytes, announced):
    """10 MiB for an image, 64 MiB for a tensor; whether or not the caller says beforehand how long it is."""
    image_service.assert_refuses_too_much(server, path, megabytes, announced)


@pytest.mark.points(0.125)
@pytest.mark.parametrize("path", ["/predict", "/classify"])
@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary=x"])
def test_refuses_forms(server, path, content_type):
    response = server.request("POST", path, content=CAT.read_bytes(), headers={"content-type": content_type})
    image_service.assert_refused(
        server, f"POST {path} with the content type {content_type}", response, statuses=(400, 415)
    )


# ------------------------------------------------------------------------------ liveness, readiness, the event loop

# Python imports a module of this name at its start. It notes in the folder HELD how often a model was loaded
# and run, and holds one of the two back until a file called `go` is there: order without a stopwatch.
SITECUSTOMIZE = """
import os, time
from pathlib import Path

import onnxruntime

HELD, WHAT = Path(os.environ["HELD"]), os.environ["WHAT"]

def held(what, original):
    def method(*arguments, **options):
        if what == "run" and not (HELD / "ready").exists():
            return original(*arguments, **options)  # a trial, before the application is ready
        (HELD / f"{what}-{time.monotonic_ns()}").touch()
        while what == WHAT and not (HELD / "go").exists():
            time.sleep(0.02)
        return original(*arguments, **options)
    return method

onnxruntime.InferenceSession.__init__ = held("load", onnxruntime.InferenceSession.__init__)
onnxruntime.InferenceSession.run = held("run", onnxruntime.InferenceSession.run)
"""


class Held:
    """A running application whose model is held back while it is loaded, or while it runs."""

    def __init__(self, folder: Path, what: str, fresh_models_dir: Path) -> None:
        self.folder = folder
        self.what = what
        (folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
        paths = {"MODELS_DIR": str(fresh_models_dir), "PYTHONPATH": f"{folder}:{ROOT}"}
        self.env = {**paths, "HELD": str(folder), "WHAT": what}

    def number_of(self, what: str) -> int:
        return len(list(self.folder.glob(f"{what}-*")))

    def go_on(self) -> None:
        (self.folder / "go").touch()

    def wait_until_held(self, server: Server) -> None:
        give_up = time.monotonic() + 60
        while not self.number_of(self.what):
            if server.process.poll() is not None:
                fail(f"`uvicorn ex09_fastapi:app` ended (exit code {server.process.returncode}).{server.last_words()}")
            if time.monotonic() > give_up:
                fail(f"After 60 s the model was not {self.what}: is it with ONNX Runtime?{server.last_words()}")
            time.sleep(0.05)


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
    held = Held(tmp_path, "load", fresh_models_dir)
    with submission.starting_app(FILE, env=held.env) as server:
        held.wait_until_held(server)
        got = {path: answer(server, path) for path in ("/livez", "/readyz")}
        expect(
            got == {"/livez": 200, "/readyz": 503},
            called="GET /livez and GET /readyz while the model is being loaded",
            got=got,
            expected="200 from /livez, 503 from /readyz: alive, but send nothing here yet",
            hint="uvicorn listens once lifespan yields: start the loading before that as a task, and in a thread",
        )
        status = server.request("POST", "/classify", content=CAT.read_bytes()).status_code
        expect(
            status == 503,
            called="POST /classify while the model is being loaded",
            got=status,
            expected="503: it is the service that is not ready, not the request that is wrong",
            hint="Depends(loaded), with a function `loaded` that raises HTTPException(503, ...)",
        )
        held.go_on()
        give_up = time.monotonic() + 60
        while (got := answer(server, "/readyz")) != 200 and time.monotonic() < give_up:
            time.sleep(0.1)
        expect(
            got == 200,
            called="GET /readyz, up to 60 s after the model was loaded",
            got=got,
            expected="200",
            hint=f"keep the session where /readyz looks for it.{server.last_words()}",
        )
        image_service.assert_still_serves(server, "once ready")


@contextmanager
def in_the_background(server: Server, held: Held) -> Iterator[dict[int, int]]:
    """Three batches sent at once, held in the model; their answers' statuses as they come."""
    statuses: dict[int, int] = {}
    body = json.dumps({"image": np.zeros((4, 3, 224, 224), dtype=int).tolist()})

    def send(number: int) -> None:
        try:
            statuses[number] = http.post(
                f"{server.url}/predict", content=body, headers={"content-type": "application/json"}, timeout=120
            ).status_code
        except httpx.TransportError:
            statuses[number] = 0

    threads = [threading.Thread(target=send, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield statuses
    finally:
        held.go_on()
        for thread in threads:
            thread.join()


@pytest.mark.points(2)
def test_answers_others_while_the_model_runs_and_loads_it_once(submission, fresh_models_dir, tmp_path):
    held = Held(tmp_path, "run", fresh_models_dir)
    with submission.serve_app(FILE, env=held.env) as server:
        (held.folder / "ready").touch()
        with in_the_background(server, held) as statuses:
            held.wait_until_held(server)
            got = [answer(server, path) for path in ("/livez", "/readyz", "/livez")]
            expect(
                got == [200, 200, 200] and not statuses,
                called="GET /livez, /readyz, /livez while batches are in the model",
                got=f"{got}, and {len(statuses)} of the batches were answered before",
                expected="200 each, before any of the batches is answered",
                hint="`async def` runs in the event loop and holds it: `def`, or anyio.to_thread.run_sync",
            )
        expect(
            sorted(statuses.values()) == [200, 200, 200],
            called="POST /predict, three batches at once",
            got=statuses,
            expected="200 each, once the model goes on",
            hint=f"one session can be run from several threads.{server.last_words()}",
        )
        expect(
            held.number_of("load") == 1,
            called="uvicorn ex09_fastapi:app, and three requests",
            got=f"the model was loaded {held.number_of('load')} times",
            expected="once, when the application starts",
            hint="open_model() belongs into lifespan, not into a request and not beside it",
        )


# ------------------------------------------------------------------------------ start and stop


@pytest.mark.points(0.5)
@pytest.mark.parametrize("kind", ["missing", "broken"])
def test_does_not_start_without_a_model(submission, tmp_path, kind):
    if kind == "broken":
        (tmp_path / "resnet18.onnx").write_bytes(b"\x08\x0a" + b"not a model" * 100)
    with submission.starting_app(FILE, env={"MODELS_DIR": str(tmp_path)}) as server:
        if (code := server.exit_code()) is None:
            fail(f"`uvicorn ex09_fastapi:app` goes on without a model that can be loaded.{server.last_words()}")
        log = server.log.read_text(errors="replace")
        expect(
            code != 0 and "resnet18.onnx" in log and "Traceback" not in log,
            called=f"uvicorn ex09_fastapi:app with a {kind} models/resnet18.onnx",
            got=f"exit code {code}: {log[-500:]}",
            expected="a non-zero exit code within 30 s, and one sentence that names the file",
            hint="catch what open_model() raises, log its sentence, and signal.raise_signal(signal.SIGTERM)",
        )


@pytest.mark.points(0.5)
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=["ctrl_c", "sigterm"])
def test_the_script_serves_and_stopping_leaves_no_process(submission, fresh_models_dir, stop):
    port = free_port()
    with submission.start(FILE, "--port", port, env={"MODELS_DIR": str(fresh_models_dir)}) as process:
        server = Server(f"http://127.0.0.1:{port}", process, process.log)
        give_up = time.monotonic() + 60
        while answer(server, "/readyz", patience=1) != 200:
            if process.poll() is not None or time.monotonic() > give_up:
                fail(f"`python ex09_fastapi.py --port {port}` does not serve. {process.log.read_text()[-500:]}")
        os.killpg(process.pid, stop)
        code = wait(process, 20)
        left = left_behind(process)
        expect(
            code is not None and not left and "Traceback" not in process.log.read_text(),
            called=f"python ex09_fastapi.py, then {stop.name}",
            got=f"exit code {code}, processes left: {left}. {process.log.read_text()[-400:]}",
            expected="its end within 20 s, with no process left and no stack trace",
            hint="uvicorn.run(app, port=port) handles both signals",
        )


@pytest.mark.points(0.5)
def test_a_port_that_is_taken_is_one_sentence(submission, server):
    port = httpx.URL(server.url).port
    finished = submission.run(FILE, "--port", port)
    expect(
        finished.code != 0 and str(port) in finished.output and len(finished.output.strip().splitlines()) == 1,
        called=f"python ex09_fastapi.py --port {port}, where something listens already",
        got=f"exit code {finished.code}: {finished.output[-500:]}",
        expected="a non-zero exit code and one sentence that names the port",
        hint="`if not is_free(port): raise Problem(...)` before uvicorn.run",
    )


@pytest.mark.points(0.5)
def test_serves_without_torch(submission, fresh_models_dir, tmp_path):
    """An import of torch or torchvision finds these modules instead, which end the program."""
    for name in ("torch", "torchvision"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} was imported while serving')")
    poisoned = {"MODELS_DIR": str(fresh_models_dir), "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    with submission.serve_app(FILE, env=poisoned) as server:
        image_service.assert_still_serves(server, "where torch and torchvision cannot be imported")
