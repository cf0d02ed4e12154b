"""Exercise 21: the exported forest answers as scikit-learn does, and replaces an old file only if it does.

The tests fit the same forest again, with the numbers that the starter gives.
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scripts import expect_one_sentence, expect_success
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

from course.harness import model_files
from course.harness.submission import Submission
from course.harness.verdicts import expect

FILE = "ex21_sklearn.py"
AGREEMENT = 1e-5  # of a probability: float32 sums over 101 trees come to 2e-7, one vote more or less to 1e-2
FRUITLESS = "the export failed; see the first test that needed it"


def rows() -> np.ndarray:
    return load_breast_cancer().data.astype(np.float32)


@cache
def forest(trees: int) -> RandomForestClassifier:
    part, _, classes, _ = train_test_split(
        rows(), load_breast_cancer().target, train_size=0.6, stratify=load_breast_cancer().target, random_state=0
    )
    return RandomForestClassifier(n_estimators=trees, random_state=0).fit(part, classes)


@pytest.fixture(scope="module")
def exported(submission: Submission, tmp_path_factory: pytest.TempPathFactory):
    """Export once, and return the file and what the script printed."""
    path = tmp_path_factory.mktemp("export") / "forest.onnx"
    printed: list[str] = []

    def once() -> tuple[Path, str]:
        if not printed:
            finished = submission.run(FILE, "--output", path)
            printed.append(finished.output)
            hint = "run the same command yourself and read its first error"
            called = f"python {FILE} --output forest.onnx"
            expect_success(finished, called=called, expected="and the file", hint=hint)
        if not path.is_file():
            pytest.fail(FRUITLESS, pytrace=False)
        return path, printed[0]

    return once


def answers(path: Path, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The labels and probabilities that the file gives for a batch, whatever its outputs are called."""
    session = model_files.open_session(path)
    got = session.run(None, {session.get_inputs()[0].name: batch})
    expect(
        len(got) == 2 and isinstance(got[1], np.ndarray) and got[1].shape == (len(batch), 2),
        called=f"forest.onnx on {len(batch)} rows",
        got=f"{len(got)} outputs: {[type(one).__name__ for one in got]}",
        expected=f"labels and an array of probabilities of shape ({len(batch)}, 2)",
        hint='options={id(forest): {"zipmap": False}}',
    )
    return got[0], got[1]


@pytest.mark.points(0.5)
def test_exports_and_reports_the_agreement(exported):
    path, printed = exported()
    others = sorted(file.name for file in path.parent.iterdir() if file != path)
    expect(
        "Agrees with scikit-learn on all 569 rows" in printed and not others,
        called=f"python {FILE} --output forest.onnx",
        got=f"printed: {printed[-300:]}; beside the file: {others}",
        expected="`Agrees with scikit-learn on all 569 rows`, and nothing left beside the file",
        hint="compare() on every row of load_rows(), inside `with whole_file(output)`",
    )


@pytest.mark.points(0.5)
def test_exports_into_a_new_folder_and_once_more(submission, exported, tmp_path):
    exported()
    output = tmp_path / "new" / "forest.onnx"
    for time in ("first", "second"):
        finished = submission.run(FILE, "--output", output)
        called = f"python {FILE} --output new/forest.onnx for the {time} time"
        expect_success(finished, called=called, expected="and the file", hint="write it with whole_file(output)")
        assert output.is_file(), f"{called} writes no file"


@pytest.mark.points(2)
def test_exports_predict_and_predict_proba_as_tensors(exported):
    path, _ = exported()
    session = model_files.open_session(path)
    inputs = [(value.name, value.type, value.shape) for value in session.get_inputs()]
    expect(
        [(name, kind, shape[1:]) for name, kind, shape in inputs] == [("input", "tensor(float)", [30])],
        called="the inputs of forest.onnx",
        got=inputs,
        expected="one, `input`: tensor(float) of shape (batch, 30)",
        hint='initial_types=[("input", FloatTensorType([None, 30]))]',
    )
    outputs = [(value.name, value.type) for value in session.get_outputs()]
    expect(
        outputs == [("label", "tensor(int64)"), ("probabilities", "tensor(float)")],
        called="the outputs of forest.onnx",
        got=outputs,
        expected="`label`: tensor(int64), and `probabilities`: tensor(float)",
        hint='seq(map(...)) is a list of dicts, made by ZipMap: options={id(forest): {"zipmap": False}}',
    )
    axes = {value.name: value.shape[0] for value in [*session.get_inputs(), *session.get_outputs()]}
    expect(
        all(isinstance(axis, str) for axis in axes.values()),
        called="the first axis of input and outputs of forest.onnx",
        got=axes,
        expected="a name, such as 'batch', for each: None has no name, a number is a fixed size",
        hint="None in FloatTensorType makes the axis dynamic; dim[0].dim_param gives it a name",
    )
    for size in (1, 7, 569):
        labels, probabilities = answers(path, rows()[:size])
        expect(
            labels.shape == (size,) and probabilities.dtype == np.float32,
            called=f"forest.onnx on a batch of {size}",
            got=f"labels {labels.shape}, probabilities {probabilities.dtype}",
            expected=f"labels of shape ({size},) and float32 probabilities of shape ({size}, 2)",
            hint="the batch axis is dynamic",
        )


@pytest.mark.points(1.5)
def test_answers_as_scikit_learn_for_every_row(exported):
    path, _ = exported()
    labels, probabilities = answers(path, rows())
    wrong = np.flatnonzero(labels != forest(101).predict(rows()))
    expect(
        not len(wrong),
        called="forest.onnx on all 569 rows",
        got=f"another label than scikit-learn's in {len(wrong)} rows, such as {wrong[:5].tolist()}",
        expected="the same labels",
        hint="export the forest that train() returns",
    )
    difference = float(abs(probabilities - forest(101).predict_proba(rows())).max())
    expect(
        difference <= AGREEMENT,
        called="forest.onnx on all 569 rows",
        got=f"a probability {difference:.1e} away from scikit-learn's",
        expected=f"at most {AGREEMENT}",
        hint="export the forest that train() returns",
    )


@pytest.mark.points(0.5)
def test_answers_as_scikit_learn_on_both_sides_of_every_threshold(exported):
    """A threshold is halfway between two float32 numbers; rounded up to one of them, it sends rows the other way."""
    path, _ = exported()
    batch, original = [], rows()
    for tree in (one.tree_ for one in forest(101).estimators_):
        for feature, threshold in zip(tree.feature, tree.threshold, strict=True):
            nearest = np.float32(threshold)
            for value in (
                np.nextafter(nearest, np.float32(-np.inf)),
                nearest,
                np.nextafter(nearest, np.float32(np.inf)),
            ):
                if feature >= 0:
                    row = original[len(batch) % len(original)].copy()
                    row[feature] = value
                    batch.append(row)
    _, probabilities = answers(path, np.array(batch))
    away = abs(probabilities - forest(101).predict_proba(np.array(batch))).max(axis=1)
    expect(
        bool((away <= AGREEMENT).all()),
        called=f"forest.onnx on {len(batch)} rows that lie on a threshold of the forest, or next to one",
        got=f"{(~(away <= AGREEMENT)).sum()} rows with other probabilities than scikit-learn's, by up to {away.max():.1e}",
        expected=f"at most {AGREEMENT} in every row",
        hint="leave the thresholds as skl2onnx writes them: it rounds them down to float32",
    )


@pytest.mark.points(1)
def test_metadata_holds_the_names(exported):
    path, _ = exported()
    metadata = {entry.key: entry.value for entry in model_files.load(path).metadata_props}
    names = load_breast_cancer()
    for key, expected in (("labels", names.target_names), ("features", names.feature_names)):
        try:
            got = json.loads(metadata.get(key, "null"))
        except json.JSONDecodeError:
            got = f"{metadata[key]}, which is not JSON"
        expect(
            got == expected.tolist(),
            called=f"the metadata of forest.onnx under {key!r}",
            got=got or f"nothing; there are {sorted(metadata)}",
            expected=f"a JSON list of {len(expected)} names, in order, the first {expected[0]!s}",
            hint="onnx.helper.set_model_props(model, {'labels': json.dumps([...]), ...})",
        )
    origin = metadata.get("architecture", ""), metadata.get("exporter", "")
    expect(
        all(origin),
        called="the metadata of forest.onnx",
        got=f"architecture: {origin[0]!r}, exporter: {origin[1]!r}",
        expected="what it is, and which versions of skl2onnx and scikit-learn made it",
        hint="skl2onnx.__version__ and sklearn.__version__",
    )


@pytest.mark.points(1)
def test_compare_refuses_what_differs(submission, exported):
    path, _ = exported()
    labels, probabilities = forest(101).predict(rows()), forest(101).predict_proba(rows())
    got = submission.call(FILE, "compare", path=path, rows=rows(), labels=labels, probabilities=probabilities)
    expect(
        isinstance(got, float) and 0 <= got <= AGREEMENT,
        called="compare('forest.onnx', ...) with what scikit-learn gives",
        got=got,
        expected=f"the largest difference of a probability, at most {AGREEMENT}",
        hint="abs(a - b).max()",
    )
    other_label, other_probability, nan = labels.copy(), probabilities.copy(), probabilities.copy()
    other_label[300] = 1 - other_label[300]
    other_probability[400, 1] += 1e-3
    nan[500] = np.nan
    for change, arguments in {
        "the label of one row changed": (other_label, probabilities),
        "one probability 0.001 higher": (labels, other_probability),
        "NaN for the probabilities of one row": (labels, nan),
    }.items():
        given = {"path": path, "rows": rows(), "labels": arguments[0], "probabilities": arguments[1]}
        try:
            got = submission.call(FILE, "compare", **given)
        except pytest.fail.Exception as failure:
            got = str(failure)
        expect(
            isinstance(got, str) and "raised Problem" in got,
            called=f"compare('forest.onnx', ...) with what scikit-learn gives, but {change}",
            got=got,
            expected="a Problem",
            hint="look at every row, at labels and probabilities; NaN is never small: `if not difference <= AGREEMENT`",
        )


@pytest.mark.points(0.5)
def test_a_forest_that_answers_otherwise_replaces_nothing(submission, exported, tmp_path):
    """Of 100 trees, 50 vote for each class in row 290. scikit-learn says malignant, ONNX Runtime benign."""
    exported()  # to refuse every forest earns nothing
    output = tmp_path / "forest.onnx"
    output.write_bytes(b"the model of yesterday")
    finished = submission.run(FILE, "--trees", 100, "--output", output)
    left = {file.name: file.read_bytes()[:30] for file in tmp_path.iterdir()}
    refused = finished.code != 0 and left == {"forest.onnx": b"the model of yesterday"}
    # A graph that breaks the tie as scikit-learn does is right, too.
    agrees = finished.code == 0 and (answers(output, rows())[0] == forest(100).predict(rows())).all()
    expect(
        (refused or agrees) and "Traceback" not in finished.output,
        called=f"python {FILE} --trees 100, a forest of which ONNX Runtime gives row 290 another label",
        got=f"exit code {finished.code}, files {left}, output: {finished.output[-300:]}",
        expected="a non-zero exit code, one sentence, and the file that was there before, untouched and alone",
        hint="compare before the end of `with whole_file(output)`, every row, labels too",
    )


@pytest.mark.points(0.25)
@pytest.mark.parametrize("place", ["note.txt/forest.onnx", "folder"])
def test_an_output_that_cannot_be_written_is_one_sentence(submission, exported, tmp_path, place):
    exported()
    (tmp_path / "note.txt").write_text("a file, not a folder")
    (tmp_path / "folder").mkdir()
    finished = submission.run(FILE, "--output", tmp_path / place)
    called, hint = f"python {FILE} --output {place}", "write the file inside `with whole_file(output) as path`"
    expect_one_sentence(finished, place, called=called, hint=hint)
    left = sorted(path.name for path in tmp_path.rglob("*"))
    expect(
        left == ["folder", "note.txt"], called=called, got=f"files {left}", expected="nothing left behind", hint=hint
    )
