"""What callers send to a service that classifies images: every kind of image, and what is not an image."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from course import ROOT

CAT, COFFEE = ROOT / "data" / "cat.png", ROOT / "data" / "coffee.png"


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def gradients(side: int) -> list[bytes]:
    """Two images whose answers differ: tests of many callers send both in turn."""
    down = Image.linear_gradient("L").resize((side, side))
    return [encoded(image.convert("RGB"), "PNG") for image in (down, down.rotate(90))]


# All are quick to send. QUICK are quick to prepare, MEDIUM take as long as a photograph, LARGE three times as long.
QUICK, MEDIUM, LARGE = gradients(32), gradients(400), gradients(1000)


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


def transparent() -> tuple[bytes, Image.Image]:
    """The transparency goes from left to right; where it counted, the background would show through."""
    image = Image.open(CAT).convert("RGB")
    image.putalpha(Image.linear_gradient("L").rotate(90).resize(image.size))
    return encoded(image, "PNG"), Image.open(CAT).convert("RGB")


def png_with(kind: bytes, content: bytes) -> tuple[bytes, Image.Image]:
    """The cat with one more chunk in front of its pixels."""
    data = encoded(Image.open(CAT).convert("RGB"), "PNG")
    place = data.index(b"IDAT") - 4
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return data[:place] + chunk + data[place:], Image.open(CAT).convert("RGB")


def with_damaged_exif(kind: str, exif: bytes) -> tuple[bytes, Image.Image]:
    data = encoded(Image.open(CAT).convert("RGB"), kind, exif=exif)
    return data, Image.open(io.BytesIO(data)).convert("RGB")


MUCH = zlib.compress(bytes(2**20 + 1))  # Pillow unpacks texts and profiles up to 1 MB
METADATA = {
    "text_over_1_mb": lambda: png_with(b"zTXt", b"Comment\0\0" + MUCH),
    "international_text_over_1_mb": lambda: png_with(b"iTXt", b"Comment\0\1\0\0\0" + MUCH),
    "profile_over_1_mb": lambda: png_with(b"iCCP", b"profile\0\0" + MUCH),
    "damaged_profile": lambda: png_with(b"iCCP", b"profile\0\0not zlib"),
    "damaged_resolution": lambda: png_with(b"pHYs", b"?"),
    "damaged_transparency": lambda: png_with(b"tRNS", b"?"),
    "damaged_exif_in_png": lambda: with_damaged_exif("PNG", b"Exif\0\0not TIFF"),
    "damaged_exif_in_webp": lambda: with_damaged_exif("WEBP", b"Exif\0\0not TIFF"),
    "damaged_exif_in_jpeg": lambda: with_damaged_exif("JPEG", b"Exif\0\0II*\0\xff\xff\xff\x7f"),
}


IMAGES = {
    "greyscale": lambda: in_mode("L"),
    "palette": lambda: in_mode("P"),
    "rgba": transparent,
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
    "large_under_another_name": b'{"picture": [NaN' + b", 0" * 1000 + b"]}",
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


def npy(array: np.ndarray) -> bytes:
    """What numpy.save() writes."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, image=good())
    return buffer.getvalue()


def npy_header(text: str) -> bytes:
    """The first bytes of a .npy file, whatever they announce."""
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def npy_announcing(kind: str, shape: str) -> bytes:
    return npy_header(f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}\n")


BAD_NPY = {
    "nothing": b"",
    "text": b"I am not an array.",
    "json": b'{"image": [[]]}',
    "magic_alone": b"\x93NUMPY",
    "broken_header": npy_header("{'descr': '''"),
    "deep_header": npy_header("(" * 9000),
    "truncated": npy(good())[:100_000],
    "more_than_memory": npy_announcing("<f4", "(1000000000000, 3, 224, 224)"),
    "more_than_64_bits": npy_announcing("<f4", f"(1{'0' * 30}, 3, 224, 224)"),
    "objects": npy(np.array([None], dtype=object)),
    "pickle": b"\x80\x04K\x01.",
    "archive": npz(),
    "broken_archive": b"PK\x03\x04" + bytes(30),
    "strings": npy(np.array(["cat"])),
    "booleans": npy(good() > 0),
    "complex": npy(good() + 0j),
    "three_axes": npy(good()[0]),
    "channels_last": npy(np.zeros((1, 224, 224, 3))),
    "no_image": npy(good()[:0]),
    "large_batch": npy(np.zeros((17, 3, 224, 224), np.uint8)),
    "nan": npy(good() + np.nan),
    "too_large_for_float32": npy(good() + 1e300),
}
