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
    facts = _ask("facts", path)
    inputs, outputs = ([SimpleNamespace(**one) for one in facts[ends]] for ends in ("inputs", "outputs"))
    return SimpleNamespace(
        get_inputs=lambda: inputs,
        get_outputs=lambda: outputs,
        get_modelmeta=lambda: SimpleNamespace(custom_metadata_map=facts["metadata"]),
        run=lambda wanted, feeds: _ask("answers", path, wanted=wanted, feeds=feeds),
    )


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


def _ask(function: str, path: Path, **arguments: Any) -> Any:
    """What a function of course/harness/model_worker.py says of a file; fails the test where it says nothing."""
    if sandbox.mode == "none":
        return getattr(model_worker, function)(path, **arguments)
    with tempfile.TemporaryDirectory(prefix="model-") as folder:
        worker = Submission(ROOT / "course" / "harness", Path(folder))
        try:
            return worker.call("model_worker.py", function, timeout=PATIENCE, path=path, **arguments)
        except pytest.fail.Exception as failure:
            fail(f"{path.name}, which the submission wrote, cannot be read. {failure}")
