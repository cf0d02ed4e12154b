"""Exercise 01: export a classifier to ONNX.

python exercises/ex01_export.py --help
"""

import json
import warnings
from pathlib import Path
from typing import Annotated, Literal

import onnx
import onnxruntime as ort
import torch
from torch import nn
from typer import Option

from course.given.files import whole_file
from course.given.onnx_files import move_weights_out, remove_source_paths, size
from course.given.script import run
from course.given.show import console, print_table
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


def export_dynamo(model: nn.Module, path: Path) -> None:
    """Export with the torch.export-based exporter: it captures the graph as a program of tensor operations."""
    # TODO 2: one call of torch.onnx.export with the model, (EXAMPLE,), the path and **OPTIONS.
    raise NotImplementedError("Call torch.onnx.export with dynamo=True.")


def export_torchscript(model: nn.Module, path: Path) -> None:
    """Export with the TorchScript exporter: it runs the model once and records the calls. Deprecated."""
    # TODO 3: torch.onnx.export again, with dynamo=False. Its option for dynamic axes is dynamic_axes.
    raise NotImplementedError("Call torch.onnx.export with dynamo=False.")


def as_lightning_module(model: nn.Module) -> nn.Module:
    """The model in a LightningModule, which has to_onnx(). What you train with Lightning already is one."""
    import lightning  # here: it takes two seconds, which the other exporters do not need

    class LightningClassifier(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            """(batch, 3, 224, 224) float32 to (batch, 1000) float32 logits."""
            return self.model(images)

    return LightningClassifier().eval()


def export_lightning(model: nn.Module, path: Path) -> None:
    """Export a LightningModule with its own method, which passes its options on to torch.onnx.export."""
    # TODO 4: wrap the model with as_lightning_module and call its to_onnx(path, (EXAMPLE,), ...).
    raise NotImplementedError("Call as_lightning_module(model).to_onnx.")


EXPORTERS = {"dynamo": export_dynamo, "torchscript": export_torchscript, "lightning": export_lightning}


def add_metadata(path: Path, classifier: Classifier, architecture: str, exporter: str) -> None:
    """Write labels and origin into the file, so that serving it needs neither PyTorch nor torchvision."""
    # TODO 5: load the file, set the properties labels (a JSON list), architecture, weights (classifier.provenance) and
    # exporter with onnx.helper.set_model_props, call remove_source_paths, and save the file.
    raise NotImplementedError("Write labels, architecture, weights and exporter into the file's metadata.")


def compare(model: nn.Module, path: Path) -> dict[int, float]:
    """The largest absolute difference between PyTorch's and ONNX Runtime's logits, by batch size.

    Raises:
        Problem: they differ by more than 5e-6 of the largest logit (1e-4 for a trained resnet18, whose logits
            reach 20). Adding float32 numbers in another order makes a smaller difference.
    """
    # TODO 6: for each of BATCH_SIZES, run random images through the model (torch.inference_mode) and through an
    # ort.InferenceSession of the file, and compare the logits. Beware of NaN.
    raise NotImplementedError("Compare PyTorch's logits with ONNX Runtime's for each of BATCH_SIZES.")


def main(
    exporter: Annotated[Literal[*EXPORTERS], Option(help="Which of the three exporters.")] = "dynamo",
    architecture: Annotated[str, Option(help="Of torchvision, or efficientnet_lite0.")] = "resnet18",
    weights: Annotated[str, Option(help="imagenet, random, or a checkpoint file.")] = "imagenet",
    seed: Annotated[int, Option(help="Of random weights.")] = 0,
    external_data: Annotated[bool, Option("--external-data", help="Weights in a second file.")] = False,
    output: Annotated[Path | None, Option(help="The file to write.", show_default="models/ARCHITECTURE.onnx")] = None,
) -> None:
    """Export a classifier to ONNX, check it, compare it with PyTorch, and put it into models/."""
    output = output or MODELS_DIR / f"{architecture}.onnx"
    with console.status("Loading the weights ..."):
        classifier = load_classifier(architecture, weights, seed)
    with (
        console.status(f"Exporting {architecture} with {exporter}, and comparing it with PyTorch ..."),
        whole_file(output) as path,
    ):
        EXPORTERS[exporter](classifier.model, path)
        add_metadata(path, classifier, architecture, exporter)
        if external_data:
            move_weights_out(path)
        onnx.checker.check_model(path, full_check=True)
        differences = compare(classifier.model, path)

    rows = [(batch, f"{difference:.1e}") for batch, difference in differences.items()]
    print_table(rows, ">batch", ">largest absolute difference of a logit", title="Agreement with PyTorch")
    console.print(f"{output}: {size(output) / 1e6:.1f} MB, opset {OPSET}, weights: {classifier.provenance}")
    if classifier.provenance.startswith("random"):
        warning = "These weights are RANDOM: the model runs, but its labels mean nothing."
        console.print(f"{warning} With a network connection: --weights imagenet.", style="bold yellow")
    console.print("Next: `make serve`, and in a second terminal `make client`.")


if __name__ == "__main__":
    run(main)
