"""Exercise 01's solution where the network, the disk or its user fail, and what exercise 02 says of its files."""

import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import NamedTuple

import onnx
import pytest
from image_builds import program
from small_models import small_model

from course import ROOT
from course.base.processes import wait

FILE = "ex01_export.py"
# Nothing listens on port 9: as if there were no network, wherever this runs.
OFFLINE = {"https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
QUICK = ("--exporter", "torchscript")  # the quickest of them; exercise 01's own tests run all three
SMALL = "mobilenet_v3_small"  # exported and compared in half the time of a resnet18
IMAGENET = "mobilenet_v3_small-047dcff4.pth"  # what torchvision calls the file with its ImageNet weights


WRONG = {  # arguments, and words of the sentence
    "offline": ([], "The ImageNet weights of mobilenet_v3_small could not be downloaded from https://"),
    "no_such": (["--architecture", "resnet19"], "There is no classifier called 'resnet19'. Did you mean resnet18"),
    "no_file": (["--weights", "nowhere.pth"], "nowhere.pth is none of these"),
    "no_checkpoint": (["--weights", __file__], "is not a checkpoint that torch.load can read"),
    "another": (["--architecture", "mobilenet_v3_large", "--weights", "{checkpoint}"], "do not fit mobilenet_v3_large"),
    "unwritable": (["--output", "/proc/models/x.onnx", "--weights", "random"], "x.onnx could not be written"),
}
RIGHT = {
    "cached": [],
    "random": ["--weights", "random"],
    "checkpoint": ["--weights", "{checkpoint}"],
    "googlenet": ["--architecture", "googlenet", "--weights", "random"],  # it has heads that only training uses
    "split": ["--weights", "random", "--external-data"],
}


class Ran(NamedTuple):
    """One command line that has ended."""

    code: int
    output: str
    folder: Path  # where its model.onnx is

    @property
    def metadata(self) -> dict[str, str]:
        """What the file says about itself."""
        return {entry.key: entry.value for entry in onnx.load(self.folder / "model.onnx").metadata_props}


@pytest.fixture(scope="module")
def ran(drive, submission, reference, tmp_path_factory) -> dict[str, Ran]:
    """Every command line of WRONG and RIGHT without a network, and exercise 02's of some files."""
    folder = tmp_path_factory.mktemp("exports")
    checkpoint = folder / "mine.pth"
    reference.call("reference.py", "random_checkpoint", path=checkpoint, architecture=SMALL, timeout=60)
    cache = folder / "torch" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    lines = {}
    for name, arguments in ({name: words for name, (words, _) in WRONG.items()} | RIGHT).items():
        words = [word.format(checkpoint=checkpoint) for word in arguments]
        words = [*QUICK, "--architecture", SMALL, "--output", folder / name / "model.onnx", *words]
        lines[name] = {"arguments": words, "env": {"TORCH_HOME": str(folder / "none")}}
    # A random checkpoint with the name of the download stands in for it: it cannot be downloaded everywhere.
    shutil.copy(checkpoint, cache / IMAGENET)
    lines["cached"]["env"] = {"TORCH_HOME": str(folder / "torch")}
    shown = small_model(folder / "shown.onnx", batch=1)
    for name, arguments in {
        "checked": [folder / "checkpoint" / "model.onnx"],
        "checked_with": [folder / "checkpoint" / "model.onnx", "--checkpoint", checkpoint],
        "graph": [shown, "--graph"],
    }.items():
        lines[name] = {"path": submission.existing("ex02_check.py"), "arguments": arguments}
    lines["offline"]["env"] |= OFFLINE
    outcomes = drive("command_lines", lines=list(lines.values()), timeout=240)
    return {name: Ran(*outcome, folder / name) for name, outcome in zip(lines, outcomes, strict=True)}


@pytest.mark.parametrize("kind", WRONG)
def test_what_cannot_be_had_is_one_sentence(ran, kind):
    assert ran[kind].code == 1
    assert WRONG[kind][1] in ran[kind].output.strip().splitlines()[-1]
    assert "Traceback" not in ran[kind].output
    assert not list(ran[kind].folder.glob("*"))


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("cached", "imagenet IMAGENET1K_V1"),
        ("random", "random seed 0"),
        ("checkpoint", "checkpoint mine.pth sha256 "),
        ("googlenet", "random seed 0"),
    ],
)
def test_the_metadata_says_where_the_weights_came_from(ran, name, weights):
    assert ran[name].code == 0, ran[name].output
    assert ran[name].metadata["weights"].startswith(weights)
    assert ran[name].metadata["architecture"] == ("googlenet" if name == "googlenet" else SMALL)
    assert ("RANDOM" in ran[name].output) == weights.startswith("random")
    assert re.findall(r"│ +(\d+) │", ran[name].output) == ["1", "8", "32"], "compared with PyTorch at these batch sizes"


def test_without_a_network_both_ways_out_are_named(ran):
    assert "MODEL=efficientnet_lite0" in ran["offline"].output
    assert "WEIGHTS=random" in ran["offline"].output


def test_a_file_is_compared_with_the_checkpoint_that_it_names(ran):
    assert ran["checked"].code == 1
    assert "--checkpoint" in ran["checked"].output
    assert ran["checked_with"].code == 0, ran["checked_with"].output


def test_the_whole_graph_can_be_printed(ran):
    for node in onnx.load(ran["graph"].folder.with_name("shown.onnx")).graph.node:
        assert f"%{node.output[0]}" in ran["graph"].output


def test_an_export_without_external_data_clears_the_old_one_away(submission, ran):
    folder = ran["split"].folder
    assert ran["split"].code == 0
    assert len(list(folder.glob("model-*.data"))) == 1
    options = [*QUICK, "--architecture", SMALL, "--weights", "random", "--output", folder / "model.onnx"]
    assert submission.run(FILE, *options, writes=[folder]).code == 0
    assert [file.name for file in folder.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL], ids=["ctrl_c", "killed"])
def test_an_interrupted_export_leaves_what_was_there(submission, tmp_path, stop):
    (tmp_path / "model.onnx").write_bytes(b"the model of yesterday")
    command = ["--weights", "random", *QUICK, "--architecture", SMALL, "--output", tmp_path / "model.onnx"]
    with submission.start(FILE, *command) as process:
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


def test_no_path_of_this_machine_is_in_what_is_exported(models_dir):
    """These files travel: into images, and to other machines."""
    for path in (models_dir / "resnet18.onnx", program(models_dir)):
        content = path.read_bytes()
        assert sys.prefix.encode() not in content, path
        assert str(ROOT).encode() not in content, path
