"""Clients that keep a service busy, and the answers to their requests."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import cycle, islice
from typing import Any, NamedTuple

import httpx
import psutil

from course import ROOT
from course.base.processes import marked
from course.harness import http
from course.harness.server import Server
from course.isolation.limits import MB

CLIENTS = 8
# Two, so that an answer that went to the wrong caller shows.
PHOTOGRAPHS = CAT, COFFEE = tuple((ROOT / "data" / f"{name}.png").read_bytes() for name in ("cat", "coffee"))


class Answer(NamedTuple):
    """The answer to one request."""

    begun: float  # time.monotonic()
    status: int  # 0: no answer
    text: str  # the answer's body, or why there is none
    sent: bytes = b""  # the request's body


def ask(client: httpx.Client, server: Server, path: str = "/classify", body: bytes = CAT, **options: Any) -> Answer:
    """Send one request and never raise; options are those of client.post()."""
    begun = time.monotonic()
    try:
        response = client.post(server.url + path, content=body, **options)
    except httpx.HTTPError as error:
        return Answer(begun, 0, repr(error), body)
    return Answer(begun, response.status_code, response.text, body)


@contextmanager
def load(server: Server, clients: int = CLIENTS) -> Iterator[list[Answer]]:
    """Clients that send PHOTOGRAPHS in turn during the block; each stops once the server has ended."""
    given: list[Answer] = []
    stop = threading.Event()

    def one_client(number: int) -> None:
        bodies = islice(cycle(PHOTOGRAPHS), number, None)
        with http.Client(timeout=60) as client:
            while not stop.is_set():
                given.append(ask(client, server, body=next(bodies)))
                if given[-1].status == 0 and (client.is_closed or server.process.poll() is not None):
                    return

    with ThreadPoolExecutor(clients) as pool:
        for number in range(clients):
            pool.submit(one_client, number)
        try:
            yield given
        finally:
            stop.set()


def post(server: Server, path: str, body: bytes, *, sent: Callable[[], None] = lambda: None) -> Answer:
    """Send one request over a connection of its own, and never raise; sent is called when all of it is on its way."""

    def trace(event: str, info: dict) -> None:
        if event == "http11.send_request_body.complete":
            sent()

    # Of hundreds at once, each answer may have 2 MB.
    with http.Client(timeout=120, most=2 * MB) as client:
        answer = ask(client, server, path, body, extensions={"trace": trace})
    if answer.status == 0:
        sent()
    return answer


def at_once(server: Server, path: str, bodies: list[bytes], users: int) -> list[Answer]:
    """The answers to all bodies, in their order, from so many users at the same time."""
    with ThreadPoolExecutor(users) as pool:
        return list(pool.map(lambda body: post(server, path, body), bodies))


class Crowd:
    """So many POST /classify at once, in the background, which send the bodies in turn."""

    def __init__(self, server: Server, requests: int, bodies: Sequence[bytes] = PHOTOGRAPHS) -> None:
        self.answered: list[Answer] = []  # so far, in the order in which the answers came
        self._requests, self._sent = requests, threading.Semaphore(0)
        self._pool = ThreadPoolExecutor(requests)

        def send(body: bytes) -> None:
            self.answered.append(post(server, "/classify", body, sent=self._sent.release))

        for body in islice(cycle(bodies), requests):
            self._pool.submit(send, body)

    def wait_until_sent(self) -> None:
        """Until all are on their way, or 10 s brought none further."""
        all(self._sent.acquire(timeout=10) for _ in range(self._requests))

    def wait(self) -> list[Answer]:
        """All answers."""
        self._pool.shutdown()
        return self.answered


def tally(answered: list[Answer]) -> str:
    """How often each status came, and one of the bodies that were not 200."""
    counts = ", ".join(f"{number} x {status}" for status, number in Counter(one.status for one in answered).items())
    bad = next((f"; {one.text[:300]}" for one in answered if one.status != 200), "")
    return counts + bad


def workers(server: Server, service: str = "ImageClassifierService") -> list[psutil.Process]:
    """The worker processes of one of the server's services."""
    found = []
    for process in marked(server.process.mark):
        with suppress(psutil.Error):
            command = process.cmdline()
            if "_bentoml_impl.worker.service" in command and command[command.index("--service-name") + 1] == service:
                found.append(process)
    return found
