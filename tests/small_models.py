"""Small real ONNX models, made in milliseconds, whose answers depend on every part of the image."""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LABELS = [f"thing {i}" for i in range(1000)]


def small_model(
    path: Path,
    *,
    input_name: str = "input",
    output_name: str = "output",
    batch: str | int = "batch",
    height: str | int = 224,
    seed: int = 5,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write a classifier: the means of 8 x 8 fields and three channels, then one fully connected layer.

    Unlike a resnet18 it is 0.8 MB and runs in a millisecond; like one it takes (batch, 3, 224, 224) and
    gives (batch, 1000), and its answer changes with crop, channel order and normalisation.
    """
    weights = np.random.default_rng(seed).normal(size=(3 * 8 * 8, 1000)).astype(np.float32)
    nodes = [
        helper.make_node("AveragePool", [input_name], ["pooled"], kernel_shape=[28, 28], strides=[28, 28]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], [output_name]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, [batch, 3, height, 224])],
        [helper.make_tensor_value_info(output_name, TensorProto.FLOAT, [batch, 1000])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    helper.set_model_props(model, {"labels": json.dumps(LABELS), "weights": f"random seed {seed}"} | (metadata or {}))
    onnx.save(model, path)
    return path
