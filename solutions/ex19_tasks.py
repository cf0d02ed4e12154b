"""Exercise 19: classify an archive of images as a task: submit, progress, fetch, cancel. Step 2: retry.

bentoml serve solutions.ex19_tasks:ImageClassifierService
"""

import zipfile
from http import HTTPStatus
from pathlib import Path

import anyio
import anyio.to_thread
import bentoml
from bentoml.exceptions import BentoMLException, InvalidArgument

from serving.archives import BadArchive, BadFile, images_in, open_archive, read_file
from serving.cores import cores
from serving.model import open_model
from serving.service import ImageFile, Json, OneModel, finish, read_image
from serving.tasks import Archive, HasTaskBodies, Task, TaskBodies, Tasks, before_sigterm, fail_lost_tasks

CORES = cores()
# One core is left for /classify.
TASKS_AT_A_TIME = max(1, CORES - 1)


# One worker: what is known about running tasks is in its memory. Its threads use all cores.
@bentoml.service(workers=1, threads=CORES, traffic={"timeout": 30, "max_concurrency": 256})
class ImageClassifierService(OneModel, HasTaskBodies):
    """Classifies images, one at a time or a whole archive as a task."""

    def __init__(self) -> None:
        # Each thread of the service runs its own image on one core: more threads would compete for the cores.
        super().__init__(open_model(threads=1))
        self.tasks = Tasks()
        self.turns = anyio.CapacityLimiter(TASKS_AT_A_TIME)

    @bentoml.api
    def classify(self, image: ImageFile, /) -> Json[dict]:
        """The five best labels for one image file (JPEG, PNG, WebP, GIF, BMP or TIFF), which is the whole body.
        Answers `{"predictions": [{"label": ..., "probability": ...}, ...], "weights": ...}`, best first.
        """
        return self.best_labels(self.run(read_image(image)))

    # A coroutine: a plain method would occupy one of the threads that answer /classify for minutes.
    @bentoml.task
    async def classify_archive(self, archive: Archive, /, ctx: bentoml.Context) -> Json[dict]:
        """The five best labels for each image in a zip archive, which is the whole body.
        Answers `{"files": [{"file": ..., "predictions": [...]} or {"file": ..., "error": ...}, ...], "weights": ...}`.
        """
        task = self.tasks.begin(ctx.request.state.task_id)
        try:
            with task.scope:
                async with self.turns:
                    await self._work_through(archive, task)
        except BadArchive as error:
            task.end("failed", str(error))
        except BaseException:  # step 2: the archive stays, so that the task can be retried
            task.end("failed", "an unexpected error, which the service's log shows: retry the task")
            raise
        archive.unlink(missing_ok=True)
        if task.error:
            status = HTTPStatus.CONFLICT if task.status == "canceled" else HTTPStatus.BAD_REQUEST
            raise BentoMLException(task.error, error_code=status)
        task.end("completed")
        return {"files": task.files, "weights": self.weights}

    async def _work_through(self, archive: Path, task: Task) -> None:
        """Classify the images one after the other, each in a thread: the event loop stays free."""
        task.status = "in_progress"
        with await anyio.to_thread.run_sync(open_archive, archive) as opened:
            files = images_in(opened)
            task.total = len(files)
            for file in files:
                task.files.append(await anyio.to_thread.run_sync(self._classify_file, opened, file))

    def _classify_file(self, archive: zipfile.ZipFile, file: zipfile.ZipInfo) -> dict:
        """{"file": name, "predictions": [...]}, or {"file": name, "error": why this one cannot be classified}."""
        try:
            answer = self.best_labels(self.run(read_image(read_file(archive, file))))
        except (BadFile, InvalidArgument) as error:  # of this file: the others are classified
            return {"file": file.filename, "error": str(error)}
        return {"file": file.filename, "predictions": answer["predictions"]}

    @bentoml.api
    async def progress(self, task_id: str) -> Json[dict]:
        """How far a task is.
        Answers `{"status": "pending", "in_progress", "completed", "failed" or "canceled", "done": files, "total":
        files, or null while that is not known, "error": the reason or null}`.
        """
        return (await self.tasks.find(task_id)).state()

    @bentoml.api
    async def cancel(self, task_id: str) -> Json[dict]:
        """Stop a task. A task that has ended stays as it is. Answers as /progress does."""
        task = await self.tasks.find(task_id)
        task.cancel()
        return task.state()

    @bentoml.on_startup
    async def begin(self) -> None:
        """Runs in each new worker, before it takes requests."""
        before_sigterm(self.tasks.cancel_all)
        # Step 2: the tasks that a dead worker left unfinished.
        reason = "the worker that ran this task has died: retry it"
        for task_id in await fail_lost_tasks(reason):
            self.tasks[task_id] = Task("failed", error=reason)


finish(ImageClassifierService)
ImageClassifierService.add_asgi_middleware(TaskBodies, route="/classify_archive", max_bytes=64 * 2**20, max_tasks=8)
