"""Exercise 01: the exported file keeps the contract of models/README.md, whichever exporter wrote it."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from scripts import expect_success

from course.harness import model_files, written
from course.harness.submission import Submission
from course.harness.verdicts import expect

SEED = 3


@pytest.fixture(scope="module")
def export(submission: Submission, tmp_path_factory: pytest.TempPathFactory):
    """Export once for each set of options, and hand out the file."""
    done: dict[tuple, Path] = {}

    def once(*options: str) -> Path:
        if options not in done:
            path = done[options] = tmp_path_factory.mktemp("export") / "resnet18.onnx"
            arguments = ["--weights", "random", "--seed", SEED, *options, "--output", path]
            finished = submission.run("ex01_export.py", *arguments)
            called = f"python ex01_export.py --weights random --seed {SEED} {' '.join(options)} --output {path.name}"
            hint = "run the same command yourself and read its first error"
            expect_success(finished, called=called, expected=f"and a file {path.name}", hint=hint)
        if not done[options].is_file():
            pytest.fail(f"the export with {' '.join(options)} failed; see the first test that needed it", pytrace=False)
        return done[options]

    return once


def axes(value: onnx.ValueInfoProto) -> list:
    return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]


def assert_contract(path: Path, exporter: str) -> None:
    called = f"python ex01_export.py --exporter {exporter}"
    graph = model_files.load(path).graph
    got = [(value.name, axes(value)) for value in [*graph.input, *graph.output]]
    expect(
        [name for name, _ in got] == ["input", "output"],
        called=called,
        got=f"inputs and outputs {[name for name, _ in got]}",
        expected="['input', 'output']",
        hint="pass input_names=['input'] and output_names=['output'] to the exporter",
    )
    expect(
        all(isinstance(shape[0], str) for _, shape in got),
        called=called,
        got=got,
        expected="a dynamic first axis in input and output: a name such as 'batch' instead of a number",
        hint="dynamic_shapes with torch.export.Dim for dynamo=True, dynamic_axes for dynamo=False",
    )
    expect(
        [shape[1:] for _, shape in got] == [[3, 224, 224], [1000]],
        called=called,
        got=got,
        expected="all other axes fixed: (batch, 3, 224, 224) and (batch, 1000)",
        hint="make axis 0 dynamic, and no other",
    )
    model_files.check(path)
    others = sorted(file.name for file in path.parent.iterdir() if file != path)
    expect(
        not others,
        called=called,
        got=f"{path.name} and {others}",
        expected="one self-contained file, and nothing left beside it",
        hint="pass external_data=False, and work in a temporary folder",
    )


@pytest.mark.points(3)
def test_dynamo_keeps_the_contract(export):
    assert_contract(export("--exporter", "dynamo"), "dynamo")


@pytest.mark.points(2)
def test_torchscript_keeps_the_contract(export):
    assert_contract(export("--exporter", "torchscript"), "torchscript")


@pytest.mark.points(2)
def test_lightning_keeps_the_contract(export):
    assert_contract(export("--exporter", "lightning"), "lightning")


@pytest.mark.points(2)
def test_agrees_with_pytorch_at_several_batch_sizes(export, reference):
    """At most 1e-4 apart: adding float32 numbers in another order makes about 4e-6 here, a wrong weight far more."""
    exported = {exporter: export("--exporter", exporter) for exporter in ("dynamo", "torchscript", "lightning")}
    images = np.random.default_rng(1).normal(size=(8, 3, 224, 224)).astype(np.float32)
    logits = reference.call("reference.py", "resnet18_logits", seed=SEED, images=images, timeout=60)
    for exporter, path in exported.items():
        session = model_files.open_session(path)
        for batch in (1, 3, 8):
            difference = abs(session.run(["output"], {"input": images[:batch]})[0] - logits[:batch]).max()
            expect(
                difference <= 1e-4,
                called=f"the model exported with --exporter {exporter} --seed {SEED}, on a batch of {batch}",
                got=f"logits up to {difference:.1e} away from PyTorch's",
                expected="at most 1e-4",
                hint="export the classifier that you were given, in evaluation mode",
            )


@pytest.mark.points(1)
def test_metadata_holds_labels_and_provenance(export):
    metadata = {entry.key: entry.value for entry in model_files.load(export("--exporter", "dynamo")).metadata_props}
    labels = json.loads(metadata.get("labels", "[]"))
    expect(
        len(labels) == 1000 and labels[281] == "tabby",
        called="the metadata of the exported file",
        got=f"{len(labels)} labels under 'labels'; keys {sorted(metadata)}",
        expected="a JSON list of ImageNet's 1000 labels, 'tabby' as number 281",
        hint="onnx.helper.set_model_props(model, {'labels': json.dumps(classifier.labels), ...})",
    )
    expect(
        metadata.get("weights") == f"random seed {SEED}" and metadata.get("architecture") == "resnet18",
        called="the metadata of the exported file",
        got={key: value for key, value in metadata.items() if key != "labels"},
        expected=f"weights: 'random seed {SEED}', architecture: 'resnet18'",
        hint="classifier.provenance says where the weights came from",
    )


@pytest.mark.points(1)
def test_external_data_puts_the_weights_into_a_second_file(export):
    path = export("--exporter", "torchscript", "--external-data")
    files = {file.suffix: file.stat().st_size for file in path.parent.iterdir()}
    expect(
        files.get(".onnx", 0) < 1e6 < 40e6 < files.get(".data", 0),
        called="python ex01_export.py --external-data",
        got=f"files of {files} bytes",
        expected="a graph of less than 1 MB, and the weights, about 47 MB, in a .data file beside it",
        hint="onnx.save(..., save_as_external_data=True, location=...)",
    )
    batch = np.zeros((2, 3, 224, 224), dtype=np.float32)
    assert model_files.open_session(path).run(None, {"input": batch})[0].shape == (2, 1000)


@pytest.mark.points(1)
def test_a_model_that_fails_the_comparison_replaces_nothing(submission, export, reference, tmp_path):
    """With weights of NaN every output is NaN, which must not pass the comparison with PyTorch."""
    export("--exporter", "torchscript")  # to refuse every model earns nothing
    checkpoint = reference.call(
        "reference.py", "random_checkpoint", path=tmp_path / "nan.pth", value=float("nan"), timeout=60
    )
    output = tmp_path / "models" / "resnet18.onnx"
    output.parent.mkdir()
    output.write_bytes(b"the model of yesterday")
    finished = submission.run(
        "ex01_export.py", "--exporter", "torchscript", "--weights", checkpoint, "--output", output
    )
    left = {file.name: written.beginning(file, 30) for file in output.parent.iterdir()}
    expect(
        finished.code != 0 and left == {"resnet18.onnx": b"the model of yesterday"},
        called="python ex01_export.py --weights nan.pth, a checkpoint whose weights are all NaN",
        got=f"exit code {finished.code}, files {left}, output: {finished.output[-300:]}",
        expected="a non-zero exit code, and the file that was there before, untouched and alone",
        hint="compare() must raise a Problem unless the difference is small; NaN is never small",
    )
