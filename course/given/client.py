"""What the clients of exercises 10 and 19 give: the tables, the progress bar, one sentence for each failure."""

import io
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from course.given.show import console, print_predictions, warn_of_random
from serving import Problem

IMAGES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
MAX_BYTES = 64 * 2**20  # the largest archive that the service takes


@contextmanager
def talking_to(url: str, start: str) -> Iterator[None]:
    """Make one sentence, a Problem, of whatever the block raises while it talks to a service at a URL.

    start: the command that starts the service.
    """
    try:
        yield
    except (Problem, NotImplementedError, typer.Exit):
        raise
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise Problem(f"Nothing responds at {url} ({error}). Start the service with `{start}`.") from error
    except Exception as error:  # BentoML's client raises AttributeError for an API that is not there
        raise Problem(f"What listens at {url} is not this service, or it failed: {error!r}.") from error


def answer_of(response: httpx.Response) -> dict:
    """The JSON of a response; raises a Problem with the service's reason if it refused the request."""
    answer = response.json()
    if response.is_error:
        answer = answer[0] if isinstance(answer, list) else answer
        raise Problem(f"The service refused ({response.status_code}): {answer['error']}")
    return answer


def show_answers(answers: Iterable[tuple[str, dict]], best: int = 5) -> None:
    """Print a table of images with their best labels, where the weights came from, and what was refused.

    answers: pairs of a name and a service's answer: {"predictions": [...], "weights": ...}, or {"error": why}.

    Raises:
        Problem: images were refused; one line for each of them.
    """
    answers = [(name.translate({ord(one): "?" for one in name if not one.isprintable()}), a) for name, a in answers]
    classified = [(name, answer) for name, answer in answers if "error" not in answer]
    print_predictions(
        (name, [(one["label"], one["probability"]) for one in answer["predictions"][:best]])
        for name, answer in classified
    )
    if classified:
        console.print(f"Weights: {classified[0][1]['weights']}", markup=False)
        warn_of_random(classified[0][1]["weights"])
    if refused := [f"{name} was refused: {answer['error']}" for name, answer in answers if "error" in answer]:
        raise Problem("\n".join(refused))


def show_progress(states: Iterable[dict]) -> dict:
    """Show a bar with the `status`, `done` and `total` of each state of a task; return the last one."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as bar:
        line = bar.add_task("pending", total=None)
        for state in states:
            bar.update(line, description=state["status"], completed=state["done"], total=state["total"])
    return state


def read(file: Path) -> bytes:
    """The bytes of a file; raises Problem if it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise Problem(f"{file} cannot be read: {error.strerror}.") from error


def packed(images: Path) -> bytes:
    """An archive as it is, or a new one of the images in a folder, stored; raises Problem: too large, or no image."""
    try:
        folder = images.is_dir()
        found = (file for file in images.rglob("*") if file.suffix.lower() in IMAGES and file.is_file())
        files = sorted(found) if folder else [images]
        if not files:
            raise Problem(f"There is no image in {images}: no file ends in {', '.join(sorted(IMAGES))}.")
        size = sum(file.stat().st_size for file in files)
        if size > MAX_BYTES:
            raise Problem(f"{images} has {size:,} bytes; the service takes at most {MAX_BYTES:,}. Send it in parts.")
        if not folder:
            return images.read_bytes()
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", strict_timestamps=False) as archive:
            for file in files:
                archive.write(file, file.relative_to(images))
        return buffer.getvalue()
    except OSError as error:
        raise Problem(f"{error.filename or images} cannot be read: {error.strerror}.") from error
