"""Exercise 21: a scikit-learn forest to ONNX, with the same answer for every row.

python exercises/ex21_sklearn.py --output models/forest.onnx
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx
import onnxruntime as ort
import skl2onnx
import sklearn
from rich.console import Console
from rich.table import Table
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split
from typer import Option

from course.given.script import run
from serving import Problem
from serving.model import MODELS_DIR

OPSETS = {"": 20, "ai.onnx.ml": 3}  # forests are in a domain of their own
TREES = 101  # odd: with two classes, no row can get as many votes for one as for the other
TRAINED_ON = 0.6  # of the rows; the others are those on which the trees disagree
RANDOM_STATE = 0
AGREEMENT = 1e-5  # of a probability; one vote of 101 trees is 1e-2

console = Console(soft_wrap=True)


def load_rows() -> tuple[np.ndarray, np.ndarray]:
    """The data set: measurements of tumours, and whether each was malignant (0) or benign (1).

    Returns:
        rows, float32 (569, 30), and classes, int64 (569,).
    """
    rows, classes = load_breast_cancer(return_X_y=True)
    # The ONNX model takes float32. A forest turns float64 into it by itself; a scaler before it would not.
    return rows.astype(np.float32), classes


def train(trees: int = TREES) -> RandomForestClassifier:
    """Fit the forest on TRAINED_ON of the rows; equal numbers of trees give equal forests."""
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
    # TODO 1: skl2onnx.convert_sklearn with OPSETS: the input is called "input", a FloatTensorType whose first axis
    # is None; no ZipMap. Then give the first axis of every input and output its name.
    raise NotImplementedError("Convert the forest to ONNX.")


def add_metadata(model: onnx.ModelProto, forest: RandomForestClassifier) -> None:
    """Write into the model what a caller must know: the classes' names, the columns' names in order, the origin.

    `labels` and `features` are JSON lists; `architecture`, `weights` and `exporter` are text.
    """
    # TODO 2: onnx.helper.set_model_props; load_breast_cancer() has `target_names` and `feature_names`.
    raise NotImplementedError("Write names and origin into the model.")


def compare(path: Path, rows: np.ndarray, labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The largest difference of a probability between a model file and scikit-learn, over all rows.

    Args:
        path: the exported file.
        rows: float32 (rows, features).
        labels: int64 (rows,), what scikit-learn's predict() gives.
        probabilities: float64 (rows, classes), what its predict_proba() gives.

    Raises:
        Problem: the label of any row differs, or a probability by more than AGREEMENT.
    """
    # TODO 3: run the file on all rows; a Problem where a label differs (say which row) or a probability is not within
    # AGREEMENT; otherwise the largest difference.
    raise NotImplementedError("Compare the file with scikit-learn on all rows.")


def export(forest: RandomForestClassifier, output: Path) -> float:
    """Convert, check and compare in a folder of its own; only then does the file take its place.

    Returns:
        compare()'s difference.

    Raises:
        Problem: as compare(). What was at output before is still there then.
        OSError: the file cannot be written.
    """
    # TODO 4: convert, add_metadata, onnx.save, onnx.checker.check_model(full_check=True) and compare in a temporary folder
    # beside output; then os.replace. Make output's folder where it is missing.
    raise NotImplementedError("Export, check and compare, and only then put the file into its place.")


def main(
    trees: Annotated[int, Option(min=1, help="How many trees vote.")] = TREES,
    output: Annotated[Path, Option(help="Where to.")] = MODELS_DIR / "forest.onnx",
) -> None:
    """Train a forest, export it to ONNX, and compare the two on every row of the data set."""
    with console.status("Training ..."):
        forest = train(trees)
    try:
        difference = export(forest, output)
    except OSError as error:
        raise Problem(f"{output} could not be written: {error.strerror or error}.") from error

    session = ort.InferenceSession(output, providers=["CPUExecutionProvider"])
    table = Table(title=f"{output.name}: {output.stat().st_size / 1e3:.0f} kB, {trees} trees", title_justify="left")
    for column in ("", "name", "type", "shape"):
        table.add_column(column)
    for kind, values in (("input", session.get_inputs()), ("output", session.get_outputs())):
        for value in values:
            table.add_row(kind, value.name, value.type, f"({', '.join(map(str, value.shape))})")
    console.print(table)
    console.print(
        f"Agrees with scikit-learn on all {len(load_rows()[0])} rows: the same labels,"
        f" probabilities at most {difference:.1e} apart."
    )


if __name__ == "__main__":
    run(main)
