"""make bento, containerize and run-container: an exercise's service in an image, by BentoML or by hand."""

import os
import re
import shlex
import sys
from pathlib import Path

import yaml
from rich.console import Console

from course import ROOT
from course.base import docker, manifest
from course.base.files import tail
from course.base.manifest import Exercise
from course.base.processes import need_free, run_logged
from serving import Problem

console = Console(highlight=False, soft_wrap=True, emoji=False)

DOCKERFILE = "dockerfiles/bentoml_service.dockerfile"
BY = {"bento": "", "hand": " BY=hand"}  # what `make` is told
# Options of `docker run` that take from a container what no service needs.
CONFINED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
# BentoML's images have no health check; serving/ is in them as well.
HEALTH = ("--health-cmd", "cd src && python -m serving.container ready", "--health-interval", "10s")


def find(ex: str, by: str = "bento") -> Exercise:
    """The exercise of that number; raises Problem where no image of this kind is made of its service."""
    exercise = manifest.find_service(ex)
    if why_not := exercise.no_image or (exercise.not_by_hand if by == "hand" else ""):
        raise Problem(f"EX={ex}: {why_not}.")
    return exercise


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


def bento(service: Exercise, folder: Path) -> None:
    """Make bento: `bentoml build`."""
    words = shlex.join(build_command(file_of(folder, service.bentofile)))
    console.print(f"[bold]bentoml {words.replace(f'{ROOT}/', '').replace(str(ROOT), '.')}[/]")
    path = bento_path(build_bento(service, folder, docker.log_of(f"{service.stem}-build")))
    files = sum(file.is_file() for file in path.rglob("*"))
    console.print(
        f"{path.parent.name}:{path.name}, {files} files, in {path}\nNext: make containerize EX={service.number}"
    )


def build_bento(service: Exercise, folder: Path, log: Path) -> str:
    """Pack a service of a folder with `bentoml build`; the bento's tag. Raises Problem where there is none."""
    run_bentoml(build_command(file_of(folder, service.bentofile)), log)
    if built := re.search(r"Successfully built Bento\(tag=\"(\S+)\"\)", log.read_text(errors="replace")):
        return built[1]
    raise Problem(f"`bentoml build` built no bento from {service.bentofile}. The end of its log, {log}:\n{end_of(log)}")


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


def containerize(service: Exercise, by: str, folder: Path) -> None:
    """Make containerize: `bentoml containerize`, or the Dockerfile written by hand."""
    docker.need_engine()
    image = service.image(by)
    if by == "bento":
        console.print(f"[bold]bentoml containerize {service.stem}:latest --image-tag {image}[/]")
    build_image(service, by, folder, log=docker.log_of(f"{service.stem}-{by}"))
    console.print(f"{image}, {docker.size(image) / 1e6:,.0f} MB\nNext: make run-container EX={service.number}{BY[by]}")


def build_image(service: Exercise, by: str, folder: Path, *, log: Path, cache: bool = True) -> None:
    """Build a service's image of its newest bento, or with a folder's Dockerfile written by hand. Raises Problem."""
    if by == "bento":
        return containerize_bento(f"{service.stem}:latest", service.image(by), log, cache)
    args = {"SERVICE": service.module, "MODELS": pattern(service.models)}
    docker.build(file_of(folder, DOCKERFILE), service.image(by), args=args, cache=cache, log=log)


def containerize_bento(tag: str, image: str, log: Path, cache: bool = True) -> None:
    """`bentoml containerize`; raises Problem where there is no such bento, or the command made no image.

    It runs the command, because `bentoml.container.build()` logs a failed build and returns as if it had succeeded.
    """
    bento_path(tag)
    run_bentoml(["containerize", tag, "--image-tag", image, *([] if cache else ["--opt", "no-cache"])], log)


def bento_path(tag: str) -> Path:
    """The folder of a bento in BentoML's store; raises Problem where there is none."""
    import bentoml

    try:
        return Path(bentoml.bentos.get(tag).path)
    except bentoml.exceptions.NotFound as error:
        name = tag.partition(":")[0]
        raise Problem(f"There is no bento {tag}. Build it first: make bento EX={name[2:4]}") from error


def run_bentoml(words: list[str], log: Path) -> None:
    """Run a bentoml command. Raises Problem where it fails."""
    env = {"BENTOML_DO_NOT_TRACK": "True", "NO_COLOR": "1", "COLUMNS": "200", "DOCKER_BUILDKIT": "1"}
    if run_logged([sys.executable, "-m", "bentoml", *words], log, **env):
        raise Problem(f"`bentoml {words[0]}` failed. The end of its log, {log}:\n{end_of(log)}")


def end_of(log: Path) -> str:
    """The end of a log of BentoML's, without the stack traces of code that only passed the failure on."""
    passed_on = r"\n(ERROR: *\n+)?Encountered exception while|\nTraceback \(most recent"
    return tail(re.split(passed_on, log.read_text(errors="replace"))[0])


def run_container(service: Exercise, by: str, port: int) -> None:
    """Make run-container: become `docker run`."""
    docker.need_engine()
    image, which = service.image(by), f"EX={service.number}{BY[by]}"
    if not docker.exists(image):
        raise Problem(f"There is no image {image}. Build it first: make containerize {which}")
    need_free(port, f"make run-container {which}")
    own = HEALTH if by == "bento" else ()
    command = ["docker", "run", "--rm", "--publish", f"{port}:3000", *CONFINED, *own, image]
    console.print(f"[bold]{shlex.join(command)}[/]")
    console.print(f"Swagger: http://localhost:{port}   In a second terminal: make client   Stop: Ctrl-C")
    os.execvp(command[0], command)
