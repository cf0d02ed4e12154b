"""Exercise 02: what an ONNX file holds, one sentence about a broken one, and the comparison with PyTorch."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from scripts import expect_equal, expect_one_sentence, expect_success
from small_models import small_model

from course import ROOT
from course.harness.submission import Submission
from course.harness.verdicts import expect

FILE, CAT = "ex02_check.py", ROOT / "data" / "cat.png"
# In ONNX's own text format: nothing in it is as in a resnet18.
OTHER = """
<ir_version: 8, opset_import: ["ai.onnx.ml": 3, "": 17]>
other (uint8[5, height] pixels, int64[2] numbers) => (float16[5, height] scores, double[2] sums) {
    halves = Cast <to = 10> (pixels)
    once = Mul (halves, factors)
    scores = Mul (once, factors)
    added = Add (numbers, offsets)
    sums = Cast <to = 11> (added)
}
"""
FACTS = {
    "opset": 17,
    "inputs": [
        {"name": "pixels", "type": "uint8", "shape": [5, "height"]},
        {"name": "numbers", "type": "int64", "shape": [2]},
    ],
    "outputs": [
        {"name": "scores", "type": "float16", "shape": [5, "height"]},
        {"name": "sums", "type": "float64", "shape": [2]},
    ],
    "dynamic_axes": {"pixels": [1], "numbers": [], "scores": [1], "sums": []},
    "operators": {"Cast": 2, "Mul": 2, "Add": 1},
    "weights_bytes": 5 * 2 + 2 * 8,
    "metadata": {"weights": "made by hand", "author": "a colleague"},
}


@pytest.fixture(scope="module")
def resnet18(models_dir: Path) -> Path:
    return models_dir / "resnet18.onnx"


@pytest.fixture(scope="module")
def facts(submission: Submission, resnet18: Path) -> dict:
    return submission.call(FILE, "describe", path=resnet18)


@pytest.fixture(scope="module")
def other_facts(submission: Submission, tmp_path_factory: pytest.TempPathFactory) -> dict:
    model = parser.parse_model(OTHER)
    weights = {"factors": np.ones((5, 1), np.float16), "offsets": np.ones(2, np.int64)}
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
    onnx.helper.set_model_props(model, FACTS["metadata"])
    path = tmp_path_factory.mktemp("other") / "other.onnx"
    onnx.save(model, path)
    return submission.call(FILE, "describe", path=path)


def assert_facts(facts: dict, hint: str, file: str = "resnet18.onnx", **expected: object) -> None:
    got = {key: facts.get(key) for key in expected} if isinstance(facts, dict) else facts
    expect_equal(got, expected, called=f"describe('{file}')", hint=hint)


def assert_other_facts(other_facts: dict, hint: str, *keys: str) -> None:
    assert_facts(other_facts, hint, "other.onnx", **{key: FACTS[key] for key in keys})


@pytest.mark.points(2)
def test_describes_inputs_and_outputs(facts, other_facts):
    hint = "graph.input and .output: name, type.tensor_type.elem_type and .shape.dim"
    assert_facts(facts, hint, inputs=[{"name": "input", "type": "float32", "shape": ["batch", 3, 224, 224]}])
    assert_facts(facts, hint, outputs=[{"name": "output", "type": "float32", "shape": ["batch", 1000]}])
    assert_other_facts(other_facts, f"{hint}; onnx.helper.tensor_dtype_to_np_dtype", "inputs", "outputs")
    hint = "model.opset_import, the entry whose domain is ''"
    assert_facts(facts, hint, opset=20)
    assert_other_facts(other_facts, hint, "opset")


@pytest.mark.points(1.5)
def test_finds_dynamic_axes(facts, other_facts):
    hint = "an axis is dynamic unless it has a dim_value: see axis.WhichOneof('value')"
    assert_facts(facts, hint, dynamic_axes={"input": [0], "output": [0]})
    assert_other_facts(other_facts, hint, "dynamic_axes")


@pytest.mark.points(1.5)
def test_counts_operators(facts, other_facts, resnet18):
    nodes = onnx.load(resnet18, load_external_data=False).graph.node
    counted = {kind: sum(node.op_type == kind for node in nodes) for kind in {node.op_type for node in nodes}}
    assert_facts(facts, "collections.Counter over the op_type of graph.node", operators=counted)
    assert_other_facts(other_facts, "count the nodes of this graph", "operators")
    counts = list(facts["operators"].values())
    called, hint = "describe('resnet18.onnx')['operators'], their numbers", "the most frequent first: most_common()"
    expect_equal(counts, sorted(counts, reverse=True), called=called, hint=hint)


@pytest.mark.points(1)
def test_adds_up_the_weights(other_facts):
    hint = "elements of each initializer (the product of its dims) times the bytes of its type"
    assert_other_facts(other_facts, hint, "weights_bytes")


@pytest.mark.points(0.5)
def test_reads_the_metadata(other_facts):
    assert_other_facts(other_facts, "the key and the value of each entry of model.metadata_props", "metadata")


@pytest.fixture(scope="module")
def accepts_a_good_file(submission: Submission, resnet18: Path) -> None:
    """To refuse every file earns nothing."""
    finished = submission.run(FILE, resnet18)
    called, expected = "python ex02_check.py resnet18.onnx", "and what the file holds"
    hint = "run the same command yourself; nothing is wrong with this file"
    expect_success(finished, "batch", "Conv", "random seed 7", called=called, expected=expected, hint=hint)


def without_its_data(path: Path, resnet18: Path) -> None:
    onnx.save(onnx.load(resnet18), path, save_as_external_data=True, location="gone.data")
    (path.parent / "gone.data").unlink()


def without_its_output(path: Path, resnet18: Path) -> None:
    model = onnx.load(small_model(path))
    model.graph.node[-1].output[0] = "elsewhere"
    onnx.save(model, path)


BROKEN = {
    "missing": lambda path, resnet18: None,
    "truncated": lambda path, resnet18: path.write_bytes(resnet18.read_bytes()[:10_000_000]),
    "text": lambda path, resnet18: path.write_text("This is a note, not a model.\n" * 100),
    "empty": lambda path, resnet18: path.write_bytes(b""),
    "without_its_data": without_its_data,
    "invalid": without_its_output,
    "fixed_batch": lambda path, resnet18: small_model(path, batch=1),
}


@pytest.mark.points(0.5)
@pytest.mark.parametrize("broken", BROKEN)
def test_refuses_a_broken_file_in_one_sentence(submission, accepts_a_good_file, resnet18, tmp_path, broken):
    path, names = tmp_path / f"{broken}.onnx", ["gone.data"] if broken == "without_its_data" else []
    BROKEN[broken](path, resnet18)
    finished = submission.run(FILE, path)
    hint = "catch what the library raises, and raise Problem('...') with the file's name instead"
    expect_one_sentence(finished, path.name, *names, called=f"python ex02_check.py {path.name}", hint=hint)


@pytest.mark.points(1)
def test_agrees_with_pytorch_on_the_photograph(submission, resnet18):
    difference = submission.call(FILE, "difference_from_pytorch", path=resnet18, photograph=CAT, timeout=60)
    expect(
        isinstance(difference, float) and 0 < difference <= 1e-4,
        called="difference_from_pytorch('resnet18.onnx', 'cat.png')",
        got=difference,
        expected="the largest absolute difference of a logit: above 0, since the two add numbers in another order, and below 1e-4",
        hint="load_again() makes the PyTorch model from the metadata; both must see the same preprocessed photograph",
    )


@pytest.mark.points(1)
def test_tells_another_model_from_its_own(submission, accepts_a_good_file, resnet18, tmp_path):
    """The same graph, but its metadata says that the weights came from another seed."""
    model = onnx.load(resnet18)
    metadata = {entry.key: entry.value for entry in model.metadata_props} | {"weights": "random seed 8"}
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, tmp_path / "liar.onnx")
    finished = submission.run(FILE, tmp_path / "liar.onnx")
    called = "python ex02_check.py liar.onnx, a model whose weights are not those that its metadata names"
    hint = "compare with the model that load_again() makes, and raise a Problem with the file's name if they differ"
    expect_one_sentence(finished, "liar.onnx", called=called, hint=hint)
