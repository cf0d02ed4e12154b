"""The container in which VS Code and Codespaces open the course."""

import json
import re

import pytest

from course import ROOT
from course.base import docker

FOLDER = ROOT / ".devcontainer"


@pytest.mark.docker
def test_the_course_is_set_up_in_its_container(tmp_path):
    """With a dry run of make: the packages are those of any other setup. `docker-in-docker` cannot be had everywhere."""
    config = json.loads(re.sub(r"^\s*//.*$", "", (FOLDER / "devcontainer.json").read_text(), flags=re.MULTILINE))
    tag = "course-test/devcontainer"
    args = {"BASE_IMAGE": docker.base_image()}
    docker.build(FOLDER / config["build"]["dockerfile"], tag, args=args, log=tmp_path / "log", context=FOLDER)
    course = tmp_path / "course"
    course.mkdir()
    for name in ("Makefile", "requirements.lock"):
        (course / name).write_bytes((ROOT / name).read_bytes())
    command = f"id -un && {config['postCreateCommand']} --dry-run && git --version && curl --version && bwrap --version"
    mount = f"type=bind,source={course},target=/course,readonly"
    said = docker.docker("run", "--rm", "--mount", mount, "--workdir", "/course", tag, "sh", "-c", command)
    assert said.startswith(config["remoteUser"])
    assert "uv pip install --python .venv/bin/python -r requirements.lock" in said
