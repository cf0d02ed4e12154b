"""What every test can ask for."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from filelock import FileLock

from course import ROOT
from course.submission import Submission


@pytest.fixture(scope="session")
def submission(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Submission]:
    """The folder under test."""
    folder, scratch = Path(request.config.getoption("--submission")), tmp_path_factory.mktemp("submission")
    if request.config.getoption("--warm"):
        from course.warm import WarmSubmission

        with closing(WarmSubmission(folder, scratch)) as submission:
            yield submission
    else:
        yield Submission(folder, scratch)


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Submission:
    """tests/reference.py: what PyTorch and torchvision answer. In a process of its own, for torch takes seconds."""
    return Submission(ROOT / "tests", tmp_path_factory.mktemp("reference"))


@pytest.fixture(scope="session")
def models_dir(pytestconfig: pytest.Config) -> Path:
    """A folder with real models, kept for the next run: resnet18.onnx, model_a.onnx (the same) and model_b.onnx.

    Their weights are random, with seeds that nobody else uses. Both are resnet18: quicker to export than a resnet34.
    """
    makers = ("requirements.txt", "solutions/ex01_export.py", "course/weights.py", "tests/conftest.py")
    made_from = hashlib.sha256(b"".join((ROOT / file).read_bytes() for file in makers)).hexdigest()[:12]
    folder = pytestconfig.cache.mkdir(f"models-{made_from}")
    with FileLock(folder / "lock"):  # several processes run tests
        for name, seed in (("resnet18", "7"), ("model_b", "8")):
            if not (folder / f"{name}.onnx").exists():
                command = [sys.executable, "solutions/ex01_export.py", "--weights", "random", "--seed", seed]
                subprocess.run([*command, "--output", folder / f"{name}.onnx"], cwd=ROOT, check=True, timeout=200)
        if not (folder / "model_a.onnx").exists():
            os.link(folder / "resnet18.onnx", folder / "model_a.onnx")
    return folder
