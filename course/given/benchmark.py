"""The benchmark around exercise 05: what is measured, and the report."""

import json
from collections.abc import Callable
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console

from course.base import reports
from course.base.files import whole_folder, writable
from course.base.processes import job
from course.given.turns import CORES, LIMIT, latencies, medians, take_turns, taken_on
from serving import Problem

# As the headings of the table show them.
HEADINGS = {
    "pytorch eager": "PyTorch\neager",
    "pytorch channels-last": "PyTorch\nchan.\nlast",
    "pytorch compile": "PyTorch\ncompile",
    "onnxruntime dynamo": "ONNX\nRuntime\ndynamo",
    "onnxruntime torchscript": "ONNX\nRuntime\ntorch\nscript",
    "onnxruntime lightning": "ONNX\nRuntime\nlightning",
}
QUICK = ["pytorch eager", "pytorch channels-last", "onnxruntime dynamo"]
BASELINE, CANDIDATE = "pytorch eager", "onnxruntime dynamo"

console = Console()


class Lie(StrEnum):
    """Three ways in which such a benchmark goes wrong."""

    warmup = "warmup"  # the first runs are counted
    autograd = "autograd"  # PyTorch records what a backward pass would need
    together = "together"  # both runtimes in one process, each spinning under the other


class Plan(NamedTuple):
    """What is measured."""

    runtimes: list[str]
    sizes: list[int]
    batches: list[int]
    rounds: int
    threads: int
    lie: Lie | None

    @classmethod
    def make(
        cls,
        quick: bool,
        sizes: list[int] | None,
        batches: list[int] | None,
        rounds: int | None,
        threads: int | None,
        lie: Lie | None,
    ) -> "Plan":
        """Fill in what was not given; raises Problem for a size or a batch that cannot be measured."""
        small = quick or lie is not None
        sizes = sorted(set(sizes or ([224] if small else [224, 448, 896])))
        batches = sorted(set(batches or ([1, 8] if small else [1, 8, 32])))
        if bad := [size for size in sizes if not 32 <= size <= 2048]:
            raise Problem(f"--size {bad[0]}: a size is a number of pixels from 32 to 2048.")
        if bad := [batch for batch in batches if not 1 <= batch <= 256]:
            raise Problem(f"--batch {bad[0]}: a batch is 1 to 256 images.")
        runtimes = [BASELINE, CANDIDATE] if lie else QUICK if quick else list(HEADINGS)
        return cls(runtimes, sizes, batches, rounds or (3 if small else 2), threads or CORES, lie)

    def jobs(self, models: Path) -> dict[str, dict]:
        """What the processes have to do, by runtime; models is the folder with the files."""
        jobs = {}
        for runtime in self.runtimes:
            library, variant = runtime.split()
            jobs[runtime] = {
                "runtime": runtime,
                "path": str(models / ("resnet18.pth" if library == "pytorch" else f"{variant}.onnx")),
                "options": {"autograd": True} if library == "pytorch" and self.lie == Lie.autograd else {},
                "cells": [(size, batch) for size in self.sizes for batch in self.batches],
                "threads": self.threads,
                "warmup": 0 if self.lie == Lie.warmup else 1,
                "seconds_a_cell": 0.4,
                "max_repeats": 20,
            }
        if self.lie == Lie.together:
            one, other = jobs.values()
            return {one["runtime"]: one | {"together_with": other}, other["runtime"]: other | {"together_with": one}}
        return jobs


def benchmark(plan: Plan, exercise: Path, measure: Callable, speedup: Callable, output: Path) -> None:
    """Measure, compare outputs, print tables, write a report; raises Problem: no model, other outputs, no room."""
    # Here and not above: a turn loads the exercise, which imports this module, and measures its own imports.
    from serving.model import MODELS_DIR, open_model, weights

    speedup([measure(lambda: None, 0, 1)], [[1.0]])  # a function that is not written yet ends the benchmark now
    provenance = weights(open_model())
    with writable(output):
        models = export_models(plan, provenance, MODELS_DIR / "benchmark")
        turns, absent = take_turns(plan.jobs(models), plan.rounds, BASELINE, console, exercise)
        rows = latencies(turns, [CANDIDATE], BASELINE, speedup)
        print_latencies(plan, rows)
        print_cold_starts(turns)
        for sentence in absent:
            console.print(sentence, style="yellow")
        write_report(plan, turns, rows, taken_on(turns) | {"weights": provenance}, output)
    if plan.lie:
        said = f"This was the lie {plan.lie.value!r}: compare with the same command without --lie."
        console.print(said, style="bold yellow")
    console.print(f"All measurements and two plots are in {output}/. Next: make optimize")


def export_models(plan: Plan, provenance: str, folder: Path) -> Path:
    """Export models/resnet18.onnx's weights once more, with dynamic height and width; reuse what is there."""
    exporters = [runtime.split()[1] for runtime in plan.runtimes if runtime.startswith("onnxruntime")]
    made_from = folder / "made_from.json"
    there = all(path.exists() for path in [made_from, *(folder / f"{name}.onnx" for name in exporters)])
    if not there or json.loads(made_from.read_text()) != provenance:
        task = {"exporters": exporters, "output": str(folder)}
        with (
            console.status("Exporting with dynamic height and width ..."),
            job("The export for the benchmark", "course.given.benchmark_export", task, limit=LIMIT),
        ):
            pass
    return folder


def print_latencies(plan: Plan, rows: list[dict]) -> None:
    """Median latency of each runtime, and the speed-up with its interval; fits 80 columns."""
    shown = []
    for (size, batch), group in groupby(rows, lambda row: (row["size"], row["batch"])):
        own = {row["runtime"]: row for row in group}
        candidate, medians = own[CANDIDATE], (row["median_ms"] for row in own.values())
        numbers = [f"{value:.0f}" if value >= 100 else f"{value:.3g}" for value in medians]
        interval = f"{candidate['speedup']:.2f} ({candidate['low']:.2f}-{candidate['high']:.2f})"
        shown.append([f"{size} x {batch}", *numbers, interval])
    title = f"Median milliseconds for a batch, {plan.threads} threads (quartiles are in the report)"
    columns = [HEADINGS[runtime] for runtime in dict.fromkeys(row["runtime"] for row in rows)]
    columns.append(f"{HEADINGS[CANDIDATE]}\nover eager\n(95% interval)")
    console.print(reports.table(title, "size x\nbatch", *columns, rows=shown, words=0))


def print_cold_starts(turns: list[dict]) -> None:
    """What a new process pays before it answers."""
    columns = {
        "import\n(s)": "import_seconds",
        "load\n(s)": "load_seconds",
        "first\nprediction\n(s)": "first_prediction_seconds",
        "memory\nthen\n(MB)": "first_prediction_megabytes",
        "peak\nmemory\n(MB)": "peak_megabytes",
    }
    found = medians(turns, *columns.values()).items()
    rows = [
        [one, *(f"{value:.2g}" for value in values[:3]), *(f"{value:.0f}" for value in values[3:])]
        for one, values in found
    ]
    console.print(reports.table("A new process: medians over the rounds", "runtime", *columns, rows=rows))


def write_report(plan: Plan, turns: list[dict], rows: list[dict], machine: dict, output: Path) -> None:
    """table.csv, measurements.json, latency_by_size.png and throughput_by_batch.png."""
    lie = f", the lie {plan.lie}" if plan.lie else ""
    title = f"resnet18: median and quartiles. {machine['cpu']}, {plan.threads} threads, {plan.rounds} rounds{lie}"
    with whole_folder(output) as folder:
        reports.write(folder, rows, {"machine": machine, "plan": plan._asdict(), "turns": turns})
        plot(rows, "size", folder / "latency_by_size.png", title)
        plot(rows, "batch", folder / "throughput_by_batch.png", title)


def plot(rows: list[dict], axis: str, path: Path, title: str) -> None:
    """Latency by size with a panel for each batch, or images a second by batch for each size; bars are quartiles."""
    import matplotlib.pyplot as plt

    panel = "batch" if axis == "size" else "size"
    ticks, panels = (sorted({row[name] for row in rows}) for name in (axis, panel))
    size = (4.6 * len(panels) + 1, 4.4)
    figure, plots = plt.subplots(1, len(panels), figsize=size, squeeze=False, layout="constrained")
    for one, value in zip(plots[0], panels, strict=True):
        for runtime in dict.fromkeys(row["runtime"] for row in rows):
            own = [row for row in rows if (row["runtime"], row[panel]) == (runtime, value)]
            quartiles = np.array(
                [[row[f"{of}_ms"] for row in own] for of in ("lower_quartile", "median", "upper_quartile")]
            )
            if axis == "batch":
                quartiles = 1000 * np.array(ticks) / quartiles[::-1]
            low, median, high = quartiles
            one.errorbar(range(len(ticks)), median, [median - low, high - median], label=runtime, marker="o", capsize=3)
        one.set(title=f"{panel} {value}", xlabel=axis, xticks=range(len(ticks)), xticklabels=ticks)
        one.set_ylabel("milliseconds for a batch" if axis == "size" else "images a second")
        one.set_yscale("log") if axis == "size" else one.set_ylim(bottom=0)
        one.grid(alpha=0.3)
    plots[0][0].legend(fontsize="small")
    reports.save_picture(figure, path, title)
