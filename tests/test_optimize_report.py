"""The machinery around exercise 06: whose work a node does, and a report that cannot be written."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from small_models import small_model

from course import ROOT
from course.given.graphs import work
from course.given.turn import load_exercise
from course.given.turns import speedup

FILE = "ex06_optimize.py"


@pytest.mark.parametrize("level", ["ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"])
def test_every_fusion_of_resnet18_is_seen_in_the_node_itself(models_dir, tmp_path, level):
    """What work() infers, against what ONNX Runtime wrote down: an activation, and a fourth input to add."""
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(tmp_path / "after.onnx")
    ort.InferenceSession(models_dir / "resnet18.onnx", options, providers=["CPUExecutionProvider"])
    old, new = onnx.load(models_dir / "resnet18.onnx").graph, onnx.load(tmp_path / "after.onnx").graph
    parts = work(old, new)
    for node, done in zip(new.node, parts, strict=True):
        if not node.op_type.endswith("Conv"):
            continue
        written = ["Add"] * (len(node.input) > 3)
        written += [one.s.decode() for one in node.attribute if one.name == "activation"]
        assert [one.op_type for one in done] == ["Conv", *written], node.name
    assert sum(len(done) for done in parts) == len(old.node), "nothing was removed: every node is somebody's work"
    assert len({one.output[0] for done in parts for one in done}) == len(old.node), "and only once"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model", "{tmp}/none.onnx"], "There is no model at"),
        (["--model", "{tmp}/file"], "cannot be loaded"),
        (["--model", "{tmp}/small.onnx", "--output", "{tmp}/file", "--rounds", "1"], "file could not be written"),
    ],
    ids=["missing", "broken", "report"],
)
def test_what_a_user_gets_wrong_is_one_sentence(submission, tmp_path: Path, arguments, sentence):
    (tmp_path / "file").write_text("neither a folder nor a model")
    small_model(tmp_path / "small.onnx")
    finished = submission.run(FILE, "--quick", *(word.format(tmp=tmp_path) for word in arguments), timeout=200)
    assert finished.code == 1
    assert sentence in finished.output.splitlines()[-1]
    assert "Traceback" not in finished.output
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")], "nothing half-written is left"


def test_a_full_disk_is_one_sentence(submission, tmp_path, models_dir):
    """ONNX Runtime calls it `Protobuf serialization failed` and leaves half a file; a limit stands in for the disk."""
    (tmp_path / "ex06.py").write_text(
        "import resource, runpy, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        f"runpy.run_path({str(submission.folder / FILE)!r}, run_name='__main__')\n"
    )
    model = tmp_path / "models" / "resnet18.onnx"
    model.parent.mkdir()
    model.symlink_to(models_dir / "resnet18.onnx")
    inside = type(submission)(tmp_path, tmp_path / "scratch")
    finished = inside.run("ex06.py", "--quick", "--model", model)
    assert finished.code == 1
    assert "The optimised model could not be written to" in finished.output
    assert len(finished.output.strip().splitlines()) == 1
    assert [path.name for path in model.parent.iterdir()] == [model.name]


def test_speeds_are_compared_as_in_exercise_05():
    """The report cannot use the solution's, which is not there where students' code is graded."""
    times = np.random.default_rng(7).lognormal(size=(2, 5, 9)).tolist()
    assert speedup(*times) == load_exercise(ROOT / "solutions" / "ex05_benchmark.py").speedup(*times)
