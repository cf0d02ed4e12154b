"""Exercise 20: keep, version and move models with BentoML's model store.

python solutions/ex20_model_store.py save models/resnet18.onnx --label stage=production
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
    open_model(path)
    _save(path, name, _as_labels(label or []), {})


def _save(path: Path, name: str, with_labels: dict[str, str], more_metadata: dict[str, str]) -> None:
    """Copy the file into a new version, which is whole or not there, and describe the copy in its metadata."""
    try:
        with moved_in_whole() as store, bentoml.models.create(name, labels=with_labels, _model_store=store) as model:
            copy = Path(model.path_of(MODEL_FILE))
            shutil.copyfile(path, copy)
            session = open_model(copy)  # not path, which may have been replaced meanwhile
            model.info.metadata.update(
                {"weights": weights(session), "classes": len(labels(session)), "sha256": sha256(copy)} | more_metadata
            )
    except (BentoMLException, ValueError) as error:
        raise Problem(f"{path} cannot be saved as {name}: {error}") from error
    print(model.tag)


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
    try:
        found = bentoml.models.list(name)
    except NotFound as error:
        raise Problem(f"There is no model {name} in the store. `save` puts one there.") from error
    except (BentoMLException, ValueError) as error:
        raise Problem(f"The versions of {name} cannot be listed: {error}") from error
    return sorted(found, key=lambda model: model.creation_time, reverse=True)


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
    earlier = stored(tag)
    if earlier.tag == stored(earlier.tag.name).tag:
        raise Problem(f"{earlier.tag} is the latest version already.")
    _save(checked_file(earlier), earlier.tag.name, dict(earlier.info.labels), {"rolled_back_to": str(earlier.tag)})


@app.command()
def export(
    tag: Annotated[str, Argument(help="name:version, or name:latest.")],
    path: Annotated[Path, Argument(help="A file to write: .tar, .tar.gz, .zip or .bentomodel (slow, 8 % smaller).")],
) -> None:
    """Write a version, with its labels and metadata, into one file for another machine."""
    model = stored(tag)
    checked_file(model)
    # BentoML takes a relative path from the root, and writes beside the name that it is given.
    with whole_file(path.resolve()) as new:
        os.replace(bentoml.models.export_model(model.tag, str(new)), new)
    print(f"{model.tag} is in {path.resolve()}.")


@app.command("import")
def take_in(path: Annotated[Path, Argument(help="A file that `export` wrote.")]) -> None:
    """Put an exported version into this machine's store, and print its tag, which is the same."""
    if not path.is_file():
        raise Problem(f"There is no file {path}.")
    with moved_in_whole() as store:
        try:
            model = bentoml.models.import_model(str(path.resolve()), _model_store=store)
        except Exception as error:  # tar, zip, xz and yaml raise many kinds
            raise Problem(f"{path} is not an exported model, or is broken: {error}") from error
        open_model(checked_file(model))
    print(model.tag)


if __name__ == "__main__":
    call(app)
