"""The `docker` commands that the course runs.

The commands themselves, with their own options: what the course shows and runs is what a student can type.
"""

import json
import os
import re
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from course import ROOT
from course.base.files import tail
from course.base.processes import comes_true, run_logged
from serving import Problem

BASE_IMAGE = "python:3.11-slim-bookworm"  # the default of every Dockerfile here
PORT = 3000  # where every container of the course listens
# Build arguments that are taken from the environment: behind a mirror, all images build with them set.
FROM_ENVIRONMENT = ("BASE_IMAGE", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "TORCH_INDEX")
INSTALL = "https://docs.docker.com/get-started/get-docker/"


class Layer(NamedTuple):
    """One layer of an image."""

    made_by: str  # the line of the Dockerfile, as Docker kept it
    size: int  # bytes, unpacked


def docker(*words: str | Path, timeout: float = 60) -> str:
    """What a docker command prints; raises a Problem with Docker's own message where it fails or takes too long."""
    command = ["docker", *map(str, words)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, errors="replace")
    except FileNotFoundError as error:
        raise Problem(f"There is no `docker` command. Install Docker: {INSTALL}") from error
    except subprocess.TimeoutExpired as error:
        raise Problem(f"`docker {words[0]}` had not ended after {timeout:.0f} s.") from error
    if done.returncode:
        raise Problem(f"`docker {words[0]}` failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


def need_engine() -> None:
    """Raise a Problem where images cannot be built and run here: no client, no engine, no permission, no BuildKit."""
    try:
        client, _ = docker("version", "--format", "{{.Client.Version}} {{.Server.Version}}", timeout=20).split()
    except Problem as problem:
        if isinstance(problem.__cause__, FileNotFoundError):
            raise
        if "permission denied" in str(problem):
            fix = "Join its group, and log in again: sudo usermod -aG docker $USER"
            raise Problem(f"You are not allowed to use the Docker engine. {fix}") from problem
        fix = "Start Docker Desktop, or on Linux: sudo systemctl start docker"
        raise Problem(f"The Docker engine does not answer. {fix}") from problem
    if int(client.partition(".")[0]) >= 23:  # older clients use the engine's own BuildKit
        try:
            docker("buildx", "version", timeout=20)
        except Problem as problem:
            raise Problem(
                "`docker` cannot build images: its plugin buildx is missing. Install docker-buildx-plugin"
                f" (Debian and Ubuntu: docker-buildx), or install Docker again: {INSTALL}"
            ) from problem


def base_image() -> str:
    """The image that the Dockerfiles begin with here."""
    return os.environ.get("BASE_IMAGE") or BASE_IMAGE


def build(
    dockerfile: Path,
    tag: str,
    *,
    args: dict[str, str] | None = None,
    context: Path = ROOT,
    cache: bool = True,
    log: Path | None = None,
    timeout: float = 3600,
) -> None:
    """Build an image with BuildKit; its output goes to `log`, or else to log_of(tag).

    args: build arguments, beside those of FROM_ENVIRONMENT. cache: whether to reuse layers of earlier builds.
    Raises Problem, with the end of the log, where it fails or takes longer than timeout seconds.
    """
    if not dockerfile.is_file():
        raise Problem(f"There is no {dockerfile}.")
    log = log or log_of(tag)
    given = {name: os.environ[name] for name in FROM_ENVIRONMENT if os.environ.get(name)} | (args or {})
    command = ["docker", "build", "--progress=plain", "--file", str(dockerfile.resolve()), "--tag", tag]
    command += [f"--build-arg={name}={value}" for name, value in given.items()]
    command += [] if cache else ["--no-cache"]
    code = run_logged([*command, str(context.resolve())], log, timeout, DOCKER_BUILDKIT="1")
    if code is None:
        raise Problem(f"The build of {tag} had not ended after {timeout:.0f} s. Its log: {log}")
    if code:
        raise Problem(f"{dockerfile.name} does not build. The end of its log, {log}:\n{failure(log)}")


def log_of(tag: str) -> Path:
    """Where the output of an image's build is kept."""
    return ROOT / "reports" / "builds" / f"{re.sub('[/:]', '_', tag)}.log"


def failure(log: Path) -> str:
    """What the step of a build said that failed; of a log without such a step, the end.

    Of a Python program's stack trace, the last line alone: the others are about code that no Dockerfile can change.
    """
    text = log.read_text(errors="replace")
    failed = re.search(r"^#(\d+) ERROR: ", text, re.MULTILINE)
    if failed is None:
        return tail(text)
    text = re.sub(r"^#\d+ [\d.]+ Traceback \(most recent call last\):\n(#\d+ [\d.]+  .*\n)+", "", text, flags=re.M)
    return tail("\n".join(re.findall(rf"^#{failed[1]} (?!sha256:)(.*)$", text, re.MULTILINE)))


def exists(tag: str) -> bool:
    """Whether there is an image of that name."""
    return bool(docker("image", "ls", "--quiet", tag))


def remove(tag: str) -> None:
    """Remove an image, unless a container still uses it."""
    with suppress(Problem):
        docker("image", "rm", tag, timeout=120)


def inspect(tag: str) -> dict[str, Any]:
    """What Docker knows of an image: its configuration, its labels, its history."""
    return json.loads(docker("image", "inspect", tag))[0]


def layers(tag: str) -> list[Layer]:
    """The layers of an image, the base image's first."""
    lines = docker("history", "--no-trunc", "--human=false", "--format", "{{json .}}", tag).splitlines()
    history = [json.loads(line) for line in lines]
    return [Layer(one["CreatedBy"], int(one["Size"])) for one in reversed(history)]


def size(tag: str) -> int:
    """Bytes of an image, unpacked; what newer engines call its size is that of the packed layers."""
    return sum(layer.size for layer in layers(tag))


@dataclass
class Container:
    """A container that was started."""

    name: str
    port: int  # in there

    @cached_property
    def url(self) -> str:
        """Where its port can be reached from here."""
        return f"http://{docker('port', self.name, f'{self.port}/tcp').splitlines()[0]}"

    def state(self) -> dict[str, Any]:
        """Running or not, exit code, health: as `docker inspect` has it."""
        return json.loads(docker("inspect", "--format", "{{json .State}}", self.name))

    def logs(self) -> str:
        """What it has printed, standard output and error together."""
        both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.run(["docker", "logs", self.name], text=True, timeout=60, errors="replace", **both).stdout

    def run(self, *command: str, timeout: float = 60) -> str:
        """What a command inside of it prints; raises Problem where it fails."""
        return docker("exec", self.name, *command, timeout=timeout)

    def wait(self, timeout: float) -> int | None:
        """Its exit code; None where it is still running after timeout seconds."""
        ended = comes_true(lambda: not self.state()["Running"], timeout)
        return self.state()["ExitCode"] if ended else None

    def wait_until_ready(self, path: str = "/readyz", deadline: float = 60) -> None:
        """Wait for a 2xx from a path; raises a Problem, with the end of the log, where it ended or took too long."""

        def ready() -> bool:
            try:
                return httpx.get(f"{self.url}{path}", timeout=2).is_success
            except (httpx.TransportError, Problem):  # a container that has ended has no port
                if (state := self.state())["Running"]:
                    return False
            raise Problem(f"The container ended (exit code {state['ExitCode']}). {self.last_words()}")

        if not comes_true(ready, deadline, pause=0.02):
            raise Problem(f"The container was not ready after {deadline:.0f} s (GET {path}). {self.last_words()}")

    def last_words(self, lines: int = 12) -> str:
        """The end of its log."""
        return f"Its log:\n{tail(self.logs(), lines)}"


@contextmanager
def container(
    image: str, *options: str, arguments: tuple[str, ...] = (), port: int = PORT, publish: bool = True
) -> Iterator[Container]:
    """Run an image in the background; at the end of the block, however it ends, the container is removed.

    options: of `docker run`, such as "--memory=512m"; arguments: what stands after the image; port: the container's,
    which Container.url reaches, unless publish is False: with --network=host it has none of its own.
    """
    name = f"course-{uuid.uuid4().hex[:12]}"
    published = ["--publish", f"127.0.0.1::{port}"] if publish else []
    try:
        docker("run", "--detach", "--name", name, *published, *options, image, *arguments)
        yield Container(name, port)
    finally:
        with suppress(Problem):  # it may not have come into being
            docker("rm", "--force", "--volumes", name)
