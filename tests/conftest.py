"""What every test can ask for."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import onnx
import pytest
from filelock import FileLock
from onnx import numpy_helper

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
    return Submission(ROOT / "tests", tmp_path_factory.mktemp("reference"), trusted=True)


@pytest.fixture(scope="session")
def fresh_models_dir(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As models_dir, but the last biases are of this run alone.

    Nobody can work out at home what these models answer, and hand in the answers.
    """
    folder = tmp_path_factory.mktemp("fresh_models")
    for name in ("resnet18", "model_b"):
        model = onnx.load(models_dir / f"{name}.onnx")
        bias = next(weight for weight in model.graph.initializer if list(weight.dims) == [1000])
        values = numpy_helper.to_array(bias) + np.random.default_rng().normal(size=1000)
        bias.CopyFrom(numpy_helper.from_array(values.astype(np.float32), bias.name))
        onnx.save(model, folder / f"{name}.onnx")
    os.link(folder / "resnet18.onnx", folder / "model_a.onnx")
    return folder


@pytest.fixture(scope="session")
def models_dir(pytestconfig: pytest.Config) -> Path:
    """A folder with real models, kept for the next run: resnet18.onnx, model_a.onnx (the same) and model_b.onnx.

    Their weights are random, with seeds that nobody else uses. The second is the first with its classes moved and
    surer of itself: as different as another export, without the 20 s that one takes.
    """
    makers = ("requirements.txt", "solutions/ex01_export.py", "course/weights.py", "tests/conftest.py")
    made_from = hashlib.sha256(b"".join((ROOT / file).read_bytes() for file in makers)).hexdigest()[:12]
    folder = pytestconfig.cache.mkdir(f"models-{made_from}")
    with FileLock(folder / "lock"):  # several processes run tests
        if not (folder / "resnet18.onnx").exists():
            command = [sys.executable, "solutions/ex01_export.py", "--weights", "random", "--seed", "7"]
            subprocess.run([*command, "--output", folder / "resnet18.onnx"], cwd=ROOT, check=True, timeout=200)
        if not (folder / "model_b.onnx").exists():
            another_model(folder / "resnet18.onnx", folder / "model_b.onnx.part")
            os.replace(folder / "model_b.onnx.part", folder / "model_b.onnx")
        if not (folder / "model_a.onnx").exists():
            os.link(folder / "resnet18.onnx", folder / "model_a.onnx")
    return folder


def another_model(path: Path, output: Path) -> None:
    """A model that answers otherwise: every logit doubled, and that of class i where class i + 1 has its own."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name in ("fc.weight", "fc.bias"):
            rows = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(2 * np.roll(rows, 1, axis=0), tensor.name))
    metadata = {entry.key: entry.value for entry in model.metadata_props} | {"weights": "random seed 8"}
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, output)
