"""Exercise 06: let ONNX Runtime optimise the graph once, save it, and say which nodes it fused.

python solutions/ex06_optimize.py --quick
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
    options.graph_optimization_level = LEVELS[level]
    if save_as:
        options.optimized_model_filepath = str(save_as)
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
    original, optimised = open_session(before), open_session(after)
    for kind in ("inputs", "outputs"):
        expected, got = (
            [(value.name, value.type, value.shape) for value in getattr(session, f"get_{kind}")()]
            for session in (original, optimised)
        )
        if got != expected:
            raise Problem(f"The {kind} have changed: they were {expected}, and are {got}.")
    random, largest = np.random.default_rng(0), 0.0
    value = original.get_inputs()[0]
    for batch in BATCHES:
        images = random.standard_normal((batch, *value.shape[1:]), dtype=np.float32)
        pairs = zip(*(session.run(None, {value.name: images}) for session in (original, optimised)), strict=True)
        difference = max(float(abs(a - b).max()) for a, b in pairs)
        if not difference <= AGREEMENT:  # `not <=` rather than `>`: NaN must not pass
            raise Problem(f"The optimised model's outputs differ by {difference:.1e}; at most {AGREEMENT} is fine.")
        largest = max(largest, difference)
    return largest


def optimize(model_path: Path, level: str, output: Path) -> float:
    """Optimise a graph at a level, save it and compare it; only then does it take its place at output.

    The original stays as it is. The folder of output is made where it is missing. Returns compare()'s difference.

    Raises:
        Problem: an unknown level; as open_session() and compare(). What was at output before is still there then.
        OSError: the file cannot be written.
    """
    if level not in LEVELS:
        raise Problem(f"There is no level {level!r}. There are {', '.join(LEVELS)}.")
    open_session(model_path)  # so that what fails below is the writing
    output.parent.mkdir(parents=True, exist_ok=True)
    # Beside its place, since a file can be moved in one step only within a file system.
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".optimize-") as folder:
        path = Path(folder) / output.name
        open_session(model_path, level, save_as=path)
        difference = compare(model_path, path)
        os.replace(path, output)
    return difference


def operator(node: onnx.NodeProto) -> str:
    """An operator's name, its domain in front unless it is ONNX's own: `Conv`, `com.microsoft.FusedConv`."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def operators(model_path: Path) -> dict[str, int]:
    """How many nodes of each operator a model file holds; names as operator() gives them."""
    return dict(Counter(operator(node) for node in onnx.load(model_path).graph.node))


def fusions(before: Path, after: Path) -> list[dict]:
    """Which nodes of one file were fused into which node of the other, in the new graph's order.

    A fusion is a node that does the work of two or more old ones (course.given.graphs.work finds them). No fusion is a
    node that is what it was, the same operator on the same weights, where a neighbour that computed nothing
    was removed.

    Returns {"into": operator, "from": [operators, in the old graph's order], "output": the new node's first tensor}
    for each fusion; operators as operator() gives them.
    """
    old, new = onnx.load(before).graph, onnx.load(after).graph
    weights = {tensor.name for tensor in new.initializer}

    def same(one: onnx.NodeProto, other: onnx.NodeProto) -> bool:
        return operator(one) == operator(other) and weights & set(one.input) == weights & set(other.input)

    return [
        {"into": operator(node), "from": [operator(part) for part in parts], "output": node.output[0]}
        for node, parts in zip(new.node, work(old, new), strict=True)
        if len(parts) > 1 and not any(same(node, part) for part in parts)
    ]


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
