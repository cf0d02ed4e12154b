"""Exercise 02 by somebody who turns protobuf into JSON, adds up bytes from arrays, and asks a session for the rest."""

import math
import sys
from pathlib import Path

import numpy
import onnx
import onnxruntime
import torch
from google.protobuf.json_format import MessageToDict

from course import ROOT
from course.given.weights import load_again
from serving import Problem
from serving.images import open_image, preprocess

BYTES = {"FLOAT": 4, "DOUBLE": 8, "INT64": 8, "INT32": 4, "FLOAT16": 2, "INT8": 1, "UINT8": 1, "BOOL": 1}


def describe(path):
    path = Path(path)
    if not path.exists():
        raise Problem(f"Where is {path}?")
    try:
        data = path.read_bytes()
        model = onnx.ModelProto.FromString(data)
    except Exception:
        raise Problem(f"Half of {path.name} seems to be missing.") from None
    if len(model.graph.node) == 0:
        raise Problem(f"{path.name} has nothing in it")
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location" and not path.with_name(entry.value).exists():
                raise Problem(f"{entry.value} is missing: the weights of {path.name} are in it.")
    try:
        onnx.checker.check_model(str(path))
    except Exception as error:
        raise Problem(f"the checker refuses {path.name}: {str(error).splitlines()[0]}") from None

    values = [*model.graph.input, *model.graph.output]
    signatures = []
    for value in values:
        shown = MessageToDict(value)
        axes = shown["type"]["tensorType"]["shape"].get("dim", [])
        shape = [int(axis["dimValue"]) if "dimValue" in axis else axis.get("dimParam", "?") for axis in axes]
        kind = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
        kind = {"float": "float32", "double": "float64"}.get(kind, kind)
        signatures.append({"shape": shape, "type": kind, "name": shown["name"]})
    operators = {}
    for node in model.graph.node:
        operators[node.op_type] = operators.get(node.op_type, 0) + 1
    weights = 0
    for tensor in model.graph.initializer:
        weights += math.prod(tensor.dims) * BYTES[onnx.TensorProto.DataType.Name(tensor.data_type)]
    return {
        "opset": max(one.version for one in model.opset_import if not one.domain),
        "inputs": signatures[: len(model.graph.input)],
        "outputs": signatures[len(model.graph.input) :],
        "dynamic_axes": {
            one["name"]: [i for i, axis in enumerate(one["shape"]) if isinstance(axis, str)] for one in signatures
        },
        "operators": dict(sorted(operators.items(), key=lambda pair: -pair[1])),
        "weights_bytes": weights,
        "metadata": {entry.key: entry.value for entry in model.metadata_props},
    }


def difference_from_pytorch(path, photograph):
    told = describe(path)["metadata"]
    pixels = preprocess(open_image(Path(photograph).read_bytes()))
    session = onnxruntime.InferenceSession(str(path))
    (ours,) = session.run(None, {session.get_inputs()[0].name: pixels})
    theirs = load_again(told["architecture"], told["weights"], None)(torch.tensor(pixels)).detach().numpy()
    return numpy.max(numpy.abs(ours - theirs)).item()


if __name__ == "__main__":
    try:
        facts = describe(sys.argv[1])
        fixed = [name for name, axes in facts["dynamic_axes"].items() if 0 not in axes]
        if fixed:
            sys.exit(f"{fixed[0]} of {sys.argv[1]} takes batches of one size only")
        print(facts)
        photo = ROOT / "data" / "cat.png"
        gap = difference_from_pytorch(sys.argv[1], photo)
        sys.exit(None if gap < 1e-4 else f"{sys.argv[1]} is {gap} away from PyTorch.")
    except Problem as problem:
        sys.exit(str(problem))
