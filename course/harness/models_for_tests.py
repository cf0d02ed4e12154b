"""The real models that tests serve: python -m course.harness.models_for_tests FOLDER."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

from course import ROOT
from course.base.processes import GraderFailure

# What their content depends on.
MADE_BY = ["requirements.lock", "solutions/ex01_export.py", "course/harness/models_for_tests.py"]
MADE_BY += [f"course/given/{name}.py" for name in ("efficientnet_lite0", "files", "onnx_files", "weights")]


def ready() -> Path:
    """The folder of the models, made once and kept for the next run; the variable COURSE_TEST_MODELS names another folder."""
    if given := os.environ.get("COURSE_TEST_MODELS"):  # made when the machine was set up
        return Path(given)
    made_from = hashlib.sha256(b"".join((ROOT / file).read_bytes() for file in MADE_BY)).hexdigest()
    folder = ROOT / ".pytest_cache" / "d" / f"models-{made_from[:12]}"
    make(folder)
    return folder


def make(folder: Path) -> None:
    """Make what is missing in a folder: resnet18.onnx, model_a.onnx (the same) and model_b.onnx.

    The weights are random, with seeds that nothing else uses. model_b is resnet18 with its classes moved and its
    logits doubled: as different as another export, which would take 20 s. Raises GraderFailure where that fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):  # several processes run tests
        if not (folder / "resnet18.onnx").exists():
            command = [sys.executable, "solutions/ex01_export.py", "--weights", "random", "--seed", "7"]
            command += ["--output", str(folder / "resnet18.onnx")]
            try:
                subprocess.run(command, cwd=ROOT, check=True, timeout=400)
            except subprocess.SubprocessError as error:
                raise GraderFailure(f"The models of the tests cannot be made: {error}") from error
        if not (folder / "model_b.onnx").exists():
            another_model(folder / "resnet18.onnx", folder / "model_b.onnx.part")
            os.replace(folder / "model_b.onnx.part", folder / "model_b.onnx")
        if not (folder / "model_a.onnx").exists():
            os.link(folder / "resnet18.onnx", folder / "model_a.onnx")


def another_model(path: Path, output: Path) -> None:
    """A model that answers differently: every logit doubled, and moved to the next class."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name in ("fc.weight", "fc.bias"):
            rows = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(2 * np.roll(rows, 1, axis=0), tensor.name))
    metadata = {entry.key: entry.value for entry in model.metadata_props} | {"weights": "random seed 8"}
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, output)


if __name__ == "__main__":
    make(Path(sys.argv[1]).resolve())
