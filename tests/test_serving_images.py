"""serving/images.py, which tests of exercises take for the truth, held against torchvision itself."""

import io

import numpy as np
import pytest
from PIL import Image

from serving.images import MAX_PIXELS, BadImage, open_image, preprocess

SIZES = [(451, 300), (300, 451), (224, 224), (256, 256), (255, 257), (1, 1), (17, 300), (1023, 777)]


def test_preprocess_is_torchvisions_transform(reference, tmp_path):
    for width, height in SIZES:
        path = tmp_path / f"{width}x{height}.png"
        noise = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        expected = reference.call("reference.py", "transformed", image_path=path, timeout=60)
        got = preprocess(open_image(path.read_bytes()))
        assert got.dtype == np.float32
        assert np.array_equal(got, expected), f"{path.name}: up to {abs(got - expected).max()} apart"


@pytest.mark.parametrize("pixels", [MAX_PIXELS, MAX_PIXELS + 5_000])
def test_the_largest_image_is_taken_and_one_row_more_is_not(pixels):
    buffer = io.BytesIO()
    Image.new("1", (5_000, pixels // 5_000)).save(buffer, "PNG")
    if pixels <= MAX_PIXELS:
        assert open_image(buffer.getvalue()).size == (5_000, 5_000)
    else:
        with pytest.raises(BadImage, match="at most 25,000,000 pixels"):
            open_image(buffer.getvalue())


def test_no_prefix_of_an_image_does_anything_but_raise_bad_image():
    """Every length at which a connection might break, for two formats whose decoders differ."""
    for kind in ("PNG", "JPEG"):
        buffer = io.BytesIO()
        noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(buffer, kind)
        data = buffer.getvalue()
        whole = open_image(data)
        for length in range(len(data) - 20):
            try:
                assert open_image(data[:length]).size == whole.size
            except BadImage as error:
                assert "expected" in str(error)
