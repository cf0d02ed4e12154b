"""Exercise 17: a service in an image, by BentoML and by hand. Built, run and looked into with a real engine."""

import os
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from socket import socket

import pytest
import service_images as images
from image_builds import (
    assert_hadolint_finds_nothing,
    assert_healthy,
    assert_holds,
    assert_labels,
    assert_not_root,
    container,
)
from once import once
from service_images import CONFINED, DOCKERFILE, assert_classifies, serving, worker, written

from course import ROOT
from course.base import docker
from course.base.files import tail
from course.base.processes import running, wait
from course.harness.server import Log
from course.harness.submission import Submission
from course.harness.verdicts import expect, fail
from course.harness.written import read
from serving import Problem

pytestmark = [pytest.mark.docker, pytest.mark.timeout(images.PATIENCE)]

ONE, TWO = "ex10_service", "ex16_pipeline"
EACH = pytest.mark.parametrize("service", [ONE, TWO])
NEEDS = {ONE: ("resnet18",), TWO: ("model_a", "model_b")}
# Otherwise BentoML and ONNX Runtime report each start to their makers.
QUIET = {"BENTOML_DO_NOT_TRACK=True", "ORT_DISABLE_TELEMETRY=1"}


class Images:
    """What is built of a submission, each thing when it is first asked for, in a store of its own."""

    def __init__(self, submission: Submission, project: Path, store: Path) -> None:
        self.submission, self.project, self.store = submission, project, store
        self.tags: list[str] = []

    @once
    def bento(self, service: str) -> Path:
        """The folder of its bento."""
        bentofile = written(self.submission, f"bentofiles/{service}.yaml")
        self.bentoml("build", "--bentofile", bentofile, "--version", "test", self.project)
        return self.store / "bentos" / service / "test"

    @once
    def by_bentoml(self, service: str) -> str:
        """The tag of the image that `bentoml containerize` makes."""
        self.bento(service)
        tag = self.tag(f"{service}-bento")
        self.bentoml("containerize", f"{service}:test", "--image-tag", tag)
        return tag

    @once
    def by_hand(self, service: str, name: str = "hand") -> str:
        """The tag of the image that the Dockerfile makes."""
        dockerfile, log = written(self.submission, DOCKERFILE), self.submission.new_folder("build") / "log"
        return images.build_by_hand(dockerfile, service, self.project, self.tag(f"{service}-{name}"), log)

    def tag(self, name: str) -> str:
        self.tags.append(images.tag_of(self.submission, name))
        return self.tags[-1]

    def bentoml(self, *words: object) -> None:
        """Run one of its commands; fails the test where it fails."""
        # With all that a network may need, but no model or store of a developer's.
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("MODEL", "BENTOML_", "BASE_"))
        }
        env = kept | {"BENTOML_HOME": str(self.store), "BENTOML_DO_NOT_TRACK": "True", "DOCKER_BUILDKIT": "1"}
        folder, command = self.submission.new_folder("bentoml"), [sys.executable, "-m", "bentoml", *map(str, words)]
        with running(command, cwd=folder, env=env | {"COLUMNS": "200"}, log=folder / "log") as process:
            code = wait(process, images.PATIENCE)
        if code != 0:
            fail(f"`bentoml {' '.join(command[3:])}` failed:\n{tail(Log(folder / 'log').read_text(), 20)}")


@pytest.fixture(scope="module")
def built(submission, models_dir, tmp_path_factory):
    project = images.make_project(tmp_path_factory.mktemp("project"), models_dir)
    own = Images(submission, project, tmp_path_factory.mktemp("bentoml"))
    yield own
    for tag in own.tags:
        docker.remove(tag)


@pytest.fixture(scope="module")
def expected(models_dir) -> dict[str, list[str]]:
    """The five best labels by service."""
    return {
        service: images.best_labels(*(models_dir / f"{model}.onnx" for model in models))
        for service, models in NEEDS.items()
    }


# ------------------------------------------------------------------------------ the bento


@EACH
@pytest.mark.points(1.5)
def test_a_bento_holds_what_its_service_needs_and_nothing_else(service, built):
    source = built.bento(service) / "src"
    packed = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    modules = {f"serving/{path.name}" for path in (ROOT / "serving").iterdir() if path.is_file()}
    wanted = modules | {f"models/{model}.onnx" for model in NEEDS[service]}
    own = {f"{package}/{file}.py" for package in ("solutions", "exercises") for file in (service, "__init__")}
    surplus = packed - wanted - own - {"bentofile.yaml"}
    missing = {
        file
        for file in wanted - packed
        if file.startswith("models/") or file in ("serving/model.py", "serving/demo.html")
    }
    missing |= set() if packed & own else {f"solutions/{service}.py"}
    expect(
        not surplus and not missing,
        called=f"bentoml build --bentofile bentofiles/{service}.yaml, where there are tests, keys and more models",
        got=f"missing: {some_of(missing)}; not needed: {some_of(surplus)}",
        expected=f"serving/*.py and serving/demo.html, the service's file, {', '.join(f'models/{one}.onnx' for one in NEEDS[service])}",
        hint="include: is a list of patterns, of all that is imported or opened; `serving/*.py` packs no key",
    )


def some_of(files: set[str]) -> str:
    return ", ".join(sorted(files)[:5]) or "nothing"


@EACH
@pytest.mark.points(0.5)
def test_a_bento_has_no_readme_of_the_project(service, built):
    text = read(built.bento(service) / "README.md").decode()
    right = "decoy-of-the-tests" not in text and text.strip()
    called, expected = f"README.md in the bento of {service}", "the bentofile's description"
    expect(bool(right), called=called, got="the project's README", expected=expected, hint="description: one line")


@EACH
@pytest.mark.points(0.5)
def test_a_bento_names_every_package_with_its_version(service, built):
    wanted = pinned(ROOT / "requirements-serving.txt")
    got = pinned(built.bento(service) / "env" / "python" / "requirements.txt")
    expect(
        wanted <= got and len(got) > len(wanted),
        called=f"env/python/requirements.txt in the bento of {service}",
        got=f"{len(got)} with their versions, without {', '.join(sorted(wanted - got)) or 'what they bring along'}",
        expected="requirements-serving.txt, and what those packages bring along",
        hint="python: {requirements_txt: requirements-serving.txt}",
    )
    dockerfile = read(built.bento(service) / "env" / "docker" / "Dockerfile").decode()
    arguments = {f"{name}={value}" for name, value in re.findall(r"^ARG (\w+)=(.*)", dockerfile, re.MULTILINE)}
    expect(
        "python:3.11" in dockerfile and arguments >= QUIET,
        called=f"env/docker/Dockerfile in the bento of {service}",
        got="; ".join(re.findall("^FROM.*", dockerfile, re.M))
        + f"; without {', '.join(QUIET - arguments) or 'nothing'}",
        expected=f"Python 3.11, {', '.join(sorted(QUIET))}",
        hint='docker: {python_version: "3.11"}; envs: a list of name and value',
    )


def pinned(path: Path) -> set[str]:
    return set(re.findall(r"^[\w.\[\]-]+==[\w.]+", read(path).decode(), re.MULTILINE))


# ------------------------------------------------------------------------------ the image that BentoML makes


@pytest.mark.points(2)
def test_bentomls_image_serves_its_own_model_when_it_is_confined(built, expected):
    """Read-only but for /tmp, without capabilities, on the port that it is told. Not root."""
    with serving(built.by_bentoml(ONE), "--env=PORT=8080", *CONFINED, port=8080) as container:
        assert_classifies(container, expected[ONE], "POST /classify, the image that `bentoml containerize` made")
        uid = container.run("id", "-u")
        expect(uid != "0", called="id -u in that container", got=uid, expected="not 0", hint="BentoML's own default")


@pytest.mark.points(1)
def test_bentomls_image_of_several_services_replaces_a_dead_worker(built, expected):
    """By itself BentoML would end the whole container: its variable BENTOML_CONTAINERIZED says so."""
    assert_replaces_a_dead_worker(built.by_bentoml(TWO), expected[TWO], "the image that `bentoml containerize` made")


def assert_replaces_a_dead_worker(image: str, labels: list[str], what: str) -> None:
    with serving(image, *CONFINED) as container:
        before = worker(container, "ModelA")
        called = f"kill -KILL (the worker of ModelA) in {what}"
        if before is None:
            fail(f"{called}: there is no such process. {container.last_words()}")
        container.run("python", "-c", f"import os; os.kill({before}, 9)")
        give_up = time.monotonic() + 20
        while (now := worker_or_none(container, "ModelA")) in (None, before) and time.monotonic() < give_up:
            time.sleep(0.1)
        got = f"no other within 20 s; the container is {container.state()['Status']}. {container.last_words(3)}"
        hint = "restart_dead_workers_quickly() under @bentoml.on_deployment; no BENTOML_CONTAINERIZED in the image"
        expect(now not in (None, before), called=called, got=got, expected="another in its place", hint=hint)
        container.wait_until_ready(deadline=60)
        assert_classifies(container, labels, f"POST /classify after {called}")


def worker_or_none(container: docker.Container, service: str) -> int | None:
    try:
        return worker(container, service)
    except Problem:  # the container, or a process that was looked at, has ended
        return None


# ------------------------------------------------------------------------------ the image by hand


@pytest.fixture(scope="module")
def by_hand(built):
    """A container of the image by hand, confined, on the port that it is told."""
    options = ("--env=PORT=8080", "--health-interval=1s", *CONFINED)
    with serving(built.by_hand(ONE), *options, port=8080) as container:
        yield container


@pytest.mark.points(1)
def test_the_image_by_hand_serves_its_model_when_it_is_confined(by_hand, built, expected):
    assert_classifies(by_hand, expected[ONE], "POST /classify, the image by hand, read-only and without capabilities")
    assert_not_root(built.by_hand(ONE), by_hand, "image by hand")


@pytest.mark.points(1)
def test_the_image_by_hand_is_found_healthy(by_hand):
    assert_healthy(
        by_hand,
        called="docker inspect: Health of the container by hand, with PORT=8080",
        hint='HEALTHCHECK CMD ["python", "-m", "serving.container", "ready"]',
    )


@pytest.mark.points(1)
def test_the_same_dockerfile_serves_several_services_and_replaces_a_dead_worker(built, expected):
    assert_replaces_a_dead_worker(built.by_hand(TWO), expected[TWO], "the image by hand, with SERVICE=ex16_pipeline")


@pytest.mark.points(1)
def test_the_image_by_hand_holds_what_runs_and_nothing_of_what_built_it(built):
    unwanted = {
        "caches": r"/\.cache/",
        "tests": r"/test_ex\d\d_|/decoy\.py$",
        "a repository or a README": r"/\.git/|^/\w+/README\.md$",
        "another service or its models": r"/ex16_pipeline\.py$|/model_[ab]\.onnx$",
    }
    assert_holds(built.by_hand(ONE), "image by hand", needed="serving/model.py", unwanted=unwanted)


@pytest.mark.points(1)
def test_the_image_by_hand_is_at_most_half_of_bentomls(built):
    by_hand, by_bentoml = docker.size(built.by_hand(ONE)), docker.size(built.by_bentoml(ONE))
    called = "docker history, summed up, of both images of exercise 10"
    got = f"{by_hand / 1e6:.0f} MB by hand, {by_bentoml / 1e6:.0f} by BentoML"
    hint = "two stages; --no-cache-dir; no `apt-get install build-essential`"
    expect(by_hand <= 0.5 * by_bentoml, called=called, got=got, expected="at most half", hint=hint)


@pytest.mark.points(0.5)
def test_a_change_of_the_service_repeats_little(built):
    """What changes least comes first: the packages stay in the cache."""
    built.by_hand(ONE)
    begun = datetime.now(UTC).isoformat()
    with (built.project / "serving" / "__init__.py").open("a") as file:
        file.write(f"# changed at {begun}\n")
    changed = built.by_hand(ONE, "changed")
    history = docker.docker("history", "--human=false", "--format", "{{.CreatedAt}} {{.Size}}", changed)
    again = sum(int(size) for created, size in map(str.split, history.splitlines()) if created >= begun)
    called = "docker build, after one line in serving/ has changed"
    expected = "less than 50 MB: no package is installed or copied again"
    hint = "first /opt/venv, then the model, then serving/, then the service's file"
    expect(again < 50e6, called=called, got=f"{again / 1e6:.0f} MB of new layers", expected=expected, hint=hint)


@pytest.mark.points(0.5)
def test_labels_and_variables_say_what_the_image_is(built):
    assert_labels(built.by_hand(ONE), "image by hand", "version")
    config = docker.inspect(built.by_hand(ONE))["Config"]
    ports, missing = list(config.get("ExposedPorts") or {}), QUIET - set(config["Env"])
    called = "docker inspect: ExposedPorts and Env of the image by hand"
    got, expected = f"{ports}; not in Env: {missing or 'nothing'}", f"3000/tcp; {', '.join(sorted(QUIET))}"
    hint = "EXPOSE 3000; ENV BENTOML_DO_NOT_TRACK=True ORT_DISABLE_TELEMETRY=1"
    expect(ports == ["3000/tcp"] and not missing, called=called, got=got, expected=expected, hint=hint)


@pytest.mark.points(1)
def test_what_a_user_can_get_wrong_ends_with_one_sentence(built):
    with socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        cases = {
            "There is no model at /nowhere": ("--env=MODELS_DIR=/nowhere",),
            "Nothing can be written": ("--read-only",),
            f"Port {taken.getsockname()[1]}": ("--network=host", f"--env=PORT={taken.getsockname()[1]}"),
            "PORT=http": ("--env=PORT=http",),
        }
        for sentence, options in cases.items():
            with container(built.by_hand(ONE), *options, publish=False) as running:
                code, said = running.wait(60), running.logs()
            called = f"docker run {' '.join(options)}, the image by hand"
            expected = f"an exit code other than 0, and one sentence with {sentence!r}"
            hint = 'ENTRYPOINT ["python", "-m", "serving.container", "serve"]; BENTOML_HOME is in /tmp'
            right = code not in (0, None) and sentence in said and "Traceback" not in said and len(said) < 500
            expect(right, called=called, got=f"exit code {code}: {said[-400:]}", expected=expected, hint=hint)


@pytest.mark.points(1)
def test_a_container_serves_again_after_it_was_killed_and_stops_when_it_is_told_to(by_hand, expected):
    docker.docker("kill", by_hand.name)
    docker.docker("start", by_hand.name)
    del by_hand.url  # a new port
    try:
        by_hand.wait_until_ready()
    except Problem as problem:
        fail(str(problem))
    assert_classifies(by_hand, expected[ONE], "POST /classify after docker kill and docker start")
    assert_stops(by_hand, "while it serves", (0,))


@pytest.mark.points(0.5)
def test_a_container_that_is_starting_stops_when_it_is_told_to(built):
    """Process 1 is deaf to SIGTERM unless it says what to do with it, and BentoML takes seconds to be imported."""
    with container(built.by_hand(ONE), *CONFINED) as running:
        time.sleep(1)
        assert_stops(running, "a second after its start", (143, 0))


def assert_stops(container: docker.Container, when: str, codes: tuple[int, ...]) -> None:
    docker.docker("stop", "--time=30", container.name)
    code = container.wait(1)
    called = f"docker stop --time=30, {when}"
    expected = f"{codes[0]}: SIGTERM reached the server, which ended by itself (137: it was killed)"
    hint = 'ENTRYPOINT ["python", ...] is a list: with a string, process 1 is a shell that passes nothing on'
    expect(code in codes, called=called, got=f"exit code {code}", expected=expected, hint=hint)


@pytest.mark.points(0.5)
def test_hadolint_finds_nothing(submission):
    assert_hadolint_finds_nothing(written(submission, DOCKERFILE))
