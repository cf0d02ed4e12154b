"""Exercise 02: look into an ONNX file, check it, and compare it with PyTorch on a photograph.

python solutions/ex02_check.py models/resnet18.onnx
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
    if not path.is_file():
        raise Problem(f"There is no file {path}. Run `make export` first.")
    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise Problem(f"{path} is not an ONNX model, or was cut short: protobuf cannot read it.") from error
    if not model.graph.node:
        raise Problem(f"{path} is not an ONNX model: it holds no graph.")
    for tensor in model.graph.initializer:
        data = path.parent / ExternalDataInfo(tensor).location if uses_external_data(tensor) else path
        if not data.is_file():
            raise Problem(f"{path} keeps its weights in {data.name}, which is not beside it.")
    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise Problem(f"{path} breaks the rules of ONNX: {str(error).splitlines()[0]}") from error
    return model


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
    model = load(path)
    inputs, outputs = ([_signature(value) for value in values] for values in (model.graph.input, model.graph.output))
    return {
        "opset": next(opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")),
        "inputs": inputs,
        "outputs": outputs,
        "dynamic_axes": {
            value["name"]: [axis for axis, size in enumerate(value["shape"]) if not isinstance(size, int)]
            for value in inputs + outputs
        },
        "operators": dict(Counter(node.op_type for node in model.graph.node).most_common()),
        "weights_bytes": sum(
            int(np.prod(tensor.dims)) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
            for tensor in model.graph.initializer
        ),
        "metadata": {entry.key: entry.value for entry in model.metadata_props},
    }


def _signature(value: onnx.ValueInfoProto) -> dict:
    tensor = value.type.tensor_type
    shape = [axis.dim_param or axis.dim_value if axis.WhichOneof("value") else "?" for axis in tensor.shape.dim]
    return {"name": value.name, "type": str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)), "shape": shape}


def require_dynamic_batch(path: Path) -> None:
    """Refuse a model that takes batches of one size only.

    Raises:
        Problem: the first axis of an input or output is fixed.
    """
    for name, axes in describe(path)["dynamic_axes"].items():
        if 0 not in axes:
            raise Problem(
                f"{path} has a fixed batch axis in {name!r}. Export it with a dynamic batch axis (exercise 01)."
            )


def logits(path: Path, photograph: Path) -> np.ndarray:
    """ONNX Runtime's logits for an image file: float32 array of shape (1, 1000)."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    image = preprocess(open_image(photograph.read_bytes()))
    return session.run(None, {session.get_inputs()[0].name: image})[0]


def difference_from_pytorch(path: Path, photograph: Path, checkpoint: Path | None = None) -> float:
    """The largest absolute difference of a logit between ONNX Runtime and PyTorch on one photograph.

    The PyTorch model is made from what the file's metadata says about its weights.
    """
    import torch  # here: it takes seconds, and the rest of this file does not need it

    from course.given.weights import load_again

    metadata = describe(path)["metadata"]
    model = load_again(metadata.get("architecture", ""), metadata.get("weights", ""), checkpoint)
    with torch.inference_mode():
        expected = model(torch.from_numpy(preprocess(open_image(photograph.read_bytes())))).numpy()
    return float(abs(logits(path, photograph) - expected).max())


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
