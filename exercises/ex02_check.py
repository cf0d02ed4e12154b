"""Exercise 02: look into an ONNX file, check it, and compare it with PyTorch on a photograph.

python exercises/ex02_check.py models/resnet18.onnx
"""

from collections import Counter
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError
from onnx.external_data_helper import ExternalDataInfo, uses_external_data
from typer import Argument, Option

from course import ROOT
from course.given.script import run
from course.given.show import console, print_summary
from serving import Problem
from serving.images import open_image, preprocess
from serving.model import MODEL_PATH

PHOTOGRAPH = ROOT / "data" / "cat.png"
AGREEMENT = 1e-4  # largest absolute difference of a logit


def load(path: Path) -> onnx.ModelProto:
    """Read and check a model file. Weights in a second file must be there, but are not read.

    Raises:
        Problem: the file is missing, not ONNX, cut short, without its external data, or refused by the checker. The
            sentence names the file, and the second file where that is missing.
    """
    # TODO 1: onnx.load(path, load_external_data=False), then onnx.checker.check_model(path, full_check=True).
    # Raise a Problem with one sentence when either fails, when the graph has no nodes, and when the second file of a
    # tensor with external data is missing: name that file.
    raise NotImplementedError("Read the model and check it.")


def describe(path: Path) -> dict:
    """The facts about a model file.

    Returns:
        {"opset": int,
         "inputs" and "outputs": [{"name": str, "type": "float32", "shape": ["batch", 3, 224, 224]}, ...],
         "dynamic_axes": {"input": [0], ...} by the name of each input and output,
         "operators": {"Conv": 20, ...} most frequent first,
         "weights_bytes": int, "metadata": {str: str}}

    Raises:
        Problem: as load().
    """
    # TODO 2: collect the facts from load(path): opset_import, graph.input, graph.output, graph.node,
    # graph.initializer, metadata_props.
    raise NotImplementedError("Collect the facts about the file.")


def require_dynamic_batch(path: Path) -> None:
    """Refuse a model that takes batches of one size only.

    Raises:
        Problem: the first axis of an input or output is fixed.
    """
    # TODO 3: look at describe(path)["dynamic_axes"].
    raise NotImplementedError("Refuse a model with a fixed batch axis.")


def logits(path: Path, photograph: Path) -> np.ndarray:
    """ONNX Runtime's logits for an image file: float32 array of shape (1, 1000)."""
    # TODO 4: an ort.InferenceSession, and preprocess(open_image(...)) for the photograph.
    raise NotImplementedError("Run the model on the photograph.")


def difference_from_pytorch(path: Path, photograph: Path, checkpoint: Path | None = None) -> float:
    """The largest absolute difference of a logit between ONNX Runtime and PyTorch on one photograph.

    The PyTorch model is made from what the file's metadata says about its weights.
    """
    # TODO 5: load_again(architecture, weights, checkpoint) of course.given.weights makes the PyTorch model from
    # describe(path)["metadata"]. Compare its logits with logits(path, photograph).
    raise NotImplementedError("Compare PyTorch's logits with ONNX Runtime's on the photograph.")


def main(
    path: Annotated[Path, Argument(help="The model file.")] = MODEL_PATH,
    photograph: Annotated[Path, Option(help="The image to compare with PyTorch on.")] = PHOTOGRAPH,
    graph: Annotated[bool, Option("--graph", help="Print the whole graph, a line for each node.")] = False,
    checkpoint: Annotated[Path | None, Option(help="The checkpoint that the model was exported from.")] = None,
) -> None:
    """Check an ONNX file: its structure, its dynamic axes, its agreement with PyTorch."""
    model = load(path)
    if graph:
        for node in model.graph.node:
            console.print(onnx.helper.printable_node(node), markup=False, highlight=False, soft_wrap=True)
    print_summary(path, describe(path))
    require_dynamic_batch(path)
    with console.status("Comparing with PyTorch ..."):
        difference = difference_from_pytorch(path, photograph, checkpoint)
    if not difference <= AGREEMENT:
        raise Problem(
            f"{path} differs from PyTorch by {difference:.1e} on {photograph.name}; at most {AGREEMENT} is fine."
        )
    console.print(f"Agrees with PyTorch on {photograph.name}: the largest difference of a logit is {difference:.1e}.")
    console.print("Next: classify a photograph with it (exercise 04).")


if __name__ == "__main__":
    run(main)
