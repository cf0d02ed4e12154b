"""Exercise 03: look at a model's graph, and see that only `forward` is in it.

python solutions/ex03_visualize.py models/resnet18.onnx
python solutions/ex03_visualize.py --methods
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
    if not model_path.is_file():
        command = "python solutions/ex06_optimize.py" if ".optimized" in model_path.name else "make export"
        raise Problem(f"There is no model at {model_path}. Run `{command}` first.")
    try:
        # The graph without the weights, which may lie in a second file.
        model = onnx.load(model_path, load_external_data=False)
    except DecodeError as error:
        raise Problem(f"{model_path} is not an ONNX model, or a broken one.") from error
    if not model.graph.node:  # an empty file is valid protobuf
        raise Problem(f"{model_path} holds no graph.")
    return dict(Counter(node.op_type for node in model.graph.node).most_common())


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
        return getattr(self.model, self.method)(images)


def export_method(method: str, path: Path) -> None:
    """Export one method of Classifier, `forward` or another, to a self-contained file with a dynamic batch axis.

    The file is written beside its place and moved there. Its input is called `input`.
    """
    model = Classifier().eval()
    if method != "forward":
        model = AsForward(model, method).eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        written = Path(folder) / path.name
        torch.onnx.export(
            model,
            (torch.zeros(2, 3, 32, 32),),
            written,
            dynamo=True,
            external_data=False,
            input_names=["input"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
        os.replace(written, path)


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
