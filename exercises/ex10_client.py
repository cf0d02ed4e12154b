"""Exercise 10: a client for the service.

python exercises/ex10_client.py data/cat.png data/coffee.png
"""

from pathlib import Path
from typing import Annotated

import bentoml
import httpx
from bentoml.exceptions import BentoMLException
from rich.console import Console
from rich.table import Table
from typer import Argument, Option

from course.given.script import run
from serving import Problem


def main(
    images: Annotated[list[Path], Argument(help="Image files.")],
    url: Annotated[str, Option(help="Where the service listens.")] = "http://localhost:3000",
) -> None:
    """Classify image files with a running service and print a table."""
    # TODO: with bentoml.SyncHTTPClient(url, server_ready_timeout=0) as client: client.classify(data) for each
    # file, and print a table of image, label and probability. Say so when the weights are random, when a file
    # was refused (BentoMLException), and that `make serve` helps when nothing listens (httpx.TransportError).
    raise NotImplementedError("Classify the files and print a table.")


def _read(image: Path) -> bytes:
    try:
        return image.read_bytes()
    except OSError as error:
        raise Problem(f"{image} cannot be read: {error.strerror}.") from error


if __name__ == "__main__":
    run(main)
