"""Calls one function of a student's file, in a process of its own: python -m course.harness.worker FOLDER.

FOLDER/call.json says what to call; the result is written to FOLDER/result.json and NPY files beside
it, the error to FOLDER/error.json. Pickles are neither written nor read: a pickle runs code.
"""

import importlib.util
import json
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np


def main(folder: Path) -> None:
    """Do the call of call.json: {"file", "function", "arguments": encoded}."""
    call = json.loads((folder / "call.json").read_text())
    try:
        sys.path.append(str(Path(call["file"]).parent))  # last: a student's numpy.py must not stand for NumPy
        spec = importlib.util.spec_from_file_location(Path(call["file"]).stem, call["file"])
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        arguments = decode(call["arguments"], folder)
        if Path(call["file"]).name == "driver.py":  # the tests': what it calls is the student's
            call["file"] = str(arguments["path"])
        result = getattr(module, call["function"])(**arguments)
        encoded = encode(result, folder, "result")
    except Exception as error:
        (folder / "error.json").write_text(json.dumps(explain(error, call["file"])))
    else:
        (folder / "result.json").write_text(json.dumps(encoded))


def explain(error: Exception, file: str) -> dict:
    """What went wrong and on which line of the student's file."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    if isinstance(error, SyntaxError):
        lines, message = [error.lineno], error.msg
    else:
        message = str(error)
    return {"kind": type(error).__name__, "message": message, "line": lines[-1] if lines else None}


def encode(value: Any, folder: Path, name: str) -> dict:
    """Turn a value into JSON, its arrays into NPY files in the folder."""
    match value:
        case np.ndarray():
            np.save(folder / f"{name}.npy", value, allow_pickle=False)
            return {"array": f"{name}.npy"}
        case Path():
            return {"path": str(value)}
        case list() | tuple():
            return {"list": [encode(child, folder, f"{name}-{i}") for i, child in enumerate(value)]}
        case dict():
            items = enumerate(value.items())
            return {"dict": {str(key): encode(child, folder, f"{name}-{i}") for i, (key, child) in items}}
        case None | bool() | int() | float() | str():
            return {"value": value}
        case np.generic():
            return {"value": value.item()}
    kind = type(value).__name__
    raise TypeError(f"returned a {kind}; expected arrays, numbers, text, paths, or lists and dicts of them")


# What a function may return: its arrays together, and the JSON that names them. In all of the exercises it is 1 MB.
LARGEST, LARGEST_JSON = 64 * 2**20, 8 * 2**20


class Budget:
    """How much may still be read."""

    def __init__(self, size: int) -> None:
        self.left = self.size = size

    def take(self, path: Path) -> None:
        """Take a file's size from it, of a small one 4 kB: to open many takes time. Raises ValueError where it is used up."""
        self.left -= max(path.stat().st_size, 2**12)
        if self.left < 0:
            raise ValueError(f"it is larger than the {self.size // 2**20} MB that a function may return")


def decode(encoded: dict, folder: Path, budget: Budget | None = None) -> Any:
    """The value that encode() was given; tuples have become lists. An array counts as often as it is named."""
    budget = budget or Budget(LARGEST)
    match encoded:
        case {"array": str(file)}:
            path = folder / Path(file).name
            budget.take(path)
            # Mapped first: this compares the shape in the file's head with the file's size.
            mapped = np.lib.format.open_memmap(path, mode="r")
            if not mapped.itemsize:  # which a copy may have: text of no characters becomes text of one
                raise ValueError("its array has elements without a size")
            return np.array(mapped)
        case {"path": str(path)}:
            return Path(path)
        case {"list": list(children)}:
            return [decode(child, folder, budget) for child in children]
        case {"dict": dict(children)}:
            return {key: decode(child, folder, budget) for key, child in children.items()}
        case {"value": value}:
            return value
    raise ValueError("a result that the worker did not write")


def read_result(folder: Path) -> Any:
    """What the function returned. Student code could write there: raises ValueError or OSError for anything else."""
    try:
        return decode(_read(folder / "result.json"), folder)
    except RecursionError as error:
        raise ValueError("lists in lists without end") from error


def read_error(folder: Path) -> dict:
    """What explain() said; raises as read_result()."""
    match _read(folder / "error.json"):
        case {"kind": str(kind), "message": str(message), "line": int() | None as line}:
            return {"kind": kind[:100], "message": message[:2000], "line": line}
    raise ValueError("an error that the worker did not write")


def _read(path: Path) -> Any:
    Budget(LARGEST_JSON).take(path)
    try:
        return json.loads(path.read_text())
    except RecursionError as error:
        raise ValueError("lists in lists without end") from error


if __name__ == "__main__":
    main(Path(sys.argv[1]))
