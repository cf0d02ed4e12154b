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
from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from bentoml import Service


class RequestLimits:
    """ASGI middleware: answers too large a body with 413, a form with 415, none with 400, before anything is parsed.

    BentoML parses forms itself, fetches URLs that it finds in them, and answers 500 to broken ones.
    No API here takes a form; but curl calls any body one unless told otherwise, so a body of type
    application/x-www-form-urlencoded is passed on as plain bytes.
    """

    def __init__(self, app: ASGIApp, max_bytes: dict[str, int]) -> None:
        """max_bytes: the largest body by path, e.g. {"/predict": 64 * 2**20}."""
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit = self.max_bytes.get(scope.get("path", ""))
        if scope["type"] != "http" or scope["method"] != "POST" or limit is None:
            return await self.app(scope, receive, send)

        headers = MutableHeaders(scope=scope)
        content_type = headers.get("content-type", "")
        if content_type.startswith("multipart/"):
            problem = "expected the file or the JSON itself as the body, got a form (curl: --data-binary @FILE, not -F)"
            return await JSONResponse({"error": problem}, 415)(scope, receive, send)
        if content_type.startswith("application/x-www-form-urlencoded"):
            headers["content-type"] = "application/octet-stream"

        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > limit:
                problem = f"expected a body of at most {limit:,} bytes, got more"
                return await JSONResponse({"error": problem}, 413)(scope, receive, send)
            if not message.get("more_body", False):
                break
        if not body:  # BentoML would read it as {}
            return await JSONResponse({"error": "expected a body, got an empty one"}, 400)(scope, receive, send)

        async def receive_again() -> Message:
            nonlocal body
            if body is None:
                return await receive()
            whole, body = bytes(body), None
            return {"type": "http.request", "body": whole, "more_body": False}

        return await self.app(scope, receive_again, send)


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
