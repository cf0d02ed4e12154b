"""What exercise 18 gives: checks before a deployment to Cloud Run, and Google's command line."""

import re
import shlex
import shutil
import subprocess

from rich.console import Console

from course.base import docker
from course.base.manifest import Exercise
from course.images import containers
from serving import Problem

INSTALL = "https://cloud.google.com/sdk/docs/install"
# Cloud Run ends instances that get no requests, and starts several.
NOT_HERE = {"19": "a task lives in the instance that took it, and Cloud Run ends instances while they work on tasks"}

console = Console(highlight=False, soft_wrap=True, emoji=False)


def name(service: str) -> str:
    """What Cloud Run calls a service: small letters, digits and hyphens."""
    return service.replace("_", "-")


def service_of(ex: str, project: str, region: str, repository: str) -> Exercise:
    """The service of an exercise, once everything is named that must be; raises Problem."""
    service = containers.find(ex, "hand")
    shapes = {
        "PROJECT": (project, r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]", "my-project"),
        "REGION": (region, r"[a-z]+-[a-z]+[0-9]+", "europe-west1"),
        "REPOSITORY": (repository, r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", "course"),
    }
    for name, (value, shape, example) in shapes.items():
        if not re.fullmatch(shape, value):
            raise Problem(f"{name}={value}: expected a name such as {example}: make deploy {name}={example} ...")
    if service.number in NOT_HERE:
        raise Problem(f"EX={service.number}: {NOT_HERE[service.number]}.")
    return service


def version_of(service: Exercise) -> str:
    """A tag that says what is in a service's image: the start of its digest, or `latest` if there is no image yet."""
    try:
        return docker.inspect(service.image("hand"))["Id"].removeprefix("sha256:")[:12]
    except Problem:
        return "latest"


def check_tools(service: Exercise) -> None:
    """Check the image, gcloud and its login, before anything is done; raises Problem."""
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
        raise Problem("You are not logged in to Google Cloud: gcloud auth login")


def show_and_run(command: list[str]) -> None:
    """Print a command and run it; raises Problem if it fails."""
    console.print(f"[bold]{shlex.join(command)}[/]")
    if subprocess.run(command, stdin=subprocess.DEVNULL).returncode:
        raise Problem(f"`{shlex.join(command[:3])} ...` failed; what it printed above says why.")


def gcloud(*words: str) -> str:
    """What a gcloud command prints; raises Problem if it fails."""
    done = subprocess.run(["gcloud", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise Problem(f"`gcloud {' '.join(words[:3])}` failed: {done.stderr.strip()[-300:]}")
    return done.stdout.strip()
