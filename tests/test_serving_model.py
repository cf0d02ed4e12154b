"""serving/model.py refuses what cannot be served, in one sentence each."""

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
        ({"batch": 1}, "takes batches of 1 only: export it with a dynamic batch axis"),
        ({"height": "height"}, r"expected tensor\(float\) of shape \(batch, 3, 224, 224\)"),
        ({"metadata": {"labels": '["cat", "dog"]'}}, "has 2 labels in its metadata for 1000 outputs"),
        ({"metadata": {"labels": "[]"}}, "has 0 labels in its metadata for 1000 outputs"),
    ],
    ids=["fixed_batch", "other_shape", "other_labels", "no_labels"],
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
