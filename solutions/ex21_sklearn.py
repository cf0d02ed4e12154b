"""Exercise 21: a scikit-learn forest to ONNX, with the same answer for every row.

python solutions/ex21_sklearn.py --output models/forest.onnx
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
    model = skl2onnx.convert_sklearn(
        forest,
        name="forest",  # by default a random one, and no two files are equal
        initial_types=[("input", FloatTensorType([None, forest.n_features_in_]))],
        options={id(forest): {"zipmap": False}},
        target_opset=OPSETS,
    )
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = "batch"  # skl2onnx gives it no name
    return model


def add_metadata(model: onnx.ModelProto, forest: RandomForestClassifier) -> None:
    """Write into the model what a caller must know: the names of classes and columns, in order, and the origin.

    `labels` and `features` are JSON lists; `architecture`, `weights` and `exporter` are text.
    """
    names = load_breast_cancer()
    properties = {
        "labels": json.dumps([str(names.target_names[number]) for number in forest.classes_]),
        "features": json.dumps([str(name) for name in names.feature_names]),
        "architecture": f"random forest of {forest.n_estimators} trees",
        "weights": f"fitted on {TRAINED_ON:.0%} of breast_cancer, random_state {RANDOM_STATE}",
        "exporter": f"skl2onnx {skl2onnx.__version__}, scikit-learn {sklearn.__version__}",
    }
    onnx.helper.set_model_props(model, properties)


def compare(path: Path, rows: np.ndarray, labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The largest difference of a probability between a model file and scikit-learn, over all rows.

    For rows, float32 (rows, features), predict() gives the labels, int64 (rows,), and predict_proba() the
    probabilities, float64 (rows, classes).

    Raises:
        Problem: the label of any row differs, or a probability by more than AGREEMENT.
    """
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    got_labels, got_probabilities = session.run(["label", "probabilities"], {"input": rows})
    other = np.flatnonzero(got_labels != labels)
    if len(other):
        row = other[0]
        raise Problem(
            f"ONNX Runtime gives another label than scikit-learn to {len(other)} of {len(rows)} rows, first to row {row}:"
            f" its probabilities are {got_probabilities[row].tolist()}, scikit-learn's {probabilities[row].tolist()}."
        )
    difference = float(abs(got_probabilities - probabilities).max())
    if not difference <= AGREEMENT:  # `not <=` rather than `>`: NaN must not pass
        raise Problem(f"ONNX Runtime's probabilities differ from scikit-learn's by up to {difference:.1e}.")
    return difference


def export(forest: RandomForestClassifier, output: Path) -> float:
    """Convert, check and compare the forest; only then does the file replace what is at output. Return the difference.

    Raises:
        Problem: as compare(), or the file cannot be written: the message names it. What was there before still is.
    """
    with whole_file(output) as path:
        model = convert(forest)
        add_metadata(model, forest)
        onnx.save(model, path)
        onnx.checker.check_model(path, full_check=True)
        rows, _ = load_rows()
        return compare(path, rows, forest.predict(rows), forest.predict_proba(rows))


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
