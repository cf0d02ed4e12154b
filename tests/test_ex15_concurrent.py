"""Exercise 15: two models at the same time, combined by a third service."""

import json
import time

import composed_service
import numpy as np
import pytest
from bad_input import CAT, COFFEE, IMAGES
from composed_service import (  # noqa: F401
    mean,
    test_each_of_400_requests_gets_the_answer_to_its_own_image,
    test_listens_while_an_image_is_decoded,
    test_refuses_in_one_sentence,
)
from image_service import assert_classified, assert_refused, bad_tensor, post_json, tensor
from noted import assert_opens_its_model_once
from small_models import small_models

from course.harness.verdicts import expect
from serving.images import preprocess
from serving.model import best5, labels

SERVICE = "ex15_concurrent.py"
PHOTOGRAPHS = {"/classify": CAT.read_bytes(), "/predict": json.dumps({"image": tensor(CAT).tolist()}).encode()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_models(tmp_path_factory.mktemp("models"), model_a={"white": "slow"}, model_b={"white": "slow"})


@pytest.mark.points(3)
def test_predict_answers_the_mean_of_the_probabilities(server, sessions):
    images = tensor(CAT, COFFEE, CAT)
    response = server.request("POST", "/predict", json={"image": images.tolist()})
    expected = mean(sessions, images)
    got = np.array(response.json()) if response.status_code == 200 else response.text
    expect(
        isinstance(got, np.ndarray) and got.shape == expected.shape and np.allclose(got, expected, atol=1e-4),
        called="POST /predict with three preprocessed photographs as JSON",
        got=got,
        expected="the mean of both models' probabilities, (3, 1000), each row with the sum 1",
        hint=f"softmax each model's logits first, then take the mean.{server.last_words()}",
    )


@pytest.mark.points(1.5)
@pytest.mark.parametrize("kind", ["rgba", "exif_rotated"])
def test_classify_answers_the_five_best_labels(server, sessions, kind):
    data, rgb = IMAGES[kind]()
    expected = best5(mean(sessions, preprocess(rgb))[0], labels(sessions[0]))
    assert_classified(server, data, f"POST /classify with a {kind} image", expected)


@pytest.mark.points(1)
@pytest.mark.parametrize("path", ["/classify", "/predict"])
@pytest.mark.parametrize(("late", "early"), [("ModelA", "ModelB"), ("ModelB", "ModelA")])
def test_asks_one_model_while_the_other_has_not_answered(server, late, early, path):
    composed_service.assert_asks_both(server, late, early, path, PHOTOGRAPHS[path])


@pytest.mark.points(2)
def test_timing_shows_that_both_run_at_the_same_time(server):
    """With an image that takes each model a second, and with a quick one: made-up times do not fit both."""
    for image, least in ((composed_service.WHITE, 50), (CAT.read_bytes(), 0)):
        begun = time.monotonic()
        response = server.request("POST", "/classify", content=image)
        took = 1000 * (time.monotonic() - begun)
        try:
            a, b = (response.json()["timing"][name] for name in ("model_a", "model_b"))
            right = all(0 <= one[0] < one[1] <= took and one[1] - one[0] > least for one in (a, b))
            right &= image is not composed_service.WHITE or min(a[1], b[1]) > max(a[0], b[0])
        except (ValueError, LookupError, TypeError):
            right = False
        expect(
            right,
            called=f"POST /classify with an image that takes each model {'a second' if least else 'no time'}",
            got=f"after {took:.0f} ms {response.status_code} {response.text[-300:]}",
            expected='"timing": {"model_a": [began, ended], "model_b": [began, ended]}, milliseconds after the request '
            "came; where they are long, they overlap",
            hint=f"time.monotonic() before and after session.run, in each model's service.{server.last_words()}",
        )


@pytest.mark.points(0.5)
@pytest.mark.parametrize("service", ["ModelA", "ModelB"])
def test_opens_each_model_once_with_one_thread(server, notes, service):
    assert_opens_its_model_once(server, notes, service, threads=1)


@pytest.mark.points(0.5)
def test_refuses_nan(server):
    assert_refused(server, "POST /predict with NaN", post_json(server, bad_tensor("nan")))


@pytest.mark.points(0.5)
@pytest.mark.parametrize("service", ["ModelA", "ModelB"])
def test_is_ready_only_with_its_dependencies(server, service):
    composed_service.assert_ready_only_with(server, service)


@pytest.mark.points(0.25)
def test_does_not_start_without_both_models(submission, tmp_path):
    composed_service.assert_needs_its_model(submission, SERVICE, small_models(tmp_path), "model_b.onnx")


@pytest.mark.points(0.25)
def test_does_not_start_with_models_of_different_labels(submission, tmp_path):
    composed_service.assert_needs_the_same_labels(submission, SERVICE, small_models(tmp_path))
