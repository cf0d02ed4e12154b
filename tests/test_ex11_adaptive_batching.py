"""Exercise 11: requests run in batches, and nobody notices, except that it is faster."""

import json
import re

import image_service
import numpy as np
import onnxruntime as ort
import pytest
import under_load
from bad_input import BAD_NPY, CAT, COFFEE, npy
from image_api import (  # noqa: F401
    test_classify_answers_the_five_best_labels,
    test_predict_answers_the_models_logits,
)
from locust_runs import (  # noqa: F401
    test_the_locust_file_counts_refusals_as_failures,
    test_the_locust_file_neither_waits_nor_prepares_between_requests,
    test_the_locust_file_sends_each_payload,
)

from course.harness.load import Answer, at_once, tally
from course.harness.server import Server
from course.harness.verdicts import expect

SERVICE = "ex11_adaptive_batching.py"
LIMIT = 32
CHECK = "as_batch or read_npy in the annotation of the argument, which is read before the queue"
USERS = 200


def as_json(images: np.ndarray) -> bytes:
    return json.dumps({"image": images.tolist()}).encode()


def different_images(number: int) -> np.ndarray:
    """No two of them alike, nor their logits: two photographs, shifted and dimmed."""
    photographs = image_service.tensor(CAT, COFFEE).astype("float64")
    dimmed = [np.roll(photographs[i % 2], 9 * i, axis=2) * (1 - 0.7 * i / number) for i in range(number)]
    return np.stack(dimmed).round(3).astype("float32")  # few digits: less JSON


def assert_answers_logits(
    server: Server, session: ort.InferenceSession, images: np.ndarray, answers: list[Answer], called: str
) -> None:
    """Each answer holds the logits of its own images."""
    hint = "max_latency_ms is the time after which requests are cancelled with 503: let it be long. "
    hint += 'traffic={"max_concurrency": 256} lets all of them in'
    under_load.assert_all_served(server, answers, called, hint)
    got = np.concatenate([np.array(json.loads(one.text)) for one in answers])
    image_service.assert_logits(got, session.run(None, {"input": images})[0], called, server)


def batches(server: Server, api: str) -> np.ndarray:
    """What the metric of an API says so far: requests that ran in batches, batches, batches of at most LIMIT requests."""
    lines = server.request("GET", "/metrics").text.splitlines()
    own = [line for line in lines if "adaptive_batch_size" in line and f'method_name="{api}"' in line]

    def largest(kind: str) -> float:
        return max((float(line.rsplit(" ", 1)[1]) for line in own if re.search(kind, line)), default=0)

    return np.array([largest("_sum{"), largest("_count{"), largest(r'_bucket{.*le="([12]?[0-9]|3[0-2])\.0"')], int)


# ------------------------------------------------------------------------------ one caller


@pytest.mark.points(0.5)
@pytest.mark.parametrize("kind", ["float32", "float64", "uint8", "fortran"])
def test_predict_npy_takes_a_npy_file(server, model, kind):
    """Of any numeric type, and with the first axis varying fastest, as MATLAB and some NumPy functions leave it."""
    images = np.random.default_rng(0).integers(0, 4, size=(5, 3, 224, 224))
    array = np.asfortranarray(images, "float32") if kind == "fortran" else images.astype(kind)
    called = f"POST /predict_npy with a {kind} array of shape (5, 3, 224, 224)"
    image_service.assert_predicts(server, model, images, called, npy(array))


# ------------------------------------------------------------------------------ many callers


@pytest.mark.points(3)
def test_each_caller_gets_the_answer_to_their_own_images(working, model):
    """1 to 16 images from each of 16 callers, 136 in all: batches are joined, split at their limit, and taken apart."""
    sizes = np.random.default_rng(0).permutation(np.arange(1, 17))
    images = np.split(different_images(136), np.cumsum(sizes)[:-1])
    answers = at_once(working, "/predict_npy", [npy(own) for own in images], users=16)
    for own, answer in zip(images, answers, strict=True):
        called = f"POST /predict_npy with {len(own)} images, while 15 others send theirs"
        assert_answers_logits(working, model, own, [answer], called)


@pytest.mark.points(1.5)
@pytest.mark.parametrize(("api", "encode"), [("predict", as_json), ("predict_npy", npy)], ids=["json", "npy"])
def test_a_bad_request_harms_no_neighbour(working, model, api, encode):
    """It is refused before the queue: the metric counts the good ones alone."""
    good = different_images(16)
    bad = [encode(np.zeros((1, 3, 224, 223))), encode(np.full((1, 3, 224, 224), np.nan)), encode(np.zeros((17, 1)))]
    bodies = [body for i, one in enumerate(good) for body in (encode(one[np.newaxis]), bad[i % 3])]
    before = batches(working, api)
    answers = at_once(working, f"/{api}", bodies, users=32)
    called = f"16 good and 16 bad POST /{api} at once"
    right, hint = [one.status for one in answers] == [200, 400] * 16, f"{CHECK}.{working.last_words()}"
    expect(right, called=called, got=tally(answers), expected="16 x 200, 16 x 400", hint=hint)
    assert_answers_logits(working, model, good, answers[::2], called)
    queued = (batches(working, api) - before)[0]
    got = f"{queued} requests of {api} in bentoml_service_adaptive_batch_size_sum"
    called = f"{called}, then GET /metrics"
    expect(
        queued == 16, called=called, got=got, expected="16: the good ones", hint=f"@bentoml.api(**BATCHING); {CHECK}"
    )


@pytest.mark.points(3)
def test_batches_form_and_stay_within_the_limit(working, model):
    """With one image a request, requests are rows, so the metric, which counts requests, proves both.

    On images that are nearly white the model takes a tenth of a second: meanwhile, requests gather.
    """
    images = np.random.default_rng(0).uniform(1.8, 2.2, size=(4, 3, 224, 224)).round(3).astype("float32")
    bodies = [npy(one[np.newaxis]) for one in images] * ((USERS + 100) // 4)
    before = batches(working, "predict_npy")
    answers = at_once(working, "/predict_npy", bodies, users=USERS)
    called = f"{len(answers)} x POST /predict_npy from {USERS} users at once, four images in turn"
    for number, image in enumerate(images):
        assert_answers_logits(working, model, np.stack([image] * (len(answers) // 4)), answers[number::4], called)
    queued, number, within = batches(working, "predict_npy") - before
    expect(
        queued == len(answers) and number == within and number <= queued / 4,
        called=f"{called}, then GET /metrics",
        got=f"{queued} requests in {number} batches, {within} of them of at most {LIMIT}",
        expected=f"{len(answers)} requests, in batches of at most {LIMIT} and of far more than one",
        hint=f"@bentoml.api(batchable=True, max_batch_size={LIMIT}, ...).{working.last_words()}",
    )


@pytest.mark.points(1.5)
def test_batching_can_be_switched_off_to_compare(submission, working, small_models_dir, model):
    images = different_images(8)
    with submission.serve(SERVICE, env={"MODELS_DIR": str(small_models_dir), "BATCHING": "0"}) as server:
        answers = at_once(server, "/predict_npy", [npy(one[np.newaxis]) for one in images], users=8)
        assert_answers_logits(server, model, images, answers, "BATCHING=0: POST /predict_npy")
        off = "adaptive_batch_size_count" not in server.request("GET", "/metrics").text
        called, wanted = "BATCHING=0 bentoml serve ..., POST /predict_npy, GET /metrics", "every request runs by itself"
        hint = "@bentoml.api(**BATCHING), where BATCHING is empty"
        expect(off, called=called, got="a count of batches", expected=wanted, hint=hint)


# ------------------------------------------------------------------------------ bad input


@pytest.mark.points(0.5)
def test_predict_refuses_bad_tensors(server):
    image_service.assert_refuses_bad_tensors(server)


@pytest.mark.points(1)
def test_predict_npy_refuses_what_is_no_batch_of_images(server):
    for kind, body in BAD_NPY.items():
        response = server.request("POST", "/predict_npy", content=body)
        image_service.assert_refused(server, f"POST /predict_npy with {kind.replace('_', ' ')}", response)
