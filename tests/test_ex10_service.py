"""Exercise 10: resnet18 as a BentoML service that survives its callers, and a client for it."""

import io
import json
import socket
import threading
import time
from pathlib import Path

import bentoml
import numpy as np
import onnxruntime as ort
import pytest
from bentoml.exceptions import BentoMLException
from PIL import Image

from course import ROOT
from course.processes import free_port
from course.submission import Server, Submission, expect, fail
from serving.images import preprocess
from serving.model import labels, top5

CAT, COFFEE = ROOT / "data" / "cat.png", ROOT / "data" / "coffee.png"
SERVICE, CLIENT = "ex10_service.py", "ex10_client.py"


@pytest.fixture(scope="module")
def server(submission: Submission, models_dir: Path):
    with submission.serve(SERVICE, env={"MODELS_DIR": str(models_dir)}) as running:
        yield running


@pytest.fixture(scope="module")
def session(models_dir: Path) -> ort.InferenceSession:
    return ort.InferenceSession(models_dir / "resnet18.onnx")


def tensor(*images: Path) -> np.ndarray:
    return np.concatenate([preprocess(Image.open(image).convert("RGB")) for image in images])


def best_five(session: ort.InferenceSession, image: Image.Image) -> list[dict]:
    return top5(session.run(None, {"input": preprocess(image)})[0][0], labels(session))


# ------------------------------------------------------------------------------ the tensor API


def assert_logits(got: object, expected: np.ndarray, called: str, server: Server) -> None:
    got = np.array(got) if isinstance(got, list) else got
    expect(
        isinstance(got, np.ndarray) and got.shape == expected.shape and np.allclose(got, expected, atol=1e-4),
        called=called,
        got=got,
        expected=f"the model's logits, {expected.shape}, values {expected.min():.4g} to {expected.max():.4g}, row by row",
        hint=f"return what session.run gives for the whole batch.{server.last_words()}",
    )


@pytest.mark.points(2)
def test_predict_answers_the_models_logits(server, session):
    image = tensor(CAT)
    response = server.request("POST", "/predict", json={"image": image.tolist()})
    called = "POST /predict with one preprocessed photograph as JSON"
    expect(
        response.status_code == 200,
        called=called,
        got=f"{response.status_code} {response.text[:200]}",
        expected="200",
        hint=f"run the session on the array.{server.last_words()}",
    )
    assert_logits(response.json(), session.run(None, {"input": image})[0], called, server)


@pytest.mark.points(0.5)
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
def test_predict_takes_a_batch_of_any_numeric_type(server, session, dtype):
    images = np.random.default_rng(0).integers(0, 4, size=(5, 3, 224, 224)).astype(dtype)
    called = f"SyncHTTPClient(url).predict(image={dtype} array of shape (5, 3, 224, 224))"
    try:
        with bentoml.SyncHTTPClient(server.url, timeout=60) as client:
            got = client.predict(image=images)
    except (BentoMLException, AttributeError, TypeError) as error:
        got = error
    assert_logits(got, session.run(None, {"input": images.astype("float32")})[0], called, server)


# ------------------------------------------------------------------------------ the image API


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


@pytest.mark.points(1)
@pytest.mark.parametrize("image", [CAT, COFFEE], ids=lambda path: path.stem)
def test_classify_answers_the_five_best_labels(server, session, image):
    expected = best_five(session, Image.open(image).convert("RGB"))
    assert_classified(server, image.read_bytes(), f"POST /classify with {image.name}", expected)


@pytest.mark.points(0.5)
def test_classify_says_where_the_weights_came_from(server):
    got = server.request("POST", "/classify", content=CAT.read_bytes()).json()
    expect(
        isinstance(got, dict) and got.get("weights") == "random seed 7",
        called="POST /classify with cat.png",
        got=got,
        expected='{"predictions": [...], "weights": "random seed 7"}: whoever sees these labels must know',
        hint=f"weights(session) reads it from the model's metadata.{server.last_words()}",
    )


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def rotated_by_exif() -> tuple[bytes, Image.Image]:
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn me 90 degrees clockwise"
    data = encoded(Image.open(CAT).rotate(90, expand=True), "PNG", exif=exif)
    return data, Image.open(CAT).convert("RGB")


def sixteen_bit() -> tuple[bytes, Image.Image]:
    grey = Image.open(CAT).convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    return encoded(deep, "PNG"), grey.convert("RGB")


def animated() -> tuple[bytes, Image.Image]:
    first = Image.open(CAT).convert("P")
    data = encoded(first, "GIF", save_all=True, append_images=[Image.open(COFFEE).convert("P")])
    return data, first.convert("RGB")


def cmyk() -> tuple[bytes, Image.Image]:
    data = encoded(Image.open(CAT).convert("CMYK"), "JPEG", quality=95)
    return data, Image.open(io.BytesIO(data)).convert("RGB")


def in_mode(mode: str) -> tuple[bytes, Image.Image]:
    image = Image.open(CAT).convert(mode)
    return encoded(image, "PNG"), image.convert("RGB")


IMAGES = {
    "greyscale": lambda: in_mode("L"),
    "palette": lambda: in_mode("P"),
    "rgba": lambda: in_mode("RGBA"),
    "cmyk": cmyk,
    "sixteen_bit": sixteen_bit,
    "exif_rotated": rotated_by_exif,
    "animated": animated,
    "webp": lambda: (encoded(Image.open(CAT), "WEBP", lossless=True), Image.open(CAT).convert("RGB")),
}


@pytest.mark.points(0.25)
@pytest.mark.parametrize("kind", IMAGES)
def test_classify_takes_every_kind_of_image(server, session, kind):
    data, rgb = IMAGES[kind]()
    assert_classified(server, data, f"POST /classify with a {kind} image", best_five(session, rgb))


# ------------------------------------------------------------------------------ bad input


def assert_refused(server: Server, called: str, response, statuses: tuple[int, ...] = (400, 413, 415, 422)) -> None:
    try:
        says = "expected" in json.dumps(response.json()).lower() or "required" in response.text.lower()
    except ValueError:
        says = False
    expect(
        response.status_code in statuses and says,
        called=called,
        got=f"{response.status_code} {response.text[:300]}",
        expected=f"one of {statuses}, and JSON that says what was expected",
        hint=f"check before you compute, and raise InvalidArgument('expected ...').{server.last_words()}",
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


def good() -> np.ndarray:
    return np.zeros((1, 3, 224, 224))


def with_one(value: object) -> list:
    image = good().tolist()
    image[0][2][100][7] = value
    return image


BAD_TENSORS = {
    "null": lambda: None,
    "empty": lambda: [],
    "ragged": lambda: [[good()[0, 0].tolist(), good()[0, 0, :200].tolist(), good()[0, 0].tolist()]],
    "ragged_row": lambda: with_one([0.0]),
    "string": lambda: "cat",
    "strings": lambda: good().astype(str).tolist(),
    "one_string": lambda: with_one("1.5"),
    "one_null": lambda: with_one(None),
    "one_boolean": lambda: with_one(True),
    "dict": lambda: {"pixels": [1, 2, 3]},
    "three_axes": lambda: good()[0].tolist(),
    "five_axes": lambda: [good().tolist()],
    "flat": lambda: good().ravel().tolist(),
    "one_channel": lambda: good()[:, :1].tolist(),
    "four_channels": lambda: np.zeros((1, 4, 224, 224)).tolist(),
    "channels_last": lambda: np.zeros((1, 224, 224, 3)).tolist(),
    "wrong_height": lambda: good()[:, :, :223].tolist(),
    "wrong_width": lambda: good()[:, :, :, :100].tolist(),
    "nan": lambda: with_one(float("nan")),
    "infinity": lambda: with_one(float("-inf")),
    "too_large_for_float32": lambda: with_one(1e300),
    "too_large_for_any": lambda: with_one(10**400),
    "large_batch": lambda: np.zeros((17, 3, 224, 224), dtype=int).tolist(),
}


@pytest.mark.points(0.1)
@pytest.mark.parametrize("kind", BAD_TENSORS)
def test_predict_refuses_bad_tensors(server, kind):
    body = json.dumps({"image": BAD_TENSORS[kind]()})
    response = server.request("POST", "/predict", content=body, headers={"content-type": "application/json"})
    assert_refused(server, f"POST /predict with {kind.replace('_', ' ')}", response)


@pytest.mark.points(0.1)
@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"[1, 2]", b"{}", b'{"picture": []}', b"\xff\xfe{}", b'{"image": ' + b"[" * 100_000],
    ids=["empty", "cut_short", "null", "list", "no_image", "other_name", "not_utf8", "deep"],
)
def test_predict_refuses_bad_json(server, body):
    response = server.request("POST", "/predict", content=body, headers={"content-type": "application/json"})
    says = response.headers.get("content-type", "").startswith("application/json")
    expect(
        response.status_code in (400, 422) and says,
        called=f"POST /predict with the body {body[:20]!r}",
        got=f"{response.status_code} {response.text[:300]}",
        expected="400 or 422, with JSON that says what is wrong",
        hint=f"BentoML does this where `image` is a declared argument.{server.last_words()}",
    )
    assert_still_serves(server, "after bad JSON")


def bomb() -> bytes:
    """A PNG of 6 kB that would take 150 MB as RGB."""
    return encoded(Image.new("1", (10_000, 5_000)), "PNG")


BAD_IMAGES = {
    "empty": lambda: b"",
    "text": lambda: b"I am not an image.",
    "truncated_png": lambda: CAT.read_bytes()[:100_000],
    "truncated_jpeg": lambda: encoded(Image.open(CAT), "JPEG")[:9_000],
    "bomb": bomb,
    "larger_bomb": lambda: encoded(Image.new("1", (20_000, 10_000)), "PNG"),
    "strip": lambda: encoded(Image.new("RGB", (1, 40_000)), "PNG"),
    "postscript": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    "url": lambda: b"http://localhost/cat.png",
}


@pytest.mark.points(0.2)
@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_classify_refuses_what_is_no_image(server, kind):
    response = server.request("POST", "/classify", content=BAD_IMAGES[kind](), headers={"content-type": "image/png"})
    assert_refused(server, f"POST /classify with {kind.replace('_', ' ')}", response)


@pytest.mark.points(0.5)
@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
@pytest.mark.parametrize(("path", "megabytes"), [("/classify", 11), ("/predict", 65)], ids=["classify", "predict"])
def test_refuses_a_body_over_the_limit(server, path, megabytes, announced):
    """10 MiB for an image, 64 MiB for a tensor; whether or not the caller says beforehand how long it is."""
    chunk = CAT.read_bytes().ljust(2**20, b" ")
    body = chunk * megabytes if announced else (chunk for _ in range(megabytes))
    response = server.request("POST", path, content=body)
    assert_refused(server, f"POST {path} with {megabytes} MiB", response, statuses=(413,))


@pytest.mark.points(0.1)
@pytest.mark.parametrize("path", ["/predict", "/classify"])
@pytest.mark.parametrize(
    "content_type", ["multipart/form-data", "multipart/form-data; boundary=x", "application/vnd.bentoml+pickle"]
)
def test_refuses_forms_and_pickles(server, path, content_type):
    assert_still_serves(server, "before that")
    response = server.request("POST", path, content=CAT.read_bytes(), headers={"content-type": content_type})
    expect(
        response.status_code in (400, 415),
        called=f"POST {path} with the content type {content_type}",
        got=f"{response.status_code} {response.text[:300]}",
        expected="415 (or 400)",
        hint="add_asgi_middleware(RequestLimits, ...) refuses forms before BentoML parses them",
    )
    assert_still_serves(server, f"after a body of type {content_type}")


@pytest.mark.points(1)
def test_never_fetches_a_url_for_a_caller(server):
    """An address inside the server's network is a secret that a caller must not reach through it."""
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(3)

        def listen() -> None:
            try:
                asked.append(listener.accept())
            except TimeoutError:
                return

        thread = threading.Thread(target=listen)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/cat.png"
        for path in ("/classify", "/predict"):
            server.request("POST", path, content=url.encode(), headers={"content-type": "text/plain"})
            server.request("POST", path, content=url.encode(), headers={"content-type": "application/json"})
            server.request("POST", path, json={"image": url})
            server.request("POST", path, data={"image": url})
            server.request("POST", path, files={"image": (None, url)})
        thread.join()
    if asked:
        fail(f"The service connected to {url}, an address that only a caller named. Take bytes, not Path or Image.")
    assert_still_serves(server, "after URLs")


# ------------------------------------------------------------------------------ start and stop


def start_without_a_model(submission: Submission, folder: Path) -> tuple[int, str]:
    """The exit code and the log of a service that ought to give up."""
    give_up = time.monotonic() + 30
    with submission.starting(SERVICE, env={"MODELS_DIR": str(folder)}) as server:
        while server.process.poll() is None:
            log = server.log.read_text(errors="replace")
            if time.monotonic() > give_up or "Service ImageClassifierService initialized" in log:
                fail(f"`bentoml serve` goes on without a model that can be loaded.{server.last_words()}")
            time.sleep(0.1)
        return server.process.returncode, server.log.read_text(errors="replace")


@pytest.mark.points(0.5)
@pytest.mark.parametrize("kind", ["missing", "broken"])
def test_does_not_start_without_a_model(submission, tmp_path, kind):
    if kind == "broken":
        (tmp_path / "resnet18.onnx").write_bytes(b"\x08\x0a" + b"not a model" * 100)
    code, log = start_without_a_model(submission, tmp_path)
    expect(
        code != 0 and "resnet18.onnx" in log and "Traceback" not in log,
        called=f"bentoml serve with a {kind} models/resnet18.onnx",
        got=f"exit code {code}: {log[-500:]}",
        expected="a non-zero exit code within 30 s and one sentence that names the file",
        hint="check the model under @bentoml.on_deployment and raise BentoMLException with a sentence",
    )


@pytest.mark.points(0.5)
def test_serves_without_torch(submission, models_dir, tmp_path):
    """Whoever imports torch or torchvision here gets these modules instead, which end the import."""
    for name in ("torch", "torchvision"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} was imported while serving')")
    poisoned = {"MODELS_DIR": str(models_dir), "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    with submission.serve(SERVICE, env=poisoned) as server:
        response = server.request("POST", "/classify", content=CAT.read_bytes())
        expect(
            response.status_code == 200,
            called="POST /classify where torch and torchvision cannot be imported",
            got=f"{response.status_code} {response.text[:200]}",
            expected="200",
            hint=f"serving needs ONNX Runtime, NumPy and Pillow alone.{server.last_words()}",
        )


# ------------------------------------------------------------------------------ the client


@pytest.mark.points(1)
def test_client_prints_the_labels(submission, server, session):
    finished = submission.run(CLIENT, CAT, COFFEE, "--url", server.url)
    wanted = [best_five(session, Image.open(image).convert("RGB"))[0]["label"] for image in (CAT, COFFEE)]
    expect(
        finished.code == 0 and all(text in finished.output for text in [*wanted, "cat.png", "coffee.png", "RANDOM"]),
        called=f"python ex10_client.py cat.png coffee.png --url {server.url}",
        got=f"exit code {finished.code}: {finished.output[-600:]}",
        expected=f"a table with both files and labels such as {wanted}, and a warning that the weights are RANDOM",
        hint="with bentoml.SyncHTTPClient(url) as client: client.classify(path.read_bytes())",
    )


@pytest.mark.points(0.5)
def test_client_says_what_to_do_when_nothing_listens(submission):
    finished = submission.run(CLIENT, CAT, "--url", f"http://127.0.0.1:{free_port()}")
    expect(
        finished.code != 0 and "make serve" in finished.output and "Traceback" not in finished.output,
        called="python ex10_client.py cat.png --url (a port where nothing listens)",
        got=f"exit code {finished.code}: {finished.output[-500:]}",
        expected="a non-zero exit code and a sentence that says to start the service with `make serve`",
        hint="catch httpx.TransportError and raise Problem('...')",
    )


@pytest.mark.points(0.5)
def test_client_goes_on_after_a_file_that_is_refused(submission, server, tmp_path):
    (tmp_path / "note.txt").write_text("not an image")
    finished = submission.run(CLIENT, tmp_path / "note.txt", CAT, "--url", server.url)
    expect(
        finished.code != 0
        and "cat.png" in finished.output
        and "note.txt" in finished.output
        and "Traceback" not in finished.output,
        called="python ex10_client.py note.txt cat.png",
        got=f"exit code {finished.code}: {finished.output[-500:]}",
        expected="a non-zero exit code, cat.png's labels, and a sentence that note.txt was refused",
        hint="catch BentoMLException for each file",
    )
