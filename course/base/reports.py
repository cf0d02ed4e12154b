"""What the reports of measurements share: facts about the machine, tables, CSV, pictures."""

import csv
import json
import platform
import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from rich.box import SIMPLE_HEAD
from rich.table import Table


def machine(versions: dict[str, str]) -> dict:
    """When and on what something was measured; versions of the programs that were measured."""
    return {
        "made": datetime.now().astimezone().isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
    }


def here() -> str:
    """The machine in a few words, to end a sentence with."""
    return f"{platform.machine()}, {psutil.cpu_count()} cores, Python {platform.python_version()}"


def cpu_model() -> str:
    """The processor's name, as the system gives it."""
    info = Path("/proc/cpuinfo")
    named = re.search(r"^model name\s*: (.*)$", info.read_text(), re.MULTILINE) if info.exists() else None
    return named[1] if named else platform.processor() or platform.machine()


def table(title: str, *columns: str, rows: Iterable[Iterable[str]] = (), words: int = 1) -> Table:
    """A table with these columns and rows; the first `words` columns hold words, the others numbers."""
    made = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0)
    for place, column in enumerate(columns):
        made.add_column(column, justify="left" if place < words else "right", overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def spread(values: list[float], digits: int = 0, between: str = "\n") -> str:
    """Median and range, `1.4` and `(1.3-1.6)`, on two lines; one value stands alone, a dash where there is none."""
    if not values:
        return "-"
    middle, least, most = (f"{of(values):.{digits}f}" for of in (median, min, max))
    return middle if len(values) == 1 else f"{middle}{between}({least}-{most})"


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Rows with the same keys as CSV; three digits behind the point, and an empty cell for None."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        for row in rows:
            writer.writerow({key: f"{value:.3f}" if isinstance(value, float) else value for key, value in row.items()})


def write(folder: Path, rows: list[dict[str, Any]], measurements: dict) -> None:
    """Write the rows of the table to table.csv, and all that was measured to measurements.json."""
    write_csv(folder / "table.csv", rows)
    (folder / "measurements.json").write_text(json.dumps(measurements, indent=1))


def bars(axes, values: list[list[float]], **look: Any) -> None:
    """Draw a bar for each list of values: their median, and a line from the least to the most."""
    middle = [median(several) for several in values]
    least = [at - min(several) for at, several in zip(middle, values, strict=True)]
    most = [max(several) - at for at, several in zip(middle, values, strict=True)]
    axes.bar(range(len(values)), middle, 0.6, yerr=[least, most], capsize=4, **look)


def save_picture(figure, path: Path, title: str = "") -> None:
    """Write a figure of matplotlib as PNG and forget it."""
    import matplotlib.pyplot as plt

    figure.suptitle(title, fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)
