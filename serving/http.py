"""What a service under load and under attack needs, and BentoML does not bring."""

import asyncio
import json
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aiohttp import ClientError
from bentoml.exceptions import BentoMLException
from pydantic import ValidationError

from serving.limits import RequestLimits as RequestLimits  # for services; images without BentoML take it from there

if TYPE_CHECKING:
    from bentoml import Service

# For @bentoml.service(tracing=...): BentoML 1.4.39 makes spans for every request, even where nobody collects them,
# and that is a third of its own time for one. Take it out when you set up a collector.
NO_TRACES = {"excluded_urls": ".*"}


class ClientErrorsInOneLine(logging.Filter):
    """Logs a request that BentoML refused with 4xx as one line, not as a stack trace."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        refused = isinstance(error, BentoMLException) and error.error_code < 500
        if refused or isinstance(error, ValidationError):
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            record.levelno, record.levelname = logging.WARNING, "WARNING"
            record.msg, record.args = "refused %s: %s", (record.args[0], reason)
            record.exc_info = None
        return True


def log_client_errors_in_one_line() -> None:
    """Install the filter on the logger to which BentoML reports a request that ended in an exception."""
    logging.getLogger("bentoml._internal.server.http_app").addFilter(ClientErrorsInOneLine())


def compute_schemas_once(service: "Service") -> None:
    """Keep the JSON schema of each API's input: BentoML 1.4.39 works it out anew at every request.

    That takes about half a millisecond where the whole body is one argument (`image: bytes, /`). Annotate
    the answer with its ContentType as well, or its schema is worked out each time, too.
    """
    for api in service.apis.values():
        api.input_spec.model_json_schema = _computed_once(api.input_spec.model_json_schema)


def _computed_once(compute: Callable[..., dict]) -> Callable[..., dict]:
    schema = compute()
    # With options it is asked for by the documentation (/docs.json), once in a while.
    return lambda **options: compute(**options) if options else schema


def restart_dead_workers_quickly(seconds: float = 2) -> None:
    """Look for dead workers every few seconds: BentoML 1.4.39 asks its supervisor, circus, to do so every 10.

    In an image that `bentoml containerize` made it starts none again: one of several workers is missing for ever,
    and a service's last one takes the whole container with it. There is no setting for either. Call this under
    @bentoml.on_deployment, which runs in the supervisor, before the workers.
    """
    from circus.controller import Controller

    start = Controller.start

    def start_looking_often(controller: Controller) -> None:
        controller.check_delay = min(controller.check_delay, 1000 * seconds)
        start(controller)

    if start.__name__ != start_looking_often.__name__:
        Controller.start = start_looking_often
    os.environ.pop("BENTOML_CONTAINERIZED", None)  # all that it means to BentoML is: start none again


def batch_without_waiting() -> None:
    """Run what has gathered as soon as the batch before it is done: BentoML 1.4.39 would wait for more.

    It waits about as long as requests waited lately, and its own waiting is part of that: after a crowd has gone,
    a lone caller waits for companions that do not come, request after request, many times as long as the model runs.
    Requests that come while a batch runs make the next one; nothing else is needed. There is no setting for it.
    """
    from bentoml._internal.marshal.dispatcher import Optimizer

    Optimizer.wait = property(lambda optimizer: 0.0, lambda optimizer, seconds: None)


def stop_dependencies_last() -> None:
    """At SIGTERM, let the entry service finish its requests before the services that it asks are told to stop.

    BentoML 1.4.39 first removes the sockets between services, then tells all of them to stop: what the entry has
    accepted finds nobody to ask. And it waits a day for a worker that does not end: here the entry's are killed after
    35 s, when no request can be left, those of its dependencies after 5. There is no setting for any of this. Call
    it under @bentoml.on_deployment of the entry service, which runs in the supervisor, before the workers.
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
    """Whether every dependency answers its own /readyz in time: what a composed service's __is_ready__ returns.

    BentoML 1.4.39 asks them as well, but where one is stuck it answers 500 after half a minute.
    """

    async def ready(dependency: Any) -> bool:
        try:
            return await asyncio.wait_for(dependency.is_ready(), seconds)
        except (TimeoutError, ClientError):
            return False

    return all(await asyncio.gather(*map(ready, dependencies)))


def reason(error: BentoMLException) -> str:
    """The sentence with which a dependency refused; BentoML 1.4.39 gives its caller the JSON around it as well."""
    try:
        return json.loads(str(error))[0]["error"]
    except (ValueError, LookupError, TypeError):
        return str(error)
