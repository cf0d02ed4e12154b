"""What callers send to a service that classifies images: every kind of image, and what is none."""

import io

import numpy as np
from PIL import Image

from course import ROOT

CAT, COFFEE = ROOT / "data" / "cat.png", ROOT / "data" / "coffee.png"


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def rotated_by_exif() -> tuple[bytes, Image.Image]:
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn me 90 degrees clockwise"
    data = encoded(Image.open(CAT).rotate(90, expand=True), "PNG", exif=exif)
    return data, Image.open(CAT).convert("RGB")


def sixteen_bit() -> tuple[bytes, Image.Image]:
    grey = Image.open(CAT).convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    return encoded(deep, "PNG"), grey.convert("RGB")


def animated() -> tuple[bytes, Image.Image]:
    first = Image.open(CAT).convert("P")
    data = encoded(first, "GIF", save_all=True, append_images=[Image.open(COFFEE).convert("P")])
    return data, first.convert("RGB")


def cmyk() -> tuple[bytes, Image.Image]:
    data = encoded(Image.open(CAT).convert("CMYK"), "JPEG", quality=95)
    return data, Image.open(io.BytesIO(data)).convert("RGB")


def in_mode(mode: str) -> tuple[bytes, Image.Image]:
    image = Image.open(CAT).convert(mode)
    return encoded(image, "PNG"), image.convert("RGB")


IMAGES = {
    "greyscale": lambda: in_mode("L"),
    "palette": lambda: in_mode("P"),
    "rgba": lambda: in_mode("RGBA"),
    "cmyk": cmyk,
    "sixteen_bit": sixteen_bit,
    "exif_rotated": rotated_by_exif,
    "animated": animated,
    "webp": lambda: (encoded(Image.open(CAT), "WEBP", lossless=True), Image.open(CAT).convert("RGB")),
}


# ------------------------------------------------------------------------------ bad input


def good() -> np.ndarray:
    return np.zeros((1, 3, 224, 224))


def with_one(value: object) -> list:
    image = good().tolist()
    image[0][2][100][7] = value
    return image


BAD_TENSORS = {
    "null": lambda: None,
    "empty": lambda: [],
    "ragged": lambda: [[good()[0, 0].tolist(), good()[0, 0, :200].tolist(), good()[0, 0].tolist()]],
    "ragged_row": lambda: with_one([0.0]),
    "string": lambda: "cat",
    "strings": lambda: good().astype(str).tolist(),
    "one_string": lambda: with_one("1.5"),
    "one_null": lambda: with_one(None),
    "one_boolean": lambda: with_one(True),
    "dict": lambda: {"pixels": [1, 2, 3]},
    "three_axes": lambda: good()[0].tolist(),
    "five_axes": lambda: [good().tolist()],
    "flat": lambda: good().ravel().tolist(),
    "one_channel": lambda: good()[:, :1].tolist(),
    "four_channels": lambda: np.zeros((1, 4, 224, 224)).tolist(),
    "channels_last": lambda: np.zeros((1, 224, 224, 3)).tolist(),
    "wrong_height": lambda: good()[:, :, :223].tolist(),
    "wrong_width": lambda: good()[:, :, :, :100].tolist(),
    "nan": lambda: with_one(float("nan")),
    "infinity": lambda: with_one(float("-inf")),
    "too_large_for_float32": lambda: with_one(1e300),
    "too_large_for_any": lambda: with_one(10**400),
    "large_batch": lambda: np.zeros((17, 3, 224, 224), dtype=int).tolist(),
}


BAD_JSON = {
    "empty": b"",
    "cut_short": b"{",
    "null": b"null",
    "list": b"[1, 2]",
    "no_image": b"{}",
    "other_name": b'{"picture": []}',
    "not_utf8": b"\xff\xfe{}",
    "deep": b'{"image": ' + b"[" * 100_000,
}


def bomb() -> bytes:
    """A PNG of 6 kB that would take 150 MB as RGB."""
    return encoded(Image.new("1", (10_000, 5_000)), "PNG")


BAD_IMAGES = {
    "empty": lambda: b"",
    "text": lambda: b"I am not an image.",
    "truncated_png": lambda: CAT.read_bytes()[:100_000],
    "truncated_jpeg": lambda: encoded(Image.open(CAT), "JPEG")[:9_000],
    "bomb": bomb,
    "larger_bomb": lambda: encoded(Image.new("1", (20_000, 10_000)), "PNG"),
    "strip": lambda: encoded(Image.new("RGB", (1, 40_000)), "PNG"),
    "postscript": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    "url": lambda: b"http://localhost/cat.png",
}
