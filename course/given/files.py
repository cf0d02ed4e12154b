"""Files read and written: what several exercises need, and none is about."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image

from course.base.files import whole_folder
from serving import Problem
from serving.images import BadImage, open_image


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Make one sentence, a Problem, of whatever the block raises while it reads a model file, or of a missing file."""
    path = Path(path)
    if not path.is_file():
        command = "python solutions/ex06_optimize.py" if ".optimized" in path.name else "make export"
        raise Problem(f"There is no model at {path}. Run `{command}` first.")
    try:
        yield
    except (Problem, NotImplementedError):
        raise
    except Exception as error:  # ONNX Runtime alone has a dozen exceptions of its own for a broken file
        reason = " ".join(str(error).split())[:500]
        raise Problem(f"{path} cannot be loaded: {reason}") from error


def labels_of(metadata: dict[str, str], logits: np.ndarray) -> list[str]:
    """The labels in a model's metadata (`labels`, a JSON list), one for each of its logits of one image.

    Raises:
        ValueError: there are none, they are no JSON list of strings, or not as many as logits.
    """
    found = None
    with suppress(ValueError):
        found = json.loads(metadata.get("labels", ""))
    if not isinstance(found, list) or not all(isinstance(label, str) for label in found):
        raise ValueError("its metadata holds no JSON list of labels")
    if np.shape(logits) != (1, len(found)):
        raise ValueError(f"its metadata holds {len(found)} labels, but its output has the shape {np.shape(logits)}")
    return found


def read_image(path: Path) -> Image.Image:
    """Read an image file upright and as RGB, of any kind that the services take; or raise Problem."""
    try:
        return open_image(Path(path).read_bytes())
    except FileNotFoundError as error:
        raise Problem(f"There is no file {path}.") from error
    except (BadImage, OSError) as error:
        raise Problem(f"{path} cannot be read: {error}.") from error


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give the block a path to write to; when it ends well, move that file to `path`, in one step; or raise Problem.

    When the block raises, what was at `path` stays. Weights that move_weights_out() put beside the new file are moved
    with it; those of the old file are removed.
    """
    try:
        # Moved in the order of their names: `-` is before `.`, and a graph is never there without its weights.
        with whole_folder(path.parent, prefix=".export-") as folder:
            yield folder / path.name
            (folder / path.name).stat()  # what was not written cannot be moved
            new = {file.name for file in folder.iterdir()}
    except OSError as error:
        raise Problem(f"{path} could not be written: {error.strerror or error}.") from error
    for old in path.parent.glob(f"{path.stem}-[0-9]*.data"):
        if old.name not in new:
            old.unlink()
