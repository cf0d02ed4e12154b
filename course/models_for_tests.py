"""The real models that tests serve: python -m course.models_for_tests FOLDER."""

import os
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

from course import ROOT
from course.processes import GraderFailure

# What their content depends on.
MADE_BY = ("requirements.txt", "solutions/ex01_export.py", "course/weights.py", "course/models_for_tests.py")


def make(folder: Path) -> None:
    """Make what is missing in a folder: resnet18.onnx, model_a.onnx (the same) and model_b.onnx.

    Their weights are random, with seeds that nobody else uses. Both are resnet18: quicker to export than a resnet34.

    Raises:
        GraderFailure: they cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):  # several processes run tests
        for name, seed in (("resnet18", "7"), ("model_b", "8")):
            if not (folder / f"{name}.onnx").exists():
                command = [sys.executable, "solutions/ex01_export.py", "--weights", "random", "--seed", seed]
                command += ["--output", str(folder / f"{name}.onnx")]
                try:
                    subprocess.run(command, cwd=ROOT, check=True, timeout=400)
                except subprocess.SubprocessError as error:
                    raise GraderFailure(f"The models of the tests cannot be made: {error}") from error
        if not (folder / "model_a.onnx").exists():
            os.link(folder / "resnet18.onnx", folder / "model_a.onnx")


if __name__ == "__main__":
    make(Path(sys.argv[1]).resolve())
