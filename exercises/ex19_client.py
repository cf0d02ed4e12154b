"""Exercise 19: a client that sends a folder or an archive of images and waits, with a progress bar.

python exercises/ex19_client.py data
"""

import io
import time
import zipfile
from pathlib import Path
from typing import Annotated

import httpx
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from typer import Argument, Exit, Option

from course.given.script import run
from serving import Problem

IMAGES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
MAX_BYTES = 64 * 2**20  # as much as the service takes
PATIENCE = 15  # seconds without an answer: a worker that died is back by then


def main(
    images: Annotated[Path | None, Argument(help="A folder of images, with its sub-folders, or a zip archive.")] = None,
    url: Annotated[str, Option(help="Where the service listens.")] = "http://localhost:3000",
    retry: Annotated[str, Option(help="The id of a task that failed: run it again.")] = "",
) -> None:
    """Classify a folder or an archive of images with a running service and print a table. Ctrl-C cancels."""
    if bool(images) == bool(retry):
        raise Problem("Name a folder or a zip archive of images, or a task to retry: --retry TASK_ID.")
    # TODO: with httpx.Client(base_url=url, timeout=60) as client: POST the archive to /classify_archive/submit, or
    # POST /classify_archive/retry?task_id=... where retry is given; _wait; GET /classify_archive/get?task_id=...; _show.
    # KeyboardInterrupt while waiting: POST /cancel, print the task's id and state, raise Exit(130). A task that failed
    # is a Problem, and so is a service that does not answer (httpx.TransportError): `make serve EX=19` helps.
    raise NotImplementedError("Send the images, wait with a progress bar, and print a table.")


def _packed(images: Path) -> bytes:
    """The archive itself, or one of the folder's images: stored, for images are compressed already."""
    try:
        if images.is_dir():
            files = sorted(file for file in images.rglob("*") if file.suffix.lower() in IMAGES and file.is_file())
            if not files:
                raise Problem(f"There is no image in {images}: none of its files ends in {', '.join(sorted(IMAGES))}.")
            size = sum(file.stat().st_size for file in files)
        else:
            files, size = [], images.stat().st_size
        if size > MAX_BYTES:
            raise Problem(
                f"{images} holds {size:,} bytes of images; the service takes {MAX_BYTES:,}. Send it in parts."
            )
        if not files:
            return images.read_bytes()
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", strict_timestamps=False) as archive:
            for file in files:
                archive.write(file, file.relative_to(images))
        return packed.getvalue()
    except OSError as error:
        raise Problem(f"{error.filename or images} cannot be read: {error.strerror}.") from error


def _asked(response: httpx.Response) -> dict:
    """The service's answer; a Problem with its reason where it refused."""
    answer = response.json()
    if response.is_error:
        answer = answer[0] if isinstance(answer, list) else answer
        raise Problem(f"The service refused ({response.status_code}): {answer['error']}")
    return answer


def _wait(client: httpx.Client, task: str, console: Console) -> dict:
    """Show how many files are done until the task has ended; the state in which it ended."""
    # TODO: ask /progress ten times a second, with rich.progress.Progress; go on for PATIENCE seconds without an answer.
    raise NotImplementedError("Show how many files are done until the task has ended.")


def _show(result: dict, console: Console) -> None:
    # TODO: a table of image, label and probability. Say so when the weights are random, and which files were refused
    # and why. Names come from an archive: rich.markup.escape() them.
    raise NotImplementedError("Print the table.")


if __name__ == "__main__":
    run(main)
