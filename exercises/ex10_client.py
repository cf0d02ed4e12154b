"""Exercise 10: a client for the service.

python exercises/ex10_client.py data/cat.png data/coffee.png
"""

from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.exceptions import BentoMLException
from typer import Argument, Option

from course.given.client import read, show_answers, talking_to
from course.given.script import run


def ask(client: bentoml.SyncHTTPClient, image: bytes) -> dict:
    """Send an image file to the service's `classify`, and return its answer.

    Returns:
        {"predictions": [{"label": str, "probability": float}, ...], "weights": str},
        or {"error": why the service refused the file}: its status is 4xx then.

    Raises:
        BentoMLException: the service failed.
    """
    # TODO 8: client.classify(image). It raises BentoMLException, whose error_code is the status: a refusal (4xx) is an
    # answer, a failure (5xx) is not.
    raise NotImplementedError("Send the image to the service.")


def main(
    images: Annotated[list[Path], Argument(help="Image files.")],
    url: Annotated[str, Option(help="Where the service listens.")] = "http://localhost:3000",
) -> None:
    """Classify image files with a running service and print a table."""
    files = [(image.name, read(image)) for image in images]
    # The client first asks the service for its APIs; timeout 0: it does not retry for 30 s if nothing listens.
    with talking_to(url, "make serve"), bentoml.SyncHTTPClient(url, server_ready_timeout=0) as client:
        show_answers((name, ask(client, image)) for name, image in files)


if __name__ == "__main__":
    run(main)
