"""Graded tests of exercises 09 to 13: both APIs, and what callers send."""

import image_service
import numpy as np
import pytest
from bad_input import BAD_IMAGES, BAD_JSON, BAD_TENSORS, CAT, COFFEE, IMAGES
from image_service import assert_refused
from under_load import Alone

from course.harness.load import PHOTOGRAPHS, at_once, tally
from course.harness.verdicts import expect
from serving.model import weights

# ------------------------------------------------------------------------------ answers


@pytest.mark.points(1)
def test_predict_answers_the_models_logits(server, model):
    images = image_service.tensor(CAT, COFFEE)
    image_service.assert_predicts(server, model, images, "POST /predict with two preprocessed photographs as JSON")


@pytest.mark.points(0.25)
@pytest.mark.parametrize("dtype", ["float64", "uint8"])
def test_predict_takes_a_batch_of_any_numeric_type(server, model, dtype):
    images = np.random.default_rng(0).integers(0, 4, size=(16, 3, 224, 224)).astype(dtype)
    image_service.assert_predicts(server, model, images, f"POST /predict with 16 images of {dtype} numbers")


@pytest.mark.points(0.5)
@pytest.mark.parametrize("image", [CAT, COFFEE], ids=lambda path: path.stem)
def test_classify_answers_the_five_best_labels(server, model, image):
    image_service.assert_classifies(server, model, image, weights=weights(model))


@pytest.mark.points(0.125)
@pytest.mark.parametrize("kind", IMAGES)
def test_classify_takes_every_kind_of_image(server, model, kind):
    image_service.assert_classifies(server, model, kind)


@pytest.mark.points(0.5)
def test_classify_takes_what_curl_sends(server):
    """`curl --data-binary` calls every body a form."""
    headers = {"content-type": "application/x-www-form-urlencoded"}
    response = server.request("POST", "/classify", content=CAT.read_bytes(), headers=headers)
    called, hint = "curl --data-binary @data/cat.png .../classify", "RequestLimits lets curl's bodies through"
    image_service.assert_ok(server, response, called, hint)


@pytest.mark.points(1)
def test_each_caller_gets_the_answer_to_their_own_image(server):
    """Also while others send what is not an image."""
    alone = Alone(server)
    bodies = 10 * [*PHOTOGRAPHS, b"not an image", b""]
    answered, called = at_once(server, "/classify", bodies, users=40), "40 POST /classify at once, half of them bad"
    right = [one.status for one in answered] == 10 * [200, 200, 400, 400]
    hint = f"a request must not fail because of others.{server.last_words()}"
    expect(right, called=called, got=tally(answered), expected="200 for the images, 400 for the others", hint=hint)
    alone.assert_same(answered, called)


# ------------------------------------------------------------------------------ bad input


@pytest.mark.points(0.05)
@pytest.mark.parametrize("kind", BAD_TENSORS)
def test_predict_refuses_bad_tensors(server, kind):
    response = image_service.post_json(server, image_service.bad_tensor(kind))
    called = f"POST /predict with {kind.replace('_', ' ')}"
    assert_refused(server, called, response)
    assert_short(server, called, response)


@pytest.mark.points(0.05)
@pytest.mark.parametrize("kind", BAD_JSON)
def test_predict_refuses_bad_json(server, kind):
    response = image_service.assert_refuses_json(server, kind, BAD_JSON[kind])
    assert_short(server, f"POST /predict with {kind} as JSON", response)
    image_service.assert_still_serves(server, "after bad JSON")


def assert_short(server, called, response):
    """The input is not sent back with the refusal."""
    hint = "FastAPI's own handler of RequestValidationError sends the input back: write another"
    image_service.expect_answer(server, response, len(response.content) < 1000, called, "one sentence", hint)


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
@pytest.mark.parametrize("content_type", ["multipart/form-data", "Multipart/Form-Data; boundary=x"])
def test_refuses_forms(server, path, content_type):
    image_service.assert_still_serves(server, "before that")
    response = server.request("POST", path, content=CAT.read_bytes(), headers={"content-type": content_type})
    assert_refused(server, f"POST {path} with the content type {content_type}", response, statuses=(400, 415))
