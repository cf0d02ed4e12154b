"""Exercise 02: what an ONNX file holds, one sentence about a broken one, and the comparison with PyTorch."""

from pathlib import Path

import onnx
import pytest
from scripts import expect_one_sentence
from small_models import small_model

from course import ROOT
from course.harness.submission import Submission
from course.harness.verdicts import expect

CAT = ROOT / "data" / "cat.png"


@pytest.fixture(scope="module")
def resnet18(models_dir: Path) -> Path:
    return models_dir / "resnet18.onnx"


@pytest.fixture(scope="module")
def facts(submission: Submission, resnet18: Path) -> dict:
    return submission.call("ex02_check.py", "describe", path=resnet18)


def assert_fact(facts: dict, key: str, expected: object, hint: str) -> None:
    expect(
        isinstance(facts, dict) and facts.get(key) == expected,
        called="describe(path='resnet18.onnx')",
        got=f"{key}: {facts.get(key) if isinstance(facts, dict) else facts!r}",
        expected=f"{key}: {expected!r}",
        hint=hint,
    )


@pytest.mark.points(2)
def test_describes_inputs_and_outputs(facts):
    inputs = [{"name": "input", "type": "float32", "shape": ["batch", 3, 224, 224]}]
    assert_fact(facts, "inputs", inputs, "graph.input: name, type.tensor_type.elem_type and .shape.dim")
    assert_fact(facts, "outputs", [{"name": "output", "type": "float32", "shape": ["batch", 1000]}], "graph.output")
    assert_fact(facts, "opset", 20, "model.opset_import, the entry whose domain is ''")


@pytest.mark.points(2)
def test_finds_dynamic_axes(submission, facts, tmp_path):
    hint = "an axis is dynamic unless it has a dim_value: see axis.WhichOneof('value')"
    assert_fact(facts, "dynamic_axes", {"input": [0], "output": [0]}, hint)
    path = small_model(tmp_path / "other.onnx", input_name="pixels", output_name="scores", batch=4, height="height")
    got = submission.call("ex02_check.py", "describe", path=path)
    assert_fact(got, "dynamic_axes", {"pixels": [2], "scores": []}, hint)


@pytest.mark.points(2)
def test_counts_operators(submission, facts, resnet18, tmp_path):
    nodes = onnx.load(resnet18, load_external_data=False).graph.node
    counted = {kind: sum(node.op_type == kind for node in nodes) for kind in {node.op_type for node in nodes}}
    assert_fact(facts, "operators", counted, "collections.Counter over the op_type of graph.node")
    got = submission.call("ex02_check.py", "describe", path=small_model(tmp_path / "small.onnx"))
    assert_fact(got, "operators", {"AveragePool": 1, "Flatten": 1, "MatMul": 1}, "count the nodes of this graph")


@pytest.mark.points(1)
def test_adds_up_the_weights(submission, tmp_path):
    got = submission.call("ex02_check.py", "describe", path=small_model(tmp_path / "small.onnx"))
    hint = "elements of each initializer (the product of its dims) times the bytes of its type"
    assert_fact(got, "weights_bytes", 3 * 8 * 8 * 1000 * 4, hint)


def without_its_data(path: Path, resnet18: Path) -> None:
    onnx.save(onnx.load(resnet18), path, save_as_external_data=True, location="gone.data")
    (path.parent / "gone.data").unlink()


BROKEN = {  # how to write the file, and what the sentence says
    "missing": (lambda path, resnet18: None, "no file"),
    "truncated": (lambda path, resnet18: path.write_bytes(resnet18.read_bytes()[:10_000_000]), "cut short"),
    "text": (lambda path, resnet18: path.write_text("This is a note, not a model.\n" * 100), "not an ONNX model"),
    "empty": (lambda path, resnet18: path.write_bytes(b""), "no graph"),
    "without_its_data": (without_its_data, "gone.data"),
    "fixed_batch": (lambda path, resnet18: small_model(path, batch=1), "fixed batch axis"),
}


@pytest.mark.points(0.5)
@pytest.mark.parametrize("broken", BROKEN)
def test_refuses_a_broken_file_in_one_sentence(submission, resnet18, tmp_path, broken):
    path, (write, says) = tmp_path / f"{broken}.onnx", BROKEN[broken]
    write(path, resnet18)
    finished = submission.run("ex02_check.py", path)
    hint = "catch what the library raises, and raise Problem('...') instead"
    expect_one_sentence(finished, says, called=f"python ex02_check.py {path.name}", hint=hint)


@pytest.mark.points(1)
def test_agrees_with_pytorch_on_the_photograph(submission, resnet18):
    difference = submission.call("ex02_check.py", "difference_from_pytorch", path=resnet18, photograph=CAT, timeout=60)
    expect(
        isinstance(difference, float) and 0 < difference <= 1e-4,
        called="difference_from_pytorch('resnet18.onnx', 'cat.png')",
        got=difference,
        expected="the largest absolute difference of a logit: above 0, since the two add numbers in another order, and below 1e-4",
        hint="load_again() makes the PyTorch model from the metadata; both must see the same preprocessed photograph",
    )


@pytest.mark.points(1)
def test_tells_another_model_from_its_own(submission, resnet18, tmp_path):
    """The same graph, but its metadata says that the weights came from another seed."""
    model = onnx.load(resnet18)
    metadata = {entry.key: entry.value for entry in model.metadata_props} | {"weights": "random seed 8"}
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, tmp_path / "liar.onnx")
    finished = submission.run("ex02_check.py", tmp_path / "liar.onnx")
    called = "python ex02_check.py on a model whose weights are not those that its metadata names"
    hint = "compare with the model that load_again() makes, and raise a Problem if they differ"
    expect_one_sentence(finished, "differs from PyTorch", called=called, hint=hint)
