"""Exercise 04: classify photographs with ONNX Runtime; neither PyTorch nor torchvision is needed.

python solutions/ex04_inference.py data/cat.png data/coffee.png
"""

from functools import cache
from pathlib import Path
from typing import Annotated

import numpy as np
import onnxruntime as ort
from PIL import Image
from typer import Argument, Option

from course.given.files import labels_of, read_image, reading
from course.given.script import run
from course.given.show import print_predictions, warn_of_random
from serving.model import MODEL_PATH

# Of torchvision's ResNet18_Weights.IMAGENET1K_V1.transforms().
RESIZE, CROP = 256, 224
MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)


@cache
def open_session(model_path: Path) -> ort.InferenceSession:
    """Load a model, to run on the CPU. It is loaded once, however often you ask for it.

    Raises:
        Problem: the file is missing or cannot be loaded.
    """
    with reading(model_path):
        return ort.InferenceSession(model_path, providers=["CPUExecutionProvider"])


def input_and_output(model_path: Path) -> tuple[str, str]:
    """The names of the model's first input and first output, as the model itself gives them."""
    session = open_session(model_path)
    return session.get_inputs()[0].name, session.get_outputs()[0].name


def preprocess(image_path: Path) -> np.ndarray:
    """Turn an image file into the model's input.

    Read it upright and as RGB, resize its short side to 256 (bilinear, antialiased), cut out the centre of 224 x 224,
    scale the values to 0..1 and normalise them with ImageNet's mean and standard deviation: a float32 array of shape
    (1, 3, 224, 224).

    Raises:
        Problem: the file is missing, or not an image, or damaged.
    """
    image = read_image(image_path)
    short = min(image.size)
    # Rounded down, as torchvision does; Pillow's bilinear filter is antialiased whenever it shrinks.
    image = image.resize((RESIZE * image.width // short, RESIZE * image.height // short), Image.Resampling.BILINEAR)
    left, top = round((image.width - CROP) / 2), round((image.height - CROP) / 2)
    image = image.crop((left, top, left + CROP, top + CROP))
    pixels = np.asarray(image, dtype=np.float32) / 255  # (height, width, channel)
    return ((pixels - MEAN) / STD).transpose(2, 0, 1)[np.newaxis]  # (batch, channel, height, width)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities from logits along the last axis, same shape. They add up to 1 for each image."""
    # Subtracting the maximum changes nothing, but keeps exp() from overflowing.
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def classify(model_path: Path, image_path: Path) -> list[tuple[str, float]]:
    """The five most probable labels of an image file with their probabilities, best first.

    The labels come from the model's metadata.

    Raises:
        Problem: the image is missing or broken; the model is missing, cannot be loaded, does not take the image, or
            has not one label for each class.
    """
    session, images = open_session(model_path), preprocess(image_path)
    input_name, output_name = input_and_output(model_path)
    with reading(model_path):
        logits = session.run([output_name], {input_name: images})[0]
        labels = labels_of(session.get_modelmeta().custom_metadata_map, logits)
    probabilities = softmax(logits)[0]
    best = np.argsort(probabilities)[::-1][:5]
    return [(labels[i], float(probabilities[i])) for i in best]


def main(
    images: Annotated[list[Path], Argument(help="Image files.")],
    model: Annotated[Path, Option(help="The model file.")] = MODEL_PATH,
) -> None:
    """Print the five most probable labels of each image."""
    print_predictions((image.name, classify(model, image)) for image in images)
    warn_of_random(open_session(model).get_modelmeta().custom_metadata_map.get("weights", "unknown"))


if __name__ == "__main__":
    run(main)
