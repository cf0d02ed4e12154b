"""Exercise 01 in one function and a command line by argparse."""

import argparse
import contextlib
import json
import pathlib
import shutil
import sys
import tempfile

import numpy
import onnx
import onnxruntime
import torch

from course.given.weights import load_classifier

parser = argparse.ArgumentParser()
parser.add_argument("--exporter", choices=["torchscript", "dynamo", "lightning"], default="dynamo")
parser.add_argument("--architecture", default="resnet18")
parser.add_argument("--weights", default="imagenet")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--external-data", action="store_true")
parser.add_argument("--output", type=pathlib.Path)


def write(network, how, path):
    example = (torch.rand(3, 3, 224, 224),)
    names = {"input_names": ["input"], "output_names": ["output"], "opset_version": 20}
    if how == "torchscript":
        axes = {name: {0: "N"} for name in ("input", "output")}
        return torch.onnx.export(network, example, str(path), dynamo=False, dynamic_axes=axes, **names)
    shapes = [{0: torch.export.Dim("N", min=1, max=4096)}]
    if how == "dynamo":
        with contextlib.redirect_stdout(None):
            program = torch.onnx.export(network, example, dynamo=True, dynamic_shapes=shapes, **names)
        return program.save(str(path), external_data=False)
    from lightning import LightningModule

    class Wrapped(LightningModule):
        def __init__(self):
            super().__init__()
            self.inside = network
            self.forward = network.forward

    wrapped = Wrapped().eval()
    return wrapped.to_onnx(
        str(path), example, dynamo=True, dynamic_shapes={"x": shapes[0]}, external_data=False, **names
    )


def main():
    given = parser.parse_args()
    output = given.output or pathlib.Path("models") / f"{given.architecture}.onnx"
    loaded = load_classifier(given.architecture, given.weights, given.seed)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        draft = pathlib.Path(scratch) / "draft.onnx"
        write(loaded.model, given.exporter, draft)
        proto = onnx.load(draft)
        for key, value in {
            "weights": loaded.provenance,
            "labels": json.dumps(list(loaded.labels)),
            "architecture": given.architecture,
            "exporter": f"written with {given.exporter}",
        }.items():
            proto.metadata_props.add(key=key, value=value)
        for node in proto.graph.node:
            node.ClearField("metadata_props")
        onnx.save(proto, draft)
        session = onnxruntime.InferenceSession(str(draft))
        for batch in (5, 1, 2):
            images = torch.rand(batch, 3, 224, 224)
            with torch.no_grad():
                wanted = loaded.model(images).numpy()
            if not numpy.allclose(wanted, session.run(["output"], {"input": images.numpy()})[0], rtol=1e-4, atol=1e-4):
                sys.exit(f"PyTorch and ONNX Runtime disagree at batch {batch}.")
        if given.external_data:
            onnx.save_model(proto, output, save_as_external_data=True, location=f"{output.stem}.data")
        else:
            shutil.move(draft, output)
    print(output)


if __name__ == "__main__":
    main()
