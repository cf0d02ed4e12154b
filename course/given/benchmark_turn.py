"""One turn of the benchmark, in a process of its own: python -m course.given.benchmark_turn FOLDER EXERCISE.

Reads FOLDER/turn.json (see Turn in course/given/benchmark.py), writes FOLDER/result.json and, for the
comparison of the outputs, FOLDER/SIZE.npy. Only what the turn's runtime needs is imported.
"""

import importlib.util
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

Runner = Callable[[np.ndarray], np.ndarray]


def main(folder: Path, exercise: Path) -> None:
    """Import, load, compare, measure; write what was measured."""
    turn = json.loads((folder / "turn.json").read_text())
    measure = load_exercise(exercise).measure
    begin = time.perf_counter()
    versions = import_runtime("onnxruntime" if "file" in turn else turn["runtime"])
    imported = time.perf_counter()
    runner = load_runner(turn["runtime"], turn)
    loaded = time.perf_counter()
    runner(images(turn["cells"][0][0], 1))
    first = time.perf_counter()
    result = {
        **turn,
        "pid": os.getpid(),
        "versions": versions,
        "import_seconds": imported - begin,
        "load_seconds": loaded - imported,
        "first_prediction_seconds": first - loaded,
        "first_prediction_megabytes": peak_megabytes(),
    }
    for size in {size for size, _ in turn["cells"]}:
        np.save(folder / f"{size}.npy", runner(images(size, 2)))
    # The lie "together": another runtime in the same process, called between our calls.
    other = load_runner(turn["together_with"], turn) if turn["together_with"] else None
    result["seconds"] = {
        f"{size}x{batch}": measure_cell(measure, runner, other, images(size, batch), turn)
        for size, batch in turn["cells"]
    }
    result["peak_megabytes"] = peak_megabytes()
    (folder / "result.json").write_text(json.dumps(result))


def measure_cell(measure: Callable, runner: Runner, other: Runner | None, batch: np.ndarray, turn: dict) -> list[float]:
    """Seconds of as many runs as fit into the time for a cell, at least one."""
    if turn["warmup"] == 0:
        return measure(lambda: runner(batch), 0, 3)
    if other is not None:
        seconds = []
        for _ in range(turn["max_repeats"]):
            other(batch)
            seconds += measure(lambda: runner(batch), 0, 1)
        return seconds
    first = measure(lambda: runner(batch), turn["warmup"], 1)
    more = min(turn["max_repeats"], int(turn["seconds_a_cell"] / first[0]))
    return first + measure(lambda: runner(batch), 0, more)


def load_exercise(path: Path):
    """The module of the exercise, whose measure() is used."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def import_runtime(runtime: str) -> dict[str, str]:
    """Import what a runtime needs; return versions."""
    if runtime.startswith("onnxruntime"):
        import onnxruntime

        return {"onnxruntime": onnxruntime.__version__}
    import torch
    import torchvision

    return {"torch": torch.__version__, "torchvision": torchvision.__version__}


def load_runner(runtime: str, turn: dict) -> Runner:
    """A function from images (batch, 3, size, size) float32 to logits (batch, 1000) float32."""
    if "file" in turn:  # exercise 06
        return onnxruntime_runner(Path(turn["file"]), turn["threads"], turn["optimise"])
    models = Path(turn["models"])
    if runtime.startswith("onnxruntime"):
        return onnxruntime_runner(models / f"{runtime.split()[1]}.onnx", turn["threads"])
    return pytorch_runner(runtime, models / "resnet18.pth", turn["threads"], turn["autograd"])


def onnxruntime_runner(path: Path, threads: int, optimise: bool = True) -> Runner:
    """ONNX Runtime on the CPU with that many threads; optimise=False takes the graph as it is."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[0]


def pytorch_runner(runtime: str, checkpoint: Path, threads: int, autograd: bool) -> Runner:
    """PyTorch on the CPU with that many threads: eager, channels-last or compiled."""
    import torch
    import torchvision

    torch.set_num_threads(threads)
    with torch.device("meta"):  # no time for random weights that are replaced at once
        model = torchvision.models.resnet18(weights=None)
    model.load_state_dict(torch.load(checkpoint, weights_only=True), assign=True)
    model.eval()
    layout = torch.contiguous_format
    if runtime == "pytorch channels-last":
        layout = torch.channels_last
        model = model.to(memory_format=layout)
    if runtime == "pytorch compile":
        model = torch.compile(model, dynamic=True)

    def run(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode(not autograd):
            return model(torch.from_numpy(batch).to(memory_format=layout)).detach().numpy()

    return run


def images(size: int, batch: int) -> np.ndarray:
    """The same normally distributed images in every process."""
    return np.random.default_rng(size * 1000 + batch).standard_normal((batch, 3, size, size), dtype=np.float32)


def peak_megabytes() -> float:
    """The most memory that this process has held so far (resident)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
