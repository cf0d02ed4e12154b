"""Exercise 21: a scikit-learn forest to ONNX, with the same answer for every row.

python exercises/ex21_sklearn.py --output models/forest.onnx
"""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx
import onnxruntime as ort
import skl2onnx
import sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split
from typer import Option

from course.given.files import whole_file
from course.given.script import run
from course.given.show import console, print_table
from serving import Problem
from serving.model import MODELS_DIR

OPSETS = {"": 20, "ai.onnx.ml": 3}  # forests are in a domain of their own
TREES = 101  # odd: with two classes, no row can get as many votes for one as for the other
TRAINED_ON = 0.6  # of the rows; on the others, the trees disagree
RANDOM_STATE = 0
AGREEMENT = 1e-5  # of a probability; one vote of 101 trees is 1e-2


def load_rows() -> tuple[np.ndarray, np.ndarray]:
    """The data set: rows, float32 (569, 30): measurements of tumours; and classes, int64 (569,): malignant 0, benign 1."""
    rows, classes = load_breast_cancer(return_X_y=True)
    # The ONNX model takes float32. A forest converts float64 itself; a scaler before it would not.
    return rows.astype(np.float32), classes


def train(trees: int = TREES) -> RandomForestClassifier:
    """Fit the forest on TRAINED_ON of the rows. The same number of trees gives the same forest."""
    rows, classes = load_rows()
    rows, _, classes, _ = train_test_split(
        rows, classes, train_size=TRAINED_ON, stratify=classes, random_state=RANDOM_STATE
    )
    return RandomForestClassifier(n_estimators=trees, random_state=RANDOM_STATE).fit(rows, classes)


def convert(forest: RandomForestClassifier) -> onnx.ModelProto:
    """Turn a fitted forest into an ONNX model, its batch axis dynamic and called `batch`.

    Returns:
        a model with the input `input`, float32 (batch, features), and the outputs
        `label`, int64 (batch,): predict(), and
        `probabilities`, float32 (batch, classes): predict_proba(), as a tensor, without ZipMap.
    """
    # TODO 1: skl2onnx.convert_sklearn with OPSETS. The input is called "input", a FloatTensorType whose first axis
    # is None; no ZipMap. Then give the first axis of every input and output its name.
    raise NotImplementedError("Convert the forest to ONNX.")


def add_metadata(model: onnx.ModelProto, forest: RandomForestClassifier) -> None:
    """Write into the model what a caller must know: the names of classes and columns, in order, and the origin.

    `labels` and `features` are JSON lists; `architecture`, `weights` and `exporter` are text.
    """
    # TODO 2: onnx.helper.set_model_props; load_breast_cancer() has `target_names` and `feature_names`.
    raise NotImplementedError("Write names and origin into the model.")


def compare(path: Path, rows: np.ndarray, labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The largest difference of a probability between a model file and scikit-learn, over all rows.

    For rows, float32 (rows, features), predict() gives the labels, int64 (rows,), and predict_proba() the
    probabilities, float64 (rows, classes).

    Raises:
        Problem: the label of any row differs, or a probability by more than AGREEMENT.
    """
    # TODO 3: run the file on all rows. A Problem if a label differs (say which row) or a probability is not within
    # AGREEMENT; otherwise the largest difference.
    raise NotImplementedError("Compare the file with scikit-learn on all rows.")


def export(forest: RandomForestClassifier, output: Path) -> float:
    """Convert, check and compare the forest; only then does the file replace what is at output. Return the difference.

    Raises:
        Problem: as compare(), or the file cannot be written: the message names it. What was there before still is.
    """
    # TODO 4: inside `with whole_file(output) as path`: convert, add_metadata, onnx.save,
    # onnx.checker.check_model(full_check=True) and compare.
    raise NotImplementedError("Export, check and compare the forest.")


def main(
    trees: Annotated[int, Option(min=1, help="How many trees vote.")] = TREES,
    output: Annotated[Path, Option(help="The file to write.")] = MODELS_DIR / "forest.onnx",
) -> None:
    """Train a forest, export it to ONNX, and compare the two on every row of the data set."""
    with console.status("Training ..."):
        forest = train(trees)
    difference = export(forest, output)

    session = ort.InferenceSession(output, providers=["CPUExecutionProvider"])
    values = [*session.get_inputs(), *session.get_outputs()]
    rows = [(value.name, value.type, f"({', '.join(map(str, value.shape))})") for value in values]
    title = f"{output.name}: {output.stat().st_size / 1e3:.0f} kB, {trees} trees"
    print_table(rows, "name", "type", "shape", title=title)
    agrees = f"Agrees with scikit-learn on all {len(load_rows()[0])} rows"
    console.print(f"{agrees}: the same labels, probabilities at most {difference:.1e} apart.")


if __name__ == "__main__":
    run(main)
