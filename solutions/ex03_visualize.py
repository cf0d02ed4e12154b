"""Exercise 03: look at a model's graph, and see that only `forward` is in it.

python solutions/ex03_visualize.py models/resnet18.onnx
python solutions/ex03_visualize.py --methods
"""

from collections import Counter
from pathlib import Path
from typing import Annotated

import onnx
import torch
from torch import nn
from typer import Argument, Option

from course.given.files import reading, whole_file
from course.given.netron import view
from course.given.script import run
from course.given.show import print_operators
from serving import Problem
from serving.model import MODEL_PATH, MODELS_DIR

METHODS = ("forward", "embed", "classify")


def operators(model_path: Path) -> dict[str, int]:
    """How many nodes of each operator a model's graph has, the most frequent first.

    Raises:
        Problem: the file is missing, or not an ONNX model.
    """
    with reading(model_path):
        # The graph without the weights, which may be in a second file.
        model = onnx.load(model_path, load_external_data=False)
    if not model.graph.node:  # an empty file is valid protobuf
        raise Problem(f"{model_path} holds no graph.")
    return dict(Counter(node.op_type for node in model.graph.node).most_common())


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
    """Wraps a model: calling it, as an exporter does, calls another method of the model than `forward`."""

    def __init__(self, model: nn.Module, method: str) -> None:
        super().__init__()
        self.model = model
        self.method = method

    def forward(self, images: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """What the method returns."""
        return getattr(self.model, self.method)(images)


def export_method(method: str, path: Path) -> None:
    """Export one method of Classifier, `forward` or another, to a self-contained file with a dynamic batch axis.

    Its input is called `input`.

    Raises:
        Problem: the file cannot be written.
    """
    model = Classifier().eval()
    if method != "forward":
        model = AsForward(model, method).eval()
    with whole_file(path) as written:
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


def main(
    models: Annotated[list[Path] | None, Argument(help="ONNX files.", show_default="models/resnet18.onnx")] = None,
    methods: Annotated[bool, Option("--methods", help="Export Classifier's methods, and show their files.")] = False,
    port: Annotated[int, Option(help="Of the first file; the next file takes the next port. 0: any free port.")] = 0,
    browser: Annotated[bool, Option(help="Open a browser.")] = True,
) -> None:
    """Print which operators ONNX files hold, and show their graphs in a browser, side by side, until Ctrl-C."""
    models = models or [MODEL_PATH]
    if methods:
        models = [MODELS_DIR / f"classifier-{method}.onnx" for method in METHODS]
        for method, path in zip(METHODS, models, strict=True):
            export_method(method, path)
    print_operators({path.name: operators(path) for path in models})
    view(models, port, browser)


if __name__ == "__main__":
    run(main)
