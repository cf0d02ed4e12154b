"""Exercise 06: let ONNX Runtime optimise the graph once, save it, and say which nodes it fused.

python exercises/ex06_optimize.py --quick
"""

import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx
import onnxruntime as ort
from typer import Option

# What the course gives: whose work each node does, latencies measured as in exercise 05, tables and picture.
from course.given.graphs import work
from course.given.optimize_report import report
from course.given.script import run
from serving import Problem
from serving.model import MODEL_PATH

LEVELS = {
    "disable": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "layout": ort.GraphOptimizationLevel.ORT_ENABLE_LAYOUT,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
DEFAULT = "extended"  # the highest level whose file does not depend on the processor
AGREEMENT = 1e-4  # of an output
BATCHES = (1, 3)  # a file whose batch axis became fixed fails on one of them


def open_session(path: Path, level: str = "disable", save_as: Path | None = None) -> ort.InferenceSession:
    """Load a model on the CPU, its graph optimised at a level (a key of LEVELS), and save that graph where told to.

    Raises:
        Problem: there is no such file, or it cannot be loaded.
    """
    if not Path(path).is_file():
        raise Problem(f"There is no model at {path}. Run `make export` first.")
    options = ort.SessionOptions()
    options.log_severity_level = 3  # our report says in its own words what ONNX Runtime warns of
    # TODO 1: the level, and where save_as is given, where to save: two attributes of options. Take the next line away.
    raise NotImplementedError("Set the level, and where to save the optimised graph.")
    try:
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has a dozen kinds of its own, also for a full disk
        reason = str(error).splitlines()[0]
        if save_as:
            free = shutil.disk_usage(save_as.parent).free / 1e6
            raise Problem(
                f"The optimised model could not be written to {save_as.parent.parent}, {free:.0f} MB free: {reason}"
            ) from error
        raise Problem(f"{path} cannot be loaded: {reason}") from error


def compare(before: Path, after: Path) -> float:
    """The largest absolute difference of an output between two model files, on batches of the sizes BATCHES.

    The input is normally distributed, of the shape that the first model asks for. Neither graph is optimised
    while it is loaded: what is compared is what the files hold.

    Raises:
        Problem: inputs or outputs have other names, types or shapes; outputs differ by more than AGREEMENT.
    """
    # TODO 2: open both files with open_session(). Names, types and shapes of inputs and outputs must be equal. Then run
    # both on the same random batches of each size of BATCHES; a Problem unless they agree.
    raise NotImplementedError("Compare the two files' inputs, outputs and answers.")


def optimize(model_path: Path, level: str, output: Path) -> float:
    """Optimise a graph at a level, save it and compare it; only then does it take its place at output.

    The original stays as it is. The folder of output is made where it is missing. Returns compare()'s difference.

    Raises:
        Problem: an unknown level; as open_session() and compare(). What was at output before is still there then.
        OSError: the file cannot be written.
    """
    # TODO 3: in a temporary folder beside output, open_session() with the level and save_as, then compare(), then
    # os.replace. A Problem for an unknown level; make output's folder where it is missing.
    raise NotImplementedError("Save the optimised graph, compare it, and only then put it into its place.")


def operator(node: onnx.NodeProto) -> str:
    """An operator's name, its domain in front unless it is ONNX's own: `Conv`, `com.microsoft.FusedConv`."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def operators(model_path: Path) -> dict[str, int]:
    """How many nodes of each operator a model file holds; names as operator() gives them."""
    # TODO 4: onnx.load(model_path).graph.node, operator(), and collections.Counter.
    raise NotImplementedError("Count the nodes by operator.")


def fusions(before: Path, after: Path) -> list[dict]:
    """Which nodes of one file were fused into which node of the other, in the new graph's order.

    A fusion is a node that does the work of two or more old ones (course.given.graphs.work finds them). No fusion is a
    node that is what it was, the same operator on the same weights, where a neighbour that computed nothing
    was removed.

    Returns {"into": operator, "from": [operators, in the old graph's order], "output": the new node's first tensor}
    for each fusion; operators as operator() gives them.
    """
    # TODO 5: work(old, new) gives, for each node of the new graph, the old nodes whose work it does. Keep those that do
    # the work of two or more, unless the node is what one of them was: the same operator() with the same weights
    # (inputs that are in new.initializer).
    raise NotImplementedError("List which nodes were fused into which.")


def optimised_path(model_path: Path, level: str | None = None) -> Path:
    """Where a model's optimised file goes: beside it, e.g. resnet18.optimized.all.onnx; no level: the DEFAULT's."""
    return model_path.with_name(f"{model_path.stem}.optimized{f'.{level}' if level else ''}.onnx")


def main(
    model: Annotated[Path, Option(help="The model file; the optimised ones go beside it.")] = MODEL_PATH,
    quick: Annotated[bool, Option("--quick", help="Measure one image only, in fewer turns.")] = False,
    rounds: Annotated[int | None, Option(min=1, help="Turns of each level.", show_default="7; quick: 3")] = None,
    threads: Annotated[int | None, Option(min=1, help="Of each session.", show_default="physical cores")] = None,
    output: Annotated[Path, Option(help="Folder for picture, table and measurements.")] = Path("reports/optimize"),
) -> None:
    """Optimise a model's graph at every level, and show what changed and what it brings."""
    files, differences = {level: optimised_path(model, level) for level in LEVELS}, {}
    try:
        for level, path in files.items():
            differences[level] = optimize(model, level, path)
        optimize(model, DEFAULT, optimised_path(model))
    except OSError as error:
        raise Problem(f"{model.parent} could not be written: {error.strerror or error}.") from error
    report(
        model,
        files,
        differences={level: f"{difference:.1e}" for level, difference in differences.items()},
        operators={"original": operators(model)} | {level: operators(path) for level, path in files.items()},
        fusions={level: fusions(model, path) for level, path in files.items()},
        quick=quick,
        rounds=rounds,
        threads=threads,
        output=output,
    )


if __name__ == "__main__":
    run(main)
