"""Measures what the pages say of the course: agreement with PyTorch, start-up and memory, what faults cost.

The first three go into docs/figures.toml as well, which the pages take them from.
"""

import tempfile
import time
from pathlib import Path
from statistics import median

import bentoml
import numpy as np
import onnxruntime as ort
from rich.console import Console
from rich.progress import track

from course import ROOT
from course.base import reports
from course.base.processes import marked, used
from course.harness.submission import Submission
from course.measure.faults import print_faults, wait_until
from course.pages import figures
from serving.model import MODEL_PATH, open_model, weights

ROUNDS = 7
REQUESTS = 20
STARTS = ("from `bentoml serve` to ready (s)", "memory at ready (MB)", f"memory after {REQUESTS} requests (MB)")
QUOTED = ("start", "memory-ready", "memory-after")  # the same, as docs/figures.toml names them
VERSION = f"ONNX Runtime {ort.__version__}"


def print_figures() -> None:
    """Measure and print everything, with how it was taken."""
    console = Console()
    _print_agreement(console)
    services = {
        "plainest service": (ROOT / "course" / "measure", "plain_service.py"),
        "exercise 10": (ROOT / "solutions", "ex10_service.py"),
    }
    starts: dict[str, list[list[float]]] = {name: [] for name in services}
    for _ in track(range(ROUNDS), "Starting each service in turn ...", console=console, transient=True):
        for name, (folder, file) in services.items():
            with tempfile.TemporaryDirectory() as scratch:
                starts[name].append(_start(Submission(folder, Path(scratch)), file))
    _print_starts(console, starts)
    print_faults(console)


def _print_agreement(console: Console) -> None:
    import torch

    from course.given.weights import load_again

    session = open_model()
    model = load_again(session.get_modelmeta().custom_metadata_map["architecture"], weights(session))
    differences = {}
    for batch in (1, 8, 32):
        images = np.random.default_rng(batch).standard_normal((batch, 3, 224, 224), dtype=np.float32)
        with torch.inference_mode():
            expected = model(torch.from_numpy(images)).numpy()
        differences[f"batch {batch}"] = abs(session.run(None, {"input": images})[0] - expected).max()
    title = "Exported model against PyTorch: largest absolute difference of a logit"
    table = reports.table(title, *differences, words=0)
    found = {batch: f"{difference:.1e}" for batch, difference in differences.items()}
    table.add_row(*found.values())
    quoted = {f"agreement-{batch.replace(' ', '-')}": text for batch, text in found.items()}
    figures.record("agreement", "make figures", f"PyTorch {torch.__version__}, {VERSION}", quoted)
    console.print(table)
    console.print(
        f"Normally distributed images, seeds fixed; {MODEL_PATH.name}, {weights(session)}; at most 1e-4 is fine.\n"
    )


def _start(submission: Submission, file: str) -> list[float]:
    """The figures of one start, as STARTS names them."""
    begin = time.perf_counter()
    with submission.starting(file) as server:
        wait_until(server.is_ready, server)
        seconds = time.perf_counter() - begin
        # The launcher carries the mark too; the worker is its child.
        worker = [one for one in marked(server.process.mark) if one.pid != server.process.pid]
        at_ready = used(worker)[1]
        with bentoml.SyncHTTPClient(server.url) as client:
            for _ in range(REQUESTS):
                client.predict(image=np.zeros((1, 3, 224, 224), dtype=np.float32))
        return [seconds, at_ready, used(worker)[1]]


def _print_starts(console: Console, starts: dict[str, list[list[float]]]) -> None:
    table = reports.table("Start-up and memory of a worker", "", *starts, "ratio of the medians")
    quoted = {}
    for field, label in enumerate(STARTS):
        plain, ours = ([start[field] for start in each] for each in starts.values())
        digits = 0 if field else 2
        cells = [reports.spread(column, digits, " ") for column in (plain, ours)]
        table.add_row(label, *cells, f"{median(ours) / median(plain):.2f}")
        quoted |= {f"{QUOTED[field]}-{who}": cell for who, cell in zip(("plain", "ex10"), cells, strict=True)}
    console.print(table)
    how = f"make figures, median (least-most) of {ROUNDS} starts each, in turn"
    figures.record("starts", how, f"BentoML {bentoml.__version__}, {VERSION}", quoted)
    console.print(
        f"Median (least-most) of {ROUNDS} starts each, in turn; ready is the first 200 of GET /readyz, asked every 20 ms;"
        f" memory is resident. {reports.here()}, BentoML {bentoml.__version__}, {VERSION}."
    )
