"""Small real ONNX models, made in milliseconds, whose answers depend on every part of the image."""

import json
import os
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LABELS = [f"thing {i}" for i in range(1000)]
# Weights are of this run alone: nobody can work out at home what these models answer, and hand in the answers.
RUN = int.from_bytes(os.urandom(8))


def small_model(
    path: Path,
    *,
    input_name: str = "input",
    output_name: str = "output",
    batch: str | int = "batch",
    height: str | int = 224,
    seed: int = 5,
    white: str | None = None,
    black: str | None = None,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write a classifier: the means of 8 x 8 fields and three channels, then one fully connected layer.

    Unlike a resnet18 it is 0.8 MB and runs in a millisecond; like one it takes (batch, 3, 224, 224) and
    gives (batch, 1000), and its answer changes with crop, channel order and normalisation.

    white, black: what a wholly white or black image does to it; one of the two, and one of these: "fails" when
        it runs, gives "nan", is "slow": takes a second or so, or "slowish": a tenth of that.
    """
    weights = np.random.default_rng([seed, RUN]).normal(size=(3 * 8 * 8, 1000)).astype(np.float32)
    nodes = [
        helper.make_node("AveragePool", [input_name], ["pooled"], kernel_shape=[28, 28], strides=[28, 28]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits" if white or black else output_name]),
    ]
    if white or black:
        nodes += _nothing_but_on("Identity" if white else "Neg", white or black, input_name)
        nodes += [helper.make_node("Add", ["logits", "nothing"], [output_name])]
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


def _nothing_but_on(colour: str, trap: str, input_name: str) -> list[onnx.NodeProto]:
    """Nodes that make `nothing`, the number 0, of any image but a white one, or ("Neg") a black one."""
    is_it = [
        helper.make_node("Constant", [], ["zero"], value_float=0.0),
        helper.make_node("Constant", [], ["limit"], value_float=1.7),
        helper.make_node(colour, [input_name], ["pixels"]),
        helper.make_node("ReduceMin", ["pixels"], ["least"], keepdims=0),
        helper.make_node("Greater", ["least", "limit"], ["it"]),  # normalised, white is over 2.2, black under -1.8
        helper.make_node("Cast", ["it"], ["times"], to=TensorProto.INT64),
    ]
    match trap:
        case "fails":
            return [
                *is_it,
                helper.make_node("Constant", [], ["list"], value_floats=[0.0]),
                helper.make_node("Gather", ["list", "times"], ["nothing"]),  # there is no list[1]
            ]
        case "nan":
            return [
                *is_it,
                helper.make_node("Where", ["it", "zero", "limit"], ["divisor"]),
                helper.make_node("Div", ["zero", "divisor"], ["nothing"]),
            ]
        case "slow" | "slowish":
            loop = helper.make_graph(
                [helper.make_node("Identity", ["go_on"], ["goes_on"]), helper.make_node("Abs", ["old"], ["new"])],
                "loop",
                [
                    helper.make_tensor_value_info("number", TensorProto.INT64, []),
                    helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
                    helper.make_tensor_value_info("old", TensorProto.FLOAT, []),
                ],
                [
                    helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
                    helper.make_tensor_value_info("new", TensorProto.FLOAT, []),
                ],
            )
            return [
                *is_it,
                helper.make_node("Constant", [], ["many"], value_int=1_000_000 if trap == "slow" else 100_000),
                helper.make_node("Mul", ["times", "many"], ["loops"]),
                helper.make_node("Loop", ["loops", "", "zero"], ["nothing"], body=loop),
            ]
    raise ValueError(trap)


def small_models(folder: Path, **traps: dict[str, str]) -> Path:
    """A MODELS_DIR with models that answer in a millisecond; traps, by name: what small_model makes of an image."""
    for seed, name in enumerate(("resnet18", "model_a", "model_b")):
        small_model(folder / f"{name}.onnx", seed=seed, **traps.get(name, {}))
    return folder
