"""Measures runtimes in turn, each turn in a process of its own (course/given/turn.py), and sums the turns up.

The last three functions are what exercise 05 has students write and explains, for the report of exercise 06. They are
not taken from solutions/, which is not there when students' code is graded.
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.progress import Progress

from course.base.processes import job
from course.base.reports import machine
from serving import Problem

LIMIT = 300  # seconds for one turn
MAY_FAIL = "pytorch compile"  # needs a compiler; the others work everywhere
CORES = psutil.cpu_count(logical=False) or os.cpu_count()


def take_turns(
    jobs: dict[str, dict], rounds: int, baseline: str, console: Console, exercise: Path = Path(__file__)
) -> tuple[list[dict], list[str]]:
    """Every runtime once a round, in an order that moves on by one each round, one process at a time.

    jobs: what course/given/turn.py has to do, by runtime; exercise: the file whose runners and measure() it uses.

    Returns the turns' results, and a sentence for each runtime that did not work here. Raises Problem for a turn that
    failed, or for outputs that differ from those of the runtime `baseline`.
    """
    turns, absent, logits = [], {}, {}
    runtimes = list(jobs)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("", total=rounds * len(runtimes))
        for i in range(rounds):
            shift = i % len(runtimes)
            for runtime in runtimes[shift:] + runtimes[:shift]:
                progress.update(task, description=f"round {i + 1} of {rounds}: {runtime}")
                if runtime not in absent:
                    try:
                        result, logits[runtime] = take_turn(jobs[runtime], exercise)
                        turns.append(result | {"round": i})
                    except Problem as problem:
                        if runtime != MAY_FAIL:
                            raise
                        absent[runtime] = str(problem)
                progress.advance(task)
    require_equal(logits, baseline)
    return turns, list(absent.values())


def take_turn(task: dict, exercise: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """One turn: what was measured, and the logits by size."""
    with job(task["runtime"], "course.given.turn", task, exercise.resolve(), limit=LIMIT) as folder:
        result = json.loads((folder / "result.json").read_text())
        return result, {path.stem: np.load(path) for path in folder.glob("*.npy")}


def require_equal(logits: dict[str, dict[str, np.ndarray]], baseline: str) -> None:
    """Compare speed only if results agree: within 1e-4 of the largest logit, for each size; else raise Problem."""
    for runtime, outputs in logits.items():
        for size, output in outputs.items():
            expected = logits[baseline][size]
            difference = abs(output - expected).max() / abs(expected).max()
            if not difference <= 1e-4:
                raise Problem(
                    f"{runtime} and {baseline} differ by {difference:.1e} of the largest logit at size {size}."
                )


def latencies(turns: list[dict], runtimes: list[str], baseline: str, speedup: Callable) -> list[dict]:
    """One row for each size, batch and runtime; of those in `runtimes` also the speed-up over the baseline.

    Returns:
        dicts with size, batch, runtime, runs, quartiles in ms, images_per_s, and speedup with its interval or None.
    """
    rows = []
    for size, batch in turns[0]["cells"]:
        seconds: dict[str, list] = {}  # by runtime, a list for each round; in the order of the first round
        for turn in turns:
            seconds.setdefault(turn["runtime"], []).append(turn["seconds"][f"{size}x{batch}"])
        for runtime, rounds in seconds.items():
            runs = 1000 * np.concatenate(rounds)
            low, median, high = map(float, np.percentile(runs, [25, 50, 75]))
            compared = speedup(seconds[baseline], rounds) if runtime in runtimes else (None, None, None)
            rows.append(
                {"size": size, "batch": batch, "runtime": runtime, "runs": len(runs)}
                | {"lower_quartile_ms": low, "median_ms": median, "upper_quartile_ms": high}
                | {"images_per_s": 1000 * batch / median}
                | dict(zip(("speedup", "low", "high"), compared, strict=True))
            )
    return rows


def medians(turns: list[dict], *keys: str) -> dict[str, list[float]]:
    """The medians over the rounds of what a turn measured once, by runtime."""
    runtimes = dict.fromkeys(turn["runtime"] for turn in turns)
    return {
        runtime: [float(np.median([turn[key] for turn in turns if turn["runtime"] == runtime])) for key in keys]
        for runtime in runtimes
    }


def taken_on(turns: list[dict]) -> dict:
    """When and on what the turns were taken."""
    return machine({name: version for turn in turns for name, version in turn["versions"].items()})


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
