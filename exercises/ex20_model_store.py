"""Exercise 20: models kept, versioned and moved with BentoML's model store.

python exercises/ex20_model_store.py save models/resnet18.onnx --label stage=production
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import bentoml
import typer
from bentoml.exceptions import BentoMLException, NotFound
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer import Argument, Option

from course.given.script import call
from serving import Problem
from serving.model import labels, open_model, weights
from serving.store import MODEL_FILE, checked_file, moved_in_whole, sha256, stored

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help="Models in BentoML's store.")


@app.command()
def save(
    path: Annotated[Path, Argument(help="An ONNX file.")] = Path("models/resnet18.onnx"),
    name: Annotated[str, Option(help="The model's name in the store.")] = "resnet18",
    label: Annotated[list[str] | None, Option(help="key=value, to find versions by; as often as needed.")] = None,
) -> None:
    """Save a model as a new version, with labels and metadata, and print its tag."""
    # TODO: make sure that open_model(path) can serve it, then _save it and print its tag.
    raise NotImplementedError("Save the model as a new version and print its tag.")


def _save(path: Path, name: str, with_labels: dict[str, str], more_metadata: dict[str, str]) -> None:
    """Copy the file into a new version that is whole or not there, described by what is in the copy."""
    # TODO: with moved_in_whole() as store, bentoml.models.create(name, labels=..., _model_store=store) as model: copy the
    # file to model.path_of(MODEL_FILE), and put "weights", "classes" and "sha256" into model.info.metadata.
    # BentoMLException and ValueError are a name that cannot be one: raise Problem. Print model.tag.
    raise NotImplementedError("Save the file as a new version that is whole or not there.")


def _as_labels(pairs: list[str]) -> dict[str, str]:
    found = dict(pair.partition("=")[::2] for pair in pairs)
    if not all(key and value for key, value in found.items()):
        raise Problem(f"--label takes key=value, such as stage=production; got {' '.join(pairs)}.")
    return found


@app.command("list")
def show(name: Annotated[str, Argument(help="The model's name in the store.")] = "resnet18") -> None:
    """Show all versions of a model, the newest first."""
    # TODO: bentoml.models.list(name) in a rich.table.Table: tag, when it was saved, size, weights, labels, and which of
    # them bentoml.models.get(name) means. Raise Problem where there is none (NotFound).
    raise NotImplementedError("Print a table of all versions.")


@app.command()
def rollback(tag: Annotated[str, Argument(help="The earlier version, name:version.")]) -> None:
    """Make an earlier version the latest again: as a new one with the same file. No version is lost."""
    # TODO: _save the file of stored(tag), with its labels, and with "rolled_back_to" in its metadata.
    raise NotImplementedError("Save the earlier version's file as the newest version.")


@app.command()
def export(
    tag: Annotated[str, Argument(help="name:version, or name:latest.")],
    path: Annotated[Path, Argument(help="A file to write: .tar, .tar.gz, .zip or .bentomodel (slow, 8 % smaller).")],
) -> None:
    """Write a version with all that is known about it into one file, for another machine."""
    # TODO: bentoml.models.export_model(tag, path), with an absolute path, beside its place and moved there (os.replace).
    raise NotImplementedError("Write the version into a file.")


@app.command("import")
def take_in(path: Annotated[Path, Argument(help="A file that `export` wrote.")]) -> None:
    """Put an exported version into this machine's store, under the same tag; print it."""
    # TODO: bentoml.models.import_model(path, _model_store=store), with an absolute path, under moved_in_whole(). Check
    # what came (checked_file, open_model) before the block ends. Print the tag.
    raise NotImplementedError("Put the exported version into the store.")


if __name__ == "__main__":
    call(app)
