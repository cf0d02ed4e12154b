"""Exercise 04: classify photographs with ONNX Runtime; neither PyTorch nor torchvision is needed.

python exercises/ex04_inference.py data/cat.png data/coffee.png
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


# TODO 1: classify() asks for the session for each image. Load each model once: functools.cache does that.
def open_session(model_path: Path) -> ort.InferenceSession:
    """Load a model, to run on the CPU. It is loaded once, however often you ask for it.

    Raises:
        Problem: the file is missing or cannot be loaded.
    """
    # TODO 2: inside `with reading(model_path)`, an ort.InferenceSession.
    raise NotImplementedError("Load the model.")


def input_and_output(model_path: Path) -> tuple[str, str]:
    """The names of the model's first input and first output, as the model itself gives them."""
    # TODO 3: the get_inputs() and get_outputs() of the session.
    raise NotImplementedError("Ask the session for the names of its input and output.")


def preprocess(image_path: Path) -> np.ndarray:
    """Turn an image file into the model's input.

    Read it upright and as RGB, resize its short side to 256 (bilinear, antialiased), cut out the centre of 224 x 224,
    scale the values to 0..1 and normalise them with ImageNet's mean and standard deviation: a float32 array of shape
    (1, 3, 224, 224).

    Raises:
        Problem: the file is missing, or not an image, or damaged.
    """
    # TODO 4: read_image() gives it upright and as RGB, or raises the Problem. Resize, crop, scale, normalise, transpose.
    raise NotImplementedError("Turn the image into the model's input.")


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities from logits along the last axis, same shape. They add up to 1 for each image."""
    # TODO 5: exp(logits - their maximum), divided by its sum, along the last axis.
    raise NotImplementedError("Turn logits into probabilities.")


def classify(model_path: Path, image_path: Path) -> list[tuple[str, float]]:
    """The five most probable labels of an image file with their probabilities, best first.

    The labels come from the model's metadata.

    Raises:
        Problem: the image is missing or broken; the model is missing, cannot be loaded, does not take the image, or
            has not one label for each class.
    """
    # TODO 6: open_session, preprocess, input_and_output; then, inside `with reading(model_path)`, session.run and
    # labels_of(session.get_modelmeta().custom_metadata_map, logits); then softmax and the best five.
    raise NotImplementedError("Run the model and name the five most probable classes.")


def main(
    images: Annotated[list[Path], Argument(help="Image files.")],
    model: Annotated[Path, Option(help="The model file.")] = MODEL_PATH,
) -> None:
    """Print the five most probable labels of each image."""
    print_predictions((image.name, classify(model, image)) for image in images)
    warn_of_random(open_session(model).get_modelmeta().custom_metadata_map.get("weights", "unknown"))


if __name__ == "__main__":
    run(main)
