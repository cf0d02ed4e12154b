"""What the course says of its images, and the commands that build and compare them."""

import io
import os
import re
import subprocess
import sys
from functools import partial

import pytest
from image_builds import PATIENCE, built, make_context
from rich.console import Console

from course import ROOT
from course.base import docker
from course.images.build import Image
from course.images.compare import compare, told_apart
from serving import Problem

# Answers like an image of the course, and has nothing in it; LABEL is what it sees on every photograph.
TINY = """
ARG BASE_IMAGE=python:3.11-slim-bookworm
FROM ${BASE_IMAGE}
ARG LABEL
RUN echo "pip download"
ENV LABEL=${LABEL}
COPY server.py /
CMD ["python", "/server.py"]
"""
SERVER = """
import http.server, json, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200); self.end_headers()
        self.wfile.write(json.dumps({"predictions": [{"label": os.environ["LABEL"]}]}).encode())
    do_POST = do_GET
http.server.HTTPServer(("", 3000), Handler).serve_forever()
"""


def run_images(**env: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "course", "images", "--images", "onnx:cpu"]
    return subprocess.run(command, cwd=ROOT, env=os.environ | env, capture_output=True, text=True, timeout=60)


def test_without_docker_one_sentence_says_what_to_install(tmp_path):
    done = run_images(PATH=str(tmp_path))
    assert done.returncode == 1
    assert "There is no `docker` command. Install Docker" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.docker
def test_without_an_engine_one_sentence_says_what_to_start():
    done = run_images(DOCKER_HOST="tcp://127.0.0.1:9")
    assert done.returncode == 1
    assert done.stderr.startswith("The Docker engine does not answer. Start")
    assert "Traceback" not in done.stderr


def test_without_an_engine_tests_that_need_one_say_so_and_the_others_run(tmp_path):
    """Not failed, and not silently passed: skipped, with what is missing."""
    file = tmp_path / "test_both.py"
    file.write_text("import pytest\n@pytest.mark.docker\ndef test_one(): assert 0\ndef test_other(): pass\n")
    command = [sys.executable, "-m", "pytest", "-rs", "-c", ROOT / "pyproject.toml", "--rootdir", ROOT, file]
    env = os.environ | {"PATH": str(tmp_path), "PYTEST_ADDOPTS": ""}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert "1 passed, 1 skipped" in done.stdout
    assert "There is no `docker` command" in done.stdout
    strict = subprocess.run([*command, "--no-skips"], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert strict.returncode == 1
    assert "skipped, but --no-skips was given: Skipped: There is no `docker` command" in strict.stdout


def test_the_versions_in_images_are_those_of_the_course():
    """But for the runtimes with CUDA, which come out at other times, and PyTorch, whose image is one release behind."""
    of_course = versions("requirements.txt") | versions("requirements-serving.txt")
    for name in ("onnx", "onnx-cuda", "pytorch", "pytorch-cuda"):
        listed = versions(f"dockerfiles/requirements/{name}.txt")
        differ = {package for package in listed.keys() & of_course.keys() if listed[package] != of_course[package]}
        assert differ <= {"torch"}, name
    assert versions("requirements-gpu.txt").items() <= versions("dockerfiles/requirements/onnx-cuda.txt").items()


def versions(file: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w-]+)(?:\[.*\])?==([^\s;]+)", (ROOT / file).read_text(), re.MULTILINE))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Makes tiny images; they are removed at the end."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.dockerfile").write_text(TINY)
    (folder / "server.py").write_text(SERVER)
    tags = []

    def make(name: str, label: str) -> Image:
        tags.append(f"course-test/{name}:tiny")
        build = partial(docker.build, folder / "tiny.dockerfile", tags[-1], args={"LABEL": label}, context=folder)
        return Image(tags[-1], "tiny ones", "tiny.dockerfile", build)

    yield make
    for tag in tags:
        docker.remove(tag)


@pytest.mark.docker
def test_a_comparison_is_written_whole(tiny, tmp_path):
    console = Console(file=io.StringIO(), width=80)
    (one,) = compare([tiny("cat", "cat")], tmp_path, rounds=2, fresh=True, console=console)
    assert one.size == docker.inspect(one.image.tag)["Size"] > one.base > 1e8
    assert one.size - one.base == sum(layer.size for layer in one.layers if "server.py" in layer.made_by)
    assert one.build["build_s"] > one.build["download_s"] >= 0  # its log has a step that is called `pip download`,
    assert one.build["install_s"] is None  # and none for the installation
    assert len(one.ready) == len(one.prediction) == 2
    assert all(last > first > 0 for first, last in zip(one.ready, one.prediction, strict=True))
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"table.csv", "layers.csv", "measurements.json", "images.png", "course-test_cat_tiny.log"}
    assert "times the first" in console.file.getvalue().replace("\n", " ")


@pytest.mark.docker
def test_images_that_answer_differently_are_not_compared(tiny, tmp_path):
    """Else the smallest would be the one without a model."""
    with pytest.raises(Problem, match="do not hold the same model: they answer cat, dog"):
        compare(
            [tiny("cat", "cat"), tiny("dog", "dog")],
            tmp_path,
            rounds=1,
            fresh=False,
            console=Console(file=io.StringIO()),
        )
    assert list(tmp_path.iterdir()) == []


def test_download_and_installation_are_told_apart_by_the_log(tmp_path):
    log = tmp_path / "log"
    log.write_text(
        "#7 [wheels 3/3] RUN --mount=type=bind,target=/at-hand     pip download --dest /wheels\n#7 sha256:1\n#7 1.1 got\n"
        "#7 DONE 12.5s\n\n#9 [venv 3/3] RUN pip --python /opt/venv/bin/python install --no-index\n#9 DONE 3.5s\n"
        "#11 [stage-2 5/6] RUN python -m serving.inference_check\n#11 DONE 2.0s\n"
    )
    assert told_apart(20, log) == {"build_s": 20, "download_s": 12.5, "install_s": 3.5}


def test_of_a_build_that_fails_in_python_the_last_line_is_shown(tmp_path):
    log = tmp_path / "log"
    log.write_text(
        "#5 [2/2] RUN python -m serving.inference_check\n#5 0.2 It begins.\n"
        '#5 0.3 Traceback (most recent call last):\n#5 0.3   File "<frozen runpy>", line 198, in _run\n'
        "#5 0.4     import numpy as np\n#5 0.4 ModuleNotFoundError: No module named 'numpy'\n#5 ERROR: exit code: 1\n"
    )
    assert docker.failure(log).splitlines() == [
        "[2/2] RUN python -m serving.inference_check",
        "0.2 It begins.",
        "0.4 ModuleNotFoundError: No module named 'numpy'",
        "ERROR: exit code: 1",
    ]


@pytest.mark.docker
def test_a_failed_build_says_why_and_where_its_log_is(tmp_path):
    (tmp_path / "bad.dockerfile").write_text("ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nRUN echo why not >&2; exit 3\n")
    args = {"BASE_IMAGE": docker.base_image()}
    with pytest.raises(Problem, match=r"bad.dockerfile does not build.*/log:\n(.*\n)*.*why not"):
        docker.build(tmp_path / "bad.dockerfile", "course-test/bad:tiny", args=args, log=tmp_path / "log")


@pytest.mark.docker
def test_a_container_is_removed_however_its_block_ends(tiny, tmp_path):
    image = tiny("cat", "cat")
    image.build(log=tmp_path / "log")
    names = []
    with pytest.raises(KeyboardInterrupt):
        interrupted(image.tag, names)
    assert docker.docker("ps", "--all", "--quiet", "--filter", f"name={names[0]}") == ""
    with (
        pytest.raises(Problem, match=r"ended \(exit code 1\)"),
        docker.container(image.tag, arguments=("false",)) as container,
    ):
        container.wait_until_ready()


def interrupted(tag: str, names: list[str]) -> None:
    with docker.container(tag) as container:
        names.append(container.name)
        container.wait_until_ready()
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def context(models_dir, tmp_path_factory):
    return make_context(tmp_path_factory.mktemp("context"), models_dir)


@pytest.mark.docker
@pytest.mark.timeout(PATIENCE)
def test_the_sizes_that_the_course_promises(submission, context):
    """At most 170 MB above the base with ONNX Runtime; the whole at least 2.5 times as large with PyTorch."""
    tags = [built(submission, kind, context) for kind in ("onnx", "pytorch")]
    onnx, pytorch = (docker.size(tag) for tag in tags)
    for tag in tags:
        docker.remove(tag)
    assert onnx - docker.size(docker.base_image()) <= 170e6
    assert pytorch >= 2.5 * onnx


# Asked for by ALL_IMAGES=1 alone: it downloads 2.6 GB and needs 12 on the disk.
if os.environ.get("ALL_IMAGES"):

    @pytest.mark.docker
    @pytest.mark.timeout(PATIENCE)
    def test_pytorch_with_cuda_holds_its_libraries(submission, context):
        """Its build ends with a check: where that finds CUDA missing, there is no image."""
        tag = built(submission, "pytorch", context, cuda="true")
        held = docker.docker("run", "--rm", "--entrypoint=python", tag, "-c", "import torch; print(torch.version.cuda)")
        docker.remove(tag)
        assert held.startswith("13.")
