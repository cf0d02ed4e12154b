"""Exercise 21: the exported forest answers as scikit-learn does, and replaces an old file only if it does.

The tests fit the same forest again, with the numbers that the starter gives.
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from once import once
from scripts import expect_one_sentence, expect_success
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

from course.harness import model_files
from course.harness.submission import Submission
from course.harness.verdicts import expect, fail, said

FILE = "ex21_sklearn.py"
AGREEMENT = 1e-5  # of a probability: float32 sums over 101 trees come to 2e-7, one vote more or less to 1e-2


@cache
def rows() -> np.ndarray:
    return load_breast_cancer().data.astype(np.float32)


@cache
def forest(trees: int) -> RandomForestClassifier:
    classes = load_breast_cancer().target
    part, _, classes, _ = train_test_split(rows(), classes, train_size=0.6, stratify=classes, random_state=0)
    return RandomForestClassifier(n_estimators=trees, random_state=0).fit(part, classes)


@pytest.fixture(scope="module")
def exported(submission: Submission, tmp_path_factory: pytest.TempPathFactory):
    """Exports once, into a folder that is not there yet: the file, and what the script printed."""
    path = tmp_path_factory.mktemp("export") / "new" / "forest.onnx"
    return once(lambda: (path, export(submission, path)))


def export(submission: Submission, path: Path) -> str:
    """What the script prints."""
    finished = submission.run(FILE, "--output", path)
    called, hint = f"python {FILE} --output new/forest.onnx", "run the same command yourself and read its first error"
    expect_success(finished, called=called, expected="and the file", hint=hint)
    if not path.is_file():
        fail(f"{called} writes no file.")
    return finished.output


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
    got = f"printed: {printed[-300:]}; beside the file: {others}"
    expected = "`Agrees with scikit-learn on all 569 rows`, and nothing left beside the file"
    hint = "compare() on every row of load_rows(), inside `with whole_file(output)`"
    right = "Agrees with scikit-learn on all 569 rows" in printed and not others
    expect(right, called=f"python {FILE} --output new/forest.onnx", got=got, expected=expected, hint=hint)


@pytest.mark.points(0.5)
def test_exports_once_more_and_writes_the_same(submission, exported):
    path, _ = exported()
    before = answers(path, rows())
    export(submission, path)
    after = answers(path, rows())
    called, got = f"python {FILE} --output new/forest.onnx for the second time", "a file that answers differently"
    expected = "the same answers: the same number of trees gives the same forest"
    right = all(np.array_equal(old, new) for old, new in zip(before, after, strict=True))
    expect(right, called=called, got=got, expected=expected, hint="export the forest that train() returns")


@pytest.mark.points(2)
def test_exports_predict_and_predict_proba_as_tensors(exported):
    path, _ = exported()
    session = model_files.open_session(path)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    got = [(value.name, value.type, value.shape[1:]) for value in inputs]
    called, expected = "the inputs of forest.onnx", "one, `input`: tensor(float) of shape (batch, 30)"
    hint = 'initial_types=[("input", FloatTensorType([None, 30]))]'
    expect(got == [("input", "tensor(float)", [30])], called=called, got=got, expected=expected, hint=hint)
    got = [(value.name, value.type) for value in outputs]
    expected = "`label`: tensor(int64), and `probabilities`: tensor(float)"
    hint = 'seq(map(...)) is a list of dicts, made by ZipMap: options={id(forest): {"zipmap": False}}'
    right = got == [("label", "tensor(int64)"), ("probabilities", "tensor(float)")]
    expect(right, called="the outputs of forest.onnx", got=got, expected=expected, hint=hint)
    axes = {value.name: value.shape[0] for value in [*inputs, *outputs]}
    called = "the first axis of input and outputs of forest.onnx"
    expected = "a name, such as 'batch', for each: None has no name, a number is a fixed size"
    hint = "None in FloatTensorType makes the axis dynamic; dim[0].dim_param gives it a name"
    expect(all(isinstance(axis, str) for axis in axes.values()), called=called, got=axes, expected=expected, hint=hint)
    shapes = {size: answers(path, rows()[:size])[0].shape for size in (1, 7, 569)}
    called, expected = "forest.onnx on batches of 1, 7 and 569", "one label for each row"
    right = all(shape == (size,) for size, shape in shapes.items())
    expect(right, called=called, got=f"labels of shapes {shapes}", expected=expected, hint="the batch axis is dynamic")


def assert_agrees(path: Path, batch: np.ndarray, which: str, hint: str) -> None:
    """Labels and probabilities as scikit-learn gives them, in every row."""
    labels, probabilities = answers(path, batch)
    away = abs(probabilities - forest(101).predict_proba(batch)).max(axis=1)
    wrong = np.flatnonzero((labels != forest(101).predict(batch)) | ~(away <= AGREEMENT))
    expect(
        not len(wrong),
        called=f"forest.onnx on {which}",
        got=f"other labels or probabilities than scikit-learn's in {len(wrong)} rows, by up to {away.max():.1e},"
        f" such as row {wrong[:1].tolist()}",
        expected=f"the same labels, and probabilities at most {AGREEMENT} apart",
        hint=hint,
    )


@pytest.mark.points(1.5)
def test_answers_as_scikit_learn_for_every_row(exported):
    assert_agrees(exported()[0], rows(), "all 569 rows", "export the forest that train() returns")


@pytest.mark.points(0.5)
def test_answers_as_scikit_learn_on_both_sides_of_every_threshold(exported):
    """A threshold is halfway between two float32 numbers; rounded up to one of them, it sends rows the other way."""
    batch = []
    for tree in (one.tree_ for one in forest(101).estimators_):
        for feature, threshold in zip(tree.feature, np.float32(tree.threshold), strict=True):
            for value in (np.nextafter(threshold, np.float32(side)) for side in (-np.inf, threshold, np.inf)):
                if feature >= 0:
                    row = rows()[len(batch) % len(rows())].copy()
                    row[feature] = value
                    batch.append(row)
    hint = "leave the thresholds as skl2onnx writes them: it rounds them down to float32"
    which = f"{len(batch)} rows that lie on a threshold of the forest, or next to one"
    assert_agrees(exported()[0], np.array(batch), which, hint)


@pytest.mark.points(1)
def test_metadata_holds_the_names(exported):
    metadata = {entry.key: entry.value for entry in model_files.load(exported()[0]).metadata_props}
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
    origin = {key: metadata.get(key, "") for key in ("architecture", "weights", "exporter")}
    expect(
        all(origin.values()),
        called="the metadata of forest.onnx",
        got=origin,
        expected="text for each of them: what it is, what it was fitted on, what exported it",
        hint="skl2onnx.__version__ and sklearn.__version__ say which exporter it was",
    )


@pytest.mark.points(1)
def test_compare_refuses_what_differs(submission, exported):
    path, _ = exported()
    labels, probabilities = forest(101).predict(rows()), forest(101).predict_proba(rows())

    def compared(labels: np.ndarray, probabilities: np.ndarray) -> object:
        try:
            given = {"labels": labels, "probabilities": probabilities}
            return submission.call(FILE, "compare", path=path, rows=rows(), **given)
        except pytest.fail.Exception as failure:
            return str(failure)

    def changed(array: np.ndarray, place: object, by: float) -> np.ndarray:
        array = array.copy()
        array[place] += by
        return array

    got = compared(labels, changed(probabilities, (250, 0), 5e-6))
    called = "compare('forest.onnx', ...) with what scikit-learn gives, but one probability 5e-6 higher"
    expected = "the largest difference of a probability, about 5e-6"
    hint = "abs(a - b).max(), over all rows and classes"
    expect(isinstance(got, float) and abs(got - 5e-6) < 1e-6, called=called, got=got, expected=expected, hint=hint)
    for change, arguments, words in (
        ("the label of row 300 changed", (changed(labels, 300, 1 - 2 * labels[300]), probabilities), "row 300"),
        ("one probability 0.001 higher", (labels, changed(probabilities, (400, 1), 1e-3)), ""),
        ("NaN for a probability", (labels, changed(probabilities, (500, 0), np.nan)), ""),
    ):
        got = compared(*arguments)
        called = f"compare('forest.onnx', ...) with what scikit-learn gives, but {change}"
        hint = "look at every row, at labels and probabilities; NaN is never small: `if not difference <= AGREEMENT`"
        right = isinstance(got, str) and "raised Problem" in got and words.removeprefix("row ") in got
        expect(right, called=called, got=got, expected=f"a Problem {words and f'that names {words}'}", hint=hint)


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
    called = f"python {FILE} --trees 100, a forest of which ONNX Runtime gives row 290 another label"
    got = f"exit code {finished.code}, files {left}, output: {said(finished.output)}"
    expected = "a non-zero exit code, one sentence, and the file that was there before, untouched and alone"
    hint = "compare before the end of `with whole_file(output)`, every row, labels too"
    right = (refused or agrees) and "Traceback" not in finished.output
    expect(right, called=called, got=got, expected=expected, hint=hint)


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
    expected = "nothing left behind"
    expect(left == ["folder", "note.txt"], called=called, got=f"files {left}", expected=expected, hint=hint)
