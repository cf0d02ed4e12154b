"""What course/harness/model_files.py asks about a file that it does not trust; called in a process of its own."""

import statistics
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

# The models of the course have a few hundred parts at most, and under 100 MB.
MOST_PARTS, LARGEST = 20_000, 200 * 2**20


def examine(path: Path) -> int:
    """How many parts a file has; ValueError where they are too many to be looked at by the tests themselves."""
    if (size := path.stat().st_size) > LARGEST:
        raise ValueError(f"it has {size / 2**20:.0f} MB; a model of this course has less than 100")
    model = onnx.load(path, load_external_data=False)
    parts = _parts(model.graph) + len(model.metadata_props) + sum(len(function.node) for function in model.functions)
    if parts > MOST_PARTS:
        raise ValueError(f"it has {parts:,} nodes and other parts; a model of this course has a few hundred")
    return parts


def _parts(graph: onnx.GraphProto) -> int:
    """Its nodes, those of the graphs in its nodes, its weights and its notes about shapes."""
    if len(graph.node) > MOST_PARTS:
        return len(graph.node)
    attributes = [attribute for node in graph.node for attribute in node.attribute]
    inner = [graph for attribute in attributes for graph in (attribute.g, *attribute.graphs) if graph.node]
    return len(graph.node) + len(graph.initializer) + len(graph.value_info) + sum(map(_parts, inner))


def checked(path: Path) -> str:
    """What onnx's checker has against a file; nothing where it is a right one."""
    examine(path)
    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return str(error)[:500]
    return ""


def facts(path: Path) -> dict:
    """What an ONNX Runtime session says of a file."""
    examine(path)
    session = _session(path)
    inputs, outputs = (
        [{"name": one.name, "type": one.type, "shape": one.shape} for one in ends]
        for ends in (session.get_inputs(), session.get_outputs())
    )
    return {"inputs": inputs, "outputs": outputs, "metadata": session.get_modelmeta().custom_metadata_map}


def answers(path: Path, wanted: list[str] | None, feeds: dict[str, np.ndarray]) -> list:
    """What the model answers."""
    examine(path)
    return _session(path).run(wanted, feeds)


def ratios(path: Path, other: Path, rounds: int = 11, runs: int = 5) -> list[float]:
    """How many times as long as another model a model takes for one image, a ratio for each round.

    In each round both run in turn, once more than they are measured; it compares their medians. Neither graph is
    optimised while it is loaded. Each has one thread, ours, and what counts is the CPU time of it: not how long it
    had to wait for a core while other tests ran.
    """
    examine(path)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    pair = [ort.InferenceSession(one, options, providers=["CPUExecutionProvider"]) for one in (path, other)]
    value = pair[0].get_inputs()[0]
    feed = {value.name: np.random.default_rng(0).standard_normal((1, *value.shape[1:]), dtype=np.float32)}

    def once(session: ort.InferenceSession) -> float:
        begun = time.thread_time()
        session.run(None, feed)
        return time.thread_time() - begun

    found = []
    for _ in range(rounds):
        turns = [[once(session) for session in pair] for _ in range(1 + runs)][1:]
        mine, its = (statistics.median(seconds) for seconds in zip(*turns, strict=True))
        found.append(mine / its)
    return found


def _session(path: Path) -> ort.InferenceSession:
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"])
