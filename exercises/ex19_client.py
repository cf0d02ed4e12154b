"""Exercise 19: a client that sends a folder or an archive of images and waits, with a progress bar.

python exercises/ex19_client.py data
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import httpx
from typer import Argument, Exit, Option

from course.given.client import answer_of, packed, show_answers, show_progress, talking_to
from course.given.script import run
from serving import Problem

PATIENCE = 15  # seconds without a response; a worker that died is replaced by then


def submit(client: httpx.Client, archive: bytes) -> str:
    """Submit a zip archive as a task, and return the task's id."""
    # TODO 13: POST the archive to /classify_archive/submit. answer_of(response) is the JSON of a response.
    raise NotImplementedError("Submit the archive.")


def states(client: httpx.Client, task: str) -> Iterator[dict]:
    """What /progress says about a task, ten times a second, until the task has ended.

    Raises:
        httpx.TransportError: the service has not responded for PATIENCE seconds.
    """
    # TODO 14: POST {"task_id": task} to /progress, yield the state, sleep 0.1 s. A worker that dies is replaced within
    # seconds: raise httpx.TransportError only after PATIENCE seconds without a response.
    raise NotImplementedError("Ask for the progress until the task has ended.")


def cancel(client: httpx.Client, task: str) -> dict:
    """Cancel a task, and return its state."""
    # TODO 15: POST {"task_id": task} to /cancel.
    raise NotImplementedError("Cancel the task.")


def result(client: httpx.Client, task: str) -> dict:
    """What a completed task returned."""
    # TODO 16: GET /classify_archive/get with the parameter task_id.
    raise NotImplementedError("Fetch the result.")


def retry_task(client: httpx.Client, task: str) -> str:
    """Run a failed task again, and return the id of the new task. Optional: step 2 of the exercise."""
    # TODO 17: optional, step 2: POST /classify_archive/retry with the parameter task_id.
    raise NotImplementedError("Retry the task.")


def main(
    images: Annotated[Path | None, Argument(help="A folder of images, with its sub-folders, or a zip archive.")] = None,
    url: Annotated[str, Option(help="Where the service listens.")] = "http://localhost:3000",
    retry: Annotated[str, Option(help="The id of a failed task: run it again.")] = "",
) -> None:
    """Classify a folder or an archive of images with a running service and print a table. Ctrl-C cancels."""
    if bool(images) == bool(retry):
        raise Problem("Name a folder or a zip archive of images, or a task to retry: --retry TASK_ID.")
    archive = packed(images) if images else b""
    with talking_to(url, "make serve EX=19"), httpx.Client(base_url=url, timeout=60) as client:
        task = retry_task(client, retry) if retry else submit(client, archive)
        try:
            state = show_progress(states(client, task))
        except KeyboardInterrupt:
            state = cancel(client, task)
            print(f"Task {task} is {state['status']}: {state['done']} of {state['total']} files were done.")
            raise Exit(130) from None
        if state["status"] != "completed":
            again = f" Again: python {__file__} --retry {task}" if "retry" in (state["error"] or "") else ""
            raise Problem(f"Task {task} is {state['status']}: {state['error']}.{again}")
        found = result(client, task)
        show_answers(((file["file"], file | {"weights": found["weights"]}) for file in found["files"]), best=1)


if __name__ == "__main__":
    run(main)
