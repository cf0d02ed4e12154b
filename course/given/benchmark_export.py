"""Exports for the benchmark, in a process of its own: python -m course.given.benchmark_export FOLDER.

FOLDER/job.json says where the files go and which exporters make them. They hold the weights of models/resnet18.onnx;
their height and width are dynamic as well, because the benchmark varies both.
"""

import json
import warnings
from pathlib import Path

import torch

from course.base.files import whole_folder, write_whole
from course.given.script import run
from course.given.weights import load_again
from serving.model import open_model, weights


def export(model: torch.nn.Module, exporter: str, path: Path) -> None:
    """Export with dynamo, torchscript or lightning."""
    example = (torch.zeros(2, 3, 224, 256),)
    common = {"opset_version": 20, "input_names": ["input"], "output_names": ["output"]}
    axes = {0: "batch", 2: "height", 3: "width"}
    if exporter == "torchscript":
        warnings.simplefilter("ignore", DeprecationWarning)
        dynamic = {"input": axes, "output": {0: "batch"}}
        torch.onnx.export(model, example, path, dynamo=False, dynamic_axes=dynamic, **common)
        return
    dynamic = (dict.fromkeys(axes, torch.export.Dim.DYNAMIC),)
    options = {**common, "dynamo": True, "external_data": False, "dynamic_shapes": dynamic, "verbose": False}
    if exporter == "lightning":
        as_lightning_module(model).to_onnx(path, example, **options)
    else:
        torch.onnx.export(model, example, path, **options)


def as_lightning_module(model: torch.nn.Module) -> torch.nn.Module:
    """The model as a LightningModule, with the `to_onnx` of one."""
    import lightning  # here: it takes two seconds, which the other exporters do not need

    class Classifier(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.model(images)

    return Classifier().eval()


def main(folder: Path) -> None:
    """Write resnet18.pth, a file for each exporter, and made_from.json last."""
    job = json.loads((folder / "job.json").read_text())
    output, session = Path(job["output"]), open_model()
    model = load_again(session.get_modelmeta().custom_metadata_map["architecture"], weights(session))
    with whole_folder(output, prefix=".export-") as new:
        torch.save(model.state_dict(), new / "resnet18.pth")
        for exporter in job["exporters"]:
            export(model, exporter, new / f"{exporter}.onnx")
    write_whole(output / "made_from.json", json.dumps(weights(session)))


if __name__ == "__main__":
    run(main)
