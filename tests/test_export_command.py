"""The solution of exercise 01 without a network, where it cannot write, and with wrong arguments."""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import onnx
import pytest
from image_builds import program

from course import ROOT
from course.base.processes import wait

# Nothing listens on port 9: as if there were no network, wherever this runs.
OFFLINE = {"https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
IMAGENET = "resnet18-f37072fd.pth"  # what torchvision calls the file with resnet18's ImageNet weights


def metadata(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def run(submission, tmp_path: Path, *arguments: object, cached: Path | None = None):
    """Export to tmp_path without a network; cached: a file to put where torchvision looks for ImageNet weights."""
    checkpoints = tmp_path / "torch" / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    if cached:
        shutil.copy(cached, checkpoints / IMAGENET)
    env = OFFLINE | {"TORCH_HOME": str(tmp_path / "torch")}
    # The quickest exporter; exercise 01's own tests run all three.
    fast = () if "--exporter" in arguments else ("--exporter", "torchscript")
    return submission.run("ex01_export.py", *arguments, *fast, "--output", tmp_path / "model.onnx", env=env)


def test_auto_takes_random_weights_without_a_network_and_says_so(submission, tmp_path):
    done = run(submission, tmp_path)
    assert done.code == 0, done.output
    assert "No ImageNet weights" in done.output
    assert "RANDOM" in done.output
    assert metadata(tmp_path / "model.onnx")["weights"] == "random seed 0"


def test_auto_takes_imagenet_weights_where_they_can_be_had(submission, reference, tmp_path):
    """A random checkpoint with the name of the download stands in for it: it cannot be downloaded everywhere."""
    stand_in = reference.call("reference.py", "random_checkpoint", path=tmp_path / "stand_in.pth", timeout=60)
    done = run(submission, tmp_path, cached=stand_in)
    assert done.code == 0, done.output
    assert "RANDOM" not in done.output
    assert metadata(tmp_path / "model.onnx")["weights"] == "imagenet IMAGENET1K_V1"


def test_a_checkpoint_is_named_in_the_metadata(submission, reference, tmp_path):
    checkpoint = reference.call("reference.py", "random_checkpoint", path=tmp_path / "mine.pth", timeout=60)
    done = run(submission, tmp_path, "--weights", checkpoint)
    assert done.code == 0, done.output
    assert metadata(tmp_path / "model.onnx")["weights"].startswith("checkpoint mine.pth sha256 ")
    check = submission.run("ex02_check.py", tmp_path / "model.onnx")
    assert check.code == 1
    assert "--checkpoint" in check.output
    assert submission.run("ex02_check.py", tmp_path / "model.onnx", "--checkpoint", checkpoint).code == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--weights", "imagenet"], "The ImageNet weights could not be downloaded from https://"),
        (["--architecture", "resnet19"], "torchvision has no classifier called 'resnet19'. Did you mean resnet18"),
        (["--weights", "nowhere.pth"], "nowhere.pth is none of these"),
        (["--weights", __file__], "is not a checkpoint that torch.load can read"),
        (["--weights", "random", "--output", "/proc/models/x.onnx"], "/proc/models/x.onnx could not be written"),
    ],
    ids=["offline", "architecture", "no_file", "no_checkpoint", "no_folder"],
)
def test_what_a_user_gets_wrong_is_one_sentence(submission, tmp_path, arguments, sentence):
    env = OFFLINE | {"TORCH_HOME": str(tmp_path)}
    default = [] if "--output" in arguments else ["--output", tmp_path / "model.onnx"]
    done = submission.run("ex01_export.py", *arguments, *default, env=env)
    assert done.code == 1, done.output
    assert sentence in done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / "model.onnx").exists()


def test_a_checkpoint_of_another_architecture_is_one_sentence(submission, reference, tmp_path):
    checkpoint = reference.call("reference.py", "random_checkpoint", path=tmp_path / "resnet18.pth", timeout=60)
    done = run(submission, tmp_path, "--architecture", "squeezenet1_0", "--weights", checkpoint)
    assert done.code == 1
    assert "do not fit squeezenet1_0" in done.output
    assert "Traceback" not in done.output


def test_another_architecture(submission, tmp_path):
    """googlenet has heads that only training uses."""
    done = run(submission, tmp_path, "--architecture", "googlenet", "--weights", "random")
    assert done.code == 0, done.output
    assert metadata(tmp_path / "model.onnx")["architecture"] == "googlenet"


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL], ids=["ctrl_c", "killed"])
def test_an_interrupted_export_leaves_what_was_there(submission, tmp_path, stop):
    (tmp_path / "model.onnx").write_bytes(b"the model of yesterday")
    with submission.start("ex01_export.py", "--weights", "random", "--output", tmp_path / "model.onnx") as process:
        give_up = time.monotonic() + 60
        while not list(tmp_path.glob(".export-*/*")):  # it has begun to write
            assert process.poll() is None, process.log.read_text()
            assert time.monotonic() < give_up, "nothing was written within 60 s"
            time.sleep(0.01)
        os.killpg(process.pid, stop)
        assert wait(process, 20) not in (None, 0)
        assert "Traceback" not in process.log.read_text()
    assert (tmp_path / "model.onnx").read_bytes() == b"the model of yesterday"
    if stop == signal.SIGINT:
        assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_an_export_without_external_data_clears_the_old_one_away(submission, tmp_path):
    small = ("--weights", "random", "--architecture", "squeezenet1_0", "--exporter", "torchscript")
    assert run(submission, tmp_path, *small, "--external-data").code == 0
    assert len(list(tmp_path.glob("model-*.data"))) == 1
    assert run(submission, tmp_path, *small).code == 0
    assert not list(tmp_path.glob("model-*.data"))


def test_no_path_of_this_machine_is_in_what_is_exported(models_dir):
    """Others get these files, in images too."""
    for path in (models_dir / "resnet18.onnx", program(models_dir)):
        content = path.read_bytes()
        assert sys.prefix.encode() not in content, path
        assert str(ROOT).encode() not in content, path
