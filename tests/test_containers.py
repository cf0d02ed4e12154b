"""make bento, containerize and run-container: what they pack, and what they say."""

import os
import re
import subprocess
import sys
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from socket import socket

import pytest
import service_images as images
import yaml

from course import ROOT
from course.base import docker
from course.base.manifest import Exercise, exercises
from course.images import containers
from serving import Problem

BENTOFILES = sorted((ROOT / "bentofiles").glob("*.yaml"))


@pytest.fixture(scope="module")
def store(models_dir, tmp_path_factory) -> dict[str, str]:
    """Variables for commands: a store of bentos that holds exercise 10's, with a base image that cannot be had."""
    project = images.make_project(tmp_path_factory.mktemp("project"), models_dir)
    home = tmp_path_factory.mktemp("bentoml")
    env = os.environ | {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True", "COLUMNS": "200"}
    command = containers.build_command(BENTOFILES[0], context=project)
    subprocess.run([sys.executable, "-m", "bentoml", *command], env=env, check=True, timeout=240)
    return env


def python(*words: str, env: dict[str, str]) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *words], env=env, cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def generated(store) -> str:
    """The Dockerfile that BentoML generates for exercise 10."""
    (path,) = Path(store["BENTOML_HOME"]).glob("bentos/ex10_service/*/env/docker/Dockerfile")
    return path.read_text()


def test_the_page_quotes_what_bentoml_generates(generated):
    page = (ROOT / "docs" / "ex17_bento.md").read_text()
    asked, _, unasked = page.partition("### Which line becomes which")[2].partition(
        "BentoML adds these lines by itself"
    )
    quoted = [row.split(" | ")[1].strip(" |") for row in re.findall(r"^\| .*`.*$", asked, re.MULTILINE)]
    quoted += [row.split(" | ")[0].strip("| ") for row in re.findall(r"^\| `.*$", unasked, re.MULTILINE)]
    assert len(quoted) == 12
    for line in quoted:
        assert line.strip("`") in generated


def test_a_container_without_a_service_says_so(tmp_path):
    env = os.environ | {"BENTOML_HOME": str(tmp_path), "SERVICE": "", "PORT": ""}
    done = python("-m", "serving.container", "serve", env=env)
    assert done.returncode == 1
    assert re.fullmatch(r"SERVICE names no service.* ENV SERVICE=\$\{SERVICE\} keeps it\.\n", done.stderr)


def test_the_services_that_are_put_into_images():
    assert [service.number for service in services()] == ["10", "11", "13", "14", "15", "16", "19", "20"]


def services() -> list[Exercise]:
    found = []
    for exercise in exercises():
        with suppress(Problem):
            found.append(containers.find(exercise.number))
    return found


def test_there_is_a_bentofile_for_each_service_and_they_differ_in_what_they_must_alone():
    assert {service.stem for service in services()} == {path.stem for path in BENTOFILES}
    for service in services():
        bentofile = yaml.safe_load((ROOT / service.bentofile).read_text())
        models = [path.name for path in map(Path, bentofile["include"]) if path.parent.name == "models"]
        assert bentofile["service"] == f"solutions.{service.module}:ImageClassifierService"
        assert bentofile["name"] == service.stem
        assert models == [f"{model}.onnx" for model in service.models]
        assert all(fnmatch(model, containers.pattern(service.models)) for model in models)
        code = [one for one in bentofile["include"] if not one.startswith("models/")]
        assert code == ["serving/*.py", "serving/demo.html", f"solutions/{service.module}.py"]
    written = [yaml.safe_load(path.read_text()) for path in BENTOFILES]
    assert len({str([one[key] for key in ("python", "docker", "envs")]) for one in written}) == 1


def test_behind_a_mirror_the_bentofile_names_its_base_image_and_index(monkeypatch):
    monkeypatch.setenv("BASE_IMAGE", "mirror.example/python:3.11")
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    built_from = yaml.safe_load(Path(containers.build_command(BENTOFILES[0])[2]).read_text())
    assert built_from["docker"] == {"base_image": "mirror.example/python:3.11"}
    assert built_from["python"]["index_url"] == "https://mirror.example/simple"
    monkeypatch.delenv("BASE_IMAGE")
    monkeypatch.delenv("PIP_INDEX_URL")
    assert containers.build_command(BENTOFILES[0])[2] == str(BENTOFILES[0])


def test_every_package_that_serving_needs_is_in_the_list_of_the_image_by_hand():
    def names(path: Path) -> set[str]:
        return set(re.findall(r"^[\w.-]+==[\w.]+", path.read_text(), re.MULTILINE))

    assert names(ROOT / "requirements-serving.txt") <= names(ROOT / "dockerfiles" / "requirements" / "serving.txt")


@pytest.mark.docker
def test_a_containerize_that_failed_fails(store, tmp_path):
    """An image of an earlier build must not be taken for the new one's."""
    (bento,) = Path(store["BENTOML_HOME"]).glob("bentos/ex10_service/*/bento.yaml")
    bento.write_text(bento.read_text().replace("base_image: python:3.11-slim", "base_image: localhost:1/nothing:here"))
    docker.docker("tag", docker.base_image(), "course-test/old:bento")
    try:
        before = docker.inspect("course-test/old:bento")["Id"]
        code = (
            "from course.images.containers import *\n"
            f"try:\n    containerize_bento('ex10_service:latest', 'course-test/old:bento', Path('{tmp_path}/log'))\n"
            "except Problem as problem:\n    print(problem)"
        )
        done = python("-c", code, env=store)
        said = "`bentoml containerize` failed. The end of its log"
        assert done.stdout.startswith(said), done.stdout + done.stderr[-2000:]
        assert "localhost:1/nothing:here" in done.stdout
        assert "Traceback" not in done.stdout
        assert docker.inspect("course-test/old:bento")["Id"] == before
    finally:
        docker.remove("course-test/old:bento")


@pytest.mark.docker
def test_each_step_says_which_one_comes_before_it(tmp_path):
    env = os.environ | {"BENTOML_HOME": str(tmp_path), "COLUMNS": "300"}
    said = {
        ("bento", "--ex=04"): "EX=04: exercise 04 has no service.",
        ("bento", "--ex=12"): "EX=12: its image needs a GPU",
        ("containerize", "--ex=13"): "There is no bento ex13_workers:latest. Build it first: make bento EX=13",
        ("containerize", "--ex=20", "--by=hand"): "EX=20: its model is in BentoML's store",
        ("containerize", "--by=magic"): "--by: expected one of bento, hand.",
    }
    for words, sentence in said.items():
        done = python("-m", "course", *words, env=env)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert done.stderr.startswith(sentence)


@pytest.mark.docker
def test_run_container_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(Exercise, "image", lambda service, by: f"course-test/none:{by}")
    service = containers.find("10")
    with pytest.raises(Problem, match="There is no image course-test/none:hand"):
        containers.run_container(service, "hand", 3000)
    docker.docker("tag", docker.base_image(), "course-test/none:hand")
    try:
        with socket() as taken:
            taken.bind(("0.0.0.0", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with pytest.raises(Problem, match=f"Port {port} is taken.*PORT={port + 1}"):
                containers.run_container(service, "hand", port)
    finally:
        docker.remove("course-test/none:hand")
