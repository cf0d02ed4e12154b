"""Measures and compares images: how long they take to build, what is in them, how soon they answer."""

import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import httpx
from rich.console import Console
from rich.progress import Progress

from course import ROOT
from course.base import docker, reports
from course.base.files import whole_folder, writable
from course.base.reports import spread
from course.images.build import Image, lend_wheels
from serving import Problem

PHOTOGRAPH = ROOT / "data" / "cat.png"
CPUS = 1
DEADLINE = 120  # seconds for a container to become ready


@dataclass
class Measured:
    """All about one image."""

    image: Image
    build: dict[str, float | None]  # seconds, as told_apart() has them; empty if it was built with a cache
    base: int  # bytes of the base image
    layers: list[docker.Layer]
    # Seconds from `docker run` until it was ready, and until it had answered, in each turn.
    ready: list[float] = field(default_factory=list)
    prediction: list[float] = field(default_factory=list)
    best: str = ""  # the label that it answers for the photograph

    @property
    def size(self) -> int:
        """Bytes as a whole."""
        return sum(layer.size for layer in self.layers)

    @property
    def own_layers(self) -> list[docker.Layer]:
        """The layers above those of the base image, which come first and make up its size."""
        below = 0
        for place, layer in enumerate(self.layers):
            if below >= self.base:
                return self.layers[place:]
            below += layer.size
        return []


def compare(images: list[Image], output: Path, rounds: int, fresh: bool, console: Console) -> list[Measured]:
    """Measure images, show what came out, and write it into a folder. A group is compared with its first image.

    rounds: how often each is started, in turn; fresh: build them without cache first, and measure that.
    """
    docker.need_engine()
    lend_wheels(ROOT / "wheels")
    found = []
    with writable(output), whole_folder(output) as folder, Progress(console=console, transient=True) as bar:
        work = bar.add_task("", total=len(images) * (1 + rounds))
        for image in images:
            bar.update(work, description=f"Building {image.tag} ...")
            built = build(image, folder, fresh)
            found.append(Measured(image, built, docker.size(docker.base_image()), docker.layers(image.tag)))
            bar.advance(work)
        for one in found * rounds:  # in turn: what slows the machine for a while slows all of them
            bar.update(work, description=f"Starting {one.image.tag} ...")
            start(one)
            bar.advance(work)
        if len(labels := {one.best for one in found}) > 1:
            raise Problem(f"The images do not hold the same model: they answer {', '.join(sorted(labels))}.")
        write(found, folder)
    show(found, console)
    console.print(f"Written to {output}: table.csv, layers.csv, measurements.json, images.png, and the builds' logs.")
    return found


def build(image: Image, folder: Path, fresh: bool) -> dict[str, float | None]:
    """Build an image without cache, in the place of the one that was there; or only make sure that it is there."""
    log = folder / docker.log_of(image.tag).name
    before = docker.inspect(image.tag)["Id"] if docker.exists(image.tag) else None
    if before and not fresh:
        return {}
    begin = time.monotonic()
    image.build(cache=not fresh, log=log)
    seconds = time.monotonic() - begin
    if before and before != docker.inspect(image.tag)["Id"]:
        docker.remove(before)
    return told_apart(seconds, log) if fresh else {}


def told_apart(whole: float, log: Path) -> dict[str, float | None]:
    """The seconds of a build, and of its `pip download` and `pip install` by BuildKit's log; None for what it lacks."""
    text = log.read_text(errors="replace") if log.exists() else ""
    steps = dict(re.findall(r"^#(\d+) (\[.*)$", text, re.MULTILINE))
    seconds = {number: float(took) for number, took in re.findall(r"^#(\d+) DONE ([\d.]+)s$", text, re.MULTILINE)}

    def of(word: str) -> float | None:
        times = [seconds.get(number, 0) for number, line in steps.items() if re.search(rf"\bpip\b.* {word}\b", line)]
        return sum(times) if times else None

    return {"build_s": whole, "download_s": of("download"), "install_s": of("install")}


def start(one: Measured) -> None:
    """Start a container with one CPU, and note how long that takes, and the best label for the photograph."""
    photograph = PHOTOGRAPH.read_bytes()
    begin = time.monotonic()
    with docker.container(one.image.tag, f"--cpus={CPUS}") as container:
        container.wait_until_ready(deadline=DEADLINE)
        one.ready.append(time.monotonic() - begin)
        answer = httpx.post(f"{container.url}/classify", content=photograph, timeout=60)
        one.prediction.append(time.monotonic() - begin)
        if not answer.is_success:
            raise Problem(f"{one.image.tag} answers {answer.status_code} to a photograph: {answer.text[:200]}")
        one.best = answer.json()["predictions"][0]["label"]


def rows(found: list[Measured]) -> list[dict]:
    """One row an image, of plain numbers: megabytes and seconds."""
    first: dict[str, Measured] = {}
    made = []
    for one in found:
        compared_with = first.setdefault(one.image.group, one)
        row = {
            "image": one.image.tag,
            "group": one.image.group,
            "megabytes": one.size / 1e6,
            "above_base": (one.size - one.base) / 1e6,
            "times_first": one.size / compared_with.size,
            "times_first_above_base": (one.size - one.base) / (compared_with.size - compared_with.base),
        } | (one.build or dict.fromkeys(("build_s", "download_s", "install_s")))
        for what, seconds in {"ready": one.ready, "prediction": one.prediction}.items():
            row |= {f"{what}_median": median(seconds), f"{what}_least": min(seconds), f"{what}_most": max(seconds)}
        made.append(row)
    return made


def show(found: list[Measured], console: Console) -> None:
    """The table, the largest layers, and how it was measured."""
    columns = ("MB", "above\nbase", "times\nthe first", "build\n(s)", "download,\ninstall", "ready\n(s)")
    table = reports.table("Images", "image", *columns, "first pre-\ndiction (s)")
    group = ""
    for one, row in zip(found, rows(found), strict=True):
        if row["group"] != group:
            group = row["group"]
            table.add_section()
        whole, *parts = ("-" if seconds is None else f"{seconds:.0f}" for seconds in one.build.values() or [None])
        sizes = [f"{row['megabytes']:.0f}", f"{row['above_base']:.0f}", f"{row['times_first']:.2f}"]
        starts = [spread(one.ready, 2), spread(one.prediction, 2)]
        table.add_row(row["image"].removeprefix("course/"), *sizes, whole, ", ".join(parts) or "-", *starts)
    console.print(table)
    console.print("The layers above the base image of 1 MB and more:")
    for one in found:
        parts = ", ".join(f"{layer.size / 1e6:.0f} MB {called(layer)}" for layer in one.own_layers if layer.size >= 1e6)
        console.print(f"  {one.image.tag}: {parts}", soft_wrap=True, highlight=False, emoji=False)  # :hand: is one
    console.print(
        f"The base image has {found[0].base / 1e6:.0f} MB. Sizes are unpacked. `times the first`: whole images, within"
        f" their group. Each was built once, without cache; the download depends on the network. Ready, and the first"
        f" prediction: from `docker run --cpus={CPUS}`, median (least-most) of {len(found[0].ready)} starts, in turn.",
        soft_wrap=True,
        highlight=False,
    )


def called(layer: docker.Layer, length: int = 40) -> str:
    """The line of the Dockerfile that made a layer, shortened."""
    line = re.sub(r"^(RUN )?(\|\d+ .*?)?/bin/sh -c (#\(nop\) )?", "RUN ", layer.made_by).removesuffix(" # buildkit")
    return line if len(line) <= length else f"{line[:length]}..."


def write(found: list[Measured], folder: Path) -> None:
    """table.csv, layers.csv, measurements.json and images.png."""
    layers, images = [], []
    for one in found:
        tag = one.image.tag
        layers += [{"image": tag, "bytes": layer.size, "made_by": layer.made_by} for layer in one.layers]
        made = {"image": tag, "id": docker.inspect(tag)["Id"], "build": one.build, "best": one.best}
        images.append(made | {"ready": one.ready, "prediction": one.prediction})
    reports.write_csv(folder / "layers.csv", layers)
    machine = reports.machine({"docker": docker.docker("version", "--format", "{{.Server.Version}}")})
    reports.write(folder, rows(found), {"machine": machine, "base": {"bytes": found[0].base}, "images": images})
    plot(found, folder / "images.png")


def plot(found: list[Measured], path: Path) -> None:
    """Sizes by layer, and seconds to the first prediction with their spread."""
    import matplotlib.pyplot as plt

    names = [re.sub("[-_:]", "\n", one.image.tag.removeprefix("course/")) for one in found]
    figure, (sizes, seconds) = plt.subplots(1, 2, figsize=(max(9, 1.8 * len(found) + 2), 4.6), layout="constrained")
    for place, one in enumerate(found):
        below = one.base / 1e6
        sizes.bar(place, below, color="lightgrey", edgecolor="white", label=None if place else "base image")
        for number, layer in enumerate(layer for layer in one.own_layers if layer.size):
            megabytes = layer.size / 1e6
            sizes.bar(place, megabytes, bottom=below, color=f"C{number % 10}", edgecolor="white")
            below += megabytes
        sizes.text(place, below, f"{below:,.0f}", ha="center", va="bottom")
    sizes.set(title="From below: the base image, then layer by layer", ylabel="MB, unpacked")
    sizes.legend()
    reports.bars(seconds, [one.prediction for one in found])
    seconds.set(title=f"From docker run to the first prediction, {CPUS} CPU", ylabel="s")
    for axes in (sizes, seconds):
        axes.set(xticks=range(len(found)), xticklabels=names)
        axes.grid(axis="y", alpha=0.3)
        axes.tick_params(axis="x", labelsize="small")
    reports.save_picture(figure, path)
