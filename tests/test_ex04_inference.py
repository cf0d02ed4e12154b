"""Exercise 04: from an image file to five labels, with ONNX Runtime, Pillow and NumPy."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image
from scripts import expect_close, expect_equal, expect_one_sentence, expect_success
from small_models import LABELS, small_model

from course import ROOT
from course.harness import written
from course.harness.submission import Finished, Submission
from course.harness.verdicts import expect, fail, said
from serving.images import open_image
from serving.images import preprocess as reference_preprocess  # test_serving_images.py compares it with torchvision
from serving.model import softmax as reference_softmax

FILE = "ex04_inference.py"
CAT, COFFEE = ROOT / "data" / "cat.png", ROOT / "data" / "coffee.png"


@pytest.fixture(scope="module")
def renamed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose input and output have other names."""
    return small_model(tmp_path_factory.mktemp("models") / "renamed.onnx", input_name="pixels", output_name="scores")


@pytest.mark.points(1)
def test_finds_the_names_of_input_and_output(submission, renamed):
    got = submission.call(FILE, "input_and_output", model_path=renamed)
    called = "input_and_output('renamed.onnx'), a model whose input is 'pixels' and whose output is 'scores'"
    hint = "session.get_inputs()[0].name and session.get_outputs()[0].name"
    expect_equal(got, ["pixels", "scores"], called=called, hint=hint)


def assert_preprocessed(submission: Submission, image_path: Path) -> None:
    got = submission.call(FILE, "preprocess", image_path=image_path)
    called = f"preprocess('{image_path.name}')"
    expect(
        isinstance(got, np.ndarray) and got.shape == (1, 3, 224, 224) and got.dtype == np.float32,
        called=called,
        got=got,
        expected="a float32 array of shape (1, 3, 224, 224)",
        hint="channels first (transpose), a batch axis in front (np.newaxis), float32 throughout",
    )
    expected = reference_preprocess(open_image(image_path.read_bytes()))
    difference = float(abs(got - expected).max())
    expect(
        difference <= 1e-5,
        called=called,
        got=f"values up to {difference:.3g} away from torchvision's transform; they range from {got.min():.3g} to {got.max():.3g}",
        expected=f"what ResNet18_Weights.IMAGENET1K_V1.transforms() gives, from {expected.min():.3g} to {expected.max():.3g}",
        hint=_what_differs(got, expected),
    )


def _what_differs(got: np.ndarray, expected: np.ndarray) -> str:
    if abs(got[:, ::-1] - expected).max() < 0.05:
        return "the channels are in the order BGR; Pillow gives RGB"
    if got.min() >= 0:
        return "nothing was subtracted: normalise with MEAN and STD after dividing by 255"
    if abs(got - expected).mean() < 0.2:
        return "nearly: look at the filter (bilinear), the rounding of the sizes and the corner of the crop"
    return "upright RGB, short side to 256, centre crop of 224, / 255, - MEAN, / STD, channels first"


@pytest.mark.points(2)
def test_preprocesses_as_torchvision_does(submission):
    assert_preprocessed(submission, CAT)
    assert_preprocessed(submission, COFFEE)


@pytest.mark.points(0.25)
@pytest.mark.parametrize("size", [(200, 337), (1001, 400)], ids=["portrait", "odd"])
def test_preprocesses_other_sizes(submission, tmp_path, size):
    path = tmp_path / f"{size[0]}x{size[1]}.png"
    Image.open(COFFEE).resize(size).save(path)
    assert_preprocessed(submission, path)


@pytest.mark.points(0.5)
@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16"])
def test_makes_other_colour_modes_rgb(submission, tmp_path, mode):
    path, image = tmp_path / f"{mode}.png", Image.open(CAT)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    image.save(path)
    assert_preprocessed(submission, path)


@pytest.mark.points(1)
def test_turns_a_photograph_the_right_way_up(submission, tmp_path):
    """A phone held upright saves the picture lying down, with a note in its EXIF data that says so."""
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn me 90 degrees clockwise"
    Image.open(CAT).rotate(90, expand=True).save(tmp_path / "phone.jpg", exif=exif, quality=95)
    assert_preprocessed(submission, tmp_path / "phone.jpg")


@pytest.mark.points(1)
def test_softmax_survives_large_logits(submission):
    logits = np.array([[1000, 999, 0], [-5, 0, 5]], dtype=np.float32)
    got = submission.call(FILE, "softmax", logits=logits)
    called = f"softmax({logits.tolist()}): each row adds up to 1"
    hint = "subtract each row's maximum before exp(), and divide by each row's own sum"
    expect_close(got, reference_softmax(logits), 1e-6, called=called, hint=hint)


@pytest.mark.points(0.5)
@pytest.mark.parametrize("image", [CAT, COFFEE], ids=lambda path: path.stem)
def test_classifies(submission, renamed, image):
    got = submission.call(FILE, "classify", model_path=renamed, image_path=image)
    batch = reference_preprocess(open_image(image.read_bytes()))
    probabilities = reference_softmax(ort.InferenceSession(renamed).run(None, {"pixels": batch})[0])[0]
    best = np.argsort(probabilities)[::-1][:5]
    expected = [(LABELS[i], float(probabilities[i])) for i in best]
    expect(
        are_pairs(got)
        and [pair[0] for pair in got] == [label for label, _ in expected]
        and np.allclose([pair[1] for pair in got], [probability for _, probability in expected], atol=1e-4),
        called=f"classify('renamed.onnx', '{image.name}')",
        got=got,
        expected=f"{[(label, round(probability, 4)) for label, probability in expected]}",
        hint="labels from the model's metadata, probabilities from softmax, sorted, the best five",
    )


def are_pairs(got: object) -> bool:
    """Whether it is a list of (label, probability)."""
    return isinstance(got, list) and all(
        isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], float)
        for pair in got
    )


# Python imports a module of this name when it starts. It counts sessions, and lets nobody import PyTorch.
SITECUSTOMIZE = """
import sys
import onnxruntime

class NoPyTorch:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("torch", "torchvision"):
            raise ImportError(f"{{name}} is imported, but ONNX Runtime, Pillow and NumPy are enough")

sys.meta_path.insert(0, NoPyTorch())

def counted(*arguments, original=onnxruntime.InferenceSession.__init__, **options):
    with open({note!r}, "a") as file:
        file.write("opened ")
    original(*arguments, **options)

onnxruntime.InferenceSession.__init__ = counted
"""


@pytest.fixture(scope="module")
def classified(submission: Submission, renamed: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Finished, int]:
    """Both photographs classified by the script: how it ended, and how often it opened a session."""
    folder = tmp_path_factory.mktemp("counted")
    note = folder / "opened"
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE.format(note=str(note)))
    env = {"PYTHONPATH": f"{folder}:{ROOT}"}
    finished = submission.run(FILE, CAT, COFFEE, "--model", renamed, env=env, writes=[folder])
    return finished, written.beginning(note, 1000).count(b"opened") if note.exists() else 0


@pytest.mark.points(0.5)
def test_prints_the_labels_of_photographs(submission, renamed, classified):
    best = submission.call(FILE, "classify", model_path=renamed, image_path=CAT)
    label = best[0][0] if are_pairs(best) and best else "none, as classify() returned none"
    called = "python ex04_inference.py cat.png coffee.png --model renamed.onnx"
    expected = f"the labels (such as {label!r}), and a warning that the weights are RANDOM"
    hint = "call classify() for each image; the metadata says `weights: random seed 5`"
    expect_success(classified[0], label, "RANDOM", called=called, expected=expected, hint=hint)


@pytest.mark.points(0.5)
def test_loads_the_model_once_for_all_images(classified):
    finished, opened = classified
    expect(
        finished.code == 0 and opened == 1,
        called="python ex04_inference.py cat.png coffee.png --model renamed.onnx",
        got=f"exit code {finished.code}, {opened} sessions opened: {said(finished.output)}",
        expected="exit code 0 and one session for all images: loading takes longer than running",
        hint="put @functools.cache on open_session(): called again, it returns the session that it has",
    )


def require_success(classified: tuple[Finished, int]) -> None:
    """To refuse everything earns nothing."""
    if classified[0].code != 0:
        fail("The script refuses good files, too: see test_prints_the_labels_of_photographs.")


@pytest.mark.points(0.5)
def test_an_image_that_cannot_be_read_is_one_sentence(submission, renamed, classified, tmp_path):
    require_success(classified)
    cat = CAT.read_bytes()
    broken = {
        "missing.png": None,
        "note.png": b"This is a note, not an image.\n",
        "truncated.png": cat[: len(cat) // 2],
        "header_cut_off.png": cat[:20],
        "bomb.png": cat[:16] + 2 * (10**6).to_bytes(4) + cat[24:],  # says that it is a million pixels high and wide
    }
    for name, content in broken.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        finished = submission.run(FILE, tmp_path / name, "--model", renamed)
        called = f"python ex04_inference.py {name} --model renamed.onnx"
        hint = "read_image() raises the Problem for all of these: do not catch it"
        expect_one_sentence(finished, name, called=called, hint=hint)


BAD_LABELS = {"missing": None, "a_dict": '{"0": "cat"}', "a_number": "7", "words": "cat, dog", "two": '["cat", "dog"]'}


@pytest.mark.points(0.5)
def test_a_model_that_cannot_name_classes_is_one_sentence(submission, classified, tmp_path):
    require_success(classified)
    (tmp_path / "note.onnx").write_text("This is a note, not a model.\n" * 100)
    small_model(tmp_path / "of_other_images.onnx", height=448)
    for kind, text in BAD_LABELS.items():
        small_model(tmp_path / f"labels_{kind}.onnx", metadata={"labels": text})
    for path in [tmp_path / "missing.onnx", *sorted(tmp_path.glob("*.onnx"))]:
        finished = submission.run(FILE, CAT, "--model", path)
        called = f"python ex04_inference.py cat.png --model {path.name}"
        hint = "run the model and call labels_of() inside `with reading(model_path)`"
        expect_one_sentence(finished, path.name, called=called, hint=hint)
