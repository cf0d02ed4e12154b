"""Exercise 18: a service's container on Google Cloud Run: tag, push, deploy, call it.

python exercises/ex18_cloud.py --project my-project --region europe-west1 --repository course --dry-run
"""

import shlex
from pathlib import Path
from typing import Annotated

import httpx
from typer import Option

from course import ROOT
from course.given.script import run
from course.images import cloud
from serving import Problem

PHOTOGRAPH = ROOT / "data" / "cat.png"


def image_address(project: str, region: str, repository: str, service: str, version: str) -> str:
    """The name of an image in Artifact Registry.

    The arguments are such as my-project, europe-west1, course, ex10_service and 0123456789ab, the image's tag. A project
    that belongs to a domain is called `example.com:my-project`.
    """
    # TODO 1: the registry of a region is REGION-docker.pkg.dev.
    raise NotImplementedError("Return the address of the image.")


def settings(service: str) -> dict[str, str]:
    """The options of `gcloud run deploy` for a service of the course, without the dashes: {"cpu": "1", ...}.

    What an instance gets (cpu, memory), how many requests it takes at a time (concurrency), how long a request may
    take (timeout), how many instances there may be (max-instances), where it listens (port), and how Cloud Run finds
    out that it has started (startup-probe) and that it still works (liveness-probe).
    """
    # TODO 2: what does one instance need, and which path does each probe request? Page 18 has the figures.
    raise NotImplementedError("Return the options of gcloud run deploy.")


def commands(
    project: str, region: str, repository: str, service: str, version: str, public: bool = False
) -> list[list[str]]:
    """The commands to type, each a list of words: tag, log in, push, deploy.

    Args (the others as for image_address()):
        service: its image here is called `SERVICE:hand`; names in Cloud Run have no underscores (cloud.name()).
        public: whether anybody may call the service; otherwise only those whom you allow.
    """
    # TODO 3: docker tag, gcloud auth configure-docker, docker push, gcloud run deploy.
    raise NotImplementedError("Return the four commands.")


def smoke_test(url: str, photograph: Path, token: str = "") -> str:
    """Let a deployed service classify a photograph, and return the most probable label.

    The token is an identity token, for a service that is not public.

    Raises:
        Problem: no response, another status than 200, or no predictions; the message says which.
    """
    # TODO 4: POST the photograph to /classify, with `Authorization: Bearer ...` if there is a token.
    raise NotImplementedError("Return the most probable label.")


def main(
    project: Annotated[str, Option(help="Your Google Cloud project.")] = "",
    region: Annotated[str, Option(help="Where it runs, such as europe-west1.")] = "",
    repository: Annotated[str, Option(help="The Artifact Registry repository in that region.")] = "",
    ex: Annotated[str, Option(help="The exercise whose service you deploy.")] = "10",
    public: Annotated[bool, Option("--public", help="Let anybody use it.")] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="Only print the commands.")] = False,
) -> None:
    """Deploy the image that `make containerize BY=hand` made to Cloud Run, and call it."""
    service = cloud.service_of(ex, project, region, repository)
    steps = commands(project, region, repository, service.stem, cloud.version_of(service), public)
    if dry_run:
        print("\n".join(map(shlex.join, steps)))
        return
    cloud.check_tools(service)
    for step in steps:
        cloud.show_and_run(step)
    name, place = cloud.name(service.stem), (f"--project={project}", f"--region={region}")
    url = cloud.gcloud("run", "services", "describe", name, *place, "--format=value(status.url)")
    token = "" if public else cloud.gcloud("auth", "print-identity-token")
    print(f"{PHOTOGRAPH.name}: {smoke_test(url, PHOTOGRAPH, token)}\n{url} serves.")
    print(f"To end it: gcloud run services delete {name} {' '.join(place)}")


if __name__ == "__main__":
    run(main)
