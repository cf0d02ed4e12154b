"""BentoML's model store: versions that are whole or not there, and checked when they are taken out."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import bentoml
from bentoml.exceptions import BentoMLException

from serving import Problem
from serving.model import BadModel

MODEL_FILE = "model.onnx"  # its name inside a version


@contextmanager
def moved_in_whole() -> Iterator[object]:
    """A store beside BentoML's own: what is saved there moves over in one step, when the block ends well.

    `bentoml.models.create` and `import_model` copy file by file into the place where a version is looked for.
    Interrupted there (Ctrl-C, a full disk, a crash), they leave half a version, which `list` stumbles over and
    `latest` may mean. Give them this store as `_model_store`.

    Raises:
        Problem: the version is in BentoML's store already.
    """
    from bentoml._internal.configuration.containers import BentoMLContainer
    from bentoml._internal.models import ModelStore

    store = Path(BentoMLContainer.model_store.get()._path)
    with tempfile.TemporaryDirectory(prefix=".saving-", dir=store.parent) as folder:
        yield ModelStore(folder)
        for model in ModelStore(folder).list():
            place = store / model.tag.path()
            if place.exists():
                raise Problem(f"{model.tag} is in the store already.")
            place.parent.mkdir(exist_ok=True)
            os.rename(model.path, place)
            # BentoML notes here which version is the newest, and works it out anew where there is no note.
            (store / model.tag.latest_path()).unlink(missing_ok=True)


def stored(tag: str) -> bentoml.Model:
    """The version of a model that a tag means: name:version, name:latest, or the first letters of a version.

    Raises:
        BadModel: there is none, or more than one.
    """
    try:
        return bentoml.models.get(tag)
    except (BentoMLException, ValueError) as error:
        reason = str(error).split(", you may need to run")[0]
        raise BadModel(
            f"There is no one model {tag}: {reason}. `python solutions/ex20_model_store.py list` shows what there is, `save` adds one."
        ) from error


def checked_file(model: bentoml.Model) -> Path:
    """The ONNX file of a version, after a look whether it is still what was saved.

    Raises:
        BadModel: it is missing, or its bytes are others than those whose sha256 is in the version's metadata.
    """
    path = Path(model.path_of(MODEL_FILE))
    if not path.is_file():
        raise BadModel(f"{model.tag} holds no {MODEL_FILE}: it was not saved by ex20_model_store.py.")
    if sha256(path) != model.info.metadata.get("sha256"):
        raise BadModel(f"{path} is not what was saved as {model.tag}: delete that version and save or import it anew.")
    return path


def sha256(path: Path) -> str:
    """The digest of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
