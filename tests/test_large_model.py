"""`make large-model`, with a few megabytes: the 2 GB themselves are for doing by hand."""

import os
import signal
import sys
import time

import numpy as np
import onnx
import pytest
from onnx.external_data_helper import uses_external_data

from course import ROOT
from course.base.processes import running, wait
from course.given import large_model
from serving import Problem

COMMAND = [sys.executable, "-m", "course.given.large_model"]
MEGABYTE = 10**6


def test_weights_in_a_second_file_are_saved_checked_and_looked_up(tmp_path):
    size = 5 * MEGABYTE
    result = large_model.demonstrate(size, tmp_path)
    assert result["error"] == ""  # far below the limit, one file is fine
    assert size * 0.99 < result["data_bytes"] <= size
    assert result["graph_bytes"] < 5000
    graph = onnx.load(tmp_path / "large.onnx", load_external_data=False).graph
    assert all(uses_external_data(tensor) for tensor in graph.initializer)
    assert not any(tensor.raw_data for tensor in graph.initializer)
    in_one = large_model.look_up(tmp_path / "one_file.onnx", [3, 70])
    assert np.array_equal(large_model.look_up(tmp_path / "large.onnx", [3, 70]), in_one)
    assert in_one.shape == (2, large_model.TABLES * large_model.WIDTH)
    assert set(in_one[0]) == {3}
    assert set(in_one[1]) == {70}


def test_without_its_second_file_a_model_is_refused(tmp_path):
    large_model.demonstrate(MEGABYTE, tmp_path)
    (tmp_path / "large.data").unlink()
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(tmp_path / "large.onnx")


@pytest.mark.parametrize("size", [10**18, large_model.LIMIT * 10**6])
def test_too_little_room_is_one_sentence_before_anything_is_made(tmp_path, size):
    with pytest.raises(Problem, match=r"This needs .* GB of disk in .* GB of memory; .* are free\."):
        large_model.require_room(size, tmp_path)


def start(tmp_path, *arguments):
    env = os.environ | {"MODELS_DIR": str(tmp_path / "models")}
    return running([*COMMAND, *arguments], cwd=ROOT, env=env, log=tmp_path / "log")


def test_the_command_tells_what_it_needs_and_leaves_nothing(tmp_path):
    with start(tmp_path, "--megabytes", "3") as process:
        assert wait(process, 60) == 0, (tmp_path / "log").read_text()
    text = (tmp_path / "log").read_text()
    assert text.index("This needs 0.0 GB of disk") < text.index("make 8 tables")
    assert "One file works as well" in text
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=["ctrl_c", "sigterm"])
def test_stopping_it_leaves_nothing(tmp_path, stop):
    with start(tmp_path, "--megabytes", "400") as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("models/.large-*/*")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        assert process.poll() is None, "it ended before it could be stopped"
        process.send_signal(stop)
        assert wait(process, 60) not in (0, None)
    assert list((tmp_path / "models").iterdir()) == []
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "models").write_text("a file where the folder should be")
    with start(tmp_path, "--megabytes", "3") as process:
        assert wait(process, 60) == 1
    assert "The model could not be written to" in (tmp_path / "log").read_text()
    assert "Traceback" not in (tmp_path / "log").read_text()
