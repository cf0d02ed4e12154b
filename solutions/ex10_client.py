"""Exercise 10: a client for the service.

python solutions/ex10_client.py data/cat.png data/coffee.png
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.exceptions import BentoMLException
from typer import Argument, Option

from course.given.client import read, show_answers, talking_to
from course.given.script import run


def ask(url: str, images: list[tuple[str, bytes]]) -> Iterator[tuple[str, dict]]:
    """Send pairs of a name and an image file to the service at url, and yield each name with the service's answer.

    An answer is {"predictions": [{"label": str, "probability": float}, ...], "weights": str}, or {"error": why} where
    the service refused the file (4xx). Raises BentoMLException if the service failed, httpx.TransportError if nothing
    listens.
    """
    # The client first asks the service for its APIs; timeout 0: it does not retry for 30 s if nothing listens.
    with bentoml.SyncHTTPClient(url, server_ready_timeout=0) as client:
        for name, image in images:
            try:
                yield name, client.classify(image)
            except BentoMLException as error:
                if error.error_code >= 500:
                    raise
                yield name, {"error": str(error)}


def main(
    images: Annotated[list[Path], Argument(help="Image files.")],
    url: Annotated[str, Option(help="Where the service listens.")] = "http://localhost:3000",
) -> None:
    """Classify image files with a running service and print a table; exit code 1 if one is refused or nothing listens."""
    files = [(image.name, read(image)) for image in images]
    with talking_to(url, "make serve"):
        show_answers(ask(url, files))


if __name__ == "__main__":
    run(main)
