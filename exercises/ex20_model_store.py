"""Exercise 20: keep, version and move models with BentoML's model store.

python exercises/ex20_model_store.py save models/resnet18.onnx --label stage=production
"""

import os
import shutil
from pathlib import Path
from typing import Annotated

import bentoml
import typer
from bentoml.exceptions import BentoMLException, NotFound
from typer import Argument, Option

from course.given.files import whole_file
from course.given.script import call
from course.given.show import print_table
from serving import Problem
from serving.model import labels, open_model, weights
from serving.store import MODEL_FILE, checked_file, moved_in_whole, sha256, stored

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help="Models in BentoML's store.")


@app.command()
def save(
    path: Annotated[Path, Argument(help="An ONNX file.")] = Path("models/resnet18.onnx"),
    name: Annotated[str, Option(help="The model's name in the store.")] = "resnet18",
    label: Annotated[list[str] | None, Option(help="key=value, to find versions by. Repeat it for more.")] = None,
) -> None:
    """Save a model as a new version, with labels and metadata, and print its tag."""
    # TODO 1: make sure that open_model(path) can serve it, then _save it.
    raise NotImplementedError("Save the model as a new version.")


def _save(path: Path, name: str, with_labels: dict[str, str], more_metadata: dict[str, str]) -> None:
    """Copy the file into a new version, which is whole or not there, and describe the copy in its metadata."""
    # TODO 2: with moved_in_whole() as store, bentoml.models.create(name, labels=..., _model_store=store) as model: copy
    # the file to model.path_of(MODEL_FILE), and put "weights", "classes" and "sha256" into model.info.metadata.
    # Raise Problem for BentoMLException and ValueError: the name is not allowed. Print model.tag.
    raise NotImplementedError("Save the file as a new version that is whole or not there.")


def _as_labels(pairs: list[str]) -> dict[str, str]:
    found = dict(pair.partition("=")[::2] for pair in pairs)
    if not all(key and value for key, value in found.items()):
        raise Problem(f"--label takes key=value, such as stage=production; got {' '.join(pairs)}.")
    return found


def versions(name: str) -> list[bentoml.Model]:
    """All versions of a model in the store, the newest first.

    Raises:
        Problem: there is no such model, or its versions cannot be listed.
    """
    # TODO 3: bentoml.models.list(name), sorted by creation_time. Raise Problem if there is none (NotFound).
    raise NotImplementedError("List the versions of the model.")


@app.command("list")
def show(name: Annotated[str, Argument(help="The model's name in the store.")] = "resnet18") -> None:
    """Show all versions of a model, the newest first."""
    rows = []
    for model in versions(name):
        info, back = model.info, model.info.metadata.get("rolled_back_to")
        saved, size = f"{model.creation_time.astimezone():%Y-%m-%d %H:%M:%S}", f"{model.file_size / 1e6:.1f}"
        pairs = ", ".join(f"{key}={value}" for key, value in info.labels.items())
        notes = ["latest"] * (model.tag == stored(name).tag) + [f"rolled back to {back}"] * bool(back)
        rows.append((model.tag, saved, size, info.metadata.get("weights", "unknown"), pairs, ", ".join(notes)))
    print_table(rows, "tag", "saved", ">MB", "weights", "labels", "")


@app.command()
def rollback(tag: Annotated[str, Argument(help="The earlier version, name:version.")]) -> None:
    """Make an earlier version the latest again: save its file as a new version. No version is lost."""
    # TODO 4: _save the file of stored(tag), with its labels, and with "rolled_back_to" in its metadata.
    raise NotImplementedError("Save the earlier version's file as the newest version.")


@app.command()
def export(
    tag: Annotated[str, Argument(help="name:version, or name:latest.")],
    path: Annotated[Path, Argument(help="A file to write: .tar, .tar.gz, .zip or .bentomodel (slow, 8 % smaller).")],
) -> None:
    """Write a version, with its labels and metadata, into one file for another machine."""
    # TODO 5: inside `with whole_file(path.resolve()) as new`: bentoml.models.export_model(tag, path). It returns the path
    # that it wrote, which may have another name: os.replace it to `new`.
    raise NotImplementedError("Write the version into a file.")


@app.command("import")
def take_in(path: Annotated[Path, Argument(help="A file that `export` wrote.")]) -> None:
    """Put an exported version into this machine's store, and print its tag, which is the same."""
    # TODO 6: inside `with moved_in_whole() as store`: bentoml.models.import_model(path, _model_store=store), with an
    # absolute path. Check the imported model (checked_file, open_model) before the block ends. Print the tag.
    raise NotImplementedError("Put the exported version into the store.")


if __name__ == "__main__":
    call(app)
