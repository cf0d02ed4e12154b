"""Exercise 18: a service's container on Google Cloud Run: tag, push, deploy, call it.

python solutions/ex18_cloud.py --project my-project --region europe-west1 --repository course --dry-run
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
    return f"{region}-docker.pkg.dev/{project.replace(':', '/')}/{repository}/{service}:{version}"


def settings(service: str) -> dict[str, str]:
    """The options of `gcloud run deploy` for a service of the course, without the dashes: {"cpu": "1", ...}.

    What an instance gets (cpu, memory), how many requests it takes at a time (concurrency), how long a request may
    take (timeout), how many instances there may be (max-instances), where it listens (port), and how Cloud Run finds
    out that it has started (startup-probe) and that it still works (liveness-probe).
    """
    composed = service in ("ex14_sequential", "ex15_concurrent", "ex16_pipeline")
    return {
        # Each process holds 220 to 380 MB without load: two of them, or up to four.
        "cpu": "2" if composed else "1",
        "memory": "2Gi" if composed else "1Gi",
        # By default 80 for each vCPU. Requests that wait for a core are better off in another instance.
        "concurrency": "8",
        "timeout": "30s",  # as long as the services' own
        "max-instances": "4",  # limits the bill
        "cpu-boost": "",  # more CPU during the start, which is mostly imports
        "port": "3000",
        "startup-probe": "httpGet.path=/readyz,httpGet.port=3000,periodSeconds=2,timeoutSeconds=2,failureThreshold=60",
        # Whether the server answers at all, not whether it is ready: Cloud Run must not kill a service that is busy.
        "liveness-probe": "httpGet.path=/livez,httpGet.port=3000,periodSeconds=30,timeoutSeconds=10,failureThreshold=3",
    }


def commands(
    project: str, region: str, repository: str, service: str, version: str, public: bool = False
) -> list[list[str]]:
    """The commands to type, each a list of words: tag, log in, push, deploy.

    Args (the others as for image_address()):
        service: its image here is called `SERVICE:hand`; names in Cloud Run have no underscores (cloud.name()).
        public: whether anybody may call the service; otherwise only those whom you allow.
    """
    address = image_address(project, region, repository, service, version)
    options = [f"--{name}={value}" if value else f"--{name}" for name, value in settings(service).items()]
    access = "--allow-unauthenticated" if public else "--no-allow-unauthenticated"
    place = [f"--project={project}", f"--region={region}"]
    return [
        ["docker", "tag", f"{service}:hand", address],
        ["gcloud", "auth", "configure-docker", f"{region}-docker.pkg.dev", "--quiet"],
        ["docker", "push", address],
        ["gcloud", "run", "deploy", cloud.name(service), f"--image={address}", *place, *options, access, "--quiet"],
    ]


def smoke_test(url: str, photograph: Path, token: str = "") -> str:
    """Let a deployed service classify a photograph, and return the most probable label.

    The token is an identity token, for a service that is not public.

    Raises:
        Problem: no response, another status than 200, or no predictions; the message says which.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        # The first request may wait for an instance to start.
        response = httpx.post(f"{url}/classify", content=photograph.read_bytes(), headers=headers, timeout=60)
        return response.raise_for_status().json()["predictions"][0]["label"]
    except httpx.HTTPError as error:
        raise Problem(f"{url}/classify does not answer as it should: {error!r}.") from error
    except (ValueError, LookupError, TypeError) as error:
        raise Problem(f"{url}/classify returns 200, but no predictions: {response.text[:300]}") from error


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
