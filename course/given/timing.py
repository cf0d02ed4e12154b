"""What exercise 05 has students write and explains, for the report of exercise 06.

Not taken from solutions/, which is not there when students' code is graded.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def onnxruntime_runner(path: Path, threads: int, optimise: bool) -> Callable[[np.ndarray], np.ndarray]:
    """Open an ONNX file on the CPU with that many threads; without optimise, take the graph as it is."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {session.get_inputs()[0].name: images})[0]


def measure(function: Callable[[], Any], warmup: int, repeats: int) -> list[float]:
    """Call a function warmup times and then repeats times; return the seconds of the latter."""
    seconds = []
    for _ in range(warmup + repeats):
        begin = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - begin)
    return seconds[warmup:]


def speedup(baseline: list[list[float]], candidate: list[list[float]]) -> tuple[float, float, float]:
    """How many times faster the candidate is, and the 95% interval of that, from seconds by round."""
    random = np.random.default_rng(0)

    def resampled(rounds: list[list[float]]) -> float:
        """A median of rounds drawn with replacement, and of runs drawn within each."""
        drawn = (rounds[i] for i in random.integers(len(rounds), size=len(rounds)))
        return float(np.median(np.concatenate([random.choice(runs, size=len(runs)) for runs in drawn])))

    ratios = [resampled(baseline) / resampled(candidate) for _ in range(2000)]
    ratio = np.median(np.concatenate(baseline)) / np.median(np.concatenate(candidate))
    return float(ratio), *map(float, np.percentile(ratios, [2.5, 97.5]))
