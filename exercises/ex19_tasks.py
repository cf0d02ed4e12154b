"""Exercise 19: an archive of images, classified as a task: submit, ask how far it is, cancel, fetch, retry.

bentoml serve exercises.ex19_tasks:ImageClassifierService
"""

import zipfile
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

import anyio
import anyio.to_thread
import bentoml
from bentoml.exceptions import BentoMLException, InvalidArgument
from bentoml.validators import ContentType
from pydantic import AfterValidator

from serving.archives import BadArchive, BadFile, images_in, open_archive, read_file
from serving.cores import cores
from serving.images import BadImage, open_image, preprocess
from serving.model import BadModel, labels, open_model, top5, weights
from serving.service import finish
from serving.tasks import TaskBodies, before_sigterm, body_file, fail_lost_tasks, forget_bodies, stored_status

CORES = cores()
# One core is left to those who wait for /classify while archives are worked through.
TASKS_AT_A_TIME = max(1, CORES - 1)
REMEMBERED = 1_000  # tasks whose progress is kept; BentoML keeps their results for a day

ImageFile = Annotated[bytes, ContentType("image/*")]
# What arrives is the name of the file into which TaskBodies wrote the archive.
Archive = Annotated[bytes, ContentType("application/zip"), AfterValidator(body_file)]
Json = Annotated[dict, ContentType("application/json")]


@dataclass
class Task:
    """How far the work on one archive is."""

    status: str = "pending"  # in_progress, completed, failed, canceled: BentoML's words
    files: list[dict] = field(default_factory=list)
    total: int | None = None
    error: str | None = None
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    @property
    def has_ended(self) -> bool:
        return self.status not in ("pending", "in_progress")

    def cancel(self) -> None:
        """Stop the work: at once while it waits for its turn, else after the image at hand."""
        if not self.has_ended:
            self.end("canceled", f"canceled after {len(self.files)} of {self.total or 'all'} files")
            self.scope.cancel()

    def end(self, status: str, error: str | None = None) -> None:
        if not self.has_ended:
            self.status, self.error = status, error


# One worker: what is known about running tasks is in its memory. Its threads use all cores.
@bentoml.service(workers=1, threads=CORES, traffic={"timeout": 30, "max_concurrency": 256})
class ImageClassifierService:
    """Classifies images, one at a time or a whole archive as a task."""

    @bentoml.on_deployment
    def prepare() -> None:
        """Runs once, before the worker."""
        # TODO: open_model() raises BadModel with a sentence: raise BentoMLException with it. Then forget_bodies() and
        # restart_dead_workers_quickly().
        return

    def __init__(self) -> None:
        # TODO: open the model with threads=1 (each thread of the service runs its own image), keep labels and weights.
        self.session = None
        self.tasks: dict[str, Task] = {}
        self.turns = anyio.CapacityLimiter(TASKS_AT_A_TIME)
        self.stopping = False

    @bentoml.on_startup
    async def begin(self) -> None:
        """Runs in each new worker, before it takes requests."""
        # TODO: fail_lost_tasks(reason) answers the ids of tasks that a dead worker left unfinished: keep a failed Task
        # for each in self.tasks, with the reason. before_sigterm(self.stop) ends tasks when the service is ended.
        return

    def stop(self) -> None:
        """A task may take minutes, and nobody could fetch its result from a service that has ended."""
        self.stopping = True
        for task in self.tasks.values():
            task.cancel()

    @bentoml.api
    def classify(self, image: ImageFile, /) -> Json:
        """The five best labels for one image file (JPEG, PNG, WebP, GIF, BMP or TIFF), which is the whole body.
        Answers `{"predictions": [{"label": ..., "probability": ...}, ...], "weights": ...}`, best first.
        """
        # TODO: self._five_best(image), and where the weights came from; BadImage becomes InvalidArgument.
        raise NotImplementedError("Answer the five best labels for the image file.")

    # A coroutine, for a method would keep one of the threads that answer /classify to itself for minutes.
    @bentoml.task
    async def classify_archive(self, archive: Archive, /, ctx: bentoml.Context) -> Json:
        """The five best labels for each image in a zip archive, which is the whole body.
        Answers `{"files": [{"file": ..., "predictions": [...]} or {"file": ..., "error": ...}, ...], "weights": ...}`.
        """
        # TODO: self._new_task(ctx.request.state.task_id) keeps how far it is. Inside `with task.scope` and
        # `async with self.turns`, work through the archive; end the task as completed or failed (BadArchive).
        # When it has ended, delete the archive and answer, or raise BentoMLException with task.error and an error_code:
        # 409 (HTTPStatus.CONFLICT) for a cancelled task, 400 for a failed one. After any other error keep the archive.
        raise NotImplementedError("Answer what came of each file in the archive.")

    @bentoml.api
    async def progress(self, task_id: str) -> Json:
        """How far a task is.
        Answers `{"status": "pending", "in_progress", "completed", "failed" or "canceled", "done": files, "total":
        files, or null where that is not known, "error": the reason or null}`.
        """
        # TODO: from self.tasks; a task that is not there may still be known to stored_status(task_id).
        raise NotImplementedError("Answer how far the task is.")

    @bentoml.api
    async def cancel(self, task_id: str) -> Json:
        """Stop a task; nothing happens to one that has ended. Answers as /progress does."""
        # TODO: task.cancel() cancels its scope, and with it the loop inside.
        raise NotImplementedError("Cancel the task and answer how far it is.")

    def _new_task(self, task_id: str) -> Task:
        ended = [task_id for task_id, task in self.tasks.items() if task.has_ended]
        for old in ended[: max(0, len(self.tasks) - REMEMBERED)]:
            del self.tasks[old]
        task = self.tasks[task_id] = Task()
        if self.stopping:
            task.cancel()
        return task

    async def _work_through(self, archive: Path, task: Task) -> None:
        """Classify the images one after the other, each in a thread: the event loop stays free."""
        # TODO: open_archive(archive), images_in(...) and self._classify_file are plain functions that take their time:
        # anyio.to_thread.run_sync(function, argument, ...). Count in task.total and task.files.
        raise NotImplementedError("Classify each file of the archive in a thread.")

    def _classify_file(self, archive: zipfile.ZipFile, file: zipfile.ZipInfo) -> dict:
        # TODO: read_file(archive, file) and self._five_best; a BadFile or BadImage is the answer for this file only.
        raise NotImplementedError("Answer the file's name with its predictions or the error.")

    def _five_best(self, image: bytes) -> list[dict]:
        # TODO: open_image, preprocess, session.run, top5.
        raise NotImplementedError("Answer the five best labels.")


finish(ImageClassifierService)
# TODO: bodies of up to 64 MiB, and 8 tasks at a time, with BentoML keeping no archives:
# ImageClassifierService.add_asgi_middleware(TaskBodies, route="/classify_archive", max_bytes=..., max_tasks=...)
