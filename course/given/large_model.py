"""`make large-model`: a model beyond protobuf's limit of 2 GB, saved in one file (fails) and in two (works).

The model looks rows up in big tables, as a language model does with its words. Everything is removed at the end.
"""

import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx
import onnxruntime as ort
import psutil
from google.protobuf.message import EncodeError
from onnx import TensorProto, helper
from rich.console import Console
from typer import Option

from course.given.script import run
from serving import Problem
from serving.model import MODELS_DIR

LIMIT = 2**31 - 1  # bytes of one protobuf message
TABLES, WIDTH = 8, 1024  # several tables: making one takes little memory beside those that are there
ROW = TABLES * WIDTH * 4  # bytes that one row takes in all tables

console = Console(highlight=False, soft_wrap=True)


def build(size: int) -> onnx.ModelProto:
    """A model with about `size` bytes of weights: int64 (batch) rows to float32 (batch, TABLES * WIDTH).

    Row i of every table is the number i, WIDTH times, so that a wrong answer can be recognised.
    """
    rows = size // ROW
    names = [f"table_{i}" for i in range(TABLES)]
    nodes = [helper.make_node("Gather", [name, "rows"], [f"{name}_rows"]) for name in names]
    nodes.append(helper.make_node("Concat", [f"{name}_rows" for name in names], ["output"], axis=1))
    wanted = helper.make_tensor_value_info("rows", TensorProto.INT64, ["batch"])
    found = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", TABLES * WIDTH])
    graph = helper.make_graph(nodes, "tables", [wanted], [found])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    for name in names:  # into the finished model: make_graph() and make_model() would each copy the weights
        table = np.repeat(np.arange(rows, dtype=np.float32), WIDTH).tobytes()
        model.graph.initializer.add(name=name, data_type=TensorProto.FLOAT, dims=[rows, WIDTH], raw_data=table)
    return model


def save_in_one_file(model: onnx.ModelProto, path: Path) -> str:
    """Save graph and weights together; returns protobuf's error where that is impossible, else ""."""
    try:
        onnx.save(model, path)
    except (EncodeError, ValueError) as error:  # which of them depends on how protobuf was built
        return f"{type(error).__name__}: {error}"
    return ""


def save_in_two_files(model: onnx.ModelProto, path: Path) -> Path:
    """Save the graph, and the weights in a second file, whose path is returned. Empties the model."""
    data = path.with_suffix(".data")
    onnx.save(model, path, save_as_external_data=True, location=data.name)
    return data


def look_up(path: Path, rows: list[int]) -> np.ndarray:
    """What ONNX Runtime answers with the saved model: float32 array of shape (len(rows), TABLES * WIDTH)."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["output"], {"rows": np.array(rows, dtype=np.int64)})[0]


def demonstrate(size: int, folder: Path) -> dict:
    """Make a model with `size` bytes of weights, save it both ways into a folder, check it and run it.

    Returns:
        {"error": protobuf's, of saving it in one file, or "", "graph_bytes": int, "data_bytes": int}
    """
    path, last = folder / "large.onnx", size // ROW - 1
    with _timed(f"make {TABLES} tables, {size / 1e9:.2f} GB in all"):
        model = build(size)
    with _timed("save graph and weights in one file"):
        error = save_in_one_file(model, folder / "one_file.onnx")
    if error:
        said = f"          failed: over protobuf's limit of {LIMIT / 1e9:.2f} GB. All it says is: {error}"
        console.print(said, style="yellow", markup=False)
    with _timed("save the graph, and the weights in a second file"):
        data = save_in_two_files(model, path)
    del model
    with _timed("check it with onnx.checker, by its path"):
        onnx.checker.check_model(path, full_check=True)
    with _timed("load it in ONNX Runtime, and look up its first and last row"):
        answer = look_up(path, [0, last])
    if not np.array_equal(answer[:, [0, -1]], [[0, 0], [last, last]]):
        raise Problem("ONNX Runtime answered other rows than those that were saved.")
    return {"error": error, "graph_bytes": path.stat().st_size, "data_bytes": data.stat().st_size}


def require_room(size: int, folder: Path) -> None:
    """Print what is needed; raises Problem if less disk or memory is free."""
    # Beyond the limit the first file is never written. Memory: the model, and what protobuf tries to make of it.
    disk, memory = (size if size > LIMIT else 2 * size) * 1.01, 3 * size
    free_disk, free_memory = shutil.disk_usage(folder).free, psutil.virtual_memory().available
    needs = f"This needs {disk / 1e9:.1f} GB of disk in {folder} and {memory / 1e9:.1f} GB of memory"
    if free_disk < disk or free_memory < memory:
        raise Problem(f"{needs}; {free_disk / 1e9:.1f} GB and {free_memory / 1e9:.1f} GB are free.")
    console.print(f"{needs}, for half a minute or more. Ctrl-C stops it; all files are removed at the end.")


@contextmanager
def _timed(what: str) -> Iterator[None]:
    start = time.perf_counter()
    with console.status(f"{what} ..."):
        yield
    console.print(f"{time.perf_counter() - start:6.2f} s  {what}")


def main(
    megabytes: Annotated[int, Option(min=1, help="Size of the weights; the limit is at 2147.")] = 2200,
) -> None:
    """Show what happens when a model over 2 GB is saved."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the files are removed then as well
    size = megabytes * 10**6
    try:
        MODELS_DIR.mkdir(parents=True, exist_ok=True)
        require_room(size, MODELS_DIR)
        with tempfile.TemporaryDirectory(dir=MODELS_DIR, prefix=".large-") as folder:
            result = demonstrate(size, Path(folder))
    except OSError as error:
        raise Problem(f"The model could not be written to {MODELS_DIR}: {error.strerror or error}.") from error
    except MemoryError as error:
        raise Problem("There was not enough memory.") from error
    graph, data = result["graph_bytes"], result["data_bytes"]
    console.print(f"In two files: {graph} bytes of graph, {data / 1e9:.2f} GB of weights.")
    if not result["error"]:
        console.print(f"One file works as well: {megabytes} MB are below protobuf's limit of {LIMIT / 1e9:.2f} GB.")


if __name__ == "__main__":
    run(main)
