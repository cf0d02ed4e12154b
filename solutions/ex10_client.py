"""Exercise 10: a client for the service.

python solutions/ex10_client.py data/cat.png data/coffee.png
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
    console = Console()
    files = {image: _read(image) for image in images}
    table = Table()
    for column in ("image", "label", "probability"):
        table.add_column(column, justify="right" if column == "probability" else "left")
    weights, refused = "", []
    try:
        # It asks the service which APIs it has. Timeout 0: it would busily try for 30 s where nothing listens.
        with bentoml.SyncHTTPClient(url, server_ready_timeout=0) as client:
            for image, data in files.items():
                try:
                    answer = client.classify(data)
                except BentoMLException as error:
                    if error.error_code >= 500:
                        raise
                    refused.append(f"{image.name} was refused: {error}")
                    continue
                weights = answer["weights"]
                for row, prediction in enumerate(answer["predictions"]):
                    table.add_row(
                        image.name if row == 0 else "", prediction["label"], f"{prediction['probability']:.1%}"
                    )
                table.add_section()
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise Problem(f"Nothing answers at {url} ({error}). Start the service with `make serve`.") from error
    except (BentoMLException, AttributeError, KeyError, ValueError) as error:
        raise Problem(f"What listens at {url} is not this service, or it failed: {error}") from error

    if table.row_count:
        console.print(table)
    if weights.startswith("random"):
        console.print(f"The weights are RANDOM ({weights}): these labels mean nothing.", style="bold yellow")
    if refused:
        raise Problem("\n".join(refused))


def _read(image: Path) -> bytes:
    try:
        return image.read_bytes()
    except OSError as error:
        raise Problem(f"{image} cannot be read: {error.strerror}.") from error


if __name__ == "__main__":
    run(main)
