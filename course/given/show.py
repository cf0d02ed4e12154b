"""What exercises print."""

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

console = Console(soft_wrap=True)


def print_table(rows: Iterable[Iterable[object]], *columns: str, title: str | None = None) -> None:
    """Print rows under the names of their columns; `>name` aligns a column to the right. No columns: no header."""
    table = Table(title=title, title_justify="left", show_header=bool(columns))
    for column in columns:
        table.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    console.print(table)


def print_predictions(found: Iterable[tuple[str, Iterable[tuple[str, float]]]]) -> None:
    """Print pairs of an image's name and its labels with probabilities as one table."""
    rows = [
        (name if place == 0 else "", label, f"{probability:.1%}")
        for name, predictions in found
        for place, (label, probability) in enumerate(predictions)
    ]
    if rows:
        print_table(rows, "image", "label", ">probability")


def warn_of_random(weights: str) -> None:
    """Warn that labels mean nothing when a model's weights are random: `weights` of its metadata says so."""
    if weights.startswith("random"):
        advice = "`make serve MODEL=efficientnet_lite0` has trained ones."
        console.print(f"The weights are RANDOM ({weights}): these labels mean nothing. {advice}", style="bold yellow")


def print_summary(path: Path, facts: dict) -> None:
    """Print exercise 02's facts about a model file, those of describe(), as two tables."""
    values = [(kind, value) for kind in ("input", "output") for value in facts[f"{kind}s"]]
    origin = facts["metadata"].get("weights", "of unknown origin")
    rows = [("opset", facts["opset"])]
    rows += [(kind, f"{one['name']}: {one['type']} ({', '.join(map(str, one['shape']))})") for kind, one in values]
    axes = facts["dynamic_axes"].items()
    rows += [("dynamic axes", f"{name}: {', '.join(map(str, found)) or 'none'}") for name, found in axes]
    rows.append(("weights", f"{facts['weights_bytes'] / 1e6:.1f} MB, {origin}"))
    print_table(rows, title=str(path))
    operators = facts["operators"]
    print_table(operators.items(), "operator", ">nodes", title=f"{sum(operators.values())} nodes")


def print_operators(counts: dict[str, dict[str, int]]) -> None:
    """Print how many nodes of each operator there are in each file: a row for an operator, a column for a file."""
    names = dict.fromkeys(name for count in counts.values() for name in count)
    rows = [(name, *(count.get(name, "") for count in counts.values())) for name in names]
    print_table(rows, "operator", *(f">{file}" for file in counts), title="Nodes by operator")
