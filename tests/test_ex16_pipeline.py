"""Exercise 16: preprocess, two models at once, combine, label."""

import composed_service
import httpx
import pytest
import under_load
from bad_input import CAT, IMAGES
from composed_service import (  # noqa: F401
    mean,
    test_each_of_400_requests_gets_the_answer_to_its_own_image,
    test_listens_while_an_image_is_decoded,
    test_refuses_in_one_sentence,
)
from image_service import assert_classified, assert_still_serves, expect_answer
from noted import assert_opens_its_model_once
from small_models import small_models

from serving.images import preprocess
from serving.model import best5, labels

SERVICE = "ex16_pipeline.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """On a white image ONNX Runtime cannot run model_b; of a black one model_a makes NaN."""
    return small_models(tmp_path_factory.mktemp("models"), model_a={"black": "nan"}, model_b={"white": "fails"})


@pytest.mark.points(1)
@pytest.mark.parametrize("kind", ["rgba", "exif_rotated"])
def test_classify_answers_the_five_best_labels(server, sessions, kind):
    data, rgb = IMAGES[kind]()
    expected = best5(mean(sessions, preprocess(rgb))[0], labels(sessions[0]))
    assert_classified(server, data, f"POST /classify with a {kind} image", expected)


@pytest.mark.points(1)
@pytest.mark.parametrize(("late", "early"), [("ModelA", "ModelB"), ("ModelB", "ModelA")])
def test_asks_one_model_while_the_other_has_not_answered(server, late, early):
    composed_service.assert_asks_both(server, late, early)


def assert_names(server, response: httpx.Response, guilty: str, called: str) -> None:
    innocent = "model_a" if guilty == "model_b" else "model_b"
    right = response.status_code in (502, 503) and guilty in response.text and innocent not in response.text
    hint = "BentoML hides what a BentoMLException of 500 or more says: return a starlette JSONResponse"
    expect_answer(server, response, right, called, f"503 (or 502) with a body that names {guilty}", hint)
    assert_still_serves(server, f"after {called}")


@pytest.mark.points(1)
@pytest.mark.parametrize(
    ("image", "guilty", "what"),
    [(composed_service.WHITE, "model_b", "cannot run"), (composed_service.BLACK, "model_a", "gives NaN")],
    ids=["error", "nan"],
)
def test_names_the_model_that_fails(server, image, guilty, what):
    response = server.request("POST", "/classify", content=image)
    assert_names(server, response, guilty, f"POST /classify with an image on which {guilty} {what}")


@pytest.mark.points(1)
def test_names_the_model_that_does_not_answer(server):
    with under_load.stopped(server, "ModelA"):
        response = server.request("POST", "/classify", content=CAT.read_bytes())
    called = "POST /classify while the worker of ModelA stands still (kill -STOP)"
    assert_names(server, response, "model_a", called)


@pytest.mark.points(0.5)
@pytest.mark.parametrize("service", ["ModelA", "ModelB"])
def test_opens_each_model_once_with_one_thread(server, notes, service):
    assert_opens_its_model_once(server, notes, service, threads=1)


@pytest.mark.points(1)
def test_answers_overload(server):
    under_load.assert_answers_overload(server)


@pytest.mark.points(0.5)
@pytest.mark.parametrize("service", ["ModelA", "ModelB"])
def test_is_ready_only_with_its_dependencies(server, service):
    composed_service.assert_ready_only_with(server, service)


@pytest.mark.points(1)
@pytest.mark.parametrize("service", ["ModelA", "ModelB"])
def test_a_killed_worker_of_a_model_costs_nothing(server, service):
    under_load.assert_survives_a_killed_worker(server, service, may_lose=0)


@pytest.mark.points(1)
def test_survives_a_killed_worker(server):
    under_load.assert_survives_a_killed_worker(server)


@pytest.mark.points(1)
def test_a_new_model_file_harms_nobody(server, folder):
    under_load.assert_unharmed_by_a_new_model(server, folder, "model_a.onnx")


@pytest.mark.points(1)
def test_finishes_on_sigterm(server):
    under_load.assert_finishes_on_sigterm(server)
