"""Exercise 04: classify photographs with ONNX Runtime; neither PyTorch nor torchvision is needed.

python exercises/ex04_inference.py data/cat.png data/coffee.png
"""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import onnxruntime as ort
from PIL import Image, ImageOps, UnidentifiedImageError
from rich.console import Console
from rich.table import Table
from typer import Argument, Option

from course.given.script import run
from serving import Problem
from serving.model import MODEL_PATH

# What torchvision's ResNet18_Weights.IMAGENET1K_V1.transforms() prescribes.
RESIZE, CROP = 256, 224
MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)


def open_session(model_path: Path) -> ort.InferenceSession:
    """Load a model.

    Raises:
        Problem: the file is missing or cannot be loaded.
    """
    # TODO 1: ort.InferenceSession; a Problem where the file is missing or cannot be loaded.
    raise NotImplementedError("Load the model.")


def input_and_output(model_path: Path) -> tuple[str, str]:
    """The names of the model's first input and first output, as the model itself gives them."""
    # TODO 2: session.get_inputs() and session.get_outputs() know the names.
    raise NotImplementedError("Ask the session for the names of its input and output.")


def preprocess(image_path: Path) -> np.ndarray:
    """Turn an image file into what the model takes.

    The image is turned the right way up and made RGB; its short side is resized to 256 (bilinear,
    antialiased), the centre of 224 x 224 is cut out, values are scaled to 0..1 and normalised with
    ImageNet's mean and standard deviation.

    Returns:
        float32 array of shape (1, 3, 224, 224).

    Raises:
        Problem: the file is missing or not an image.
    """
    # TODO 3: open, turn upright (ImageOps.exif_transpose), make RGB, resize, crop, scale, normalise, transpose.
    raise NotImplementedError("Turn the image into the model's input.")


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities from logits along the last axis, same shape. They add up to 1 for each image."""
    # TODO 4: exp(logits - their maximum), divided by its sum, along the last axis.
    raise NotImplementedError("Turn logits into probabilities.")


def classify(model_path: Path, image_path: Path) -> list[tuple[str, float]]:
    """The five most probable labels of an image file with their probabilities, best first.

    The labels come from the model's metadata (`labels`, a JSON list).

    Raises:
        Problem: the model or the image is missing or broken.
    """
    # TODO 5: open_session, preprocess, session.run, softmax, and the labels from
    # session.get_modelmeta().custom_metadata_map.
    raise NotImplementedError("Run the model and name the five most probable classes.")


def main(
    images: Annotated[list[Path], Argument(help="Image files.")],
    model: Annotated[Path, Option(help="The model file.")] = MODEL_PATH,
) -> None:
    """Print the five most probable labels of each image."""
    console = Console()
    for image in images:
        table = Table(title=image.name, title_justify="left")
        table.add_column("label", min_width=30)
        table.add_column("probability", justify="right")
        for label, probability in classify(model, image):
            table.add_row(label, f"{probability:.1%}")
        console.print(table)
    origin = open_session(model).get_modelmeta().custom_metadata_map.get("weights", "unknown")
    if origin.startswith("random"):
        console.print(f"The weights are RANDOM ({origin}): these labels mean nothing.", style="bold yellow")


if __name__ == "__main__":
    run(main)
