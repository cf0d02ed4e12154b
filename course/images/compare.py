"""Images measured and compared: what building them takes, what is in them, how soon they answer."""

import csv
import json
import os
import platform
import re
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import httpx
import psutil
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from course import ROOT
from course.base import docker
from course.images.build import Image, lend_wheels
from serving import Problem

PHOTOGRAPH = ROOT / "data" / "cat.png"
CPUS = 1
DEADLINE = 120  # seconds for a container to become ready


class Build(NamedTuple):
    """Seconds of one build without cache."""

    whole: float | None
    download: float | None  # None where the log does not tell it apart
    install: float | None


class Start(NamedTuple):
    """Seconds from `docker run`, in one turn."""

    ready: float
    prediction: float


class Measured(NamedTuple):
    """All about one image."""

    image: Image
    base: int  # bytes
    layers: list[docker.Layer]
    build: Build | None  # None: it was there already, or was built with the cache
    starts: list[Start]
    best: str  # the label that it answers for the photograph

    @property
    def size(self) -> int:
        """Bytes as a whole."""
        return sum(layer.size for layer in self.layers)


def compare(images: list[Image], output: Path, rounds: int, fresh: bool, console: Console) -> list[Measured]:
    """Measure images, show what came out, and write it into a folder.

    Args:
        images: those to compare; the first of each group is what the others of the group are held against.
        output: the folder.
        rounds: how often each is started, in turn.
        fresh: build them without cache first, to see what that takes; otherwise what is there is taken.
        console: for tables and progress.

    Raises:
        Problem: no engine, a build that failed, an image that does not answer.
    """
    docker.need_engine()
    lend_wheels(ROOT / "wheels")
    output.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=output, prefix=".making-") as name,
        Progress(console=console, transient=True) as bar,
    ):
        folder = Path(name)
        work = bar.add_task("", total=len(images) * (1 + rounds))
        builds: dict[str, Build | None] = {}
        for image in images:
            bar.update(work, description=f"Building {image.tag} ...")
            builds[image.tag] = build(image, folder, fresh)
            bar.advance(work)
        starts: dict[str, list[Start]] = {image.tag: [] for image in images}
        best: dict[str, str] = {}
        for _ in range(rounds):
            for image in images:  # in turn: what slows the machine for a while slows all of them
                bar.update(work, description=f"Starting {image.tag} ...")
                one, best[image.tag] = start(image)
                starts[image.tag].append(one)
                bar.advance(work)
        base = docker.size(docker.base_image())
        found = [
            Measured(image, base, docker.layers(image.tag), builds[image.tag], starts[image.tag], best[image.tag])
            for image in images
        ]
        if len(labels := set(best.values())) > 1:
            raise Problem(f"The images do not hold the same model: they answer {', '.join(sorted(labels))}.")
        write(found, folder)
        for file in folder.iterdir():
            os.replace(file, output / file.name)
    show(found, console)
    console.print(f"Written to {output}: table.csv, layers.csv, measurements.json, images.png, and the builds' logs.")
    return found


def build(image: Image, folder: Path, fresh: bool) -> Build | None:
    """Build an image without cache, in the place of the one that was there; or only make sure that it is there."""
    log = folder / f"{image.tag.replace('/', '_').replace(':', '_')}.log"
    before = docker.inspect(image.tag)["Id"] if docker.exists(image.tag) else None
    if before and not fresh:
        return None
    seconds = image.build(not fresh, log)
    if before and before != docker.inspect(image.tag)["Id"]:
        docker.remove(before)
    return Build(seconds, *told_apart(log)) if fresh else None


def told_apart(log: Path) -> tuple[float | None, float | None]:
    """Seconds that `pip download` and `pip install` took, by BuildKit's log of a build; None for what is not in it."""
    text = log.read_text(errors="replace") if log.exists() else ""
    steps = dict(re.findall(r"^#(\d+) (\[.*)$", text, re.MULTILINE))
    seconds = {number: float(took) for number, took in re.findall(r"^#(\d+) DONE ([\d.]+)s$", text, re.MULTILINE)}

    def of(word: str) -> float | None:
        times = [seconds.get(number, 0) for number, line in steps.items() if re.search(rf"\bpip\b.* {word}\b", line)]
        return sum(times) if times else None

    return of("download"), of("install")


def start(image: Image) -> tuple[Start, str]:
    """Start a container with one CPU; how long that takes, and the best label for the photograph."""
    photograph = PHOTOGRAPH.read_bytes()
    begin = time.monotonic()
    with docker.container(image.tag, f"--cpus={CPUS}") as container:
        container.wait_until_ready(deadline=DEADLINE)
        ready = time.monotonic() - begin
        answer = httpx.post(f"{container.url}/classify", content=photograph, timeout=60)
        took = time.monotonic() - begin
        if not answer.is_success:
            raise Problem(f"{image.tag} answers {answer.status_code} to a photograph: {answer.text[:200]}")
        return Start(ready, took), answer.json()["predictions"][0]["label"]


def rows(found: list[Measured]) -> list[dict]:
    """One row an image, of plain numbers: megabytes and seconds."""
    first: dict[str, Measured] = {}
    made = []
    for one in found:
        held_against = first.setdefault(one.image.group, one)
        build = one.build or Build(None, None, None)
        made.append(
            {
                "image": one.image.tag,
                "group": one.image.group,
                "megabytes": one.size / 1e6,
                "above_base": (one.size - one.base) / 1e6,
                "times_first": one.size / held_against.size,
                "times_first_above_base": (one.size - one.base) / (held_against.size - held_against.base),
                "build_s": build.whole,
                "download_s": build.download,
                "install_s": build.install,
            }
            | {
                f"{what}_{how}": of(getattr(start, what) for start in one.starts)
                for what in Start._fields
                for how, of in (("median", median), ("least", min), ("most", max))
            }
        )
    return made


def show(found: list[Measured], console: Console) -> None:
    """The table, the largest layers, and how it was measured."""
    table = Table(title="Images", title_justify="left", box=SIMPLE_HEAD, padding=0)
    table.add_column("image", overflow="fold")
    columns = (
        "MB",
        "above\nbase",
        "times\nthe first",
        "build\n(s)",
        "download,\ninstall",
        "ready\n(s)",
        "first pre-\ndiction (s)",
    )
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    group = ""
    for row in rows(found):
        if row["group"] != group:
            group = row["group"]
            table.add_section()
        parts = f"{whole(row['download_s'])}, {whole(row['install_s'])}" if row["build_s"] else "-"
        starts = [spread(row, of) for of in Start._fields]
        sizes = [f"{row['megabytes']:.0f}", f"{row['above_base']:.0f}", f"{row['times_first']:.2f}"]
        table.add_row(row["image"].removeprefix("course/"), *sizes, whole(row["build_s"]), parts, *starts)
    console.print(table)
    console.print("The layers above the base image of 1 MB and more:")
    for one in found:
        parts = ", ".join(f"{layer.size / 1e6:.0f} MB {called(layer)}" for layer in one.layers if counts(one, layer))
        console.print(f"  {one.image.tag}: {parts}", soft_wrap=True, highlight=False, emoji=False)  # :hand: is one
    console.print(
        f"The base image has {found[0].base / 1e6:.0f} MB. Sizes are unpacked. `times the first`: whole images, of their group."
        f" Built once, without cache; the download depends on the network. Ready, and the first prediction: from"
        f" `docker run --cpus={CPUS}`, median (least-most) of {len(found[0].starts)} starts each, in turn.",
        soft_wrap=True,
        highlight=False,
    )


def whole(seconds: float | None) -> str:
    """Whole seconds; a dash where nothing was measured."""
    return "-" if seconds is None else f"{seconds:.0f}"


def spread(row: dict, of: str) -> str:
    """Median, and on a second line (least-most)."""
    return f"{row[f'{of}_median']:.2f}\n({row[f'{of}_least']:.2f}-{row[f'{of}_most']:.2f})"


def counts(one: Measured, layer: docker.Layer) -> bool:
    """Whether a layer is one of the image's own that is worth a word."""
    return layer.size >= 1e6 and layer not in docker_base(one)


def docker_base(one: Measured) -> list[docker.Layer]:
    """The layers that come from the base image: the first ones, up to its size."""
    base, total = [], 0
    for layer in one.layers:
        if total >= one.base:
            break
        base.append(layer)
        total += layer.size
    return base


def called(layer: docker.Layer, length: int = 40) -> str:
    """The line of the Dockerfile that made a layer, shortened."""
    line = re.sub(r"^(RUN )?(\|\d+ .*?)?/bin/sh -c (#\(nop\) )?", "RUN ", layer.made_by).removesuffix(" # buildkit")
    return line if len(line) <= length else f"{line[:length]}..."


def write(found: list[Measured], folder: Path) -> None:
    """table.csv, layers.csv, measurements.json and images.png."""
    made = rows(found)
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(made[0]))
        writer.writeheader()
        for row in made:
            writer.writerow({key: f"{value:.3f}" if isinstance(value, float) else value for key, value in row.items()})
    with (folder / "layers.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "bytes", "made_by"])
        writer.writerows([one.image.tag, layer.size, layer.made_by] for one in found for layer in one.layers)
    engine = docker.docker("version", "--format", "{{.Server.Version}}")
    measurements = {
        "machine": {"system": platform.platform(), "cores": psutil.cpu_count(), "docker": engine},
        "base": {"bytes": found[0].base},
        "images": [
            {
                "image": one.image.tag,
                "id": docker.inspect(one.image.tag)["Id"],
                "build": one.build._asdict() if one.build else None,
                "starts": [start._asdict() for start in one.starts],
                "best": one.best,
            }
            for one in found
        ],
    }
    (folder / "measurements.json").write_text(json.dumps(measurements, indent=1))
    plot(found, folder / "images.png")


def plot(found: list[Measured], path: Path) -> None:
    """Sizes by layer, and seconds to the first prediction with their spread."""
    import matplotlib.pyplot as plt

    names = [re.sub("[-_:]", "\n", one.image.tag.removeprefix("course/")) for one in found]
    figure, (sizes, seconds) = plt.subplots(1, 2, figsize=(max(9, 1.8 * len(found) + 2), 4.6), layout="constrained")
    for place, one in enumerate(found):
        sizes.bar(place, one.base / 1e6, color="lightgrey", edgecolor="white", label=None if place else "base image")
        below = one.base
        own = [layer for layer in one.layers[len(docker_base(one)) :] if layer.size]
        for number, layer in enumerate(own):
            sizes.bar(place, layer.size / 1e6, bottom=below / 1e6, color=f"C{number % 10}", edgecolor="white")
            below += layer.size
        sizes.text(place, below / 1e6, f"{below / 1e6:,.0f}", ha="center", va="bottom")
    sizes.set(
        title="From below: the base image, then layer by layer",
        ylabel="MB, unpacked",
        xticks=range(len(found)),
        xticklabels=names,
    )
    sizes.legend()
    middle = [median(start.prediction for start in one.starts) for one in found]
    least = [value - min(start.prediction for start in one.starts) for value, one in zip(middle, found, strict=True)]
    most = [max(start.prediction for start in one.starts) - value for value, one in zip(middle, found, strict=True)]
    seconds.bar(range(len(found)), middle, 0.6, yerr=[least, most], capsize=4)
    seconds.set(
        title=f"From docker run to the first prediction, {CPUS} CPU",
        ylabel="s",
        xticks=range(len(found)),
        xticklabels=names,
    )
    for one in (sizes, seconds):
        one.grid(axis="y", alpha=0.3)
        one.tick_params(axis="x", labelsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)
