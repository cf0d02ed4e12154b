"""BentoML's model store: versions that are whole or not there, and checked when they are taken out."""

import hashlib
from pathlib import Path

import bentoml
from bentoml.exceptions import BentoMLException

from serving.bentoml_repairs import moved_in_whole as moved_in_whole  # for exercise 20
from serving.model import BadModel

MODEL_FILE = "model.onnx"  # its name inside a version


def stored(tag: str) -> bentoml.Model:
    """The one version that a tag means: name:version, name:latest, or first letters of a version; or raise BadModel."""
    try:
        return bentoml.models.get(tag)
    except (BentoMLException, ValueError) as error:
        reason = str(error).split(", you may need to run")[0]
        advice = "`python solutions/ex20_model_store.py list` shows what there is, `save` adds one."
        raise BadModel(f"No single model matches {tag}: {reason}. {advice}") from error


def checked_file(model: bentoml.Model) -> Path:
    """The ONNX file of a version; raises BadModel if it is missing, or has another sha256 than the metadata says."""
    path = Path(model.path_of(MODEL_FILE))
    if not path.is_file():
        raise BadModel(f"{model.tag} holds no {MODEL_FILE}: it was not saved by ex20_model_store.py.")
    if sha256(path) != model.info.metadata.get("sha256"):
        raise BadModel(f"{path} is not what was saved as {model.tag}: delete that version and save or import it again.")
    return path


def sha256(path: Path) -> str:
    """The digest of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
