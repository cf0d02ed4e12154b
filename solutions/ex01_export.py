"""Exercise 01: export a classifier to ONNX.

python solutions/ex01_export.py --help
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

OPTIONS = {
    "dynamo": True,
    "external_data": False,
    "opset_version": OPSET,
    "input_names": ["input"],
    "output_names": ["output"],
    "dynamic_shapes": ({0: torch.export.Dim("batch")},),
    "verbose": False,
}


def export_dynamo(model: nn.Module, path: Path) -> None:
    """Export with the torch.export-based exporter: it captures the graph as a program of tensor operations."""
    torch.onnx.export(model, (EXAMPLE,), path, **OPTIONS)


def export_torchscript(model: nn.Module, path: Path) -> None:
    """Export with the TorchScript exporter: it runs the model once and records the calls. Deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the page says it once
        torch.onnx.export(
            model,
            (EXAMPLE,),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=["input"],
            output_names=["output"],
            dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
        )


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
    as_lightning_module(model).to_onnx(path, (EXAMPLE,), **OPTIONS)


EXPORTERS = {"dynamo": export_dynamo, "torchscript": export_torchscript, "lightning": export_lightning}


def add_metadata(path: Path, classifier: Classifier, architecture: str, exporter: str) -> None:
    """Write labels and origin into the file, so that serving it needs neither PyTorch nor torchvision."""
    model = onnx.load(path)
    properties = {
        "labels": json.dumps(classifier.labels),
        "architecture": architecture,
        "weights": classifier.provenance,
        "exporter": f"{exporter}, torch {torch.__version__}",
    }
    onnx.helper.set_model_props(model, properties)
    remove_source_paths(model)
    onnx.save(model, path)


def compare(model: nn.Module, path: Path) -> dict[int, float]:
    """The largest absolute difference between PyTorch's and ONNX Runtime's logits, by batch size.

    Raises:
        Problem: they differ by more than 5e-6 of the largest logit (1e-4 for a trained resnet18, whose logits
            reach 20). Adding float32 numbers in another order makes a smaller difference.
    """
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    differences = {}
    for batch_size in BATCH_SIZES:
        images = torch.randn(batch_size, 3, 224, 224, generator=torch.Generator().manual_seed(batch_size))
        with torch.inference_mode():
            expected = model(images).numpy()
        difference = float(abs(session.run(["output"], {"input": images.numpy()})[0] - expected).max())
        if not difference <= 5e-6 * abs(expected).max():  # `not <=` rather than `>`: NaN must not pass
            raise Problem(f"The exported model differs from PyTorch's by {difference:.1e} at batch {batch_size}.")
        differences[batch_size] = difference
    return differences


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
