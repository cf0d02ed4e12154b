"""A limit on the size of what callers send, for any ASGI application."""

import codecs
from collections.abc import AsyncIterator

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class RequestLimits:
    """ASGI middleware: answers too large a body with 413, a form or a compressed body with 415, an empty one with 400.

    All that happens before anything is parsed.

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
        if scope["type"] == "http" and scope["method"] == "POST" and limit is not None:
            try:
                refuse_by_headers(MutableHeaders(scope=scope))
                body = await self.keep(scope, at_most(limit, Request(scope, receive).stream()))
            except HTTPException as refusal:
                return await JSONResponse({"error": refusal.detail}, refusal.status_code)(scope, receive, send)
            except ClientDisconnect:
                return None
            receive = once_more(body, receive)
        return await self.app(scope, receive, send)

    async def keep(self, scope: Scope, pieces: AsyncIterator[bytes]) -> bytes:
        """What the application gets as the body: all of it, without the mark that Windows writes in front of JSON."""
        body = bytearray()
        async for piece in pieces:
            body += piece
        return bytes(body.removeprefix(codecs.BOM_UTF8))


def refuse_by_headers(headers: MutableHeaders) -> None:
    """Raise HTTPException for a compressed body or a form; call what curl calls a form plain bytes."""
    if (encoding := headers.get("content-encoding", "identity").lower()) != "identity":
        raise HTTPException(415, f"expected a body without Content-Encoding, got {encoding!a}: send it uncompressed")
    content_type = headers.get("content-type", "").lower()
    if content_type.startswith("multipart/"):
        problem = "expected the file or the JSON itself as the body, got a form (curl: --data-binary @FILE, not -F)"
        raise HTTPException(415, problem)
    if content_type.startswith("application/x-www-form-urlencoded"):
        headers["content-type"] = "application/octet-stream"


async def at_most(limit: int, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The pieces of a body; raises HTTPException once they have more bytes than the limit, or at the end of none."""
    size = 0
    async for piece in pieces:
        size += len(piece)
        if size > limit:
            raise HTTPException(413, f"expected a body of at most {limit:,} bytes, got more")
        yield piece
    if size == 0:  # BentoML would read it as {}
        raise HTTPException(400, "expected a body, got an empty one")


def once_more(body: bytes, receive: Receive) -> Receive:
    """A `receive` for an application whose request has been read: first the body, then what still comes."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again
