"""The report of exercise 06: what became of the nodes, how fast each level is, a picture of the first block."""

import csv
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import psutil
from rich.console import Console
from rich.table import Table

from serving import Problem

AT_LOAD = "at load"  # the original, optimised again whenever it is loaded: what a session does unless told
BASELINE = "disable"
LAYOUT = "com.microsoft.nchwc"
COLOURS = {"Conv": "#9ec5fe", "FusedConv": "#f9c784", "nchwc.Conv": "#f28482"}

console = Console(soft_wrap=True)


class LevelPlan(NamedTuple):
    """What is measured: course.given.benchmark takes the turns."""

    files: dict[str, str]  # by level
    size: int
    batches: list[int]
    rounds: int
    threads: int
    baseline: str = BASELINE

    @property
    def runtimes(self) -> list[str]:
        """Who takes part."""
        return list(self.files)

    @property
    def cells(self) -> list[tuple[int, int]]:
        """All pairs of size and batch."""
        return [(self.size, batch) for batch in self.batches]

    def turn(self, level: str, models: Path) -> dict:
        """What one process has to do, for course/given/benchmark_turn.py."""
        return {
            "runtime": level,
            "file": str(models / self.files[level]),
            # A saved graph is taken as it is; otherwise every level would be measured at the highest.
            "optimise": level == AT_LOAD,
            "cells": self.cells,
            "threads": self.threads,
            "warmup": 2,
            "seconds_a_cell": 0.4,
            "max_repeats": 30,
            "together_with": None,
        }


def report(
    model: Path,
    files: dict[str, Path],
    *,
    differences: dict[str, str],
    operators: dict[str, dict[str, int]],
    fusions: dict[str, list[dict]],
    quick: bool,
    rounds: int | None,
    threads: int | None,
    output: Path,
) -> None:
    """Print what changed, measure each level, write first_block.png, table.csv and measurements.json.

    Raises:
        Problem: outputs that differ, a folder that cannot be written.
    """
    # Here and not above: a turn imports this module, and measures its own imports.
    from course.given import timing
    from course.given.benchmark import take_turns

    print_operators(operators)
    print_fusions(fusions)
    warn_of_layout(operators)
    value = onnx.load(model, load_external_data=False).graph.input[0]
    plan = LevelPlan(
        files={level: path.name for level, path in files.items()} | {AT_LOAD: model.name},
        size=value.type.tensor_type.shape.dim[2].dim_value,
        batches=[1] if quick else [1, 8],
        rounds=rounds or (3 if quick else 7),
        threads=threads or psutil.cpu_count(logical=False) or os.cpu_count(),
    )
    try:
        turns, _ = take_turns(plan, model.parent.resolve(), Path(timing.__file__))
        rows = latencies(plan, turns, timing.speedup)
        print_latencies(plan, turns, rows, differences)
        write(model, files, plan, turns, rows, operators, fusions, output)
    except OSError as error:
        raise Problem(f"{error.filename or output} could not be written: {error.strerror or error}.") from error
    console.print(
        f"The optimised models are beside {model}; picture, table and all measurements in {output}/."
        " Next: make netron EX=06"
    )


def print_operators(operators: dict[str, dict[str, int]]) -> None:
    """Nodes by operator, a column for each file."""
    table = Table(title="Nodes by operator; FusedConv and nchwc.* are ONNX Runtime's own", title_justify="left")
    table.add_column("")
    for name in operators:
        table.add_column(name, justify="right")
    for operator in dict.fromkeys(operator for counts in operators.values() for operator in counts):
        table.add_row(short(operator), *(str(counts.get(operator, "")) for counts in operators.values()))
    table.add_section()
    table.add_row("in all", *(str(sum(counts.values())) for counts in operators.values()))
    console.print(table)


def short(operator: str) -> str:
    """An operator's name as tables and picture show it: without the domain of all of ONNX Runtime's own."""
    return operator.removeprefix("com.microsoft.")


def print_fusions(fusions: dict[str, list[dict]]) -> None:
    """Which nodes became one, how often, at each level."""
    table = Table(title="Fused nodes", title_justify="left")
    for column in ("level", "these", "became", "times"):
        table.add_column(column, justify="right" if column == "times" else "left")
    for level, found in fusions.items():
        kinds = Counter((" + ".join(fusion["from"]), fusion["into"]) for fusion in found)
        for i, ((parts, into), times) in enumerate(kinds.items()):
            table.add_row("" if i else level, parts, short(into), str(times))
        if not found:
            table.add_row(level, "none", "", "")
    console.print(table)


def warn_of_layout(operators: dict[str, dict[str, int]]) -> None:
    """Say which files are tied to this kind of processor, and by which operators."""
    for level, counts in operators.items():
        if tied := [name for name in counts if name.startswith(LAYOUT)]:
            console.print(
                f"The file of level {level!r} is tied to this kind of processor. It holds {', '.join(tied)}: their tensors"
                " lie in memory in the blocks that this processor's vector registers take. Other machines need a file"
                " of their own.",
                style="bold yellow",
            )


def latencies(plan: LevelPlan, turns: list[dict], speedup) -> list[dict]:
    """One row for each batch and level: quartiles in milliseconds, and the speed-up over BASELINE."""
    from course.given.benchmark import rounds_of, summary

    rows = []
    for cell in plan.cells:
        for level in plan.runtimes:
            low, median, high, runs = summary(turns, level, cell)
            ratio = (1.0, 1.0, 1.0)
            if level != BASELINE:
                ratio = speedup(rounds_of(turns, BASELINE, cell), rounds_of(turns, level, cell))
            rows.append(
                {"batch": cell[1], "level": level, "runs": runs}
                | {"lower_quartile_ms": low, "median_ms": median, "upper_quartile_ms": high}
                | dict(zip(("speedup", "low", "high"), ratio, strict=True))
            )
    return rows


def print_latencies(plan: LevelPlan, turns: list[dict], rows: list[dict], differences: dict[str, str]) -> None:
    """The measurements, and how far the outputs are from the original's."""
    table = Table(title=f"Each level in processes of its own, in turn; {plan.threads} threads", title_justify="left")
    columns = ["batch", "level", "milliseconds\n(quartiles)", f"over {BASELINE}\n(95% interval)"]
    for column in [*columns, "load\n(ms)", "outputs\nwithin"]:
        table.add_column(column, justify="left" if column == "level" else "right")
    for row in rows:
        load = 1000 * np.median([turn["load_seconds"] for turn in turns if turn["runtime"] == row["level"]])
        over = f"{row['speedup']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
        table.add_row(
            str(row["batch"]),
            row["level"],
            f"{row['median_ms']:.3g} ({row['lower_quartile_ms']:.3g} to {row['upper_quartile_ms']:.3g})",
            "" if row["level"] == BASELINE else over,
            f"{load:.0f}",
            differences.get(row["level"], ""),
        )
    console.print(table)
    console.print(f"{AT_LOAD!r} is the original file, optimised by the session each time that it is loaded.")


def write(
    model: Path,
    files: dict[str, Path],
    plan: LevelPlan,
    turns: list[dict],
    rows: list[dict],
    operators: dict,
    fusions: dict,
    output: Path,
) -> None:
    """All files of the report, beside their place and then moved."""
    from course.given.benchmark import machine

    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output, prefix=".making-") as name:
        folder = Path(name)
        with (folder / "table.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(
                {key: f"{value:.3f}" if isinstance(value, float) else value for key, value in row.items()}
                for row in rows
            )
        everything = {"machine": machine(turns), "plan": plan._asdict(), "operators": operators}
        everything |= {"fusions": fusions, "turns": turns}
        (folder / "measurements.json").write_text(json.dumps(everything, indent=1))
        shown = {"original": (model, [])} | {level: (files[level], fusions[level]) for level in ("extended", "all")}
        draw_first_blocks(shown, folder / "first_block.png")
        for file in folder.iterdir():
            os.replace(file, output / file.name)


def first_block(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes up to the first one that joins two branches, and the Relu behind it; all nodes where none does."""
    constants = {tensor.name for tensor in graph.initializer}
    for i, node in enumerate(graph.node):
        if len([tensor for tensor in node.input if tensor and tensor not in constants]) > 1:
            behind = [other for other in graph.node if node.output[0] in other.input]
            relu = behind[:1] if [other.op_type for other in behind] == ["Relu"] else []
            return [*_ancestors(graph.node[:i], node), node, *relu]
    return list(graph.node)


def _ancestors(nodes: Iterable[onnx.NodeProto], last: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Those nodes, in order, that the last one needs."""
    needed, found = set(last.input), []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed |= set(node.input)
            found.insert(0, node)
    return found


def draw_first_blocks(shown: dict[str, tuple[Path, list[dict]]], path: Path) -> None:
    """One column for each file: a box for each node from top to bottom, arcs for what skips nodes."""
    import matplotlib.pyplot as plt

    columns = {}
    for name, (file, found) in shown.items():
        nodes = first_block(onnx.load(file).graph)
        columns[name] = (nodes, {fusion["output"]: " + ".join(fusion["from"]) for fusion in found})
    height = max(len(nodes) for nodes, _ in columns.values())
    figure, plots = plt.subplots(
        1, len(columns), figsize=(3.9 * len(columns), 0.95 * height + 1.6), layout="constrained"
    )
    for plot, (name, (nodes, parts)) in zip(plots, columns.items(), strict=True):
        _draw(plot, nodes, parts)
        plot.set(title=f"{name}: {len(nodes)} nodes", xlim=(-2.1, 2.1), ylim=(-height - 0.2, 1.0))
        plot.axis("off")
    figure.suptitle("The first block before and after graph optimisation")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _draw(plot, nodes: list[onnx.NodeProto], parts: dict[str, str]) -> None:
    half = 0.31
    made_at = {tensor: i for i, node in enumerate(nodes) for tensor in node.output}
    plot.text(0, 0.75, nodes[0].input[0], ha="center", va="center", style="italic")
    plot.annotate("", (0, half), (0, 0.6), arrowprops={"arrowstyle": "-|>", "color": "#444444"})
    for i, node in enumerate(nodes):
        name = short(f"{node.domain}.{node.op_type}".removeprefix("."))
        fused = parts.get(node.output[0])
        colour = COLOURS.get(name, "#f2f2f2")
        plot.add_patch(_box(-1.25, -i - half, 2.5, 2 * half, colour))
        plot.text(0, -i + (0.1 if fused else 0), name, ha="center", va="center", weight="bold")
        if fused:
            plot.text(0, -i - 0.15, f"does {fused}", ha="center", va="center", fontsize="small")
        for tensor in node.input:
            source = made_at.get(tensor)
            if source is None:
                continue
            skips = source != i - 1
            start, end = ((1.25, -source), (1.25, -i)) if skips else ((0, -source - half), (0, -i + half))
            arrow = {"arrowstyle": "-|>", "color": "#c1121f" if skips else "#444444", "shrinkA": 0, "shrinkB": 0}
            if skips:
                arrow["connectionstyle"] = f"arc3,rad={-0.9 / (i - source) - 0.12}"
            plot.annotate("", end, start, arrowprops=arrow)
    plot.annotate(
        "",
        (0, -len(nodes) + half + 0.05),
        (0, -len(nodes) + 1 - half),
        arrowprops={"arrowstyle": "-|>", "color": "#444444", "shrinkA": 0, "shrinkB": 0},
    )
    plot.text(0, -len(nodes) + half - 0.12, "second block", ha="center", va="center", style="italic")


def _box(x: float, y: float, width: float, height: float, colour: str):
    """A box with round corners."""
    from matplotlib.patches import FancyBboxPatch

    return FancyBboxPatch(
        (x, y), width, height, boxstyle="round,pad=0,rounding_size=0.1", facecolor=colour, edgecolor="#444444"
    )
