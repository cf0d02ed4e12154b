"""The table of serving frameworks: with GitHub's stars, and without."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from course.base.processes import free_port
from course.pages import frameworks
from course.pages import hook as page
from course.pages.frameworks import fetch_stars

# What fails in a thread would only be a stack trace in the middle of the build.
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")

NAMES = [
    "Cortex",
    "BentoML",
    "Ray Serve",
    "Triton",
    "OpenVINO Model Server",
    "Seldon Core",
    "LitServe",
    "TorchServe",
    "TensorFlow Serving",
    "vLLM",
]
ANSWERS = {
    "fine/one": (200, b'{"stargazers_count": 12345, "name": "one"}'),
    "none/yet": (200, b'{"stargazers_count": 0}'),
    "rate/limited": (403, b'{"message": "API rate limit exceeded"}'),
    "not/there": (404, b'{"message": "Not Found"}'),
    "broken/server": (500, b'{"stargazers_count": 1}'),
    "not/json": (200, b"<html>Log in to this hotel's network</html>"),
    "other/json": (200, b"[]"),
    "no/stars": (200, b'{"name": "stars"}'),
    "odd/stars": (200, b'{"stargazers_count": "| many |"}'),
    "less/stars": (200, b'{"stargazers_count": -1}'),
    "null/stars": (200, b'{"stargazers_count": null}'),
}


@pytest.fixture(scope="module")
def github():
    """A real server that answers as GitHub may, and as it should not; its address."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            repository = self.path.removeprefix("/repos/")
            if repository == "moved/away":
                self.send_response(301)
                self.send_header("Location", "/repos/fine/one")
                self.end_headers()
            elif repository == "says/nothing":
                over.wait(60)
            elif repository == "byte/by_byte":
                self.send_response(200)
                self.end_headers()
                while not over.wait(0.1):
                    self.wfile.write(b" ")
            else:
                status, body = ANSWERS.get(repository, (200, b'{"stargazers_count": 4321}'))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    over.set()
    server.shutdown()
    server.server_close()


def rows(text: str) -> dict[str, list[str]]:
    """The cells of a Markdown table by the name in its first column."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:2] == "| "]
    return {row[0].strip("[").partition("]")[0]: row for row in cells[2:]}


def test_the_stars_of_every_good_answer_are_found(github):
    assert fetch_stars([*ANSWERS, "moved/away"], github) == {"fine/one": 12345, "none/yet": 0, "moved/away": 12345}


@pytest.mark.parametrize("slow", ["says/nothing", "byte/by_byte"])
def test_one_that_hangs_does_not_hold_up_the_others(github, slow):
    started = time.monotonic()
    assert fetch_stars([slow, "fine/one", slow, slow], github, limit=0.5) == {"fine/one": 12345}
    assert time.monotonic() - started < 30, "the limit is for all together, whatever the server does"


@pytest.mark.parametrize(
    "api", ["http://127.0.0.1:{port}", "http://no-such-host.invalid", "nonsense", "http://localhost:port"]
)
def test_without_a_network_no_stars_are_found(api):
    assert fetch_stars(["fine/one"], api.format(port=free_port())) == {}


def test_the_table_has_every_framework_with_its_stars(github, monkeypatch):
    monkeypatch.setenv("GITHUB_API_URL", github)
    text = page.on_page_markdown("Before\n\n<!-- frameworks -->\n\nAfter", None)
    assert text.startswith("Before")
    assert text.endswith("After")
    assert "N/A" not in text
    found = rows(text)
    assert list(found) == NAMES
    assert all("[4,321](https://github.com/" in row[-1] for row in found.values())


def test_the_page_is_built_without_github(monkeypatch):
    monkeypatch.setenv("GITHUB_API_URL", f"http://127.0.0.1:{free_port()}")
    text = page.on_page_markdown("<!-- frameworks -->", None)
    found = rows(text)
    assert list(found) == NAMES
    assert all("[N/A]" in row[-1] for row in found.values())
    assert "GitHub did not answer" in text


def test_github_is_asked_once_while_the_page_is_served(github):
    assert frameworks.table(github + "/") is frameworks.table(github + "/")


def test_every_framework_is_described():
    for one in frameworks.frameworks():
        assert one.link.startswith("https://")
        assert one.repository.count("/") == 1
        assert one.purpose
        assert one.maintained or one.note, f"{one.name}: say since when it is not maintained"
    stopped = {one.name for one in frameworks.frameworks() if not one.maintained}
    assert stopped == {"Cortex", "TorchServe"}
