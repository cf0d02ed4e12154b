"""What every test can ask for."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from course import ROOT
from course.submission import Submission


@pytest.fixture(scope="session")
def submission(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Submission:
    """The folder under test."""
    return Submission(Path(request.config.getoption("--submission")), tmp_path_factory.mktemp("submission"))


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Submission:
    """tests/reference.py: what PyTorch and torchvision answer. In a process of its own, for torch takes seconds."""
    return Submission(ROOT / "tests", tmp_path_factory.mktemp("reference"))


@pytest.fixture(scope="session")
def models_dir(pytestconfig: pytest.Config) -> Path:
    """A folder with a real resnet18.onnx, its weights random with a seed that nobody else uses. Kept for the next run."""
    makers = ("requirements.txt", "solutions/ex01_export.py", "course/weights.py")
    made_from = hashlib.sha256(b"".join((ROOT / file).read_bytes() for file in makers)).hexdigest()[:12]
    folder = pytestconfig.cache.mkdir(f"models-{made_from}")
    if not (folder / "resnet18.onnx").exists():
        command = [sys.executable, "solutions/ex01_export.py", "--weights", "random", "--seed", "7"]
        subprocess.run([*command, "--output", folder / "resnet18.onnx"], cwd=ROOT, check=True, timeout=200)
    return folder
