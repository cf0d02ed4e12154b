"""serving/images.py, which tests of exercises take for the truth, held against torchvision itself."""

import io

import numpy as np
import pytest
from bad_input import BAD_IMAGES, CAT, IMAGES, METADATA
from PIL import Image

from course.given.files import read_image
from serving import Problem
from serving.images import MAX_PIXELS, BadImage, open_image, preprocess

SIZES = [(451, 300), (300, 451), (224, 224), (256, 256), (255, 257), (1, 1), (17, 300), (1023, 777)]


def test_preprocess_is_torchvisions_transform(reference, tmp_path):
    paths = []
    for width, height in SIZES:
        paths.append(tmp_path / f"{width}x{height}.png")
        noise = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(noise).save(paths[-1])
    for path, expected in zip(
        paths, reference.call("reference.py", "transformed", image_paths=paths, timeout=60), strict=True
    ):
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


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_an_image_cut_short_anywhere_is_a_bad_image(kind):
    """Every length at which a connection might break, for two formats whose decoders differ."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, kind)
    data = buffer.getvalue()
    assert open_image(data).size == (40, 40)
    for length in range(len(data) - 20):  # the last bytes may only mark the end
        with pytest.raises(BadImage, match="expected"):
            open_image(data[:length])


@pytest.mark.parametrize("kind", ["PPM", "TGA", "ICO"])
def test_formats_that_nobody_sends_are_refused(kind):
    """Pillow reads them, but each decoder more is one more that a hostile file may break."""
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32)).save(buffer, kind)
    with pytest.raises(BadImage, match="expected an image file"):
        open_image(buffer.getvalue())


@pytest.mark.parametrize("kind", METADATA)
def test_damage_in_metadata_is_no_damage_of_the_pixels(kind):
    data, expected = METADATA[kind]()
    assert np.array_equal(open_image(data), expected)


def test_a_damaged_header_is_the_reason_that_is_given():
    data = CAT.read_bytes()
    with pytest.raises(BadImage, match="header is damaged"):
        open_image(data[:20] + b"????" + data[24:])  # the height, and so the header's checksum
    with pytest.raises(BadImage, match="these 12 bytes are not an image"):
        open_image(b"Hello world!")


@pytest.mark.parametrize("kind", [*METADATA, "sixteen_bit"])
def test_exercise_04_reads_files_as_the_services_do(kind, tmp_path):
    data, expected = (METADATA | IMAGES)[kind]()
    (tmp_path / "image").write_bytes(data)
    assert np.array_equal(read_image(tmp_path / "image"), expected)


def test_a_file_that_exercise_04_cannot_read_is_one_sentence(tmp_path):
    with pytest.raises(Problem, match=r"There is no file .*nowhere\.png\."):
        read_image(tmp_path / "nowhere.png")
    for name, make in BAD_IMAGES.items():
        (tmp_path / name).write_bytes(make())
        with pytest.raises(Problem, match=rf"{name} cannot be read: expected"):
            read_image(tmp_path / name)
    with pytest.raises(Problem, match=r"cannot be read: .*directory"):
        read_image(tmp_path)
