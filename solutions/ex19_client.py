"""Exercise 19: a client that sends a folder or an archive of images and waits, with a progress bar.

python solutions/ex19_client.py data
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
    console = Console()
    archive = b"" if retry else _packed(images)
    try:
        with httpx.Client(base_url=url, timeout=60) as client:
            if retry:
                task = _asked(client.post("/classify_archive/retry", params={"task_id": retry}))["task_id"]
            else:
                task = _asked(client.post("/classify_archive/submit", content=archive))["task_id"]
            try:
                state = _wait(client, task, console)
            except KeyboardInterrupt:
                state = _asked(client.post("/cancel", json={"task_id": task}))
                said = f"Task {task} is {state['status']}: {state['done']} of {state['total']} files were done."
                console.print(said, highlight=False)
                raise Exit(130) from None
            if state["status"] != "completed":
                again = f" Again: python {__file__} --retry {task}" if "retry" in (state["error"] or "") else ""
                raise Problem(f"Task {task} is {state['status']}: {state['error']}.{again}")
            result = _asked(client.get("/classify_archive/get", params={"task_id": task}))
            _show(result, console)
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise Problem(f"Nothing answers at {url} ({error}). Start the service with `make serve EX=19`.") from error
    except (KeyError, TypeError, ValueError) as error:
        raise Problem(f"What listens at {url} is not this service, or it failed: {error!r}.") from error


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
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as bar:
        line, heard = bar.add_task("pending", total=None), time.monotonic()
        while True:
            try:
                state = _asked(client.post("/progress", json={"task_id": task}))
                heard = time.monotonic()
            except httpx.TransportError:
                if time.monotonic() > heard + PATIENCE:
                    raise
            else:
                bar.update(line, description=state["status"], completed=state["done"], total=state["total"])
                if state["status"] not in ("pending", "in_progress"):
                    return state
            time.sleep(0.1)


def _show(result: dict, console: Console) -> None:
    table = Table()
    for column in ("image", "label", "probability"):
        table.add_column(column, justify="right" if column == "probability" else "left")
    refused = []
    for file in result["files"]:
        name = "".join(one if one.isprintable() else "?" for one in file["file"])  # a stranger's archive may name it
        if "error" in file:
            refused.append(f"{name} was refused: {file['error']}")
        else:
            best = file["predictions"][0]
            table.add_row(escape(name), best["label"], f"{best['probability']:.1%}")
    if table.row_count:
        console.print(table)
    if result["weights"].startswith("random"):
        console.print(f"The weights are RANDOM ({result['weights']}): these labels mean nothing.", style="bold yellow")
    if refused:
        raise Problem("\n".join(refused))


if __name__ == "__main__":
    run(main)
