"""A limit on the size of what callers send, for any ASGI application."""

import codecs

from starlette.datastructures import MutableHeaders
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
        if scope["type"] != "http" or scope["method"] != "POST" or limit is None:
            return await self.app(scope, receive, send)

        headers = MutableHeaders(scope=scope)
        if (encoding := headers.get("content-encoding", "identity").lower()) != "identity":
            problem = f"expected a body without Content-Encoding, got {encoding!a}: send it uncompressed"
            return await JSONResponse({"error": problem}, 415)(scope, receive, send)
        content_type = headers.get("content-type", "").lower()
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
            whole, body = bytes(body.removeprefix(codecs.BOM_UTF8)), None  # Windows writes it in front of JSON
            return {"type": "http.request", "body": whole, "more_body": False}

        return await self.app(scope, receive_again, send)
