"""The report of exercise 06: what changed in the graph, how fast each level is, a picture of the first block."""

from collections import Counter
from pathlib import Path

import onnx

from course.base import reports
from course.base.files import whole_folder, writable
from course.given.first_block import draw_first_blocks, without_domain
from course.given.show import console, print_operators
from course.given.turns import CORES, latencies, medians, speedup, take_turns, taken_on

AT_LOAD = "at load"  # the original, optimised whenever it is loaded: what a session does by default
BASELINE = "disable"
LAYOUT = "com.microsoft.nchwc"


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
    """Print what changed, measure each level, write a report; raises Problem for outputs that differ, or no room."""
    console.print("FusedConv and nchwc.* are ONNX Runtime's own operators.")
    print_operators(
        {
            file: {"in all": sum(counts.values())} | {without_domain(name): count for name, count in counts.items()}
            for file, counts in operators.items()
        }
    )
    print_fusions(fusions)
    warn_of_layout(operators)
    size = onnx.load(model, load_external_data=False).graph.input[0].type.tensor_type.shape.dim[2].dim_value
    plan = {"cells": [(size, batch) for batch in ([1] if quick else [1, 8])], "threads": threads or CORES}
    jobs = {
        level: plan
        | {"runtime": level, "path": str(path.resolve()), "warmup": 2, "seconds_a_cell": 0.4, "max_repeats": 30}
        # A saved graph is taken as it is; otherwise every level would be measured at the highest.
        | {"options": {"optimise": level == AT_LOAD}}
        for level, path in (files | {AT_LOAD: model}).items()
    }
    with writable(output):
        turns, _ = take_turns(jobs, rounds or (3 if quick else 7), BASELINE, console)
        rows = latencies(turns, [level for level in jobs if level != BASELINE], BASELINE, speedup)
        print_latencies(rows, medians(turns, "load_seconds"), differences, plan["threads"])
        with whole_folder(output) as folder:
            everything = {"machine": taken_on(turns), "plan": plan, "operators": operators}
            reports.write(folder, rows, everything | {"fusions": fusions, "turns": turns})
            shown = {"original": (model, [])} | {level: (files[level], fusions[level]) for level in ("extended", "all")}
            draw_first_blocks(shown, folder / "first_block.png")
    console.print(
        f"The optimised models are beside {model}; picture, table and all measurements in {output}/."
        " Next: make netron EX=06"
    )


def print_fusions(fusions: dict[str, list[dict]]) -> None:
    """Which nodes became one, how often, at each level."""
    rows = []
    for level, found in fusions.items():
        kinds = Counter((" + ".join(fusion["from"]), without_domain(fusion["into"])) for fusion in found)
        shown = [(parts, into, str(times)) for (parts, into), times in kinds.items()] or [("none", "", "")]
        rows += [("" if i else level, *cells) for i, cells in enumerate(shown)]
    console.print(reports.table("Fused nodes", "level", "these", "became", "times", rows=rows, words=3))


def warn_of_layout(operators: dict[str, dict[str, int]]) -> None:
    """Name the files that are tied to this kind of processor, and the operators that tie them."""
    for level, counts in operators.items():
        if tied := [name for name in counts if name.startswith(LAYOUT)]:
            said = f"The file of level {level!r} is tied to this kind of processor. It holds {', '.join(tied)}: their"
            said += " tensors lie in memory in the blocks that this processor's vector registers take. Other machines"
            console.print(f"{said} need a file of their own.", style="bold yellow")


def print_latencies(rows: list[dict], loads: dict[str, list[float]], differences: dict[str, str], threads: int) -> None:
    """The measurements, and how far the outputs are from the original's."""
    shown = [
        (
            row["runtime"],
            str(row["batch"]),
            f"{row['median_ms']:.3g} ({row['lower_quartile_ms']:.3g} to {row['upper_quartile_ms']:.3g})",
            f"{row['speedup']:.2f} ({row['low']:.2f} to {row['high']:.2f})" if row["speedup"] else "",
            f"{1000 * loads[row['runtime']][0]:.0f}",
            differences.get(row["runtime"], ""),
        )
        for row in rows
    ]
    columns = ["level", "batch", "milliseconds\n(quartiles)", f"over {BASELINE}\n(95% interval)", "load\n(ms)"]
    title = f"Each level in processes of its own, in turn; {threads} threads"
    console.print(reports.table(title, *columns, "outputs\nwithin", rows=shown))
    console.print(f"{AT_LOAD!r} is the original file, which the session optimises each time that it loads it.")
