"""What BentoML's tasks leave out: large bodies, a bound on how many run, tasks whose worker died."""

import asyncio
import signal
import uuid
from collections.abc import Callable
from pathlib import Path

import anyio
from bentoml.exceptions import NotFound
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.bentoml_repairs import fail_lost_tasks as fail_lost_tasks  # for exercise 19
from serving.bentoml_repairs import task_store


class TaskBodies:
    """ASGI middleware: writes the body of a task into a file and bounds how many tasks there are at a time.

    BentoML keeps each submitted body for a day: as base64 in JSON in SQLite, encoded in the event loop, which
    answers nobody meanwhile (64 MiB: three quarters of a second). With this, it keeps the name of a file: the API's
    argument is those few bytes, which body_file() turns into a path. The API deletes the file when it is done
    with it; while the file is there, the task can be retried.

    Too large a body is answered with 413, a form with 415, none with 400, one task too many with 429. A call
    of the task's own route, which would wait for the result, is answered with 405.
    """

    def __init__(self, app: ASGIApp, route: str, max_bytes: int, max_tasks: int) -> None:
        """route: the task's own, e.g. /classify_archive; max_tasks: how many may run and wait in this worker."""
        self.app = app
        self.route, self.submit, self.retry = route, f"{route}/submit", f"{route}/retry"
        self.max_bytes = max_bytes
        self.max_tasks = max_tasks
        self.tasks = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in (self.route, self.submit, self.retry):
            return await self.app(scope, receive, send)
        if scope["path"] == self.route:  # BentoML lets any task be called and waited for as well
            problem = f"expected POST {self.submit}: this takes long, and is done as a task"
            return await JSONResponse({"error": problem}, 405)(scope, receive, send)
        if self.tasks >= self.max_tasks:
            problem = f"expected at most {self.max_tasks} tasks at a time: try again when one has ended"
            return await JSONResponse({"error": problem}, 429)(scope, receive, send)
        self.tasks += 1
        try:
            if scope["path"] == self.submit:
                receive = await self._keep_body(scope, receive, send)
            if receive is not None:
                await self.app(scope, receive, send)  # returns when the task has ended, not when it is submitted
        finally:
            self.tasks -= 1

    async def _keep_body(self, scope: Scope, receive: Receive, send: Send) -> Receive | None:
        """Write the body into a new file; what gives BentoML the file's name as the body, None where it is refused."""
        if dict(scope["headers"]).get(b"content-type", b"").startswith(b"multipart/"):
            problem = "expected the archive itself as the body, got a form (curl: --data-binary @FILE, not -F)"
            return await JSONResponse({"error": problem}, 415)(scope, receive, send)
        scope["headers"] = [one for one in scope["headers"] if one[0] not in (b"content-type", b"content-length")]
        name, size, more = uuid.uuid4().hex, 0, True
        path = bodies_folder() / name
        try:
            async with await anyio.open_file(path, "xb") as file:
                while more and size <= self.max_bytes:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        path.unlink()
                        return None
                    size += await file.write(message.get("body", b""))
                    more = message.get("more_body", False)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        if size == 0 or size > self.max_bytes:
            path.unlink()
            status, got = (400, "an empty one") if size == 0 else (413, "more")
            problem = f"expected a body of at most {self.max_bytes:,} bytes, got {got}"
            return await JSONResponse({"error": problem}, status)(scope, receive, send)
        given = False

        async def receive_name() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": name.encode(), "more_body": False}

        return receive_name


def body_file(name: bytes) -> Path:
    """Where TaskBodies wrote the body that BentoML hands on under this name."""
    return bodies_folder() / uuid.UUID(name.decode()).hex  # nothing but such a name, least of all a path


def bodies_folder() -> Path:
    """Beside BentoML's own store of tasks, and like it emptied at start."""
    return task_store().with_name("task_bodies")


def forget_bodies() -> None:
    """Empty the folder. Call this under @bentoml.on_deployment: BentoML forgets its tasks at the same moment."""
    bodies_folder().mkdir(parents=True, exist_ok=True)
    for left in bodies_folder().iterdir():
        left.unlink()


async def stored_status(task_id: str) -> str:
    """What BentoML has written down about a task: in_progress, completed, failed or canceled.

    Raises:
        NotFound: there is no such task; answered with 404.
    """
    from _bentoml_impl.tasks import Sqlite3Store

    async with Sqlite3Store(str(task_store())) as store:
        try:
            return (await store.get_status(task_id)).status.value
        except KeyError as error:
            raise NotFound("expected the task_id of a task submitted since the service started, got another") from error


def before_sigterm(call: Callable[[], None]) -> None:
    """Call a function in the event loop when this worker is told to end; BentoML then waits for what runs."""
    loop, handle = asyncio.get_running_loop(), signal.getsignal(signal.SIGTERM)

    def stop(number: int, frame: object) -> None:
        loop.call_soon_threadsafe(call)
        handle(number, frame)

    signal.signal(signal.SIGTERM, stop)
