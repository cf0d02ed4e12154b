"""The machinery around exercise 05, where something goes wrong."""

import os
import signal
import time

import numpy as np
import pytest

from course.base.processes import marked, wait
from course.given.benchmark import BASELINE, Lie
from course.given.turns import require_equal
from serving import Problem

FILE = "ex05_benchmark.py"
SMALL = ["--quick", "--size", "64", "--batch", "1", "--rounds", "1", "--threads", "1"]


def test_a_missing_model_is_one_sentence(submission, tmp_path):
    finished = submission.run(FILE, *SMALL, "--output", tmp_path / "report", env={"MODELS_DIR": str(tmp_path)})
    assert finished.code == 1
    assert "There is no model at" in finished.output
    assert "Traceback" not in finished.output
    assert not (tmp_path / "report").exists()


def test_a_report_that_cannot_be_written_is_one_sentence(submission, models_dir, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    finished = submission.run(FILE, *SMALL, "--output", tmp_path / "file", env={"MODELS_DIR": str(models_dir)})
    assert finished.code == 1
    assert "could not be written" in finished.output
    assert "Traceback" not in finished.output


@pytest.mark.parametrize("lie", list(Lie))
def test_each_lie_can_be_told(submission, models_dir, tmp_path, lie):
    arguments = [*SMALL, "--lie", lie.value, "--output", tmp_path / "report"]
    finished = submission.run(FILE, *arguments, env={"MODELS_DIR": str(models_dir)}, timeout=240)
    assert finished.code == 0, finished.output
    assert f"This was the lie '{lie.value}'" in finished.output


def test_outputs_that_differ_are_not_compared_in_speed():
    same = {"64": np.ones((2, 1000), np.float32)}
    require_equal({"pytorch eager": same, "onnxruntime dynamo": same}, BASELINE)
    for other in (same["64"] * 1.01, np.full((2, 1000), np.nan, np.float32)):
        with pytest.raises(Problem, match="onnxruntime dynamo and pytorch eager differ"):
            require_equal({"pytorch eager": same, "onnxruntime dynamo": {"64": other}}, BASELINE)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL], ids=["ctrl_c", "killed"])
def test_stopping_leaves_neither_process_nor_half_a_report(submission, models_dir, tmp_path, stop):
    arguments = [*SMALL, "--output", tmp_path / "report"]
    with submission.start(FILE, *arguments, env={"MODELS_DIR": str(models_dir)}) as process:
        give_up = time.monotonic() + 60
        while len(marked(process.mark)) < 2:  # the script, and the process of its first turn or of its export
            assert time.monotonic() < give_up, process.log.read_text()
            time.sleep(0.05)
        os.killpg(process.pid, stop)
        assert wait(process, 30) not in (None, 0)
        assert "Traceback" not in process.log.read_text()
    assert not marked(process.mark)
    assert not list(tmp_path.glob("report/*"))
