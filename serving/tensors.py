"""Checks what callers send as a tensor, before any array is made of it."""

import io
from typing import Any

import numpy as np

MAX_BATCH = 16
IMAGE_SHAPE = (3, 224, 224)
LENGTHS = (range(1, MAX_BATCH + 1), *(range(length, length + 1) for length in IMAGE_SHAPE))
EXPECTED = f"numbers of shape (batch, 3, 224, 224) with a batch of 1 to {MAX_BATCH}"


def as_batch(value: Any) -> np.ndarray:
    """Turn a nested JSON list (or an array) into the model's input, a float32 array (batch, 3, 224, 224).

    NumPy alone would be too kind: it reads "1" and true as numbers, and gives a list of strings as
    much memory as its longest one needs for each. So types and lengths are looked at first.

    Raises:
        ValueError: anything else than EXPECTED, NaN or infinity; pydantic turns it into a 400.
    """
    if not isinstance(value, np.ndarray):
        _check_nested(value, LENGTHS, "image")
    elif value.shape[1:] != IMAGE_SHAPE or not 1 <= len(value) <= MAX_BATCH or value.dtype.kind not in "iuf":
        raise ValueError(f"expected {EXPECTED}, got {value.dtype} of shape {value.shape}")
    try:
        with np.errstate(over="ignore"):  # too large for float32 becomes infinity, refused below
            batch = np.asarray(value, dtype=np.float32)
    except OverflowError:
        batch = np.array(np.inf)
    if not np.isfinite(batch).all():
        raise ValueError(f"expected finite {EXPECTED}, got NaN, infinity or numbers too large for float32")
    return batch


def read_npy(body: bytes) -> np.ndarray:
    """Turn a .npy file, what numpy.save() writes, into the model's input: a fifth of the JSON, and no parsing.

    Raises:
        ValueError: not a .npy file, Python objects instead of numbers, or what as_batch() refuses.
    """
    try:
        # Never pickles: loading one runs whatever its sender wrote into it.
        array = np.load(io.BytesIO(body), allow_pickle=False)
    except Exception as error:  # NumPy raises whatever its tokenizer, zipfile or malloc stumble over
        raise ValueError(f"expected a .npy file with {EXPECTED}, but these {len(body)} bytes are not one") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"expected a .npy file with {EXPECTED}, got an archive of several arrays")
    return as_batch(array)


def _check_nested(value: Any, lengths: tuple[range, ...], where: str) -> None:
    if not isinstance(value, list):
        raise ValueError(f"expected {EXPECTED}, got {_name(type(value))} as {where}")
    if len(value) not in lengths[0]:
        wanted = f"{lengths[0][0]}" if len(lengths[0]) == 1 else f"{lengths[0][0]} to {lengths[0][-1]}"
        raise ValueError(f"expected {EXPECTED}, got a list of {len(value)} instead of {wanted} as {where}")
    if len(lengths) > 1:
        for i, child in enumerate(value):
            _check_nested(child, lengths[1:], f"{where}[{i}]")
    elif wrong := set(map(type, value)) - {int, float}:
        raise ValueError(f"expected {EXPECTED}, got {_name(wrong.pop())} in {where}")


def _name(kind: type) -> str:
    json_names = {dict: "an object", str: "a string", bool: "true or false", type(None): "null", list: "a list"}
    return json_names.get(kind, "a number")
