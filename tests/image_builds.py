"""What the tests of images share: a context with small, known models, and the building of a submission's Dockerfiles."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from course import ROOT
from course.base import docker
from course.harness.submission import Submission
from course.harness.verdicts import fail
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
