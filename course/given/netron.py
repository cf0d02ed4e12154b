"""Shows models with netron's page, one port a model.

Not with netron's own server: that shows one model a process, and its page asks a public server for your
country, reports to another, and refuses to draw 180 days after its release.
"""

import re
import signal
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote

import netron
from rich.console import Console

from serving import Problem

PAGE = Path(netron.__file__).parent


class _Page(SimpleHTTPRequestHandler):
    """netron's files, with the model at /data/NAME."""

    def __init__(self, *arguments, model: Path, **options) -> None:
        self.model = model
        super().__init__(*arguments, directory=str(PAGE), **options)

    def do_GET(self) -> None:
        if self.path.partition("?")[0] not in ("/", "/index.html"):
            return super().do_GET()
        name = quote(self.model.name)
        # Without a date the page takes itself for new; version 0.0.0, which is netron's own in development, reports nothing.
        tags = f'<meta name="type" content="Python"><meta name="version" content="0.0.0"><meta name="file" content="/data/{name}"><meta name="name" content="{name}">'
        html = (PAGE / "index.html").read_text()
        html = re.sub(r'<meta name="date" content=".*">', "", html)
        page = re.sub(r'<meta name="version" content=".*">', tags, html).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.send_header("Set-Cookie", "consent=0")  # to what it would report: it is not asked, and does not report
        self.end_headers()
        self.wfile.write(page)

    def translate_path(self, path: str) -> str:
        """The model, and weights that it keeps in a second file; of its folder nothing else."""
        folder, _, name = unquote(path.partition("?")[0]).rpartition("/")
        shown = {self.model.name, *(data.name for data in self.model.parent.glob(f"{self.model.stem}*.data"))}
        return str(self.model.parent / name) if folder == "/data" and name in shown else super().translate_path(path)

    def log_message(self, *_: object) -> None:
        """Say nothing: the page asks for many files."""


@contextmanager
def shown(model: Path, port: int) -> Iterator[str]:
    """Show a model on a port of this machine, 0 for a free one, within the block; gives the URL, or raises Problem."""
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), partial(_Page, model=model))
    except (OSError, OverflowError) as error:
        raise Problem(f"Port {port} is taken, or not allowed. Without --port a free one is found.") from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1})
    thread.start()
    try:
        yield f"http://localhost:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
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
