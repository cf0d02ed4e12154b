"""What the course repairs in BentoML, and in circus (the package kantoku), the supervisor under it. All of it is here.

`finish()` in serving/service.py applies what a service needs. Each repair says what goes wrong without it, where that
was seen, and when it can go. tests/test_serving_repairs.py shows each fault; if one is gone there, its repair may go.
"""

import asyncio
import json
import logging
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import bentoml
from aiohttp import ClientError
from bentoml.exceptions import BentoMLException
from pydantic import ValidationError
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from serving import Problem
from serving.connections import spread_connections
from serving.repair import repair, warn_of_another_version
from serving.tracking import send_nothing_elsewhere


def apply(service: "bentoml.Service") -> None:
    """Apply what a service and its dependencies need. Call it in their module, which each of their processes imports."""
    repair_every_service()
    batch_without_waiting()
    keep_socket_paths_short()
    if service.config.get("workers", 1) != 1:
        spread_connections()
    for one in service.all_services().values():
        compute_schemas_once(one)
        make_no_traces(one)
        if one is not service:
            keep_connections(one)

    @bentoml.on_deployment
    def before_the_workers() -> None:  # once, in the supervisor
        warn_of_another_version()
        restart_dead_workers_quickly()
        stop_dependencies_last()

    service.inner._before_the_workers = before_the_workers


def repair_every_service() -> None:
    """The repairs that every service needs."""
    send_nothing_elsewhere()
    log_client_errors_in_one_line()
    log_headers_of_any_bytes()


def log_client_errors_in_one_line() -> None:
    """Log a request that was refused with 4xx as one line.

    Without it: each bad request fills the log with a stack trace, as if the service had failed.
    Seen in: BentoML 1.4.39 and 1.4.40. Can go when: BentoML logs an error below 500 without a stack trace.
    """
    logging.getLogger("bentoml._internal.server.http_app").addFilter(_in_one_line)


def _in_one_line(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    invalid = isinstance(error, ValidationError)
    if invalid or (isinstance(error, BentoMLException) and error.error_code < 500):
        record.levelno, record.levelname, record.exc_info = logging.WARNING, "WARNING", None
        record.msg, record.args = "refused %s: %s", (record.args[0], error.errors()[0]["msg"] if invalid else error)
    return True


@repair({"bentoml._internal.server.http.access:AccessLogMiddleware": ["request_content_type.decode()"]})
def log_headers_of_any_bytes() -> None:
    """Escape bytes outside ASCII in the headers of a request before BentoML's access log reads them.

    Without it: the access log fails at a Content-Type with such a byte, just before the body of the answer is sent. The
    caller gets an empty body, and the log a stack trace.
    Seen in: BentoML 1.4.39 and 1.4.40. Can go when: the access log decodes headers with replacements.
    """
    from bentoml._internal.server.http.access import AccessLogMiddleware

    call = AccessLogMiddleware.__call__

    async def call_with_ascii(middleware: AccessLogMiddleware, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = [(name, value.decode("ascii", "backslashreplace").encode()) for name, value in scope["headers"]]
            scope["headers"] = headers
        await call(middleware, scope, receive, send)

    AccessLogMiddleware.__call__ = call_with_ascii


@repair({"_bentoml_sdk.io_models:IOMixin.model_json_schema": ["def model_json_schema(cls"]})
def compute_schemas_once(service: "bentoml.Service") -> None:
    """Keep the JSON schema of each API's input.

    Without it: BentoML works the schema out at every request, half a millisecond where the whole body is one argument
    (`image: bytes, /`). An answer without a ContentType in its annotation costs the same again.
    Seen in: BentoML 1.4.39 and 1.4.40. Can go when: BentoML keeps the schema.
    """
    for api in service.apis.values():
        api.input_spec.model_json_schema = _computed_once(api.input_spec.model_json_schema)


def _computed_once(compute: Callable[..., dict]) -> Callable[..., dict]:
    schema = compute()
    # The documentation (/docs.json) asks with options, once in a while.
    return lambda **options: compute(**options) if options else schema


@repair({"_bentoml_sdk.service.config:TracingSchema": ["excluded_urls"]})
def make_no_traces(service: "bentoml.Service") -> None:
    """Make no spans, unless the service says `tracing=...`: do that when you set up a collector.

    Without it: BentoML makes spans for every request and throws them away, a third of its own time for a request.
    Seen in: BentoML 1.4.39 and 1.4.40. Can go when: BentoML makes no spans where no exporter is set.
    """
    service.config.setdefault("tracing", {"excluded_urls": ".*"})


@repair({"circus.controller:Controller": ["def start(self):", "self.check_delay"]})
def restart_dead_workers_quickly(seconds: float = 2) -> None:
    """Look for dead workers every few seconds, also in a container. Call it in the supervisor, before the workers.

    Without it: circus looks every 10 s. In an image of `bentoml containerize` it starts none again: one of several
    workers is missing for ever, and a service's last one ends the whole container.
    Seen in: BentoML 1.4.39 and 1.4.40, kantoku 0.18.3. Can go when: BentoML has settings for both.
    """
    from circus.controller import Controller

    start = Controller.start

    def start_looking_often(controller: Controller) -> None:
        controller.check_delay = min(controller.check_delay, 1000 * seconds)
        start(controller)

    Controller.start = start_looking_often
    os.environ.pop("BENTOML_CONTAINERIZED", None)  # all that it means to BentoML is: start none again


@repair({"bentoml._internal.marshal.dispatcher:Optimizer": ["self.wait ="]})
def batch_without_waiting() -> None:
    """Run what has gathered as soon as the batch before it is done.

    Without it: BentoML waits for more, about as long as requests waited lately, and its own waiting is part of that.
    After a crowd has gone, a lone caller waits for companions that do not come, many times as long as the model runs.
    Seen in: BentoML 1.4.39 and 1.4.40. Can go when: BentoML has a setting for the wait, or does not count its own.
    """
    from bentoml._internal.marshal.dispatcher import Optimizer

    Optimizer.wait = property(lambda optimizer: 0.0, lambda optimizer, seconds: None)


@repair({"_bentoml_impl.server.serving:_get_server_socket": ["MAX_AF_UNIX_PATH_LENGTH", "uds_path"]})
def keep_socket_paths_short() -> None:
    """Put the sockets between services into /tmp where the temporary folder (TMPDIR) has too long a path for them.

    Without it: `bentoml serve` ends with a bare AssertionError, since the path of a Unix socket has at most 107 bytes.
    Seen in: BentoML 1.4.39 and 1.4.40. Can go when: BentoML chooses a shorter path, or says what is wrong.
    """
    if len(tempfile.gettempdir()) > 60 and os.access("/tmp", os.W_OK):
        tempfile.tempdir = "/tmp"


@repair({"_bentoml_sdk.service.config:RunnerConnectionSchema": ["max_requests", "max_age"]})
def keep_connections(dependency: "bentoml.Service") -> None:
    """Let those who ask a service keep their connections to it, unless it says `runner_connection=...` itself.

    Without it: the client between services closes its connections every 100 requests and every 300 s, while others
    wait for their answers on them: 33 of 600 requests from 8 clients failed with 500.
    Seen in: BentoML 1.4.39 and 1.4.40. Can go when: that client lets what it has begun finish first.
    """
    dependency.config.setdefault("runner_connection", {"max_requests": 1_000_000, "max_age": 86400.0})


@repair(
    {
        "circus.arbiter:Arbiter": ["def _stop_watchers(self, close_output_streams=False", "self._stopping = True"],
        "circus.watcher:Watcher": ["def _stop(self, close_output_streams=False)", "self.graceful_timeout"],
        "bentoml._internal.utils.circus:Arbiter": ["self.exit_stack", "def stop(self)"],
    }
)
def stop_dependencies_last() -> None:
    """At SIGTERM, let the entry service finish its requests before the services that it asks are told to stop.
    Call it in the supervisor, before the workers. The entry's workers are killed after 35 s, when no request can be
    left, those of its dependencies 5 s later.

    Without it: BentoML removes the sockets between services first, then tells all services to stop: 89 of 100 requests
    that the entry had accepted failed with 500. And it waits a day for a worker that does not end.
    Seen in: BentoML 1.4.39 and 1.4.40, kantoku 0.18.3. Can go when: BentoML stops the entry first and has a setting for the wait.
    """
    from bentoml._internal.utils.circus import Arbiter

    async def stop_watchers(arbiter: Arbiter, close_output_streams: bool = False, **_: object) -> None:
        for watcher in sorted(arbiter.watchers, key=lambda watcher: watcher.name != "service"):  # the entry's name
            watcher.graceful_timeout = 35 if watcher.name == "service" else 5
            await watcher._stop(close_output_streams)
        if arbiter._stopping:  # not merely starting again
            arbiter.exit_stack.close()  # which removes the sockets

    Arbiter._stop_watchers = stop_watchers
    Arbiter.stop = Arbiter.__base__.stop  # circus's own: BentoML's would remove them first


async def all_ready(*dependencies: Any, seconds: float = 1) -> bool:
    """Whether every dependency answers its own /readyz in time: what a composed service's `__is_ready__` returns.

    Without it: where a dependency hangs, BentoML answers /readyz with 500, after half a minute.
    Seen in: BentoML 1.4.39 and 1.4.40. Can go when: BentoML answers 503 within a second or two.
    """
    try:
        return all(await asyncio.wait_for(asyncio.gather(*(one.is_ready() for one in dependencies)), seconds))
    except (TimeoutError, ClientError):
        return False


def reason(error: BentoMLException) -> str:
    """The sentence with which a dependency refused.

    Without it: the error's text is the dependency's whole answer, `[{"error": ...}]`: JSON in JSON for the caller.
    Seen in: BentoML 1.4.39 and 1.4.40. Can go when: the error's text is the sentence alone.
    """
    try:
        return json.loads(str(error))[0]["error"]
    except (ValueError, LookupError, TypeError):
        return str(error)


def task_store() -> Path:
    """The SQLite file in which BentoML keeps tasks and their results."""
    from bentoml._internal.configuration.containers import BentoMLContainer

    return Path(BentoMLContainer.result_store_file.get())


@repair(
    {"_bentoml_impl.tasks:Sqlite3Store": ["task_id TEXT", "completed_at TIMESTAMP", "def set_result("]},
    otherwise=lambda reason: asyncio.sleep(0, result=[]),
)
async def fail_lost_tasks(reason: str) -> list[str]:
    """Mark the tasks that a dead worker left unfinished as failed, so that they can be retried. Returns their ids.
    Call it under `@bentoml.on_startup`, in a service of one worker: nobody works on what is unfinished at that moment.

    Without it: BentoML says that these tasks are in progress, for ever.
    Seen in: BentoML 1.4.39 and 1.4.40. Can go when: BentoML notices that the worker of a task has died.
    """
    from _bentoml_impl.tasks import ResultStatus, Sqlite3Store

    with sqlite3.connect(task_store()) as connection:
        lost = [task_id for (task_id,) in connection.execute("SELECT task_id FROM result WHERE completed_at IS NULL")]
    async with Sqlite3Store(str(task_store())) as store:
        for task_id in lost:
            await store.set_result(task_id, JSONResponse({"error": reason}, 503), ResultStatus.FAILED)
    return lost


def _cannot_save() -> NoReturn:
    raise Problem("This BentoML saves models in another way. Run `pip install -r requirements-serving.txt`.")


@repair(
    {
        "bentoml.models:create": ["_model_store"],
        "bentoml.models:import_model": ["_model_store"],
        "bentoml._internal.store:Store": ["def __init__(self, base_path", "self._path"],
    },
    otherwise=_cannot_save,
)
@contextmanager
def moved_in_whole() -> Iterator[object]:
    """A store beside BentoML's own: what is saved there moves over in one step, when the block ends well.
    Give it to `bentoml.models.create` and `import_model` as `_model_store`.

    Without it: both copy file by file into the place where a version is looked for. Interrupted there (Ctrl-C, a full
    disk, a crash), they leave half a version, which `list` stumbles over and `latest` may mean.
    Seen in: BentoML 1.4.39 and 1.4.40. Can go when: BentoML moves a version to its place in one step.

    Raises Problem: the version is in BentoML's store already, or this BentoML saves models in another way.
    """
    from bentoml._internal.configuration.containers import BentoMLContainer
    from bentoml._internal.models import ModelStore

    store = Path(BentoMLContainer.model_store.get()._path)
    with tempfile.TemporaryDirectory(prefix=".saving-", dir=store.parent) as folder:
        yield ModelStore(folder)
        for model in ModelStore(folder).list():
            place = store / model.tag.path()
            if place.exists():
                raise Problem(f"{model.tag} is in the store already.")
            place.parent.mkdir(exist_ok=True)
            os.rename(model.path, place)
            # BentoML notes here which version is the newest, and works it out again where there is no note.
            (store / model.tag.latest_path()).unlink(missing_ok=True)
