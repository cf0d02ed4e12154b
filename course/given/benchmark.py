"""The benchmark around exercise 05: who takes part, in which order, and what is made of the measurements."""

import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from course import ROOT
from course.base.processes import running, wait
from serving import Problem

PYTORCH = ["pytorch eager", "pytorch channels-last", "pytorch compile"]
ONNXRUNTIME = ["onnxruntime dynamo", "onnxruntime torchscript", "onnxruntime lightning"]
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
TURN_LIMIT = 300  # seconds

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
        *,
        quick: bool,
        sizes: list | None,
        batches: list | None,
        rounds: int | None,
        threads: int | None,
        lie: Lie | None,
    ) -> "Plan":
        """Fill in what was not said.

        Raises:
            Problem: a size or batch that cannot be measured.
        """
        small = quick or lie is not None
        sizes = sorted(set(sizes or ([224] if small else [224, 448, 896])))
        batches = sorted(set(batches or ([1, 8] if small else [1, 8, 32])))
        if bad := [size for size in sizes if not 32 <= size <= 2048]:
            raise Problem(f"--size {bad[0]}: a size is a number of pixels from 32 to 2048.")
        if bad := [batch for batch in batches if not 1 <= batch <= 256]:
            raise Problem(f"--batch {bad[0]}: a batch is 1 to 256 images.")
        threads = threads or psutil.cpu_count(logical=False) or os.cpu_count()
        runtimes = [BASELINE, CANDIDATE] if lie else QUICK if quick else PYTORCH + ONNXRUNTIME
        return cls(runtimes, sizes, batches, rounds or (3 if small else 2), threads, lie)

    @property
    def baseline(self) -> str:
        """Whose outputs the others must give."""
        return BASELINE

    @property
    def cells(self) -> list[tuple[int, int]]:
        """All pairs of size and batch."""
        return [(size, batch) for size in self.sizes for batch in self.batches]

    def turn(self, runtime: str, models: Path) -> dict:
        """What one process has to do, for course/given/benchmark_turn.py."""
        partner = CANDIDATE if runtime.startswith("pytorch") else BASELINE
        return {
            "runtime": runtime,
            "cells": self.cells,
            "threads": self.threads,
            "models": str(models),
            "warmup": 0 if self.lie == Lie.warmup else 1,
            "seconds_a_cell": 0.4,
            "max_repeats": 20,
            "autograd": self.lie == Lie.autograd,
            "together_with": partner if self.lie == Lie.together else None,
        }


def benchmark(plan: Plan, exercise: Path, measure: Callable, speedup: Callable, output: Path) -> None:
    """Measure, compare outputs, print the tables, write plots and all measurements to a folder.

    Raises:
        Problem: no model, outputs that differ, a folder that cannot be written.
    """
    # Here and not above: a turn loads the exercise, which imports this module, and measures its own imports.
    from serving.model import MODELS_DIR, open_model, weights

    provenance = weights(open_model())
    # What is not written yet is told now, not by the process of a turn or after the measurements.
    speedup([measure(lambda: None, 0, 1)], [[1.0]])
    try:
        tempfile.TemporaryFile(dir=new_folder(output)).close()  # better told now than after the measurements
        models = export_models(plan, provenance, MODELS_DIR / "benchmark")
        turns, absent = take_turns(plan, models, exercise)
        speedups = {
            cell: speedup(*(rounds_of(turns, name, cell) for name in (BASELINE, CANDIDATE))) for cell in plan.cells
        }
        print_latencies(plan, turns, speedups)
        print_cold_starts(turns)
        for runtime, reason in absent.items():
            console.print(f"{runtime} did not work here: {reason}", style="yellow")
        write_report(plan, turns, speedups, provenance, output)
    except OSError as error:
        raise Problem(f"{error.filename or output} could not be written: {error.strerror or error}.") from error
    if plan.lie:
        console.print(
            f"This was the lie {plan.lie.value!r}: compare with the same command without --lie.", style="bold yellow"
        )
    console.print(f"All measurements and two plots are in {output}/. Next: make optimize")


def new_folder(path: Path) -> Path:
    """The folder, made where it is not there yet."""
    path.mkdir(parents=True, exist_ok=True)
    return path


def export_models(plan: Plan, provenance: str, folder: Path) -> Path:
    """Export models/resnet18.onnx's weights once more, with dynamic height and width; reuse what is there."""
    exporters = [runtime.split()[1] for runtime in plan.runtimes if runtime.startswith("onnxruntime")]
    made_from = folder / "made_from.json"
    known = json.loads(made_from.read_text()) if made_from.exists() else None
    if known == provenance and all((folder / f"{name}.onnx").exists() for name in exporters):
        return folder
    with console.status("Exporting with dynamic height and width ..."):
        command = [sys.executable, "-m", "course.given.benchmark_export", str(folder), *exporters]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TURN_LIMIT)
    if done.returncode:
        raise Problem(f"The export for the benchmark failed: {done.stderr.strip().splitlines()[-1]}")
    return folder


def take_turns(plan: Any, models: Path, exercise: Path) -> tuple[list[dict], dict[str, str]]:
    """Every runtime once a round, in an order that moves on by one each round, one process at a time.

    Args:
        plan: a Plan, or whatever else has rounds, runtimes, baseline and turn().
        models: the folder that turn() is given.
        exercise: the file of exercise 05, whose measure() is used.

    Returns:
        the turns' results, and the runtimes that did not work with the reason.
    """
    turns, absent, logits = [], {}, {}
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("", total=plan.rounds * len(plan.runtimes))
        for i in range(plan.rounds):
            shift = i % len(plan.runtimes)
            for runtime in plan.runtimes[shift:] + plan.runtimes[:shift]:
                progress.update(task, description=f"round {i + 1} of {plan.rounds}: {runtime}")
                if runtime not in absent:
                    try:
                        result, outputs = take_turn(plan.turn(runtime, models), exercise)
                        turns.append(result | {"round": i})
                        logits[runtime] = outputs
                    except RuntimeError as error:
                        if runtime != "pytorch compile":  # the others work everywhere; this one needs a compiler
                            raise Problem(f"{runtime} failed: {error}") from error
                        absent[runtime] = str(error)
                progress.advance(task)
    require_equal(logits, plan.baseline)
    return turns, absent


def take_turn(turn: dict, exercise: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """Run one turn in a process of its own.

    Raises:
        RuntimeError: it failed, or took longer than TURN_LIMIT; the last line that it printed says why.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "turn.json").write_text(json.dumps(turn))
        command = [sys.executable, "-m", "course.given.benchmark_turn", str(folder), str(exercise.resolve())]
        with running(command, cwd=ROOT, env=dict(os.environ), log=folder / "log") as process:
            code = wait(process, TURN_LIMIT)
        if code != 0:
            lines = (folder / "log").read_text(errors="replace").strip().splitlines()
            raise RuntimeError(
                f"stopped after {TURN_LIMIT} s" if code is None else lines[-1] if lines else f"exit code {code}"
            )
        return json.loads((folder / "result.json").read_text()), {
            path.stem: np.load(path) for path in folder.glob("*.npy")
        }


def require_equal(logits: dict[str, dict[str, np.ndarray]], baseline: str = BASELINE) -> None:
    """Speed is compared only where results agree: within 1e-4 of the largest logit, for each size."""
    for runtime, outputs in logits.items():
        for size, output in outputs.items():
            expected = logits[baseline][size]
            difference = abs(output - expected).max() / abs(expected).max()
            if not difference <= 1e-4:
                raise Problem(
                    f"{runtime} and {baseline} differ by {difference:.1e} of the largest logit at size {size}."
                )


def rounds_of(turns: list[dict], runtime: str, cell: tuple[int, int]) -> list[list[float]]:
    """Seconds of a cell by round."""
    return [turn["seconds"][f"{cell[0]}x{cell[1]}"] for turn in turns if turn["runtime"] == runtime]


def summary(turns: list[dict], runtime: str, cell: tuple[int, int]) -> tuple[float, float, float, int]:
    """Lower quartile, median, upper quartile in milliseconds, and the number of runs."""
    runs = np.concatenate(rounds_of(turns, runtime, cell)) * 1000
    return *np.percentile(runs, [25, 50, 75]), len(runs)


def present(turns: list[dict]) -> list[str]:
    """The runtimes that were measured, in the plan's order."""
    return [runtime for runtime in PYTORCH + ONNXRUNTIME if any(turn["runtime"] == runtime for turn in turns)]


def print_latencies(plan: Plan, turns: list[dict], speedups: dict) -> None:
    """Median latency of each runtime, and the speed-up with its interval; fits 80 columns."""
    table = Table(
        title=f"Median milliseconds for a batch, {plan.threads} threads (quartiles are in the report)",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=0,
    )
    table.add_column("size x\nbatch", justify="right", no_wrap=True)
    for runtime in present(turns):
        table.add_column(HEADINGS[runtime], justify="right", no_wrap=True)
    table.add_column(f"{HEADINGS[CANDIDATE]}\nover eager\n(95% interval)", justify="right", no_wrap=True)
    for size, batch in plan.cells:
        medians = [milliseconds(summary(turns, runtime, (size, batch))[1]) for runtime in present(turns)]
        ratio, low, high = speedups[size, batch]
        table.add_row(f"{size} x {batch}", *medians, f"{ratio:.2f} ({low:.2f}-{high:.2f})")
    console.print(table)


def milliseconds(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def print_cold_starts(turns: list[dict]) -> None:
    """What a new process pays before it answers."""
    table = Table(title="A new process: medians over the rounds", title_justify="left", box=SIMPLE_HEAD)
    columns = {
        "import\n(s)": "import_seconds",
        "load\n(s)": "load_seconds",
        "first\nprediction\n(s)": "first_prediction_seconds",
        "memory\nthen\n(MB)": "first_prediction_megabytes",
        "peak\nmemory\n(MB)": "peak_megabytes",
    }
    table.add_column("runtime")
    for column in columns:
        table.add_column(column, justify="right")
    for runtime in present(turns):
        own = [turn for turn in turns if turn["runtime"] == runtime]
        medians = {key: np.median([turn[key] for turn in own]) for key in columns.values()}
        table.add_row(
            runtime,
            *(f"{value:.0f}" if key.endswith("megabytes") else f"{value:.2g}" for key, value in medians.items()),
        )
    console.print(table)


def write_report(plan: Plan, turns: list[dict], speedups: dict, provenance: str, output: Path) -> None:
    """table.csv, measurements.json, latency_by_size.png and throughput_by_batch.png."""
    with tempfile.TemporaryDirectory(dir=output, prefix=".making-") as name:
        folder = Path(name)
        write_csv(plan, turns, speedups, folder / "table.csv")
        taken_on = machine(turns) | {"weights": provenance}
        everything = {"machine": taken_on, "plan": plan._asdict(), "turns": turns}
        (folder / "measurements.json").write_text(json.dumps(everything, indent=1))
        plot(plan, turns, taken_on, folder)
        for file in folder.iterdir():
            os.replace(file, output / file.name)


def machine(turns: list[dict]) -> dict:
    """When and on what the turns were taken."""
    return {
        "made": datetime.now().astimezone().isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version for turn in turns for name, version in turn["versions"].items()},
    }


def write_csv(plan: Plan, turns: list[dict], speedups: dict, path: Path) -> None:
    """One row for each size, batch and runtime."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                "size",
                "batch",
                "runtime",
                "runs",
                "lower_quartile_ms",
                "median_ms",
                "upper_quartile_ms",
                "images_per_s",
                "speedup",
                "low",
                "high",
            ]
        )
        for size, batch in plan.cells:
            for runtime in present(turns):
                low, median, high, runs = summary(turns, runtime, (size, batch))
                compared = [f"{value:.3f}" for value in speedups[size, batch]] if runtime == CANDIDATE else ["", "", ""]
                numbers = [f"{value:.3f}" for value in (low, median, high, 1000 * batch / median)]
                writer.writerow([size, batch, runtime, runs, *numbers, *compared])


def plot(plan: Plan, turns: list[dict], taken_on: dict, folder: Path) -> None:
    """Latency by size for each batch, throughput by batch for each size; bars are quartiles."""
    import matplotlib.pyplot as plt

    taken = f"{taken_on['cpu']}, {plan.threads} threads, {plan.rounds} rounds" + (
        f", the lie {plan.lie}" if plan.lie else ""
    )
    pictures = [
        ("latency_by_size.png", "batch", plan.batches, "size", plan.sizes, "milliseconds for a batch"),
        ("throughput_by_batch.png", "size", plan.sizes, "batch", plan.batches, "images a second"),
    ]
    for file, panel, panels, axis, ticks, unit in pictures:
        figure, plots = plt.subplots(
            1, len(panels), figsize=(4.6 * len(panels) + 1, 4.4), squeeze=False, layout="constrained"
        )
        for one, value in zip(plots[0], panels, strict=True):
            for runtime in present(turns):
                cells = [(tick, value) if axis == "size" else (value, tick) for tick in ticks]
                low, median, high = np.array([summary(turns, runtime, cell)[:3] for cell in cells]).T
                if axis == "batch":
                    low, median, high = (1000 * np.array(ticks) / part for part in (high, median, low))
                one.errorbar(
                    range(len(ticks)), median, [median - low, high - median], label=runtime, marker="o", capsize=3
                )
            one.set(title=f"{panel} {value}", xlabel=axis, ylabel=unit, xticks=range(len(ticks)), xticklabels=ticks)
            one.set_yscale("log") if axis == "size" else one.set_ylim(bottom=0)
            one.grid(alpha=0.3)
        plots[0][0].legend(fontsize="small")
        figure.suptitle(f"resnet18: median and quartiles. {taken}", fontsize="small")
        figure.savefig(folder / file, dpi=110)
        plt.close(figure)


def cpu_model() -> str:
    """The processor's name, as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
