"""The page at /demo, on which you drop a photograph to see its labels. For every service that has /classify."""

import html
from pathlib import Path

from starlette.responses import HTMLResponse
from starlette.types import ASGIApp, Receive, Scope, Send

PAGE = (Path(__file__).parent / "demo.html").read_text(encoding="utf-8")


class DemoPage:
    """ASGI middleware: answers GET /demo with the page. It asks nobody but this service."""

    def __init__(self, app: ASGIApp, model: str) -> None:
        """model: its name, as the page shows it."""
        self.app = app
        self.page = HTMLResponse(PAGE.replace("<body>", f'<body data-model="{html.escape(model)}">'))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/demo" and scope["method"] in ("GET", "HEAD"):
            return await self.page(scope, receive, send)
        await self.app(scope, receive, send)
