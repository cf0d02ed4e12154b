"""How a service starts in a container, and how the container's health check asks for it.

SERVICE=ex10_service python -m serving.container serve    runs `bentoml serve ex10_service:ImageClassifierService`
python -m serving.container ready                         exit code 0 where that service is ready
"""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from http.client import HTTPException
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

from serving import Problem

# Cloud Run, for one, kills a container 10 s after SIGTERM.
SECONDS_TO_FINISH = "9"


def main(words: list[str]) -> None:
    """Do what the command line says; what a user can get wrong ends it with one sentence and exit code 1."""
    try:
        port = read_port(os.environ.get("PORT") or "3000")
        if words == ["ready"]:
            sys.exit(0 if is_ready(port) else 1)
        if words != ["serve"]:
            raise Problem("Expected `serve` or `ready`.")
        check_can_write(Path(os.environ.get("BENTOML_HOME") or Path.home() / "bentoml"))
        check_is_free(port)
        if not (service := os.environ.get("SERVICE")):
            why = "A build argument is gone when the container runs: ENV SERVICE=${SERVICE} keeps it."
            raise Problem(f"SERVICE names no service. {why}")
        sys.exit(serve(service, port))
    except Problem as problem:
        sys.exit(str(problem))


def read_port(wanted: str) -> int:
    """The port to listen on; raises Problem."""
    if not re.fullmatch("[1-9][0-9]{0,4}", wanted) or int(wanted) > 65535:
        raise Problem(f"PORT={wanted}: a port is a number from 1 to 65535.")
    return int(wanted)


def check_can_write(folder: Path) -> None:
    """Make sure that BentoML can keep what it counts in this folder, and sockets in /tmp; raises Problem."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for place in (folder, None):
            tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        advice = "Where the container's files are read-only, give it a place: docker run --read-only --tmpfs /tmp ..."
        raise Problem(f"Nothing can be written to {folder} or to /tmp: {error.strerror}. {advice}") from error


def check_is_free(port: int) -> None:
    """Make sure that nobody listens on a port yet, as somebody may with --network=host; raises Problem."""
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        said = f"Port {port} cannot be used: {error.strerror}. Name another: docker run --env PORT=..."
        raise Problem(said) from error


def serve(service: str, port: int) -> int:
    """Run `bentoml serve` as a child, hand signals on to it, and answer the exit code to end with.

    Not os.exec: the first process of a container ignores SIGTERM until it says what to do with it, which BentoML does
    seconds later. A container stopped while it starts would have to be killed.
    """
    options = ["--port", str(port), "--timeout-graceful-shutdown", SECONDS_TO_FINISH]
    command = [sys.executable, "-m", "bentoml", "serve", f"{service}:ImageClassifierService", *options]
    server = subprocess.Popen(command)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: server.send_signal(received))
    code = server.wait()
    return code if code >= 0 else 128 - code


def is_ready(port: int) -> bool:
    """Whether GET /readyz is answered with 200."""
    without_proxies = build_opener(ProxyHandler({}))
    try:
        return without_proxies.open(f"http://127.0.0.1:{port}/readyz", timeout=2).status == 200
    except (OSError, HTTPException):
        return False


if __name__ == "__main__":
    main(sys.argv[1:])
