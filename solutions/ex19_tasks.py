"""Exercise 19: an archive of images, classified as a task: submit, ask how far it is, cancel, fetch, retry.

bentoml serve solutions.ex19_tasks:ImageClassifierService
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
        try:
            open_model()
        except BadModel as error:
            raise BentoMLException(str(error)) from error
        forget_bodies()

    def __init__(self) -> None:
        # Each thread runs its own image on one core: threads of ONNX Runtime's would fight over the cores.
        self.session = open_model(threads=1)
        self.labels = labels(self.session)
        self.weights = weights(self.session)
        self.tasks: dict[str, Task] = {}
        self.turns = anyio.CapacityLimiter(TASKS_AT_A_TIME)
        self.stopping = False

    @bentoml.on_startup
    async def begin(self) -> None:
        """Runs in each new worker, before it takes requests."""
        reason = "the worker that ran this task has died: retry it"
        for task_id in await fail_lost_tasks(reason):
            self.tasks[task_id] = Task("failed", error=reason)
        before_sigterm(self.stop)

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
        try:
            return {"predictions": self._five_best(image), "weights": self.weights}
        except BadImage as error:
            raise InvalidArgument(str(error)) from error

    # A coroutine, for a method would keep one of the threads that answer /classify to itself for minutes.
    @bentoml.task
    async def classify_archive(self, archive: Archive, /, ctx: bentoml.Context) -> Json:
        """The five best labels for each image in a zip archive, which is the whole body.
        Answers `{"files": [{"file": ..., "predictions": [...]} or {"file": ..., "error": ...}, ...], "weights": ...}`.
        """
        task = self._new_task(ctx.request.state.task_id)
        try:
            with task.scope:
                async with self.turns:
                    await self._work_through(archive, task)
        except BadArchive as error:
            task.end("failed", str(error))
        except BaseException:  # the archive is kept: the task can be retried
            task.end("failed", "an unexpected error, which the service's log shows: retry the task")
            raise
        archive.unlink(missing_ok=True)
        if task.error:
            status = HTTPStatus.CONFLICT if task.status == "canceled" else HTTPStatus.BAD_REQUEST
            raise BentoMLException(task.error, error_code=status)
        task.end("completed")
        return {"files": task.files, "weights": self.weights}

    @bentoml.api
    async def progress(self, task_id: str) -> Json:
        """How far a task is.
        Answers `{"status": "pending", "in_progress", "completed", "failed" or "canceled", "done": files, "total":
        files, or null where that is not known, "error": the reason or null}`.
        """
        return await self._progress(task_id)

    @bentoml.api
    async def cancel(self, task_id: str) -> Json:
        """Stop a task; nothing happens to one that has ended. Answers as /progress does."""
        if task_id in self.tasks:
            self.tasks[task_id].cancel()
        return await self._progress(task_id)

    async def _progress(self, task_id: str) -> dict:
        task = self.tasks.get(task_id)
        if task is None:
            status = await stored_status(task_id)
            task = Task("pending" if status == "in_progress" else status)
        return {"status": task.status, "done": len(task.files), "total": task.total, "error": task.error}

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
        task.status = "in_progress"
        with await anyio.to_thread.run_sync(open_archive, archive) as opened:
            files = images_in(opened)
            task.total = len(files)
            for file in files:
                task.files.append(await anyio.to_thread.run_sync(self._classify_file, opened, file))

    def _classify_file(self, archive: zipfile.ZipFile, file: zipfile.ZipInfo) -> dict:
        try:
            return {"file": file.filename, "predictions": self._five_best(read_file(archive, file))}
        except (BadFile, BadImage) as error:  # that of one file: the others are classified
            return {"file": file.filename, "error": str(error)}

    def _five_best(self, image: bytes) -> list[dict]:
        batch = preprocess(open_image(image))
        return top5(self.session.run(["output"], {"input": batch})[0][0], self.labels)


finish(ImageClassifierService)
ImageClassifierService.add_asgi_middleware(TaskBodies, route="/classify_archive", max_bytes=64 * 2**20, max_tasks=8)
