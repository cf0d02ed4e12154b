"""make bento, containerize and run-container: an exercise's service in an image, by BentoML or by hand."""

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import yaml
from rich.console import Console

from course import ROOT
from course.base import docker, manifest
from course.base.files import tail
from course.base.processes import is_free
from serving import Problem

console = Console(highlight=False, soft_wrap=True, emoji=False)

DOCKERFILE = "dockerfiles/bentoml_service.dockerfile"
# Options of `docker run` that take from a container what no service needs.
CONFINED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
# BentoML's images have no health check; serving/ is in them as well.
HEALTH = ("--health-cmd", "cd src && python -m serving.container ready", "--health-interval", "10s")


class Service(NamedTuple):
    """A service that can be put into an image."""

    number: str
    stem: str  # what its bentofile, its bento and its images are called
    module: str  # its file, without .py
    models: list[str]  # NAME is models/NAME.onnx

    @property
    def bentofile(self) -> str:
        """Its bentofile, relative to the project or to a submission."""
        return f"bentofiles/{self.stem}.yaml"

    def image(self, by: str) -> str:
        """The tag of its image: by `bento` or by `hand`."""
        return f"{self.stem}:{by}"


def find(ex: str, by: str = "bento") -> Service:
    """The service of an exercise; raises Problem where no image of this kind is made of it."""
    exercise = manifest.find_service(ex)
    if why_not := exercise.no_image or (exercise.not_by_hand if by == "hand" else ""):
        raise Problem(f"EX={ex}: {why_not}.")
    return Service(exercise.number, exercise.stem, Path(exercise.service).stem, exercise.models)


def pattern(models: list[str]) -> str:
    """One pattern for `COPY`; of several models, the last letters differ: `resnet18.onnx`, `model_[ab].onnx`."""
    first, letters = models[0], "".join(model[-1] for model in models)
    return f"{first}.onnx" if len(models) == 1 else f"{first[:-1]}[{letters}].onnx"


def file_of(folder: Path, file: str) -> Path:
    """A file of solutions/, or of a folder of the shape of exercises/; raises Problem where it is missing."""
    path = manifest.solution(file) if folder.resolve() == ROOT / "solutions" else folder.resolve() / file
    if not path.is_file():
        raise Problem(f"There is no {path}.")
    return path


def bento(ex: str, folder: Path) -> None:
    """Make bento: `bentoml build`."""
    service = find(ex)
    command = build_command(file_of(folder, service.bentofile))
    log = ROOT / "reports" / "builds" / f"{service.stem}-build.log"
    console.print(f"[bold]bentoml {shlex.join(command).replace(f'{ROOT}/', '').replace(str(ROOT), '.')}[/]")
    run_bentoml(command, log)
    if not (built := re.search(r"Successfully built Bento\(tag=\"(\S+)\"\)", log.read_text(errors="replace"))):
        raise Problem(
            f"`bentoml build` built no bento from {service.bentofile}. The end of its log, {log}:\n{end_of(log)}"
        )
    files = len([path for path in bento_path(built[1]).rglob("*") if path.is_file()])
    console.print(f"{built[1]}, {files} files, in {bento_path(built[1])}\nNext: make containerize EX={ex}")


def build_command(bentofile: Path, *, context: Path = ROOT) -> list[str]:
    """The words of `bentoml build`; behind a mirror, the bentofile is a copy with the mirror's base image and index."""
    settings = yaml.safe_load(bentofile.read_text())
    own = settings | {}
    if base := os.environ.get("BASE_IMAGE"):
        own["docker"] = {key: value for key, value in (own.get("docker") or {}).items() if key != "python_version"}
        own["docker"]["base_image"] = base
    if index := os.environ.get("PIP_INDEX_URL"):
        own["python"] = (own.get("python") or {}) | {"index_url": index}
    if own != settings:
        bentofile = ROOT / "reports" / "builds" / bentofile.name
        bentofile.parent.mkdir(parents=True, exist_ok=True)
        bentofile.write_text(yaml.safe_dump(own, sort_keys=False))
    return ["build", "--bentofile", str(bentofile), str(context)]


def containerize(ex: str, by: str, folder: Path) -> None:
    """Make containerize: `bentoml containerize`, or the Dockerfile written by hand."""
    service = find(ex, by)
    docker.need_engine()
    image, log = service.image(by), ROOT / "reports" / "builds" / f"{service.stem}-{by}.log"
    if by == "hand":
        build_by_hand(service, folder, log)
    else:
        console.print(f"[bold]bentoml containerize {service.stem}:latest --image-tag {image}[/]")
        containerize_bento(f"{service.stem}:latest", image, log)
    again = f" BY={by}" if by == "hand" else ""
    console.print(f"{image}, {docker.size(image) / 1e6:,.0f} MB\nNext: make run-container EX={ex}{again}")


def build_by_hand(service: Service, folder: Path, log: Path, cache: bool = True) -> float:
    """Build a service's image with the Dockerfile written by hand; the seconds that took. Raises Problem."""
    args = {"SERVICE": service.module, "MODELS": pattern(service.models)}
    return docker.build(file_of(folder, DOCKERFILE), service.image("hand"), args=args, cache=cache, log=log)


def containerize_bento(tag: str, image: str, log: Path, cache: bool = True) -> float:
    """`bentoml containerize`; the seconds that took.

    It runs the command, because `bentoml.container.build()` logs a failed build and returns as if it had succeeded.

    Raises:
        Problem: there is no such bento, or the command made no image.
    """
    bento_path(tag)
    begin = time.monotonic()
    words = ["containerize", tag, "--image-tag", image, *([] if cache else ["--opt", "no-cache"])]
    run_bentoml(words, log, DOCKER_BUILDKIT="1")
    return time.monotonic() - begin


def comparison(ex: str, by: str) -> Callable[[bool, Path], float]:
    """How `make compare-images` builds a service's image: with the cache of earlier builds or not; its log's path."""
    service, folder = find(ex, by), ROOT / "solutions"

    def build(cache: bool, log: Path) -> float:
        if by == "hand":
            return build_by_hand(service, folder, log, cache)
        begin = time.monotonic()
        run_bentoml(build_command(file_of(folder, service.bentofile)), log.with_suffix(".bento.log"))
        return time.monotonic() - begin + containerize_bento(f"{service.stem}:latest", service.image(by), log, cache)

    return build


def bento_path(tag: str) -> Path:
    """The folder of a bento in BentoML's store; raises Problem where there is none."""
    import bentoml

    try:
        return Path(bentoml.bentos.get(tag).path)
    except bentoml.exceptions.NotFound as error:
        name = tag.partition(":")[0]
        raise Problem(f"There is no bento {tag}. Build it first: make bento EX={name[2:4]}") from error


def run_bentoml(words: list[str], log: Path, **env: str) -> None:
    """Run a bentoml command. Raises Problem where it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"BENTOML_DO_NOT_TRACK": "True", "NO_COLOR": "1", "COLUMNS": "200"} | env
    with log.open("wb") as output:
        command = [sys.executable, "-m", "bentoml", *words]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    if done.returncode:
        raise Problem(f"`bentoml {words[0]}` failed. The end of its log, {log}:\n{end_of(log)}")


def end_of(log: Path) -> str:
    """The end of a log of BentoML's, without the stack traces of code that only passed the failure on."""
    passed_on = r"\n(ERROR: *\n+)?Encountered exception while|\nTraceback \(most recent"
    return tail(re.split(passed_on, log.read_text(errors="replace"))[0])


def run_container(ex: str, by: str, port: int) -> None:
    """Make run-container: become `docker run`."""
    service = find(ex, by)
    docker.need_engine()
    image, again = service.image(by), " BY=hand" if by == "hand" else ""
    if not docker.exists(image):
        raise Problem(f"There is no image {image}. Build it first: make containerize EX={ex}{again}")
    if not is_free(port):
        raise Problem(
            f"Port {port} is taken, or not allowed. Stop what listens there, or: "
            f"make run-container EX={ex}{again} PORT={port + 1}"
        )
    own = HEALTH if by == "bento" else ()
    command = ["docker", "run", "--rm", "--publish", f"{port}:3000", *CONFINED, *own, image]
    console.print(f"[bold]{shlex.join(command)}[/]")
    console.print(f"Swagger: http://localhost:{port}   In a second terminal: make client   Stop: Ctrl-C")
    os.execvp(command[0], command)
