"""Exercise 08: images that hold what they run, and nothing else. They are built and run by a real engine."""

import shutil
import subprocess
import time
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from socket import socket

import httpx
import numpy as np
import pytest
from image_builds import (
    PATIENCE,
    assert_hadolint_finds_nothing,
    assert_healthy,
    assert_holds,
    assert_labels,
    assert_not_root,
    build,
    container,
    make_context,
)
from scripts import expect_equal

from course import ROOT
from course.base import docker
from course.harness import http
from course.harness.verdicts import expect, fail
from serving import Problem
from serving.images import open_image, preprocess
from serving.model import labels, open_model, top5

pytestmark = [pytest.mark.docker, pytest.mark.timeout(PATIENCE)]

CAT = ROOT / "data" / "cat.png"
KINDS = ("onnx", "pytorch")
EACH = pytest.mark.parametrize("kind", KINDS)
MODEL = {"onnx": "models/resnet18.onnx", "pytorch": "models/resnet18.pt2"}


@pytest.fixture(scope="module")
def context(models_dir, tmp_path_factory) -> Path:
    return make_context(tmp_path_factory.mktemp("context"), models_dir)


@pytest.fixture(scope="module")
def images(submission, context):
    """Builds what is asked for, once; `images("onnx")` is a tag. They are removed at the end, Docker's cache stays."""
    tags: dict[tuple[str, str], str | Problem] = {}

    def image(kind: str, cuda: str = "") -> str:
        if (kind, cuda) not in tags:
            try:
                tags[kind, cuda] = build(submission, kind, context, cuda=cuda)
            except Problem as problem:
                tags[kind, cuda] = problem
        if isinstance(tag := tags[kind, cuda], Problem):
            fail(str(tag))
        return tag

    yield image
    for tag in tags.values():
        if isinstance(tag, str):
            docker.remove(tag)


@pytest.fixture(scope="module")
def containers(images):
    """One container of each image, left running for the tests that only ask it something."""
    with ExitStack() as running:

        @cache
        def of(kind: str) -> docker.Container:
            ready(one := running.enter_context(container(images(kind), "--cpus=1")))
            return one

        yield of


def ready(container: docker.Container, **options) -> None:
    try:
        container.wait_until_ready(**options)
    except Problem as problem:
        fail(str(problem))


def classify(container: docker.Container) -> list[dict]:
    try:
        answer = http.post(f"{container.url}/classify", content=CAT.read_bytes(), timeout=60)
    except httpx.HTTPError as error:
        fail(f"POST /classify got no answer: {error!r}. {container.last_words()}")
    expect(
        answer.status_code == 200,
        called="POST /classify with a photograph",
        got=f"{answer.status_code} {answer.text[:200]}",
        expected="200 and five labels",
        hint="the container runs `python -m serving.inference` with the model that was copied into it",
    )
    return answer.json()["predictions"]


@EACH
@pytest.mark.points(2)
def test_an_image_classifies_a_photograph_as_the_model_does(kind, containers, models_dir):
    session = open_model(models_dir / "resnet18.onnx")
    logits = session.run(["output"], {"input": preprocess(open_image(CAT.read_bytes()))})[0]
    expected = top5(logits[0], labels(session))
    got = classify(containers(kind))
    expect(
        [one["label"] for one in got] == [one["label"] for one in expected]
        and np.allclose([one["probability"] for one in got], [one["probability"] for one in expected], rtol=1e-3),
        called=f"POST /classify, {kind} without CUDA",
        got=got,
        expected=f"{expected}, as ONNX Runtime answers outside of the image",
        hint="is it models/resnet18.onnx, or .pt2, that was copied?",
    )


@EACH
@pytest.mark.points(0.5)
def test_an_image_does_not_run_as_root(kind, images, containers):
    assert_not_root(images(kind), containers(kind), f"{kind} image")


@EACH
@pytest.mark.points(1)
def test_an_image_holds_what_runs_and_nothing_of_what_built_it(kind, images):
    other_model = "pt2" if kind == "onnx" else "onnx"
    unwanted = {
        "pip's cache": r"/\.cache/pip/",
        "the course's tests": r"/test_ex\d\d_",
        "a repository": r"/\.git/",
        "models that it does not run": rf"/resnet18\.{other_model}$",
    }
    assert_holds(images(kind), f"{kind} image", needed="serving/inference.py", unwanted=unwanted)
    if kind == "onnx":
        told = "ORT_DISABLE_TELEMETRY=1" in docker.inspect(images(kind))["Config"]["Env"]
        hint = "ENV ORT_DISABLE_TELEMETRY=1 in the last stage: ONNX Runtime reports its use otherwise"
        expect_equal(told, True, called="docker inspect: whether Env holds ORT_DISABLE_TELEMETRY=1", hint=hint)


@pytest.mark.points(1)
def test_the_image_of_onnx_runtime_is_small(images):
    """Environment 160 MB and model 47, without any care but a stage that stays behind; the solution has 166 in all."""
    above = (docker.size(images("onnx")) - docker.size(docker.base_image())) / 1e6
    largest = sorted(docker.layers(images("onnx")), key=lambda layer: -layer.size)[1:4]
    expect(
        above < 240,
        called="docker history, the size of the ONNX Runtime image without CUDA above its base",
        got=f"{above:.0f} MB; the largest layers: "
        + "; ".join(f"{one.size / 1e6:.0f} MB {one.made_by[:60]}" for one in largest),
        expected="less than 240 MB",
        hint="wheels, caches and build tools belong into a stage that stays behind",
    )


@EACH
@pytest.mark.points(0.5)
def test_a_container_is_found_healthy_on_the_port_that_it_is_given(kind, images):
    """And with less than it would be given: a read-only file system but for /tmp, no capabilities."""
    options = ("--env=PORT=8080", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges")
    with container(images(kind), *options, port=8080) as running:
        ready(running)
        assert_healthy(
            running,
            called=f"docker run {' '.join(options)}; docker inspect: Health of the {kind} container",
            hint="HEALTHCHECK asks /readyz on the port that PORT names, with Python: slim images have no curl",
        )


@pytest.mark.points(1)
def test_a_container_stops_when_it_is_told_to_and_serves_again_after_it_was_killed(images):
    with container(images("onnx")) as running:
        ready(running)
        first = classify(running)
        begin = time.monotonic()
        docker.docker("stop", "--time=30", running.name)
        code = running.wait(1)
        expect(
            code == 0,
            called="docker stop --time=30",
            got=f"exit code {code} after {time.monotonic() - begin:.0f} s",
            expected="exit code 0: SIGTERM reached the server, which ended by itself (137: it was killed)",
            hint='ENTRYPOINT ["python", ...] is a list: with a string, process 1 is a shell that passes nothing on',
        )
        for end in ("start", "kill", "start"):
            docker.docker(end, running.name)
        del running.url  # a new port
        ready(running)
        assert classify(running) == first


@EACH
@pytest.mark.points(0.5)
def test_what_a_user_can_get_wrong_ends_with_one_sentence(kind, images):
    cases = {
        "There is no model at /nowhere": (["--publish=3000"], ["/nowhere/model.onnx"]),
        "is taken": (["--network=host"], []),
    }
    with socket() as listener:  # a port that is taken
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        port = listener.getsockname()[1]
        for sentence, (options, arguments) in cases.items():
            run = (images(kind), *options, f"--env=PORT={port}")
            with container(*run, arguments=tuple(arguments), publish=False) as running:
                code, said = running.wait(60), running.logs()
            expect(
                code not in (0, None) and sentence in said and "Traceback" not in said,
                called=f"docker run {' '.join(options)} {kind} image {' '.join(arguments)}",
                got=f"exit code {code}: {said[-300:]}",
                expected=f"an exit code other than 0, and a sentence with {sentence!r}",
                hint="what stands after the image's name replaces CMD and is handed to ENTRYPOINT",
            )


def refusal(submission, kind: str, context: Path, built: str, cuda: str = "") -> str:
    """What Docker says of a build that must fail. Fails the test with the sentence `built` where there is an image."""
    try:
        docker.remove(build(submission, kind, context, cuda=cuda))
    except Problem as problem:
        return str(problem)
    fail(built)


@EACH
@pytest.mark.points(0.5)
@pytest.mark.parametrize("cuda", ["yes", "True"])
def test_a_misspelt_cuda_is_refused(kind, cuda, images, submission, context):
    built = (
        f"docker build --build-arg CUDA={cuda} built an image, of {kind}: with CUDA, or without? Refuse it,"
        " in a stage that declares ARG CUDA: in every other one, $CUDA is empty."
    )
    docker_said = (said := refusal(submission, kind, context, built, cuda)).partition("\n")[2]
    expect(
        "Still to do" not in said and cuda in docker_said,
        called=f"docker build --build-arg CUDA={cuda}, {kind}",
        got=docker_said,
        expected="a failed build whose message names the value",
        hint='RUN case "$CUDA" in true|"") ;; *) echo ... >&2; exit 1 ;; esac',
    )


@pytest.mark.points(2)
def test_the_image_with_cuda_holds_the_provider_and_all_that_it_loads(images):
    """Looked at with the course's own check, whatever check the build itself made."""
    tag = images("onnx", "true")
    config = docker.inspect(tag)["Config"]
    model = Path("/", config["WorkingDir"], (config["Cmd"] or [MODEL["onnx"]])[-1])  # what it is started with
    check = ["python", "-m", "serving.inference_check", str(model), "true"]
    own = f"{ROOT / 'serving'}:/check/serving:ro"
    done = subprocess.run(
        ["docker", "run", "--rm", "--volume", own, "--workdir=/check", "--entrypoint", *check[:1], tag, *check[1:]],
        capture_output=True,
        text=True,
        timeout=120,
    )
    expect(
        done.returncode == 0,
        called="python -m serving.inference_check models/resnet18.onnx true, in the ONNX Runtime image with CUDA",
        got=(done.stdout + done.stderr[-300:]).strip(),
        expected="it finds the CUDA provider and every library that it loads, but for the driver",
        hint="onnx-cuda.txt lists them; the build argument CUDA has to be declared in every stage that uses it",
    )


def changed(context: Path, folder: Path, file: str, text: str) -> Path:
    """A copy of the context in which one file holds this text."""
    shutil.copytree(context, folder, copy_function=shutil.copy2)
    (folder / file).write_text(text)
    return folder


@pytest.mark.points(1)
def test_a_build_for_cuda_fails_where_there_is_no_cuda_in_it(submission, images, context, tmp_path):
    """The trap of exercise 08: all that is wrong is the package, everything builds, and runs, on the CPU."""
    images("onnx")
    without = (context / "dockerfiles" / "requirements" / "onnx.txt").read_text()
    folder = changed(context, tmp_path / "context", "dockerfiles/requirements/onnx-cuda.txt", without)
    check = 'RUN python -m serving.inference_check models/resnet18.onnx "$CUDA"'
    built = (
        "CUDA=true with the package onnxruntime instead of onnxruntime-gpu builds an image that can never use a GPU."
        f" End the build with {check}, in a stage that declares ARG CUDA: in every other one, $CUDA is empty."
    )
    said = refusal(submission, "onnx", folder, built, "true")
    expect(
        "CUDA" in said and "Still to do" not in said,
        called="docker build --build-arg CUDA=true, with the package onnxruntime instead of onnxruntime-gpu",
        got=said,
        expected="a build that fails, and says that there is no CUDA in it",
        hint=check,
    )


@pytest.mark.points(1)
def test_the_build_of_pytorchs_image_ends_with_the_check(submission, images, context, tmp_path):
    """A check that always fails takes the place of the real one: gigabytes of CUDA need not be downloaded for it."""
    images("pytorch")
    told = "import sys\nsys.exit(f'the check was asked for {sys.argv[1:]}')\n"
    folder = changed(context, tmp_path / "context", "serving/inference_check.py", told)
    check = 'RUN python -m serving.inference_check models/resnet18.pt2 "$CUDA"'
    said = refusal(submission, "pytorch", folder, f"The build does not run the check: {check}.")
    expect(
        "the check was asked for" in said and "resnet18.pt2" in said,
        called="docker build, with a serving/inference_check.py that fails",
        got=said,
        expected="a build that fails because of it",
        hint=check,
    )


@EACH
@pytest.mark.points(0.5)
def test_labels_say_what_an_image_is(kind, images):
    assert_labels(images(kind), f"{kind} image")


@EACH
@pytest.mark.points(0.5)
def test_hadolint_finds_nothing(kind, images, submission):
    images(kind)
    assert_hadolint_finds_nothing(submission.existing(f"dockerfiles/inference_{kind}.dockerfile"))
