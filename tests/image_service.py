"""What a service that classifies images must answer, whichever framework it is written with."""

import json
from pathlib import Path

import httpx
import numpy as np
import onnxruntime as ort
from bad_input import BAD_IMAGES, BAD_JSON, BAD_TENSORS, CAT, IMAGES
from PIL import Image

from course import ROOT
from course.harness.server import Server
from course.harness.submission import Submission
from course.harness.verdicts import expect, fail
from serving.images import preprocess
from serving.model import labels, top5

REFUSE = "check before you compute; BentoML: raise InvalidArgument('expected ...'), FastAPI: HTTPException(400, 'expected ...')"


def tensor(*images: Path) -> np.ndarray:
    return np.concatenate([preprocess(Image.open(image).convert("RGB")) for image in images])


def best_five(session: ort.InferenceSession, image: Image.Image) -> list[dict]:
    return top5(session.run(None, {"input": preprocess(image)})[0][0], labels(session))


def predictions(text: str) -> list[dict]:
    """The predictions of one answer of POST /classify."""
    try:
        return [{"label": one["label"], "probability": one["probability"]} for one in json.loads(text)["predictions"]]
    except (ValueError, LookupError, TypeError):
        fail(f'POST /classify answers something else than {{"predictions": [...]}}: {text[:300]}')


def same(got: list[dict], expected: list[dict]) -> bool:
    """Whether two answers have the same labels and probabilities."""
    return [one["label"] for one in got] == [one["label"] for one in expected] and np.allclose(
        [one["probability"] for one in got], [one["probability"] for one in expected], atol=1e-4
    )


def assert_ok(server: Server, response: httpx.Response, called: str, hint: str) -> None:
    expect_answer(server, response, response.status_code == 200, called, "200", hint)


def expect_answer(server: Server, response: httpx.Response, right: bool, called: str, expected: str, hint: str) -> None:
    """Fail the test with what a service has answered and logged, unless that is right."""
    if not right:
        got = f"{response.status_code} {response.text[:300]}"
        expect(False, called=called, got=got, expected=expected, hint=f"{hint}.{server.last_words()}")


def assert_predicts(
    server: Server, session: ort.InferenceSession, images: np.ndarray, called: str, npy: bytes | None = None
) -> None:
    """POST /predict answers the model's logits; with npy, POST /predict_npy, whose body that is."""
    how = {"json": {"image": images.tolist()}} if npy is None else {"content": npy}
    response = server.request("POST", "/predict" if npy is None else "/predict_npy", **how)
    assert_ok(server, response, called, "run the session on the whole batch")
    assert_logits(response.json(), session.run(None, {"input": images.astype("float32")})[0], called, server)


def assert_logits(got: object, expected: np.ndarray, called: str, server: Server) -> None:
    got = np.array(got) if isinstance(got, list) else got
    expect(
        isinstance(got, np.ndarray) and got.shape == expected.shape and np.allclose(got, expected, atol=1e-4),
        called=called,
        got=got,
        expected=f"the model's logits, {expected.shape}, values {expected.min():.4g} to {expected.max():.4g}, row by row",
        hint=f"return what session.run gives for the whole batch.{server.last_words()}",
    )


def assert_classified(
    server: Server, data: bytes, called: str, expected: list[dict], weights: str | None = None
) -> None:
    """POST /classify answers these labels, and where the weights came from, if that is asked for."""
    response = server.request("POST", "/classify", content=data, headers={"content-type": "image/png"})
    right = response.status_code == 200 and same(predictions(response.text), expected)
    right = right and weights in (None, response.json().get("weights"))
    told = f'"weights": "{weights}"' if weights else "..."
    wanted = f'200 and {{"predictions": {json.dumps(expected)}, {told}}}'
    expect_answer(server, response, right, called, wanted, "open_image, preprocess, session.run, top5, weights")


def assert_classifies(
    server: Server, session: ort.InferenceSession, image: Path | str, weights: str | None = None
) -> None:
    """POST /classify answers the model's five best labels for a file, or for one of IMAGES."""
    if isinstance(image, Path):
        data, rgb, name = image.read_bytes(), Image.open(image).convert("RGB"), image.name
    else:
        (data, rgb), name = IMAGES[image](), f"a {image} image"
    assert_classified(server, data, f"POST /classify with {name}", best_five(session, rgb), weights)


def assert_refused(
    server: Server, called: str, response: httpx.Response, statuses: tuple[int, ...] = (400, 413, 415, 422)
) -> None:
    try:
        said = json.dumps(response.json()).lower()
        says = any(words in said for words in ("expected", "required", "should be", "must be"))
    except ValueError:
        says = False
    right = response.status_code in statuses and says
    expect_answer(server, response, right, called, f"one of {statuses}, and JSON that says what was expected", REFUSE)
    assert_still_serves(server, f"after {called}")


def assert_still_serves(server: Server, when: str) -> None:
    """A service that refuses everybody passes no test."""
    response = server.request("POST", "/classify", content=CAT.read_bytes())
    assert_ok(
        server, response, f"POST /classify with cat.png, {when}", "bad input is refused, and the next caller is served"
    )


def assert_refuses_bad_image(server: Server, kind: str) -> None:
    """POST /classify with one kind of what is not an image."""
    response = server.request("POST", "/classify", content=BAD_IMAGES[kind](), headers={"content-type": "image/png"})
    assert_refused(server, f"POST /classify with {kind.replace('_', ' ')}", response)


def assert_refuses_too_much(server: Server, path: str, megabytes: int, announced: bool = True) -> None:
    """A body over the limit, whether or not the caller says beforehand how long it is."""
    chunk = CAT.read_bytes().ljust(2**20, b" ")
    body = chunk * megabytes if announced else (chunk for _ in range(megabytes))
    response = server.request("POST", path, content=body)
    assert_refused(server, f"POST {path} with {megabytes} MiB", response, statuses=(413,))


def assert_refuses_bad_images(server: Server) -> None:
    """POST /classify with everything that is not an image."""
    for kind in BAD_IMAGES:
        assert_refuses_bad_image(server, kind)
    assert_refuses_too_much(server, "/classify", 11)
    response = server.request("POST", "/classify", files={"image": CAT.read_bytes()})
    assert_refused(server, "POST /classify with a form", response)


def post_json(server: Server, body: bytes | str) -> httpx.Response:
    return server.request("POST", "/predict", content=body, headers={"content-type": "application/json"})


def bad_tensor(kind: str) -> str:
    """The JSON with one of BAD_TENSORS."""
    return json.dumps({"image": BAD_TENSORS[kind]()})


def assert_refuses_json(server: Server, kind: str, body: bytes | str) -> httpx.Response:
    """POST /predict with JSON that is not a tensor: a framework may refuse it in its own words."""
    response = post_json(server, body)
    is_json = response.headers.get("content-type", "").startswith("application/json")
    called, expected = f"POST /predict with {kind.replace('_', ' ')}", "400 or 422, with JSON that says what is wrong"
    hint = (
        "a framework refuses what is not JSON where `image` is a declared argument; BeforeValidator(as_batch) the rest"
    )
    expect_answer(server, response, response.status_code in (400, 422) and is_json, called, expected, hint)
    return response


def assert_refuses_bad_tensors(server: Server) -> None:
    """POST /predict with every tensor and every JSON that it cannot take."""
    for kind, body in [*((kind, bad_tensor(kind)) for kind in BAD_TENSORS), *BAD_JSON.items()]:
        assert_refuses_json(server, kind, body)
    assert_still_serves(server, "after bad tensors")


def assert_does_not_start(submission: Submission, file: str, env: dict[str, str], says: str) -> None:
    """`bentoml serve` ends by itself, with one sentence that holds `says`, before any worker has begun."""
    hint = "check under @bentoml.on_deployment or at import, before any worker starts, and raise BentoMLException"
    with submission.starting(file, env=env) as server:
        assert_ends_with(server, f"bentoml serve {Path(file).stem}:ImageClassifierService", env, says, hint)


def assert_ends_with(
    server: Server, command: str, env: dict[str, str], says: str, hint: str, patience: float = 40
) -> None:
    """A server that is starting ends with one sentence instead."""
    code, log, said = server.exit_code(patience), server.log.read_text(), server.last_words()
    expect(
        code not in (None, 0) and says in log and "Traceback" not in log and len(log) < 1500,
        called=f"{command} with {env}",
        got=("it goes on without a model, or with a wrong setting." if code is None else f"exit code {code}.") + said,
        expected=f"a non-zero exit code within {patience:.0f} s and one sentence with {says!r}",
        hint=hint,
    )


def without_torch(folder: Path, models_dir: Path) -> dict[str, str]:
    """An environment in which an import of torch or torchvision ends the program."""
    for name in ("torch", "torchvision"):
        (folder / f"{name}.py").write_text(f"raise SystemExit('{name} was imported while serving')")
    return {"MODELS_DIR": str(models_dir), "PYTHONPATH": f"{folder}:{ROOT}"}
