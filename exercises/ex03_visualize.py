"""Exercise 03: look at a model's graph, and see that only `forward` is in it.

python exercises/ex03_visualize.py models/resnet18.onnx
python exercises/ex03_visualize.py --methods
"""

import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Annotated

import onnx
import torch
from google.protobuf.message import DecodeError
from rich.console import Console
from rich.table import Table
from torch import nn
from typer import Argument, Option

from course.given.netron import view
from course.given.script import run
from serving import Problem
from serving.model import MODEL_PATH, MODELS_DIR

METHODS = ("forward", "embed", "classify")

console = Console(soft_wrap=True)


# ------------------------------------------------------------------------------ what is in a file


def operators(model_path: Path) -> dict[str, int]:
    """How many nodes of each operator a model's graph has, the most frequent first.

    Raises:
        Problem: the file is missing, or is no ONNX model.
    """
    # TODO 1: onnx.load without the weights, and a Counter over the nodes. A Problem where there is no such file, or
    # where it is no model (DecodeError).
    raise NotImplementedError("Count the nodes of the graph by operator.")


# ------------------------------------------------------------------------------ only `forward` is exported


class Classifier(nn.Module):
    """A small image classifier, its weights always the same, with two methods besides `forward`."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.features = nn.Sequential(
                nn.Conv2d(3, 8, kernel_size=3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
            )
            self.head = nn.Linear(8, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(batch, 3, 32, 32) float32 to (batch, 10) float32 logits."""
        return self.head(self.features(images))

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """(batch, 3, 32, 32) float32 to (batch, 8) float32 features, to search for similar images with."""
        return torch.tanh(self.features(images))

    def classify(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(batch, 3, 32, 32) float32 to the probability, (batch,) float32, and the number, (batch,) int64, of the best class."""
        probability, number = torch.softmax(self(images), dim=1).max(dim=1)
        return probability, number


class AsForward(nn.Module):
    """Wraps a model so that calling it, which is what an exporter does, calls one of the model's other methods."""

    def __init__(self, model: nn.Module, method: str) -> None:
        super().__init__()
        self.model = model
        self.method = method

    def forward(self, images: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Whatever the method gives."""
        # TODO 2: call the method called self.method of self.model.
        raise NotImplementedError("Call the other method.")


def export_method(method: str, path: Path) -> None:
    """Export one method of Classifier, `forward` or another, to a self-contained file with a dynamic batch axis.

    The file is written beside its place and moved there. Its input is called `input`.
    """
    # TODO 3: Classifier(), wrapped unless the method is `forward`, with torch.onnx.export (dynamo=True,
    # external_data=False, input_names, dynamic_shapes) into a temporary folder beside its place; then os.replace.
    raise NotImplementedError("Export the method.")


def print_operators(paths: list[Path]) -> None:
    """Print a table: an operator a row, a file a column."""
    counts = {path: operators(path) for path in paths}
    table = Table("operator", title="Nodes by operator", title_justify="left")
    for path in paths:
        table.add_column(path.name, justify="right")
    for name in dict.fromkeys(name for count in counts.values() for name in count):
        table.add_row(name, *(str(count.get(name, "")) for count in counts.values()))
    console.print(table)


def main(
    models: Annotated[list[Path] | None, Argument(help="ONNX files.", show_default="models/resnet18.onnx")] = None,
    methods: Annotated[bool, Option("--methods", help="Export the methods of Classifier, and show those.")] = False,
    port: Annotated[int, Option(help="The first file's port, the next one's is one more; 0 finds free ones.")] = 0,
    browser: Annotated[bool, Option(help="Open a browser.")] = True,
) -> None:
    """Print which operators ONNX files hold, and show their graphs in a browser, side by side, until Ctrl-C."""
    models = models or [MODEL_PATH]
    if methods:
        models = [MODELS_DIR / f"classifier-{method}.onnx" for method in METHODS]
        for method, path in zip(METHODS, models, strict=True):
            try:
                export_method(method, path)
            except OSError as error:
                raise Problem(f"{path} could not be written: {error.strerror or error}.") from error
    print_operators(models)
    view(models, port, browser)


if __name__ == "__main__":
    run(main)
