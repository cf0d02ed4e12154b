"""ONNX files that student code has written, read by tests without danger.

A file of a few bytes can hold a loop without end, a constant of terabytes or millions of nodes, or name the grader's
own files as its weights. Where submissions are isolated, such a file is therefore opened and run as student code is:
in a process of its own, under limits, where what it could harm is out of reach.
"""

import statistics
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from course import ROOT
from course.harness import model_worker
from course.harness.submission import Submission
from course.harness.verdicts import expect, fail, inconclusive
from course.isolation import sandbox

PATIENCE = 60  # seconds, for one question about a file


def load(path: Path) -> onnx.ModelProto:
    """As onnx.load(), without the weights that are in files of their own."""
    if sandbox.mode != "none":
        _ask("examine", path)
    return onnx.load(path, load_external_data=False)


def check(path: Path) -> None:
    """Fail the test unless onnx's checker accepts the file."""
    problem = _ask("checked", path)
    expect(
        not problem,
        called=f"onnx.checker.check_model('{path.name}', full_check=True)",
        got=problem,
        expected="no complaint",
        hint="write the file with an exporter, and change nothing in it but its metadata",
    )


def open_session(path: Path) -> Any:
    """As ort.InferenceSession(path), or what can be used as one: get_inputs(), get_outputs(), run(None, ...)."""
    if sandbox.mode == "none":
        return ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return _Session(path)


def expect_as_fast(path: Path, reference: Path, *, called: str, hint: str, most: float = 1.15) -> None:
    """Fail the test where a model takes over `most` times as long as a reference; both are measured now, in turn.

    The second least and second largest of 11 ratios hold the true median with a probability of 98.8% (binomial). The
    test is inconclusive, neither won nor lost, where `most` lies between them.
    """
    found = _ask("ratios", path, other=reference)
    if not (isinstance(found, list) and len(found) > 2 and all(isinstance(one, float) for one in found)):
        fail(f"{path.name}, which the submission wrote, could not be measured.")
    low, median, high = sorted(found)[1], statistics.median(found), sorted(found)[-2]
    measured = f"{median:.2f} times as long as the reference ({low:.2f} to {high:.2f})"
    if low <= most < high:
        inconclusive(f"{path.name} takes {measured}; at most {most} is fine")
    expect(
        median <= most,
        called=called,
        got=f"a file that takes {measured}, CPU time for one image, not optimised while it is loaded",
        expected=f"at most {most} times as long",
        hint=hint,
    )


class _Session:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._facts = _ask("facts", path)

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(**facts) for facts in self._facts["inputs"]]

    def get_outputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(**facts) for facts in self._facts["outputs"]]

    def get_modelmeta(self) -> SimpleNamespace:
        return SimpleNamespace(custom_metadata_map=self._facts["metadata"])

    def run(self, wanted: list[str] | None, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        return _ask("answers", self._path, wanted=wanted, feeds=feeds)


def _ask(function: str, path: Path, **arguments: Any) -> Any:
    """What a function of course/harness/model_worker.py says of a file; fails the test where it says nothing."""
    if sandbox.mode == "none":
        return getattr(model_worker, function)(path, **arguments)
    with tempfile.TemporaryDirectory(prefix="model-") as folder:
        try:
            return Submission(ROOT / "course" / "harness", Path(folder)).call(
                "model_worker.py", function, timeout=PATIENCE, path=path, **arguments
            )
        except pytest.fail.Exception as failure:
            fail(f"{path.name}, which the submission wrote, cannot be read. {failure}")
