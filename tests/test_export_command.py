"""Exercise 01's solution where the network, the disk or its user fail."""

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
QUICK = ("--exporter", "torchscript")  # the quickest of them; exercise 01's own tests run all three
SMALL = "squeezenet1_1"  # exported and compared in half the time of a resnet18
IMAGENET = "squeezenet1_1-b8a52dc0.pth"  # what torchvision calls the file with its ImageNet weights


@pytest.fixture(scope="module")
def checkpoint(reference, tmp_path_factory) -> Path:
    """Random weights of the small model."""
    path = tmp_path_factory.mktemp("checkpoint") / "mine.pth"
    return reference.call("reference.py", "random_checkpoint", path=path, architecture=SMALL, timeout=60)


def metadata(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def run(submission, tmp_path: Path, *arguments: object, cached: Path | None = None):
    """Export to tmp_path without a network; cached: a file to find where downloads of ImageNet weights are kept."""
    checkpoints = tmp_path / "torch" / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    if cached:
        shutil.copy(cached, checkpoints / IMAGENET)
    env = OFFLINE | {"TORCH_HOME": str(tmp_path / "torch")}
    fast = [*QUICK] if "--architecture" in arguments else [*QUICK, "--architecture", SMALL]
    return submission.run("ex01_export.py", *arguments, *fast, "--output", tmp_path / "model.onnx", env=env)


def test_without_a_network_nothing_is_exported_and_both_ways_out_are_named(submission, tmp_path):
    done = run(submission, tmp_path)
    assert done.code == 1, done.output
    for words in ("could not be downloaded from https://", "MODEL=efficientnet_lite0", "WEIGHTS=random"):
        assert words in done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / "model.onnx").exists()


def test_imagenet_weights_are_taken_where_they_can_be_had(submission, checkpoint, tmp_path):
    """A random checkpoint with the name of the download stands in for it: it cannot be downloaded everywhere."""
    done = run(submission, tmp_path, cached=checkpoint)
    assert done.code == 0, done.output
    assert "RANDOM" not in done.output
    assert metadata(tmp_path / "model.onnx")["weights"] == "imagenet IMAGENET1K_V1"


def test_a_checkpoint_is_named_in_the_metadata(submission, checkpoint, tmp_path):
    done = run(submission, tmp_path, "--weights", checkpoint)
    assert done.code == 0, done.output
    assert metadata(tmp_path / "model.onnx")["weights"].startswith("checkpoint mine.pth sha256 ")
    check = submission.run("ex02_check.py", tmp_path / "model.onnx")
    assert check.code == 1
    assert "--checkpoint" in check.output
    assert submission.run("ex02_check.py", tmp_path / "model.onnx", "--checkpoint", checkpoint).code == 0


def test_what_a_user_gets_wrong_is_one_sentence(submission, tmp_path):
    command = ("--weights", "random", "--output", "/proc/models/x.onnx")
    done = submission.run("ex01_export.py", *command, env=OFFLINE | {"TORCH_HOME": str(tmp_path)})
    assert done.code == 1, done.output
    assert "/proc/models/x.onnx could not be written" in done.output
    assert "Traceback" not in done.output


WRONG = {
    "offline": ({"weights": "imagenet"}, "The ImageNet weights of resnet18 could not be downloaded from https://"),
    "architecture": (
        {"architecture": "resnet19"},
        "There is no classifier called 'resnet19'. Did you mean resnet18",
    ),
    "no_file": ({"weights": "nowhere.pth"}, "nowhere.pth is none of these"),
    "no_checkpoint": ({"weights": __file__}, "is not a checkpoint that torch.load can read"),
}


@pytest.fixture(scope="module")
def problems(reference, tmp_path_factory) -> dict[str, str]:
    """The sentences that WRONG brings, all from one process: importing PyTorch takes longer than the rest."""
    env = OFFLINE | {"TORCH_HOME": str(tmp_path_factory.mktemp("torch"))}
    calls = {name: arguments for name, (arguments, _) in WRONG.items()}
    return reference.call("reference.py", "problems", calls=calls, env=env, timeout=60)


@pytest.mark.parametrize("kind", WRONG)
def test_weights_that_cannot_be_had_are_one_sentence(problems, kind):
    assert WRONG[kind][1] in problems[kind]
    assert "\n" not in problems[kind]


def test_a_checkpoint_of_another_architecture_is_one_sentence(submission, checkpoint, tmp_path):
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
    command = ["--weights", "random", *QUICK, "--architecture", SMALL, "--output", tmp_path / "model.onnx"]
    with submission.start("ex01_export.py", *command) as process:
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
    assert run(submission, tmp_path, "--weights", "random", "--external-data").code == 0
    assert len(list(tmp_path.glob("model-*.data"))) == 1
    assert run(submission, tmp_path, "--weights", "random").code == 0
    assert not list(tmp_path.glob("model-*.data"))


def test_no_path_of_this_machine_is_in_what_is_exported(models_dir):
    """These files travel: into images, and to other machines."""
    for path in (models_dir / "resnet18.onnx", program(models_dir)):
        content = path.read_bytes()
        assert sys.prefix.encode() not in content, path
        assert str(ROOT).encode() not in content, path
