"""The real models that tests serve: python -m course.models_for_tests FOLDER."""

import os
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

from course import ROOT

# What their content depends on.
MADE_BY = ("requirements.txt", "solutions/ex01_export.py", "course/weights.py", "course/models_for_tests.py")


def make(folder: Path) -> None:
    """Make what is missing in a folder: resnet18.onnx, model_a.onnx (the same) and model_b.onnx.

    Their weights are random, with seeds that nobody else uses. Both are resnet18: quicker to export than a resnet34.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):  # several processes run tests
        for name, seed in (("resnet18", "7"), ("model_b", "8")):
            if not (folder / f"{name}.onnx").exists():
                command = [sys.executable, "solutions/ex01_export.py", "--weights", "random", "--seed", seed]
                subprocess.run([*command, "--output", folder / f"{name}.onnx"], cwd=ROOT, check=True, timeout=200)
        if not (folder / "model_a.onnx").exists():
            os.link(folder / "resnet18.onnx", folder / "model_a.onnx")


if __name__ == "__main__":
    make(Path(sys.argv[1]).resolve())
