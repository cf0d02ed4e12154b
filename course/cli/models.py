"""The model files that commands need, exported where they are missing.

They have weights that were trained on ImageNet; with WEIGHTS=random, random ones. Where the trained ones cannot be
downloaded, an export fails and says what to do. Only `make serve` then takes STAND_IN by itself.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import typer

from course import ROOT
from course.given.files import whole_file
from course.student.guide import console
from serving import Problem

# The two models of exercises 15 and 16. Any other model is called after its architecture.
ARCHITECTURES = {"model_a": "resnet18", "model_b": "resnet34"}
STAND_IN = "efficientnet_lite0"  # `make setup` installs its weights


def path_of(model: str) -> Path:
    """Where a model is exported to."""
    return ROOT / "models" / f"{model}.onnx"


def export(model: str) -> None:
    """Export a model to models/ with the solution of exercise 01."""
    words = ["--architecture", ARCHITECTURES.get(model, model), "--output", str(path_of(model))]
    words += ["--weights", os.environ.get("WEIGHTS") or "imagenet"]
    done = subprocess.run([sys.executable, "solutions/ex01_export.py", *words], cwd=ROOT)
    if done.returncode:
        raise typer.Exit(done.returncode)


def need(models: Iterable[str]) -> None:
    """Export the models that are missing in models/. A folder of your own, MODELS_DIR, is left as it is."""
    for model in models:
        if "MODELS_DIR" not in os.environ and not path_of(model).is_file():
            export(model)


def need_to_serve(models: Iterable[str]) -> None:
    """As need(), but STAND_IN is served in the place of a model whose trained weights cannot be downloaded.

    MODEL, where it is set, is served instead of resnet18.
    """
    for model in models:
        if model == "resnet18":
            model = os.environ.get("MODEL") or model
        if model not in ("resnet18", *ARCHITECTURES) or "MODELS_DIR" in os.environ or _can_be_had(model):
            need([model])
            continue
        console.print(
            f"The ImageNet weights of {ARCHITECTURES.get(model, model)} cannot be downloaded: serving {STAND_IN}, whose "
            "weights came with the course. With a network connection: make export"
        )
        need([STAND_IN])
        if model == "resnet18":
            os.environ["MODEL"] = STAND_IN
        else:
            with whole_file(path_of(model)) as path:
                shutil.copy(path_of(STAND_IN), path)


def _can_be_had(model: str) -> bool:
    if path_of(model).is_file() or os.environ.get("WEIGHTS") or os.environ.get("MODEL") == model:
        return True
    if path_of(STAND_IN).is_file():  # it was exported because a download had failed: no second wait
        return False
    from course.given.weights import imagenet_weights  # here: PyTorch takes seconds to import

    try:
        imagenet_weights(ARCHITECTURES.get(model, model))
    except Problem:
        return False
    return True
