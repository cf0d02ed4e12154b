"""What the tests of exercises 17 and 18 share: a project to pack, containers of its services, and what is asked of them."""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from bad_input import CAT
from image_builds import container

from course import ROOT
from course.base import docker
from course.harness import http
from course.harness.submission import Submission
from course.harness.verdicts import expect, fail
from serving import Problem
from serving.images import open_image, preprocess
from serving.model import best5, labels, open_model, softmax

# A cold cache takes minutes: BentoML's image installs a compiler. A warm one: seconds.
PATIENCE = 1500
DOCKERFILE = "dockerfiles/bentoml_service.dockerfile"
MODELS = {"ex10_service": "resnet18.onnx", "ex16_pipeline": "model_[ab].onnx"}
# What an orchestrator that trusts nobody gives a container.
CONFINED = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges")
# None of these may be in an image; the texts are looked for, too.
DECOYS = (".env", ".git/config", "README.md", "tests/test_ex00_decoy.py", "serving/key.pem", "solutions/decoy.py")


def make_project(folder: Path, models_dir: Path) -> Path:
    """A project as this one, with the tests' models, two services that are right, and what must stay out of images."""
    shutil.copytree(ROOT / "serving", folder / "serving", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "dockerfiles", folder / "dockerfiles")
    for file in (".dockerignore", "requirements-serving.txt"):
        shutil.copy(ROOT / file, folder)
    (folder / "models").mkdir()
    for model in ("resnet18", "model_a", "model_b"):
        shutil.copy(models_dir / f"{model}.onnx", folder / "models")
    for package in ("solutions", "exercises"):  # whichever of the two the files under test name
        (folder / package).mkdir()
        for service in MODELS:
            shutil.copy(ROOT / "solutions" / f"{service}.py", folder / package)
    for decoy in DECOYS:
        (folder / decoy).parent.mkdir(exist_ok=True, parents=True)
        (folder / decoy).write_text("decoy-of-the-tests\n")
    return folder


def written(submission: Submission, file: str) -> Path:
    """A file of the submission; fails the test where it still is the starter."""
    path = submission.existing(file)
    if "TODO" in path.read_text():
        fail(f"{file} is not written yet: it still says TODO.")
    return path


def tag_of(submission: Submission, name: str) -> str:
    """A name for an image that other submissions, tested at the same time, do not use."""
    return f"course-test/{name}:{hashlib.sha256(f'{submission.scratch}'.encode()).hexdigest()[:8]}"


def build_by_hand(dockerfile: Path, service: str, project: Path, tag: str, log: Path) -> str:
    """Build the image of a service with a Dockerfile, and return its tag; fails the test where that fails."""
    try:
        args = {"SERVICE": service, "MODELS": MODELS[service]}
        docker.build(dockerfile, tag, args=args, context=project, log=log, timeout=PATIENCE)
    except Problem as problem:
        fail(str(problem))
    return tag


@contextmanager
def serving(
    image: str, *options: str, port: int = 3000, deadline: float = 90, **more: Any
) -> Iterator[docker.Container]:
    """A container that is ready; the test fails where it does not become so."""
    with container(image, *options, port=port, **more) as running:
        running.wait_until_ready(deadline=deadline)
        yield running


def best_labels(*models: Path) -> list[str]:
    """The five best labels of the photograph, by the mean of what the models themselves say."""
    sessions = [open_model(model) for model in models]
    batch = preprocess(open_image(CAT.read_bytes()))
    mean = np.mean([softmax(session.run(None, {"input": batch})[0])[0] for session in sessions], axis=0)
    return [one["label"] for one in best5(mean, labels(sessions[0]))]


def assert_classifies(container: docker.Container, wanted: list[str], called: str) -> None:
    """POST /classify answers with these labels, best first."""
    try:
        answer = http.post(f"{container.url}/classify", content=CAT.read_bytes(), timeout=60)
        got = [one["label"] for one in answer.json()["predictions"]] if answer.status_code == 200 else answer.text
    except (httpx.HTTPError, ValueError, LookupError) as error:
        got = repr(error)
    expect(
        got == wanted,
        called=called,
        got=f"{got} {container.last_words() if got != wanted else ''}",
        expected=f"{wanted}, as the model itself answers",
        hint="the model that was copied is the one that is asked for; MODELS_DIR is not set in a container",
    )


def worker(container: docker.Container, service: str) -> int | None:
    """The number, inside its container, of one worker process of a service."""
    code = f"""
import pathlib
for line in pathlib.Path('/proc').glob('[0-9]*/cmdline'):
    words = line.read_bytes().split(bytes(1))
    if b'_bentoml_impl.worker.service' in words and b'{service}' in words:
        print(line.parts[2])
"""
    return next(map(int, container.run("python", "-c", code).split()), None)
