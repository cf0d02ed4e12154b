"""Small real ONNX models, made in milliseconds, whose answers depend on every part of the image."""

import json
import os
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, parser

LABELS = [f"thing {i}" for i in range(1000)]
# Weights are of this run alone: nobody can work out at home what these models answer, and hand in the answers.
RUN = int.from_bytes(os.urandom(8))

# In ONNX's own text format.
HEAD = """
<ir_version: 9, opset_import: ["": 20]>
small (float[{batch}, 3, {height}, 224] {input_name}) => (float[{batch}, 1000] {output_name}) {{
    pooled = AveragePool <kernel_shape = [28, 28], strides = [28, 28]> ({input_name})
    flat = Flatten (pooled)
"""
# A trap makes `nothing` of an image, the number 0, unless the image is wholly white, or ("Neg") wholly black.
TRAPPED = """
    logits = MatMul (flat, weights)
    zero = Constant <value_float = 0.0> ()
    limit = Constant <value_float = 1.7> ()
    pixels = {sign} ({input_name})
    least = ReduceMin <keepdims = 0> (pixels)
    it = Greater (least, limit)
    times = Cast <to = 7> (it)
    {trap}
    {output_name} = Add (logits, nothing)
}}
"""  # normalised, white is over 2.2, black under -1.8
LOOP = """
    many = Constant <value_int = %d> ()
    loops = Mul (times, many)
    nothing = Loop <body = loop (int64 number, bool go_on, float old) => (bool goes_on, float new) {
        goes_on = Identity (go_on)
        new = Abs (old)
    }> (loops, , zero)
"""
TRAPS = {
    "fails": "list = Constant <value_floats = [0.0]> () nothing = Gather (list, times)",  # there is no list[1]
    "nan": "divisor = Where (it, zero, limit) nothing = Div (zero, divisor)",
    "slow": LOOP % 1_000_000,
    "slowish": LOOP % 100_000,
}


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
    metadata: dict[str, str | None] | None = None,
) -> Path:
    """Write a classifier: the means of 8 x 8 fields and three channels, then one fully connected layer.

    Unlike a resnet18 it is 0.8 MB and runs in a millisecond; like one it takes (batch, 3, 224, 224) and
    gives (batch, 1000), and its answer changes with crop, channel order and normalisation.

    white, black: what a wholly white or black image does to it; one of the two, and one of TRAPS: "fails" when
        it runs, gives "nan", is "slow": takes a second or so, or "slowish": a tenth of that.
    metadata: replaces or, with None, removes what the file says about itself.
    """
    names = {"input_name": input_name, "output_name": output_name}
    text = HEAD.format(batch=batch, height=height, **names)
    if trap := white or black:
        text += TRAPPED.format(sign="Identity" if white else "Neg", trap=TRAPS[trap], **names)
    else:
        text += f"{output_name} = MatMul (flat, weights) }}"
    model = parser.parse_model(text)
    weights = np.random.default_rng([seed, RUN]).normal(size=(3 * 8 * 8, 1000)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weights, "weights"))
    properties = {"labels": json.dumps(LABELS), "weights": f"random seed {seed}"} | (metadata or {})
    onnx.helper.set_model_props(model, {name: value for name, value in properties.items() if value is not None})
    onnx.save(model, path)
    return path


def small_models(folder: Path, **traps: dict[str, str]) -> Path:
    """A MODELS_DIR with models that answer in a millisecond; traps, by name: what small_model makes of an image."""
    for seed, name in enumerate(("resnet18", "model_a", "model_b")):
        small_model(folder / f"{name}.onnx", seed=seed, **traps.get(name, {}))
    return folder
