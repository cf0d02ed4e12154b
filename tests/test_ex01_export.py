"""Exercise 01: the exported file keeps the contract of models/README.md, whichever exporter wrote it."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from scripts import expect_close, expect_equal, expect_success

from course import ROOT
from course.harness import model_files, written
from course.harness.submission import Submission
from course.harness.verdicts import expect, fail, said

FILE, SEED = "ex01_export.py", 3
EXPORTERS = ("dynamo", "torchscript", "lightning")
# Python imports a module of this name when it starts. It notes which exporter is called, and can spoil what it writes.
SITECUSTOMIZE = """
import os
import traceback
import torch

def noted(model, args=(), f=None, *, original=torch.onnx.export, dynamo=True, **options):
    lightning = any(frame.name == "to_onnx" for frame in traceback.extract_stack())
    with open({note!r}, "w") as file:
        file.write("lightning" if lightning else "dynamo" if dynamo else "torchscript")
    program = original(model, args, f, dynamo=dynamo, **options)
    if "ADDED" in os.environ:
        import onnx
        written = onnx.load(f)
        bias = next(tensor for tensor in written.graph.initializer if list(tensor.dims) == [1000])
        values = onnx.numpy_helper.to_array(bias) + float(os.environ["ADDED"])
        bias.CopyFrom(onnx.numpy_helper.from_array(values.astype("float32"), bias.name))
        onnx.save(written, f)
    return program

torch.onnx.export = noted
"""


def watched(folder: Path) -> dict[str, str]:
    """Environment variables with which a script notes in the folder, as `used`, which exporter it calls."""
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE.format(note=str(folder / "used")))
    return {"PYTHONPATH": f"{folder}:{ROOT}"}


@pytest.fixture(scope="module")
def export(submission: Submission, tmp_path_factory: pytest.TempPathFactory):
    """Export once for each set of options, and hand out the file; beside its folder, `used` names the exporter."""
    done: dict[tuple, Path] = {}

    def once(*options: str) -> Path:
        if options not in done:
            folder = tmp_path_factory.mktemp("export")
            path = done[options] = folder / "models" / "resnet18.onnx"
            path.parent.mkdir()
            arguments = ["--weights", "random", "--seed", SEED, *options, "--output", path]
            finished = submission.run(FILE, *arguments, env=watched(folder), writes=[folder])
            called = f"python {FILE} --weights random --seed {SEED} {' '.join(options)} --output {path.name}"
            hint = "run the same command yourself and read its first error"
            expect_success(finished, called=called, expected=f"and a file {path.name}", hint=hint)
        if not done[options].is_file():
            fail(f"The export with {' '.join(options)} failed; see the first test that needed it.")
        return done[options]

    return once


def axes(value: onnx.ValueInfoProto) -> list:
    return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize(
    "exporter",
    [
        pytest.param(name, marks=pytest.mark.points(points), id=name)
        for name, points in zip(EXPORTERS, (3, 2, 2), strict=True)
    ],
)
def test_keeps_the_contract(export, exporter):
    path, called = export("--exporter", exporter), f"python {FILE} --exporter {exporter}"
    model = model_files.load(path)
    values = [*model.graph.input, *model.graph.output]
    hint = "pass input_names=['input'] and output_names=['output'] to the exporter"
    expect_equal([one.name for one in values], ["input", "output"], called=f"{called}: inputs, outputs", hint=hint)
    shapes = [axes(value) for value in values]
    expect(
        all(isinstance(shape[0], str) for shape in shapes),
        called=called,
        got=shapes,
        expected="a dynamic first axis in input and output: a name such as 'batch' instead of a number",
        hint="dynamic_shapes with torch.export.Dim for dynamo=True, dynamic_axes for dynamo=False",
    )
    fixed = [shape[1:] for shape in shapes]
    hint = "make axis 0 dynamic, and no other"
    expect_equal(fixed, [[3, 224, 224], [1000]], called=f"{called}: the other axes, all fixed", hint=hint)
    types = [onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type) for value in values]
    expect_equal(types, ["FLOAT", "FLOAT"], called=f"{called}: types", hint="export the classifier as it was given")
    opsets = {opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")}
    expect_equal(opsets, {20}, called=f"{called}: opset", hint="pass opset_version=OPSET to the exporter")
    model_files.check(path)
    files = [file.name for file in path.parent.iterdir()]
    hint = "pass external_data=False, and work in a temporary folder"
    expect_equal(files, [path.name], called=f"{called}: files, one self-contained one and nothing beside it", hint=hint)
    used = written.read(path.parents[1] / "used").decode()
    hint = f"export_{exporter}() is the one to call; Lightning's own method is to_onnx()"
    expect_equal(used, exporter, called=f"{called}: the exporter that was used", hint=hint)
    paths = [entry.key for node in model.graph.node for entry in node.metadata_props if "stack_trace" in entry.key]
    expect_equal(paths, [], called=f"{called}: source paths in the nodes", hint="call remove_source_paths(model)")


@pytest.mark.points(2)
def test_agrees_with_pytorch_at_several_batch_sizes(export, reference):
    """At most 1e-4 apart: adding float32 numbers in another order makes about 4e-6 here, a wrong weight far more."""
    exported = {exporter: export("--exporter", exporter) for exporter in EXPORTERS}
    images = np.random.default_rng(1).normal(size=(8, 3, 224, 224)).astype(np.float32)
    logits = reference.call("reference.py", "resnet18_logits", seed=SEED, images=images, timeout=60)
    for exporter, path in exported.items():
        session = model_files.open_session(path)
        for batch in (1, 3, 8):
            got = session.run(["output"], {"input": images[:batch]})[0]
            called = f"the model exported with --exporter {exporter} --seed {SEED}, on a batch of {batch}"
            hint = "export the classifier that you were given, in evaluation mode"
            expect_close(got, logits[:batch], 1e-4, called=called, hint=hint)


@pytest.mark.points(1)
def test_metadata_holds_labels_and_provenance(export):
    for exporter in EXPORTERS:
        model = model_files.load(export("--exporter", exporter))
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        called, labels = f"the metadata, exported with {exporter}", json.loads(metadata.pop("labels", "[]"))
        expect(
            len(labels) == 1000 and labels[281] == "tabby",
            called=called,
            got=f"{len(labels)} labels under 'labels'; other keys {sorted(metadata)}",
            expected="a JSON list of ImageNet's 1000 labels, 'tabby' as number 281",
            hint="onnx.helper.set_model_props(model, {'labels': json.dumps(classifier.labels), ...})",
        )
        expect(
            (metadata.get("weights"), metadata.get("architecture")) == (f"random seed {SEED}", "resnet18")
            and exporter in metadata.get("exporter", ""),
            called=called,
            got=metadata,
            expected=f"weights: 'random seed {SEED}', architecture: 'resnet18', exporter: with {exporter!r} in it",
            hint="classifier.provenance says where the weights came from",
        )


@pytest.mark.points(1)
def test_external_data_puts_the_weights_into_a_second_file(export):
    path = export("--exporter", "torchscript", "--external-data")
    files = {file.suffix: file.stat().st_size for file in path.parent.iterdir()}
    expect(
        files.get(".onnx", 0) < 1e6 < 40e6 < files.get(".data", 0),
        called=f"python {FILE} --external-data",
        got=f"files of {files} bytes",
        expected="a graph of less than 1 MB, and the weights, about 47 MB, in a .data file beside it",
        hint="onnx.save(..., save_as_external_data=True, location=...)",
    )
    batch = np.zeros((2, 3, 224, 224), dtype=np.float32)
    assert model_files.open_session(path).run(None, {"input": batch})[0].shape == (2, 1000)


@pytest.mark.points(0.5)
@pytest.mark.parametrize("added", ["0.01", "nan"])
def test_a_model_that_fails_the_comparison_replaces_nothing(submission, export, tmp_path, added):
    """As if the exporter had a fault: what it writes answers otherwise than PyTorch."""
    export("--exporter", "torchscript")  # to refuse every model earns nothing
    output = tmp_path / "models" / "resnet18.onnx"
    output.parent.mkdir()
    output.write_bytes(b"the model of yesterday")
    options = ["--exporter", "torchscript", "--weights", "random", "--output", output]
    finished = submission.run(FILE, *options, env=watched(tmp_path) | {"ADDED": added}, writes=[tmp_path])
    left = {file.name: written.beginning(file, 30) for file in output.parent.iterdir()}
    expect(
        finished.code != 0 and left == {"resnet18.onnx": b"the model of yesterday"},
        called=f"python {FILE}, where the exporter adds {added} to each logit",
        got=f"exit code {finished.code}, files {left}, output: {said(finished.output)}",
        expected="a non-zero exit code, and the file that was there before, untouched and alone",
        hint="compare() must raise a Problem unless the difference is small; NaN is never small",
    )
