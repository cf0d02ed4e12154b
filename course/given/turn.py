"""One turn of a measurement, in a process of its own: python -m course.given.turn FOLDER EXERCISE.

Reads FOLDER/job.json (see jobs() in course/given/benchmark.py), writes FOLDER/result.json and, to compare the
outputs, FOLDER/SIZE.npy. EXERCISE is the file whose runners and measure() are used. The process imports only what
its runtime needs.
"""

import importlib.util
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np

from course.given.script import run

Runner = Callable[[np.ndarray], np.ndarray]


def main(folder: Path, exercise: Path) -> None:
    """Import, load, compare, measure; write what was measured."""
    job = json.loads((folder / "job.json").read_text())
    own = load_exercise(exercise)
    begin = time.perf_counter()
    versions = import_runtime(job["runtime"])
    imported = time.perf_counter()
    runner = load_runner(own, job)
    loaded = time.perf_counter()
    runner(images(job["cells"][0][0], 1))
    first = time.perf_counter()
    result = {
        **job,
        "pid": os.getpid(),
        "versions": versions,
        "import_seconds": imported - begin,
        "load_seconds": loaded - imported,
        "first_prediction_seconds": first - loaded,
        "first_prediction_megabytes": peak_megabytes(),
    }
    for size in {size for size, _ in job["cells"]}:
        np.save(folder / f"{size}.npy", runner(images(size, 2)))
    # The lie "together": another runtime in the same process, called between our calls.
    other = load_runner(own, job["together_with"]) if job.get("together_with") else None
    result["seconds"] = {
        f"{size}x{batch}": measure_cell(own.measure, runner, other, images(size, batch), job)
        for size, batch in job["cells"]
    }
    result["peak_megabytes"] = peak_megabytes()
    (folder / "result.json").write_text(json.dumps(result))


def measure_cell(measure: Callable, runner: Runner, other: Runner | None, batch: np.ndarray, job: dict) -> list[float]:
    """Seconds of as many runs as fit into the time for a cell, at least one."""
    if job["warmup"] == 0:
        return measure(lambda: runner(batch), 0, 3)
    if other is not None:
        seconds = []
        for _ in range(job["max_repeats"]):
            other(batch)
            seconds += measure(lambda: runner(batch), 0, 1)
        return seconds
    first = measure(lambda: runner(batch), job["warmup"], 1)
    more = min(job["max_repeats"], int(job["seconds_a_cell"] / first[0]))
    return first + measure(lambda: runner(batch), 0, more)


def load_exercise(path: Path) -> ModuleType:
    """The module of an exercise."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def import_runtime(runtime: str) -> dict[str, str]:
    """Import what a runtime needs; return versions."""
    if not runtime.startswith("pytorch"):
        import onnxruntime

        return {"onnxruntime": onnxruntime.__version__}
    import torch
    import torchvision

    return {"torch": torch.__version__, "torchvision": torchvision.__version__}


def load_runner(own: ModuleType, job: dict) -> Runner:
    """The exercise's function from images (batch, 3, size, size) float32 to logits (batch, 1000) float32."""
    path, runtime, threads = Path(job["path"]), job["runtime"], job["threads"]
    if not runtime.startswith("pytorch"):
        return own.onnxruntime_runner(path, threads, **job["options"])
    import torch
    import torchvision

    with torch.device("meta"):  # no time for random weights that are replaced at once
        model = torchvision.models.resnet18(weights=None)
    model.load_state_dict(torch.load(path, weights_only=True), assign=True)
    if runtime == "pytorch channels-last":
        layout = {"memory_format": torch.channels_last}
        model.to(**layout).register_forward_pre_hook(lambda _, arguments: (arguments[0].to(**layout),))
    elif runtime == "pytorch compile":
        model = torch.compile(model, dynamic=True)
    return own.pytorch_runner(model, threads, **job["options"])


def images(size: int, batch: int) -> np.ndarray:
    """The same normally distributed images in every process."""
    return np.random.default_rng(size * 1000 + batch).standard_normal((batch, 3, size, size), dtype=np.float32)


def peak_megabytes() -> float:
    """The most memory that this process has held so far (resident)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


if __name__ == "__main__":
    run(main)
