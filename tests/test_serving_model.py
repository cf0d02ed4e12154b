"""serving/model.py refuses what cannot be served, in one sentence each."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from small_models import LABELS, small_model

from serving.model import BadModel, labels, open_model, weights


def test_a_model_that_keeps_the_contract_is_opened(tmp_path):
    session = open_model(small_model(tmp_path / "good.onnx"))
    assert labels(session) == LABELS
    assert weights(session) == "random seed 5"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch": 1}, "takes batches of 1 only: it needs a dynamic batch axis"),
        ({"height": "height"}, r"expected tensor\(float\) of shape \(batch, 3, 224, 224\)"),
        ({"input_name": "pixels"}, r"has inputs \['pixels'\] and outputs \['output'\]; expected \['input'\]"),
        ({"output_name": "logits"}, r"has inputs \['input'\] and outputs \['logits'\]"),
        (
            {"metadata": {"labels": '["cat", "dog"]'}},
            r"has 2 labels .* answers two images with float32 of shape \(2, 1000\)",
        ),
        ({"metadata": {"labels": "[]"}}, "has 0 labels in its metadata"),
        ({"metadata": {"labels": '{"0": "cat"}'}}, "cannot be read: expected a JSON list of strings"),
        ({"metadata": {"labels": "[0, 1]"}}, "cannot be read: expected a JSON list of strings"),
        ({"metadata": {"labels": "7"}}, "cannot be read: expected a JSON list of strings"),
        ({"metadata": {"labels": "cat, dog"}}, "labels in its metadata that cannot be read: Expecting value"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_another_contract_is_refused(tmp_path, options, sentence):
    with pytest.raises(BadModel, match=sentence):
        open_model(small_model(tmp_path / "other.onnx", **options))


def test_a_missing_model_is_refused(tmp_path):
    with pytest.raises(BadModel, match=r"There is no model at .*nowhere\.onnx\. Run `make export` first\."):
        open_model(tmp_path / "nowhere.onnx")


@pytest.mark.parametrize("content", [b"", b"This is text.", b"\x08\x0a" + bytes(1000)], ids=["empty", "text", "bytes"])
def test_a_broken_file_is_refused(tmp_path, content):
    (tmp_path / "broken.onnx").write_bytes(content)
    with pytest.raises(BadModel, match=r"broken\.onnx"):
        open_model(tmp_path / "broken.onnx")


def test_a_model_without_its_weights_is_refused(tmp_path):
    path = small_model(tmp_path / "split.onnx")
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="split.data", size_threshold=0)
    (tmp_path / "split.data").unlink()
    with pytest.raises(BadModel, match=r"split\.onnx cannot be loaded"):
        open_model(path)


def changed(path: Path, change: Callable[[onnx.GraphProto], None]) -> Path:
    model = onnx.load(small_model(path))
    change(model.graph)
    onnx.save(model, path)
    return path


def test_a_graph_that_cannot_be_served_is_refused(tmp_path):
    def second(graph: onnx.GraphProto) -> None:
        graph.output.append(onnx.helper.make_tensor_value_info("flat", onnx.TensorProto.FLOAT, ["batch", 192]))

    def frozen(graph: onnx.GraphProto) -> None:
        graph.node[-1].output[0] = "logits"
        graph.node.append(onnx.helper.make_node("Constant", [], ["shape"], value_ints=[1, 1000]))
        graph.node.append(onnx.helper.make_node("Reshape", ["logits", "shape"], ["output"]))

    def integers(graph: onnx.GraphProto) -> None:
        graph.node[-1].output[0] = "logits"
        graph.node.append(onnx.helper.make_node("Cast", ["logits"], ["output"], to=onnx.TensorProto.INT64))
        graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT64

    with pytest.raises(BadModel, match=r"outputs \['output', 'flat'\]; expected \['input'\] and \['output'\]"):
        open_model(changed(tmp_path / "two.onnx", second))
    with pytest.raises(BadModel, match="cannot classify two images at once"):
        open_model(changed(tmp_path / "frozen.onnx", frozen))
    with pytest.raises(BadModel, match=r"answers two images with int64 of shape \(2, 1000\)"):
        open_model(changed(tmp_path / "integers.onnx", integers))
