"""Exercise 18: a service's container on Google Cloud Run: tag, push, deploy, ask it.

python exercises/ex18_cloud.py --project my-project --region europe-west1 --repository course --dry-run
"""

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Annotated

import httpx
from rich.console import Console
from typer import Option

from course import ROOT
from course.base import docker
from course.given.script import run
from course.images import containers
from serving import Problem

console = Console(highlight=False, soft_wrap=True, emoji=False)

PHOTOGRAPH = ROOT / "data" / "cat.png"
# More than one instance of it cannot be had, and Cloud Run ends instances that nobody asks.
NOT_HERE = {"19": "a task lives in the instance that took it, and Cloud Run ends instances while they work on tasks"}
INSTALL = "https://cloud.google.com/sdk/docs/install"


def image_address(project: str, region: str, repository: str, service: str, version: str) -> str:
    """What an image is called in Artifact Registry.

    Args:
        project: the Google Cloud project, such as my-project; `example.com:my-project` where it is a domain's.
        region: such as europe-west1.
        repository: the Artifact Registry repository in that region.
        service: such as ex10_service.
        version: the image's tag.
    """
    # TODO 1: the registry of a region is REGION-docker.pkg.dev.
    raise NotImplementedError("Answer the address of the image.")


def settings(service: str) -> dict[str, str]:
    """The options of `gcloud run deploy` for a service of the course, without the dashes: {"cpu": "1", ...}.

    What an instance gets (cpu, memory), how much is asked of it at a time (concurrency), how long a request may
    take (timeout), how many instances there may be (max-instances), where it listens (port), and how Cloud Run finds
    out that it has started (startup-probe) and that it still works (liveness-probe).
    """
    # TODO 2: what does one instance need, and what is a probe to ask? Page 18 has the figures.
    raise NotImplementedError("Answer the options of gcloud run deploy.")


def commands(
    project: str, region: str, repository: str, service: str, version: str, public: bool = False
) -> list[list[str]]:
    """What must be typed, each command a list of words: tag, log in, push, deploy.

    Args:
        project: as for image_address().
        region: as for image_address().
        repository: as for image_address().
        service: its image here is called `SERVICE:hand`; in Cloud Run, underscores are not allowed in names.
        version: the tag of the image in Artifact Registry.
        public: whether anybody may ask the service; otherwise only those whom Google knows and you allow.
    """
    # TODO 3: docker tag, gcloud auth configure-docker, docker push, gcloud run deploy.
    raise NotImplementedError("Answer the four commands.")


def smoke_test(url: str, photograph: Path, token: str = "") -> str:
    """Ask a deployed service to classify a photograph; the label that it thinks most probable.

    Args:
        url: of the service.
        photograph: an image file.
        token: an identity token, for a service that is not public.

    Raises:
        Problem: no answer, another than 200, or one without predictions; the message says which.
    """
    # TODO 4: POST the photograph to /classify, with `Authorization: Bearer ...` where there is a token.
    raise NotImplementedError("Answer the most probable label.")


def cloud_name(service: str) -> str:
    """What Cloud Run calls a service: small letters, digits and hyphens."""
    return service.replace("_", "-")


def main(
    project: Annotated[str, Option(help="Your Google Cloud project.")] = "",
    region: Annotated[str, Option(help="Where it is to run, such as europe-west1.")] = "",
    repository: Annotated[str, Option(help="The Artifact Registry repository in that region.")] = "",
    ex: Annotated[str, Option(help="The exercise whose service to deploy.")] = "10",
    public: Annotated[bool, Option("--public", help="Let anybody use it.")] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="Only print the commands.")] = False,
) -> None:
    """Bring the image that `make containerize BY=hand` made to Cloud Run, and ask it."""
    service = containers.find(ex, "hand")
    check_words(project, region, repository, service.number)
    if dry_run:
        version = version_of(service.image("hand"))
        for command in commands(project, region, repository, service.stem, version, public):
            print(shlex.join(command))
        return
    check_tools(service)
    version = version_of(service.image("hand"))
    for command in commands(project, region, repository, service.stem, version, public):
        console.print(f"[bold]{shlex.join(command)}[/]")
        if subprocess.run(command, stdin=subprocess.DEVNULL).returncode:
            raise Problem(f"`{shlex.join(command[:3])} ...` failed; what it printed above says why.")
    place = [f"--project={project}", f"--region={region}"]
    url = gcloud("run", "services", "describe", cloud_name(service.stem), *place, "--format=value(status.url)")
    token = "" if public else gcloud("auth", "print-identity-token")
    console.print(f"{PHOTOGRAPH.name}: {smoke_test(url, PHOTOGRAPH, token)}\n{url} serves.")
    console.print(f"To end it: gcloud run services delete {cloud_name(service.stem)} {' '.join(place)}")


def check_words(project: str, region: str, repository: str, number: str) -> None:
    """Make sure that all is named that must be, before anything is done; raises Problem."""
    shapes = {
        "PROJECT": (project, r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]", "my-project"),
        "REGION": (region, r"[a-z]+-[a-z]+[0-9]+", "europe-west1"),
        "REPOSITORY": (repository, r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", "course"),
    }
    for name, (value, shape, example) in shapes.items():
        if not re.fullmatch(shape, value):
            raise Problem(f"{name}={value}: expected a name such as {example}: make deploy {name}={example} ...")
    if number in NOT_HERE:
        raise Problem(f"EX={number}: {NOT_HERE[number]}.")


def check_tools(service: containers.Service) -> None:
    """Make sure of the image, of gcloud and of its login, before anything is done; raises Problem."""
    docker.need_engine()
    image = service.image("hand")
    if not docker.exists(image):
        raise Problem(f"There is no image {image}. Build it first: make containerize EX={service.number} BY=hand")
    if (architecture := docker.inspect(image)["Architecture"]) != "amd64":
        raise Problem(
            f"{image} is for {architecture}, Cloud Run runs amd64: "
            f"DOCKER_DEFAULT_PLATFORM=linux/amd64 make containerize EX={service.number} BY=hand"
        )
    if shutil.which("gcloud") is None:
        raise Problem(f"There is no `gcloud` command. Install Google's command line: {INSTALL}")
    if not gcloud("auth", "list", "--filter=status:ACTIVE", "--format=value(account)"):
        raise Problem("You are not logged in to Google's cloud: gcloud auth login")


def version_of(image: str) -> str:
    """A tag that says what is in an image: the beginning of its digest; `latest` where it is not there yet."""
    try:
        return docker.inspect(image)["Id"].removeprefix("sha256:")[:12]
    except Problem:
        return "latest"


def gcloud(*words: str) -> str:
    """What a gcloud command prints; raises Problem where it fails."""
    done = subprocess.run(["gcloud", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise Problem(f"`gcloud {' '.join(words[:3])}` failed: {done.stderr.strip()[-300:]}")
    return done.stdout.strip()


if __name__ == "__main__":
    run(main)
