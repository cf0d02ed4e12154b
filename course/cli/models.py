"""The model files that commands need, exported where they are missing."""

import os
import subprocess
import sys
from collections.abc import Iterable

import typer

from course import ROOT

# The two models of exercises 15 and 16. Any other model is called after its architecture.
ARCHITECTURES = {"model_a": "resnet18", "model_b": "resnet34"}


def export(model: str) -> None:
    """Export a model to models/ with the solution of exercise 01."""
    output = ROOT / "models" / f"{model}.onnx"
    words = ["--architecture", ARCHITECTURES.get(model, model), "--output", str(output)]
    done = subprocess.run([sys.executable, "solutions/ex01_export.py", *words], cwd=ROOT)
    if done.returncode:
        raise typer.Exit(done.returncode)


def need(models: Iterable[str]) -> None:
    """Export the models that are missing in models/. A folder of your own, MODELS_DIR, is left as it is."""
    for model in models:
        if "MODELS_DIR" not in os.environ and not (ROOT / "models" / f"{model}.onnx").is_file():
            export(model)
