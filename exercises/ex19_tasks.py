"""Exercise 19: classify an archive of images as a task: submit, progress, fetch, cancel. Step 2: retry.

bentoml serve exercises.ex19_tasks:ImageClassifierService
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

    # TODO 1: `__init__`: hand super().__init__ a session with one thread, from open_model(): each thread of the service
    # runs its own image. Keep Tasks() in self.tasks, and an anyio.CapacityLimiter of TASKS_AT_A_TIME in self.turns.
    # TODO 2: delete this line. As long as it is here, the service does not start.
    still_to_do = "classify archives as tasks."

    @bentoml.api
    def classify(self, image: ImageFile, /) -> Json[dict]:
        """The five best labels for one image file (JPEG, PNG, WebP, GIF, BMP or TIFF), which is the whole body.
        Answers `{"predictions": [{"label": ..., "probability": ...}, ...], "weights": ...}`, best first.
        """
        # TODO 3: as in exercise 10: read_image, self.run, self.best_labels.
        raise NotImplementedError("Return the five best labels for the image file.")

    # A coroutine: a plain method would occupy one of the threads that answer /classify for minutes.
    @bentoml.task
    async def classify_archive(self, archive: Archive, /, ctx: bentoml.Context) -> Json[dict]:
        """The five best labels for each image in a zip archive, which is the whole body.
        Answers `{"files": [{"file": ..., "predictions": [...]} or {"file": ..., "error": ...}, ...], "weights": ...}`.
        """
        # TODO 4: self.tasks.begin(ctx.request.state.task_id) keeps how far the task is. Inside `with task.scope` and
        # `async with self.turns`, work through the archive; BadArchive ends the task as failed. Then delete the archive,
        # and return the answer, or raise BentoMLException with task.error and an error_code: HTTPStatus.CONFLICT for a
        # cancelled task, HTTPStatus.BAD_REQUEST for a failed one.
        # TODO 5: optional, step 2: after any other error, end the task as failed and keep the archive.
        raise NotImplementedError("Return the labels for each file in the archive.")

    async def _work_through(self, archive: Path, task: Task) -> None:
        """Classify the images one after the other, each in a thread: the event loop stays free."""
        # TODO 6: open_archive(archive) and self._classify_file take their time: run them in a thread with
        # anyio.to_thread.run_sync(function, argument, ...). Count in task.total and task.files.
        raise NotImplementedError("Classify each file of the archive in a thread.")

    def _classify_file(self, archive: zipfile.ZipFile, file: zipfile.ZipInfo) -> dict:
        """{"file": name, "predictions": [...]}, or {"file": name, "error": why this one cannot be classified}."""
        # TODO 7: read_file(archive, file), read_image, self.run, self.best_labels. BadFile and InvalidArgument are the
        # answer for this file only.
        raise NotImplementedError("Return the file's name with its labels or the error.")

    @bentoml.api
    async def progress(self, task_id: str) -> Json[dict]:
        """How far a task is.
        Answers `{"status": "pending", "in_progress", "completed", "failed" or "canceled", "done": files, "total":
        files, or null while that is not known, "error": the reason or null}`.
        """
        # TODO 8: self.tasks.find(task_id), and its state().
        raise NotImplementedError("Return how far the task is.")

    @bentoml.api
    async def cancel(self, task_id: str) -> Json[dict]:
        """Stop a task. A task that has ended stays as it is. Answers as /progress does."""
        # TODO 9: cancel() the task, which cancels its scope, and return its state.
        raise NotImplementedError("Cancel the task and return how far it is.")

    @bentoml.on_startup
    async def begin(self) -> None:
        """Runs in each new worker, before it takes requests."""
        # TODO 10: before_sigterm(self.tasks.cancel_all) ends tasks when the service ends.
        # TODO 11: optional, step 2: fail_lost_tasks(reason) returns the ids of tasks that a dead worker left unfinished.
        # Keep a failed Task for each in self.tasks, with the reason.
        return


finish(ImageClassifierService)
# TODO 12: bodies of up to 64 MiB, and 8 tasks at a time:
# ImageClassifierService.add_asgi_middleware(TaskBodies, route="/classify_archive", max_bytes=..., max_tasks=...)
