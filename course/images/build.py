"""The images of the course: which there are, and how each is built."""

import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from course import ROOT
from course.base import docker
from course.images import containers
from serving import Problem


class Image(NamedTuple):
    """An image of the course. It listens on port 3000 and answers GET /readyz and POST /classify."""

    tag: str
    group: str  # images of one group are compared: the others with its first
    made_from: str  # its source, for a reader
    build: Callable[..., None]  # takes `cache`, whether to use that of earlier builds, and `log`, the file for it


def inference(folder: Path = ROOT / "dockerfiles") -> list[Image]:
    """The four of exercise 08."""

    def image(runtime: str, **args: str) -> Image:
        tag = f"course/inference-{runtime}:{'cuda' if args else 'cpu'}"
        build = partial(docker.build, folder / f"inference_{runtime}.dockerfile", tag, args=args)
        return Image(tag, f"with{'' if args else 'out'} CUDA", f"{folder.name}/inference_{runtime}.dockerfile", build)

    return [image("onnx"), image("pytorch"), image("onnx", CUDA="true"), image("pytorch", CUDA="true")]


def services() -> list[Image]:
    """Exercise 10's service in an image by hand, and in the one that BentoML makes."""
    service, folder = containers.find("10"), ROOT / "solutions"

    def build_both(*, cache: bool, log: Path) -> None:
        containers.build_bento(service, folder, log.with_suffix(".bento.log"))
        containers.build_image(service, "bento", folder, cache=cache, log=log)

    by_hand = partial(containers.build_image, service, "hand", folder)
    return [
        Image(service.image("hand"), "a service", containers.DOCKERFILE, by_hand),
        Image(service.image("bento"), "a service", service.bentofile, build_both),
    ]


# What `make compare-images` compares.
COMPARED = [*inference(), *services()]


def lend_wheels(folder: Path) -> None:
    """Copy PyTorch's CPU-only wheels that pip finds on this machine (PIP_FIND_LINKS) to where the build looks."""
    for place in map(Path, os.environ.get("PIP_FIND_LINKS", "").split()):
        for wheel in place.glob("torch-*+cpu-*.whl") if place.is_dir() else []:
            if not (folder / wheel.name).exists():
                folder.mkdir(exist_ok=True)
                shutil.copy2(wheel, folder / wheel.name)


def chosen(images: list[Image], words: str) -> list[Image]:
    """Those images whose tags hold one of the words, all without a word; raises Problem where there are none."""
    found = [image for image in images if not words or any(word in image.tag for word in words.split())]
    if not found:
        raise Problem(f"IMAGES={words}: there are {', '.join(image.tag for image in images)}.")
    return found


def build_all(images: list[Image], console: Console) -> None:
    """Build images one after the other, and print the size and build time of each."""
    docker.need_engine()
    lend_wheels(ROOT / "wheels")
    for number, image in enumerate(images, 1):
        console.print(f"{number} of {len(images)}: {image.tag} from {image.made_from}", highlight=False)
        log = docker.log_of(image.tag)
        with console.status("Building: the first time, gigabytes are downloaded for CUDA ..."):
            begin = time.monotonic()
            image.build(cache=True, log=log)
        seconds = time.monotonic() - begin
        console.print(f"        {docker.size(image.tag) / 1e6:,.0f} MB, {seconds:.0f} s, log in {log.parent}")
    port = docker.PORT
    console.print(
        f"Next: docker run --rm --publish {port}:{port} {images[0].tag}\n"
        f"      and in a second terminal: curl --data-binary @data/cat.png http://localhost:{port}/classify\n"
        "      To compare them: make compare-images"
    )
