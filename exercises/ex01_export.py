"""Exercise 01: export a classifier to ONNX.

python exercises/ex01_export.py --help
"""

import json
import os
import tempfile
import warnings
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import onnx
import onnxruntime as ort
import torch
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from torch import nn
from typer import Option

from course.given.script import run
from course.given.weights import Classifier, load_classifier
from serving import Problem
from serving.model import MODELS_DIR

OPSET = 20
BATCH_SIZES = (1, 8, 32)
# Two images, not one: torch.export takes a size of 1 for a constant.
EXAMPLE = torch.zeros(2, 3, 224, 224)

# TODO 1: what the contract (models/README.md) asks of the torch.export-based exporter: dynamo, external_data,
# opset_version, input_names, output_names, dynamic_shapes.
OPTIONS = {"verbose": False}

console = Console()


class Exporter(StrEnum):
    """The three ways to ONNX."""

    dynamo = "dynamo"
    torchscript = "torchscript"
    lightning = "lightning"


def export_dynamo(model: nn.Module, path: Path) -> None:
    """Export with the torch.export-based exporter: it captures the graph as a program of tensor operations."""
    # TODO 2: one call of torch.onnx.export: the model, (EXAMPLE,), the path, and **OPTIONS. Complete OPTIONS above.
    raise NotImplementedError("Call torch.onnx.export with dynamo=True.")


def export_torchscript(model: nn.Module, path: Path) -> None:
    """Export with the TorchScript exporter: it runs the model once and records what was called. Deprecated."""
    # TODO 3: torch.onnx.export again, with dynamo=False; it calls the dynamic axes dynamic_axes.
    raise NotImplementedError("Call torch.onnx.export with dynamo=False.")


def as_lightning_module(model: nn.Module) -> nn.Module:
    """The model in a LightningModule, which has to_onnx(); what is trained with Lightning is one already."""
    import lightning  # here, for it takes two seconds, which the other exporters need not wait for

    class LightningClassifier(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            """(batch, 3, 224, 224) float32 to (batch, 1000) float32 logits."""
            return self.model(images)

    return LightningClassifier().eval()


def export_lightning(model: nn.Module, path: Path) -> None:
    """Export a LightningModule with its own method, which hands its options on to torch.onnx.export."""
    # TODO 4: wrap the model with as_lightning_module and call its to_onnx(path, (EXAMPLE,), ...).
    raise NotImplementedError("Call as_lightning_module(model).to_onnx.")


def add_metadata(path: Path, classifier: Classifier, architecture: str, exporter: str) -> None:
    """Write labels and provenance into the file, so that serving it needs neither PyTorch nor torchvision."""
    # TODO 5: load the file with onnx.load, set the properties labels (a JSON list), architecture, weights
    # (classifier.provenance) and exporter with onnx.helper.set_model_props, and save it.
    raise NotImplementedError("Write labels, architecture, weights and exporter into the file's metadata.")


def move_weights_out(path: Path) -> Path:
    """Move the weights into a second file beside the graph, and return its path.

    Its name holds the time, so that graph and weights of two exports are never mixed up.
    """
    data = path.with_name(f"{path.stem}-{path.stat().st_mtime_ns}.data")
    onnx.save(onnx.load(path), path, save_as_external_data=True, location=data.name)
    data.chmod(path.stat().st_mode)  # onnx leaves it readable by its owner alone
    return data


def compare(model: nn.Module, path: Path) -> dict[int, float]:
    """The largest absolute difference between PyTorch's and ONNX Runtime's logits, by batch size.

    Raises:
        Problem: they differ by more than 5e-6 of the largest logit (1e-4 for a trained resnet18, whose
            logits reach 20), which is what other orders of adding float32 numbers come to.
    """
    # TODO 6: for each of BATCH_SIZES, run random images through model (torch.inference_mode) and through an
    # ort.InferenceSession of the file, and compare the logits. Beware of NaN.
    raise NotImplementedError("Compare PyTorch's logits with ONNX Runtime's for each of BATCH_SIZES.")


def export(classifier: Classifier, architecture: str, exporter: Exporter, external_data: bool, output: Path) -> dict:
    """Export, check and compare in a folder of its own; only then does the file take its place.

    Returns:
        compare()'s differences by batch size.
    """
    export_with = {"dynamo": export_dynamo, "torchscript": export_torchscript, "lightning": export_lightning}
    output.parent.mkdir(parents=True, exist_ok=True)
    # Beside its place, since a file can be moved in one step only within a file system.
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".export-") as folder:
        path = Path(folder) / output.name
        with console.status(f"Exporting {architecture} with {exporter} ..."):
            export_with[exporter](classifier.model, path)
            add_metadata(path, classifier, architecture, exporter)
        data = move_weights_out(path) if external_data else None
        with console.status(f"Checking, and comparing with PyTorch at batch {BATCH_SIZES} ..."):
            onnx.checker.check_model(path, full_check=True)
            differences = compare(classifier.model, path)
        if data:  # the weights first: a graph must never stand without them
            os.replace(data, output.parent / data.name)
        os.replace(path, output)
    for old in output.parent.glob(f"{output.stem}-*.data"):
        if data is None or old.name != data.name:
            old.unlink()
    return differences


def main(
    exporter: Annotated[Exporter, Option(help="Which of the three ways to ONNX.")] = Exporter.dynamo,
    architecture: Annotated[str, Option(help="Any of torchvision's classifiers.")] = "resnet18",
    weights: Annotated[str, Option(help="auto, imagenet, random, or a checkpoint file.")] = "auto",
    seed: Annotated[int, Option(help="For random weights.")] = 0,
    external_data: Annotated[bool, Option("--external-data", help="Weights in a second file.")] = False,
    output: Annotated[Path | None, Option(help="Where to.", show_default="models/ARCHITECTURE.onnx")] = None,
) -> None:
    """Export a classifier to ONNX, check it, compare it with PyTorch, and put it into models/."""
    output = output or MODELS_DIR / f"{architecture}.onnx"
    with console.status("Loading the weights ..."):
        classifier = load_classifier(architecture, weights, seed)
    try:
        differences = export(classifier, architecture, exporter, external_data, output)
    except OSError as error:
        raise Problem(f"{output} could not be written: {error.strerror or error}.") from error

    table = Table(title="Agreement with PyTorch", title_justify="left")
    table.add_column("batch", justify="right")
    table.add_column("largest absolute difference of a logit", justify="right")
    for batch_size, difference in differences.items():
        table.add_row(str(batch_size), f"{difference:.1e}")
    console.print(table)
    megabytes = sum(file.stat().st_size for file in [output, *output.parent.glob(f"{output.stem}-*.data")]) / 1e6
    console.print(f"{output}: {megabytes:.1f} MB, opset {OPSET}, weights: {classifier.provenance}", soft_wrap=True)
    if classifier.provenance.startswith("random"):
        console.print(
            Panel(
                "These weights are RANDOM: the model runs, but its labels mean nothing."
                " With a network connection, export again with --weights imagenet.",
                style="bold yellow",
            )
        )
    console.print("Next: `make serve`, and in a second terminal `make client`.")


if __name__ == "__main__":
    run(main)
