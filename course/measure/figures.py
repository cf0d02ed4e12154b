"""Measures what the course says of itself: agreement with PyTorch, start-up and memory, what faults cost."""

import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import bentoml
import httpx
import numpy as np
import onnxruntime as ort
import psutil
from rich.console import Console
from rich.progress import track
from rich.table import Table

from course import ROOT
from course.base.processes import marked
from course.harness.submission import Submission
from course.measure.faults import print_faults
from serving.model import MODEL_PATH, open_model, weights

ROUNDS = 7
REQUESTS = 20


class Start(NamedTuple):
    """One start of a service."""

    seconds_to_ready: float
    megabytes_at_ready: float
    megabytes_after_requests: float


def print_figures() -> None:
    """Measure and print everything, with how it was taken."""
    console = Console()
    _print_agreement(console)
    services = {
        "plainest service": (ROOT / "course" / "measure", "plain_service.py"),
        "exercise 10": (ROOT / "solutions", "ex10_service.py"),
    }
    starts: dict[str, list[Start]] = {name: [] for name in services}
    for _ in track(range(ROUNDS), "Starting each service in turn ...", console=console, transient=True):
        for name, (folder, file) in services.items():
            with tempfile.TemporaryDirectory() as scratch:
                starts[name].append(_start(Submission(folder, Path(scratch)), file))
    _print_starts(console, starts)
    print_faults()


def _print_agreement(console: Console) -> None:
    from course.given.weights import load_again
    from solutions.ex01_export import compare

    session = open_model()
    architecture = session.get_modelmeta().custom_metadata_map["architecture"]
    differences = compare(load_again(architecture, weights(session)), MODEL_PATH)
    table = Table(title="Exported model against PyTorch: largest absolute difference of a logit", title_justify="left")
    for batch_size in differences:
        table.add_column(f"batch {batch_size}", justify="right")
    table.add_row(*(f"{difference:.1e}" for difference in differences.values()))
    console.print(table)
    console.print(
        f"Normally distributed images, seeds fixed; {MODEL_PATH.name}, {weights(session)}; at most 1e-4 is fine.\n"
    )


def _start(submission: Submission, file: str) -> Start:
    begin = time.perf_counter()
    with submission.starting(file) as server:
        while True:
            try:
                if httpx.get(f"{server.url}/readyz", timeout=1).is_success:
                    break
            except httpx.TransportError:
                time.sleep(0.01)
            if time.perf_counter() - begin > 60:
                raise TimeoutError(f"{file} was not ready after 60 s: {server.last_words()}")
        seconds = time.perf_counter() - begin
        # The launcher carries the mark too; the worker is its child.
        (worker,) = (one for one in marked(server.process.mark) if one.pid != server.process.pid)
        at_ready = _megabytes(worker)
        with bentoml.SyncHTTPClient(server.url) as client:
            for _ in range(REQUESTS):
                client.predict(image=np.zeros((1, 3, 224, 224), dtype=np.float32))
        return Start(seconds, at_ready, _megabytes(worker))


def _megabytes(process: psutil.Process) -> float:
    return process.memory_info().rss / 1e6


def _print_starts(console: Console, starts: dict[str, list[Start]]) -> None:
    plain, ours = starts.values()
    table = Table(title="Start-up and memory of a worker", title_justify="left")
    for column in ("", *starts, "ratio of the medians"):
        table.add_column(column, justify="left" if not column else "right")
    rows = {
        "from `bentoml serve` to ready (s)": 0,
        "memory at ready (MB)": 1,
        f"memory after {REQUESTS} requests (MB)": 2,
    }
    for label, field in rows.items():
        columns = [[start[field] for start in each] for each in (plain, ours)]
        medians = [statistics.median(column) for column in columns]
        cells = [
            f"{median:.4g} ({min(column):.4g} to {max(column):.4g})"
            for median, column in zip(medians, columns, strict=True)
        ]
        table.add_row(label, *cells, f"{medians[1] / medians[0]:.2f}")
    console.print(table)
    console.print(
        f"Median (least to most) of {ROUNDS} starts each, in turn; ready is the first 200 of GET /readyz, asked every 10 ms;"
        f" memory is resident. {platform.machine()}, {psutil.cpu_count()} cores, Python {platform.python_version()},"
        f" BentoML {bentoml.__version__}, ONNX Runtime {ort.__version__}."
    )
