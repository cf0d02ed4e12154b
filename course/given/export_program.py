"""The PyTorch model that an ONNX file was exported from, as a program that PyTorch loads without torchvision.

python -m course.given.export_program models/resnet18.onnx models/resnet18.pt2
"""

import json
from pathlib import Path
from typing import Annotated

import torch
from typer import Argument

from course.base.files import whole_folder
from course.given.script import run
from course.given.weights import load_again
from serving.model import labels, open_model, weights


def main(
    onnx: Annotated[Path, Argument(help="The ONNX file.")], output: Annotated[Path, Argument(help="Where it goes.")]
) -> None:
    """Save the model of an ONNX file with torch.export: the same weights, labels, dynamic batch axis."""
    session = open_model(onnx)
    model = load_again(session.get_modelmeta().custom_metadata_map.get("architecture", ""), weights(session))
    example, batch = (torch.zeros(2, 3, 224, 224),), torch.export.Dim("batch")
    program = torch.export.export(model, example, dynamic_shapes=({0: batch},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine, which do not belong in an image
    extra = {"labels": json.dumps(labels(session)), "weights": weights(session)}
    with whole_folder(output.parent, prefix=".export-") as folder:
        torch.export.save(program, folder / output.name, extra_files=extra)
    print(f"{output}: the model of {onnx} as a PyTorch program.")


if __name__ == "__main__":
    run(main)
