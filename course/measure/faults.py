"""Measures what a killed worker and SIGTERM cost the callers of each busy service."""

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from rich.console import Console
from rich.progress import track

from course import ROOT
from course.base import reports
from course.base.manifest import exercises
from course.base.processes import comes_true
from course.harness.load import CLIENTS, load, workers
from course.harness.server import Server
from course.harness.submission import Submission

# Not exercise 12's, which needs a GPU, nor 20's, whose model is in BentoML's store.
SERVICES = {one.number: one.service for one in exercises() if one.models and not one.no_image}
ROUNDS, LIMIT = 3, 60  # LIMIT in seconds


class Fault(NamedTuple):
    """What one fault cost."""

    seconds: float  # until the next worker was ready, or until the service had ended
    lost: int  # requests that were not answered 200; for SIGTERM, of those that were sent before it


def print_faults(console: Console) -> None:
    """Kill and end each service in turn, several rounds, and print what it cost."""
    found: dict[str, list[tuple[Fault, Fault]]] = {number: [] for number in SERVICES}
    for _ in track(range(ROUNDS), "Killing and ending each service in turn ...", console=console, transient=True):
        for number, file in SERVICES.items():
            with TemporaryDirectory() as scratch, Submission(ROOT / "solutions", Path(scratch)).serve(file) as server:
                found[number].append((kill(server), terminate(server)))
    columns = ("worker killed:\nnext one ready (s)", "requests\nlost", "SIGTERM:\nended (s)", "accepted\nrequests lost")
    table = reports.table(f"Under the load of {CLIENTS} clients", "exercise", *columns)
    for number, rounds in found.items():
        cells = []
        for faults in zip(*rounds, strict=True):  # the kills, then the ends
            cells.append(reports.spread([fault.seconds for fault in faults], 1, " "))
            cells.append(" ".join(str(fault.lost) for fault in faults))
        table.add_row(number, *cells)
    console.print(table)
    console.print(
        f"POST /classify with data/cat.png; median (least-most) of {ROUNDS} rounds in turn; the clients share the cores."
        f" A killed worker (SIGKILL) holds at most {CLIENTS} requests. Of composed services the entry's worker is"
        f" killed. {reports.here()}."
    )


def kill(server: Server) -> Fault:
    """SIGKILL for a worker, until its successor says that it is ready."""
    before = ready_workers(server)
    return _under_load(server, lambda: workers(server)[0].kill(), lambda: ready_workers(server) > before)


def terminate(server: Server) -> Fault:
    """SIGTERM for the service, until it has ended."""
    return _under_load(server, server.process.terminate, lambda: server.process.poll() is not None, sent_before=True)


def _under_load(
    server: Server, cause: Callable[[], None], is_over: Callable[[], bool], sent_before: bool = False
) -> Fault:
    """What a fault costs; with sent_before, only those requests count that were sent before it."""
    with load(server) as answered:
        wait_until(lambda: len(answered) > 2 * CLIENTS, server)
        begin = time.monotonic()
        cause()
        wait_until(is_over, server)
        seconds = time.monotonic() - begin
    return Fault(seconds, sum(one.status != 200 for one in answered if one.begun < begin or not sent_before))


def ready_workers(server: Server) -> int:
    """How many workers of the entry service have said so far that they are ready."""
    return server.log.read_text().count("Service ImageClassifierService initialized")


def wait_until(holds: Callable[[], bool], server: Server) -> None:
    """Wait until something holds; raises TimeoutError after LIMIT seconds."""
    if not comes_true(holds, LIMIT, pause=0.02):
        raise TimeoutError(f"Nothing happened for {LIMIT} s.{server.last_words()}")
