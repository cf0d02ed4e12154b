"""What a service that classifies images must answer, whichever framework it is written with."""

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
from bad_input import BAD_IMAGES, BAD_JSON, BAD_TENSORS, CAT
from PIL import Image

from course.harness.server import Server
from course.harness.submission import Submission
from course.harness.verdicts import expect, fail
from serving.images import preprocess
from serving.model import labels, top5


def tensor(*images: Path) -> np.ndarray:
    return np.concatenate([preprocess(Image.open(image).convert("RGB")) for image in images])


def best_five(session: ort.InferenceSession, image: Image.Image) -> list[dict]:
    return top5(session.run(None, {"input": preprocess(image)})[0][0], labels(session))


def assert_logits(got: object, expected: np.ndarray, called: str, server: Server) -> None:
    got = np.array(got) if isinstance(got, list) else got
    expect(
        isinstance(got, np.ndarray) and got.shape == expected.shape and np.allclose(got, expected, atol=1e-4),
        called=called,
        got=got,
        expected=f"the model's logits, {expected.shape}, values {expected.min():.4g} to {expected.max():.4g}, row by row",
        hint=f"return what session.run gives for the whole batch.{server.last_words()}",
    )


def assert_classified(server: Server, data: bytes, called: str, expected: list[dict]) -> None:
    response = server.request("POST", "/classify", content=data, headers={"content-type": "image/png"})
    try:
        got = response.json()["predictions"]
        right = [one["label"] for one in got] == [one["label"] for one in expected] and np.allclose(
            [one["probability"] for one in got], [one["probability"] for one in expected], atol=1e-4
        )
    except (ValueError, KeyError, TypeError):
        right = False
    expect(
        response.status_code == 200 and right,
        called=called,
        got=f"{response.status_code} {response.text[:400]}",
        expected=f'200 and {{"predictions": {json.dumps(expected)}, ...}}',
        hint=f"open_image, preprocess, session.run, top5.{server.last_words()}",
    )


def assert_refused(server: Server, called: str, response, statuses: tuple[int, ...] = (400, 413, 415, 422)) -> None:
    try:
        said = json.dumps(response.json()).lower()
        says = any(words in said for words in ("expected", "required", "should be", "must be"))
    except ValueError:
        says = False
    expect(
        response.status_code in statuses and says,
        called=called,
        got=f"{response.status_code} {response.text[:300]}",
        expected=f"one of {statuses}, and JSON that says what was expected",
        hint=f"check before you compute; BentoML: raise InvalidArgument('expected ...'), FastAPI: HTTPException(400, 'expected ...').{server.last_words()}",
    )
    assert_still_serves(server, f"after {called}")


def assert_still_serves(server: Server, when: str) -> None:
    """Refusing everybody is no merit."""
    response = server.request("POST", "/classify", content=CAT.read_bytes())
    expect(
        response.status_code == 200,
        called=f"POST /classify with cat.png, {when}",
        got=f"{response.status_code} {response.text[:200]}",
        expected="200: bad input is refused, and the next caller is served",
        hint=f"open_image, preprocess, session.run, top5.{server.last_words()}",
    )


def assert_refuses_bad_images(server: Server) -> None:
    """POST /classify with everything that is no image."""
    for kind, make in BAD_IMAGES.items():
        response = server.request("POST", "/classify", content=make(), headers={"content-type": "image/png"})
        assert_refused(server, f"POST /classify with {kind.replace('_', ' ')}", response)
    response = server.request("POST", "/classify", content=CAT.read_bytes().ljust(11 * 2**20, b" "))
    assert_refused(server, "POST /classify with 11 MiB", response, statuses=(413,))
    response = server.request("POST", "/classify", files={"image": CAT.read_bytes()})
    assert_refused(server, "POST /classify with a form", response)


def assert_refuses_bad_tensors(server: Server) -> None:
    """POST /predict with every tensor and every JSON that it cannot take."""
    bodies = {kind: json.dumps({"image": make()}) for kind, make in BAD_TENSORS.items()} | BAD_JSON
    for kind, body in bodies.items():
        response = server.request("POST", "/predict", content=body, headers={"content-type": "application/json"})
        expect(
            response.status_code in (400, 422) and response.headers["content-type"].startswith("application/json"),
            called=f"POST /predict with {kind.replace('_', ' ')}",
            got=f"{response.status_code} {response.text[:300]}",
            expected="400 or 422, with JSON that says what is wrong",
            hint=f"BeforeValidator(as_batch) in the annotation of `image`.{server.last_words()}",
        )
    assert_still_serves(server, "after bad tensors")


def assert_does_not_start(submission: Submission, file: str, env: dict[str, str], says: str) -> None:
    """`bentoml serve` ends by itself, with one sentence that holds `says`, before any worker has begun."""
    with submission.starting(file, env=env) as server:
        if (code := server.exit_code()) is None:
            fail(f"`bentoml serve` goes on without a model that can be loaded.{server.last_words()}")
        log = server.log.read_text(errors="replace")
    expect(
        code != 0 and says in log and "Traceback" not in log,
        called=f"bentoml serve {file.removesuffix('.py')}:ImageClassifierService with {env}",
        got=f"exit code {code}: {log[-500:]}",
        expected=f"a non-zero exit code within 30 s and one sentence with {says!r}",
        hint="check the model under @bentoml.on_deployment, before any worker starts, and raise BentoMLException",
    )
