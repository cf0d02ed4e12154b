"""Shows models with netron's page, one port a model.

Not with netron's own server: that shows one model a process, and its page asks a public server for your
country, reports to another, and refuses to draw 180 days after its release.
"""

import re
import signal
import socket
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote

import netron
import uvicorn
from rich.console import Console
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from serving import Problem

PAGE = Path(netron.__file__).parent


def application(model: Path) -> Starlette:
    """The files of netron, and in /data/ the model with weights that it keeps in a second file; nothing else of its folder."""
    name = quote(model.name)
    # Without a date the page takes itself for new; version 0.0.0, which is netron's own in development, reports nothing.
    tags = f'<meta name="type" content="Python"><meta name="version" content="0.0.0"><meta name="file" content="/data/{name}"><meta name="name" content="{name}">'
    html = re.sub(r'<meta name="date" content=".*">', "", (PAGE / "index.html").read_text())
    html = re.sub(r'<meta name="version" content=".*">', tags, html)

    async def page(_: Request) -> Response:
        # The cookie answers what the page would ask: it does not report.
        return HTMLResponse(html, headers={"Set-Cookie": "consent=0"})

    async def data(request: Request) -> Response:
        name, weights = request.path_params["name"], model.parent.glob(f"{model.stem}*.data")
        known = name in {model.name, *(file.name for file in weights)}
        return FileResponse(model.parent / name) if known else Response(status_code=404)

    files = Mount("/", StaticFiles(directory=PAGE))
    return Starlette(routes=[Route("/", page), Route("/index.html", page), Route("/data/{name}", data), files])


@contextmanager
def shown(model: Path, port: int) -> Iterator[str]:
    """Show a model on a port of this machine, 0 for a free one, within the block; gives the URL, or raises Problem."""
    try:
        listener = socket.create_server(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        raise Problem(f"Port {port} is taken, or not allowed. Without --port a free one is found.") from error
    server = uvicorn.Server(uvicorn.Config(application(model), log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://localhost:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def view(models: list[Path], port: int, browser: bool) -> None:
    """Show models side by side until Ctrl-C: from a port on, or, where that is 0, on free ones."""
    console = Console(soft_wrap=True, highlight=False)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does
    try:
        with ExitStack() as stack:
            urls = [stack.enter_context(shown(model, port + i if port else 0)) for i, model in enumerate(models)]
            for model, url in zip(models, urls, strict=True):
                console.print(f"{model}: [bold]{url}[/]")
                if browser:
                    webbrowser.open(url)
            console.print("Stop: Ctrl-C")
            threading.Event().wait()
    except KeyboardInterrupt:
        console.print("Stopped.")
