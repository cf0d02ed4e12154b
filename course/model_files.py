"""ONNX files that student code has written, read by tests without danger.

A file of a few bytes can hold a loop without end, a constant of terabytes or millions of nodes, or name the grader's
own files as its weights. Where submissions are isolated, such a file is therefore opened and run as student code is:
in a process of its own, under limits, where what it could harm is out of reach.
"""

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from course import ROOT, model_worker, sandbox
from course.submission import Submission, expect, fail

PATIENCE = 60  # seconds, for one question about a file


def load(path: Path) -> onnx.ModelProto:
    """As onnx.load(), without the weights that are in files of their own."""
    if sandbox.mode != "none":
        _isolated("examine", path)
    return onnx.load(path, load_external_data=False)


def check(path: Path) -> None:
    """Fail the test unless onnx's checker accepts the file."""
    problem = model_worker.checked(path) if sandbox.mode == "none" else _isolated("checked", path)
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


class _Value(NamedTuple):
    name: str
    type: str
    shape: list


class _Meta(NamedTuple):
    custom_metadata_map: dict[str, str]


class _Session:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._facts = _isolated("facts", path)

    def get_inputs(self) -> list[_Value]:
        return [_Value(*value) for value in self._facts["inputs"]]

    def get_outputs(self) -> list[_Value]:
        return [_Value(*value) for value in self._facts["outputs"]]

    def get_modelmeta(self) -> _Meta:
        return _Meta(self._facts["metadata"])

    def run(self, wanted: list[str] | None, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        return _isolated("answers", self._path, wanted=wanted, feeds=feeds)


def _isolated(function: str, path: Path, **arguments: Any) -> Any:
    """What a function of course/model_worker.py says of a file; fails the test where it says nothing."""
    with tempfile.TemporaryDirectory(prefix="model-") as folder:
        try:
            return Submission(ROOT / "course", Path(folder)).call(
                "model_worker.py", function, timeout=PATIENCE, path=path, **arguments
            )
        except pytest.fail.Exception as failure:
            fail(f"{path.name}, which the submission wrote, cannot be read. {failure}")
