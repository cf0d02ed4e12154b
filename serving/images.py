"""From the bytes of an image file to the tensor that the model takes, with Pillow and NumPy alone."""

import io
from contextlib import suppress

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from serving import Problem

# Reading a header is cheap, decoding is not: sizes are checked between the two. 25 megapixels
# let phone photographs in and keep the decoded image under 75 MB.
MAX_PIXELS = 25_000_000
# The short side is resized to 256, so a 1 x 100000 strip would become 256 x 25600000.
MAX_ASPECT_RATIO = 20
# Pillow reads many more; some of its rarer decoders start other programs (EPS) or are little tested.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
KEPT_CHUNK = b"eXIf"  # which way up; transparency is dropped in any case

MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)


class BadImage(Problem):
    """The bytes are not an image that can be classified; the message says why, for the caller."""


def open_image(data: bytes) -> Image.Image:
    """Decode an image file, the right way up, as 8-bit RGB; of an animation, the first frame.

    data: the whole file, in one of FORMATS, of any colour mode and bit depth.

    Raises:
        BadImage: not an image, truncated, more than MAX_PIXELS, or a side of over MAX_ASPECT_RATIO times the other.
    """
    try:
        image = Image.open(io.BytesIO(without_metadata(data)), formats=FORMATS)
    except Image.DecompressionBombError as error:  # Pillow's own limit, far above ours
        raise BadImage(f"expected at most {MAX_PIXELS:,} pixels: {error}") from error
    except UnidentifiedImageError as error:
        said = f"expected an image file ({', '.join(FORMATS)}), but these {len(data)} bytes are not an image"
        raise BadImage(f"{said}, or its header is damaged") from error
    except Exception as error:  # decoders raise many kinds
        raise BadImage(f"expected a whole image file, but its header is damaged: {error}") from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise BadImage(f"expected at most {MAX_PIXELS:,} pixels, got {width} x {height} = {width * height:,}")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise BadImage(f"expected sides of at most 1 to {MAX_ASPECT_RATIO}, got {width} x {height}")
    if image.mode in ("I", "F"):
        raise BadImage("expected 8 or 16 bits a channel, got 32, for which there is no agreed white")
    try:
        image.load()
    except Exception as error:
        raise BadImage(f"expected a whole image file, but this {image.format} is damaged: {error}") from error
    with suppress(Exception):  # damaged metadata does not damage the pixels, which stay the way they are stored
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):  # convert() would clip 16-bit greys at 255, not scale them
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


def without_metadata(data: bytes) -> bytes:
    """A PNG file without its texts and colour profiles, with which Pillow refuses the pixels as well where they
    are damaged or larger than 1 MB. Any other file, and one that is no whole PNG, is returned as it is.

    A chunk has a length, a kind, content and a checksum: https://www.w3.org/TR/png-3/#5Chunk-layout
    """
    if not data.startswith(PNG_SIGNATURE):
        return data
    kept, at = [PNG_SIGNATURE], len(PNG_SIGNATURE)
    while at < len(data):
        end, kind = at + 12 + int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        if kind[:1].isupper() or kind == KEPT_CHUNK:  # upper case: needed for the pixels
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


def preprocess(image: Image.Image) -> np.ndarray:
    """Turn an RGB image into the model's input, a float32 array of shape (1, 3, 224, 224).

    Short side to 256 (bilinear, antialiased), centre crop of 224 x 224, scaled to 0..1, normalised with ImageNet's mean
    and standard deviation, as torchvision prescribes: `ResNet18_Weights.IMAGENET1K_V1.transforms()`.
    """
    width, height = image.size
    short = min(width, height)
    image = image.resize((256 * width // short, 256 * height // short), Image.Resampling.BILINEAR)
    left, top = round((image.width - 224) / 2), round((image.height - 224) / 2)
    image = image.crop((left, top, left + 224, top + 224))
    pixels = np.asarray(image, dtype=np.float32) / 255
    return ((pixels - MEAN) / STD).transpose(2, 0, 1)[np.newaxis]
