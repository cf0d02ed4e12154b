"""What the tests of images share: a context with small, known models, and the building of a submission's Dockerfiles."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from course import ROOT
from course.base import docker
from course.harness.submission import Submission
from course.harness.verdicts import expect, fail
from course.images.build import lend_wheels
from serving import Problem

# A cold cache: 100 s for PyTorch without CUDA, 95 for ONNX Runtime with it, on two cores. A warm one: 2 to 5.
PATIENCE = 1500


def make_context(folder: Path, models_dir: Path) -> Path:
    """What `docker build` is given: as the project's root is, with the tests' models and with what must stay out."""
    shutil.copytree(ROOT / "serving", folder / "serving", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "dockerfiles", folder / "dockerfiles")
    shutil.copy(ROOT / ".dockerignore", folder)
    (folder / "wheels").mkdir()
    lend_wheels(ROOT / "wheels")
    for wheel in (ROOT / "wheels").glob("*.whl"):
        os.link(wheel, folder / "wheels" / wheel.name)
    (folder / "models").mkdir()
    for model in (models_dir / "resnet18.onnx", program(models_dir)):
        shutil.copy(model, folder / "models")
    for secret in (".env", ".git/config", "tests/test_ex00_decoy.py", "serving/key.pem", ".venv/lib/decoy.py"):
        (folder / secret).parent.mkdir(exist_ok=True, parents=True)
        (folder / secret).write_text("decoy-of-the-tests\n")
    return folder


def program(models_dir: Path) -> Path:
    """resnet18.onnx as a PyTorch program, made once and kept beside it."""
    made_from = hashlib.sha256((ROOT / "course" / "given" / "export_program.py").read_bytes()).hexdigest()[:12]
    folder = models_dir / f"program-{made_from}"
    path = folder / "resnet18.pt2"
    with FileLock(models_dir / "program-lock"):
        if not path.exists():
            folder.mkdir(exist_ok=True)
            command = [sys.executable, "-m", "course.given.export_program", models_dir / "resnet18.onnx", path]
            subprocess.run(command, cwd=ROOT, check=True, timeout=200)
    return path


def build(submission: Submission, kind: str, context: Path, *, cuda: str = "") -> str:
    """Build one of a submission's Dockerfiles and return its tag; raises Problem where it does not build."""
    # Other submissions may be tested at the same time.
    of = hashlib.sha256(f"{submission.folder}{context}{cuda}".encode()).hexdigest()[:8]
    tag = f"course-test/inference-{kind}:{of}"
    dockerfile = submission.existing(f"dockerfiles/inference_{kind}.dockerfile")
    log = submission.new_folder("build") / "log"
    docker.build(dockerfile, tag, args={"CUDA": cuda}, context=context, log=log, timeout=PATIENCE)
    return tag


def built(submission: Submission, kind: str, context: Path, *, cuda: str = "") -> str:
    """As build(), but it fails the test."""
    try:
        return build(submission, kind, context, cuda=cuda)
    except Problem as problem:
        fail(str(problem))


@contextmanager
def container(image: str, *options: str, **more: Any) -> Iterator[docker.Container]:
    """As docker.container(), but what Docker refuses, in the block as well, fails the test with Docker's sentence."""
    try:
        with docker.container(image, *options, **more) as running:
            yield running
    except Problem as problem:
        fail(str(problem))


def files(image: str) -> set[str]:
    """All files of an image."""
    code = (
        "import os; print(*(f'{folder}/{name}' for folder, _, names in os.walk('/') "
        "if not folder.startswith(('/proc', '/sys')) for name in names), sep='\\n')"
    )
    return set(docker.docker("run", "--rm", "--user=0", "--entrypoint=python3", image, "-c", code).splitlines())


def assert_not_root(image: str, running: docker.Container, what: str) -> None:
    user, uid = docker.inspect(image)["Config"]["User"], running.run("id", "-u")
    called, got = f"docker inspect: User of the {what}; id -u in its container", f"User {user!r}, uid {uid}"
    expected = "a number other than 0: of a name, an orchestrator cannot tell that it is not root"
    hint = "USER 10001:10001 in the last stage, after everything that needs root"
    expect(uid != "0" and user.partition(":")[0].isdigit(), called=called, got=got, expected=expected, hint=hint)


def assert_holds(image: str, what: str, *, needed: str, unwanted: dict[str, str]) -> None:
    """Compared with the base image: what that one brings is not the student's."""
    found = files(image) - files(docker.base_image())
    if not any(file.endswith(needed) for file in found):
        fail(f"There is no {needed} in the {what}, which needs it to run.")
    unwanted = unwanted | {
        "wheels": r"\.whl$",
        "pip": r"site-packages/pip/",
        "your .env or keys": r"/\.env$|/key\.pem$",
    }
    unwanted |= {"apt's lists or packages": r"/var/lib/apt/lists/.*_Packages|/var/cache/apt/.*\.deb$"}
    unwanted |= {"a compiler, or git": r"/(gcc|g\+\+|cc1\w*|cc|c\+\+|make|git|ninja|cmake)(-[\d.]+)?$"}
    held = {kind: [file for file in found if re.search(pattern, file)][:3] for kind, pattern in unwanted.items()}
    held = {kind: some for kind, some in held.items() if some}
    called = f"find / in the {what}, without what the base image holds"
    hint = "only what the last stage copies is in the image; what one layer adds and the next removes still is"
    expect(not held, called=called, got=held, expected="none of these", hint=hint)


def assert_healthy(running: docker.Container, called: str, hint: str) -> None:
    give_up = time.monotonic() + 90
    while (health := running.state().get("Health", {"Status": "no HEALTHCHECK"}))["Status"] == "starting":
        if time.monotonic() > give_up:
            break
        time.sleep(0.2)
    got = health["Status"] + "".join(f": {one['Output'][-200:]}" for one in (health.get("Log") or [])[-1:])
    expect(health["Status"] == "healthy", called=called, got=got, expected="healthy within 90 s", hint=hint)


def assert_labels(image: str, what: str, *names: str) -> None:
    got = docker.inspect(image)["Config"]["Labels"] or {}
    base, *others = (f"org.opencontainers.image.{name}" for name in ("base.name", "title", "description", *names))
    expected = f"{', '.join(others)}, and {base}, which is {docker.base_image()}"
    hint = "LABEL in the last stage; an ARG from before FROM has to be declared again there: ARG BASE_IMAGE"
    right = all(got.get(name) for name in others) and got.get(base) == docker.base_image()
    expect(right, called=f"docker inspect: labels of the {what}", got=got, expected=expected, hint=hint)


def assert_hadolint_finds_nothing(path: Path) -> None:
    command = [Path(sys.executable).with_name("hadolint"), "--format", "json", path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    said = [f"line {one['line']}: {one['code']} {one['message']}" for one in json.loads(done.stdout)]
    called, hint = f"hadolint {path.name}", "each rule is explained at https://github.com/hadolint/hadolint/wiki"
    expect(not said, called=called, got="; ".join(said), expected="nothing to complain about", hint=hint)
