"""What BentoML's tasks leave out: large bodies, a limit on how many run, progress, tasks whose worker died."""

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import anyio
import bentoml
from bentoml.exceptions import NotFound
from bentoml.validators import ContentType
from pydantic import AfterValidator
from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.bentoml_repairs import fail_lost_tasks as fail_lost_tasks  # for exercise 19
from serving.bentoml_repairs import task_store
from serving.request_limits import RequestLimits

REMEMBERED = 1_000  # tasks


class TaskBodies(RequestLimits):
    """ASGI middleware: RequestLimits for a task. It writes the body into a file, and limits how many tasks there are.

    BentoML keeps each submitted body for a day: as base64 in JSON in SQLite, encoded in the event loop, which
    answers no other request meanwhile (64 MiB: three quarters of a second). With TaskBodies, BentoML keeps the name
    of a file: the API's argument is this name, which body_file() turns into a path. The API deletes the file when it
    no longer needs it; until then, the task can be retried.

    The response to one task too many is 429, and to a call of the task's own route, which would wait for the
    result, 405.
    """

    def __init__(self, app: ASGIApp, route: str, max_bytes: int, max_tasks: int) -> None:
        """route: the task's own, e.g. /classify_archive; max_tasks: how many may run and wait in this worker."""
        super().__init__(app, {f"{route}/submit": max_bytes})
        self.route = route
        self.max_tasks = max_tasks
        self.tasks = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in (self.route, f"{self.route}/submit", f"{self.route}/retry"):
            return await self.app(scope, receive, send)
        if scope["path"] == self.route:  # BentoML also lets callers wait for any task
            problem = f"expected POST {self.route}/submit: this takes long, so it is a task"
            return await JSONResponse({"error": problem}, 405)(scope, receive, send)
        if self.tasks >= self.max_tasks:
            problem = f"expected at most {self.max_tasks} tasks at a time: try again when one has ended"
            return await JSONResponse({"error": problem}, 429)(scope, receive, send)
        self.tasks += 1
        try:
            await super().__call__(scope, receive, send)  # returns when the task has ended, not when it is submitted
        finally:
            self.tasks -= 1

    async def keep(self, scope: Scope, pieces: AsyncIterator[bytes]) -> bytes:
        """Write the body into a new file; the application gets the file's name as the body."""
        path = bodies_folder() / uuid.uuid4().hex
        try:
            async with await anyio.open_file(path, "xb") as file:
                async for piece in pieces:
                    await file.write(piece)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        for header in ("content-type", "content-length"):  # of the file, not of its name
            del MutableHeaders(scope=scope)[header]
        return path.name.encode()


def body_file(name: bytes) -> Path:
    """The file into which TaskBodies wrote the body that BentoML passes on under this name."""
    return bodies_folder() / uuid.UUID(name.decode()).hex  # only such a name, never a path


def bodies_folder() -> Path:
    """The folder of the bodies: beside BentoML's own store of tasks, and empty at the start like that one."""
    return task_store().with_name("task_bodies")


# The argument of a task that takes an archive: what arrives is the name that TaskBodies gave to the archive's file.
Archive = Annotated[bytes, ContentType("application/zip"), AfterValidator(body_file)]


class HasTaskBodies:
    """A base class for a service with TaskBodies: at the start it deletes bodies, as BentoML deletes its tasks."""

    @bentoml.on_deployment
    def delete_bodies() -> None:
        """Runs once, before the worker."""
        bodies_folder().mkdir(parents=True, exist_ok=True)
        for left in bodies_folder().iterdir():
            left.unlink()


@dataclass
class Task:
    """How far the work on one archive is."""

    status: str = "pending"  # then in_progress; at the end completed, failed or canceled: BentoML's words
    files: list[dict] = field(default_factory=list)  # one entry for each file that is done
    total: int | None = None
    error: str | None = None
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    @property
    def has_ended(self) -> bool:
        return self.status not in ("pending", "in_progress")

    def end(self, status: str, error: str | None = None) -> None:
        """Set how the task ended, unless it has ended already."""
        if not self.has_ended:
            self.status, self.error = status, error

    def cancel(self) -> None:
        """Stop the work: at once while it waits for its turn, otherwise after the current image."""
        if not self.has_ended:
            self.end("canceled", f"canceled after {len(self.files)} of {self.total or 'all'} files")
            self.scope.cancel()

    def state(self) -> dict:
        """What /progress returns."""
        return {"status": self.status, "done": len(self.files), "total": self.total, "error": self.error}


class Tasks(dict[str, Task]):
    """The tasks of a service's one worker, by id. It keeps the last 1,000; BentoML keeps their results for a day."""

    stopping = False

    def begin(self, task_id: str) -> Task:
        """The task that begins now. It is cancelled if somebody cancelled it before, or if the service stops."""
        ended = [other for other, task in self.items() if task.has_ended]
        for old in ended[: max(0, len(self) - REMEMBERED)]:
            del self[old]
        task = self.setdefault(task_id, Task())
        if self.stopping:
            task.cancel()
        return task

    async def find(self, task_id: str) -> Task:
        """The task with an id that `submit` returned; raises NotFound, which BentoML answers with 404."""
        if task_id not in self:
            from _bentoml_impl.tasks import Sqlite3Store

            async with Sqlite3Store(str(task_store())) as store:
                try:
                    status = (await store.get_status(task_id)).status.value
                except KeyError as error:
                    problem = "expected the task_id of a task submitted since the service started, got another"
                    raise NotFound(problem) from error
            if status != "in_progress":  # it ended long ago
                return Task(status)
        return self.setdefault(task_id, Task())  # BentoML has stored it, but not begun it yet

    def cancel_all(self) -> None:
        """Cancel every task, and those that begin from now on: nobody can fetch results from a service that ends."""
        self.stopping = True
        for task in self.values():
            task.cancel()


def before_sigterm(call: Callable[[], None]) -> None:
    """Call a function in the event loop when this worker gets SIGTERM; after it, BentoML waits for what still runs."""
    loop, handle = asyncio.get_running_loop(), signal.getsignal(signal.SIGTERM)

    def stop(number: int, frame: object) -> None:
        loop.call_soon_threadsafe(call)
        handle(number, frame)

    signal.signal(signal.SIGTERM, stop)
