"""Exercise 14: a service that prepares images, and one that classifies them."""

import composed_service
import httpx
import pytest
import under_load
from bad_input import CAT
from composed_service import (  # noqa: F401
    assert_listens_while,
    test_each_of_400_requests_gets_the_answer_to_its_own_image,
    test_listens_while_an_image_is_decoded,
    test_refuses_in_one_sentence,
)
from image_service import assert_classifies
from noted import assert_opens_its_model_once
from small_models import small_models

from course.harness import http
from course.harness.verdicts import expect

SERVICE = "ex14_sequential.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_models(tmp_path_factory.mktemp("models"), resnet18={"white": "slow"})


@pytest.fixture(scope="module")
def server(submission, notes):
    with submission.serve(SERVICE, env=notes.env) as running, under_load.Unfinished.during(running):
        yield running


@pytest.mark.points(1)
@pytest.mark.parametrize("kind", ["rgba", "sixteen_bit", "exif_rotated"])
def test_classify_answers_the_five_best_labels(server, model, kind):
    assert_classifies(server, model, kind, weights="random seed 0")


@pytest.mark.points(1)
def test_another_service_prepares_the_image(server):
    """While Preprocessing stands still, nothing is classified."""
    with under_load.stopped(server, "Preprocessing"):
        try:
            got = http.post(f"{server.url}/classify", content=CAT.read_bytes(), timeout=2)
        except httpx.ReadTimeout:
            got = None
    expect(
        got is None or got.status_code == 503,
        called="POST /classify while the worker of Preprocessing stands still (kill -STOP)",
        got=got and f"{got.status_code} {got.text[:200]}",
        expected="no answer before it goes on: the entry prepares no image itself",
        hint="preprocessing = bentoml.depends(Preprocessing), and await self.preprocessing.to_async.prepare(...)",
    )


@pytest.mark.points(1)
def test_opens_its_model_once_with_one_thread(server, notes):
    assert_opens_its_model_once(server, notes, "ImageClassifierService", threads=1)


@pytest.mark.points(1)
def test_listens_while_the_model_runs(server):
    hint = "await to_thread.run_sync(self.run, batch) leaves the event loop free."
    assert_listens_while(server, composed_service.WHITE, "an image for which the model takes a second", hint)


@pytest.mark.points(0.5)
def test_answers_overload(server):
    under_load.assert_answers_overload(server)


@pytest.mark.points(1)
def test_is_ready_only_with_its_dependency(server):
    composed_service.assert_ready_only_with(server, "Preprocessing")


@pytest.mark.points(1)
def test_does_not_start_without_its_model(submission, tmp_path):
    composed_service.assert_needs_its_model(submission, SERVICE, small_models(tmp_path), "resnet18.onnx")


@pytest.mark.points(0.5)
def test_ends_a_request_after_30_s(server):
    """Before the entry's worker is killed, which holds that request."""
    server.unfinished.assert_ended()


@pytest.mark.points(0.5)
@pytest.mark.parametrize("service", ["Preprocessing", "ImageClassifierService"])
def test_survives_a_killed_worker(server, service):
    under_load.assert_survives_a_killed_worker(server, service)


@pytest.mark.points(1)
def test_finishes_on_sigterm(server):
    server.unfinished.close()
    under_load.assert_finishes_on_sigterm(server)
