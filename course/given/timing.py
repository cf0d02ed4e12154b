"""Measures and compares, for reports of the course: what exercise 05 has students write, and explains.

Not taken from solutions/, which is not there where students' code is graded.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np


def measure(function: Callable[[], Any], warmup: int, repeats: int) -> list[float]:
    """Call a function warmup times and then repeats times; return the seconds of the latter."""
    for _ in range(warmup):
        function()
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - begin)
    return seconds


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
