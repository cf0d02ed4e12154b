"""The model file: where it is, whether it can be served, what its metadata says, what its logits mean."""

import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import onnxruntime as ort

from serving import Problem
from serving.labels import best5, softmax, top5

__all__ = [
    "MODELS_DIR",
    "MODEL_A_PATH",
    "MODEL_B_PATH",
    "MODEL_PATH",
    "BadModel",
    "best5",
    "labels",
    "open_model",
    "softmax",
    "top5",
    "weights",
]  # the three of serving.labels are taken from here by everything that has ONNX Runtime

# Beside this package, wherever that was copied to; never relative to the current directory.
MODELS_DIR = Path(os.environ.get("MODELS_DIR") or Path(__file__).resolve().parents[1] / "models")
MODEL_PATH = MODELS_DIR / f"{os.environ.get('MODEL') or 'resnet18'}.onnx"
# Two models for one image, in exercises 15 and 16: resnet18 and resnet34.
MODEL_A_PATH = MODELS_DIR / "model_a.onnx"
MODEL_B_PATH = MODELS_DIR / "model_b.onnx"


class BadModel(Problem):
    """The model file cannot be served; the message says why and what to do."""


def open_model(
    path: Path | str = MODEL_PATH, *, threads: int = 0, providers: Sequence[str] = ("CPUExecutionProvider",)
) -> ort.InferenceSession:
    """Load a model file and make sure that it keeps the contract of models/README.md.

    Args:
        path: an ONNX file.
        threads: that work on one operator (intra-op); 0 leaves the number to ONNX Runtime: one a core.
        providers: execution providers in order of preference. Without a warning, the session has those that there are.

    Raises:
        BadModel: missing, not an ONNX model, other inputs or outputs than the contract's, no labels.
    """
    path = Path(path)
    if not path.is_file():
        raise BadModel(f"There is no model at {path}. Run `{_export_command(path)}` first.")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    if "CUDAExecutionProvider" in providers and "CUDAExecutionProvider" in ort.get_available_providers():
        ort.preload_dlls()  # CUDA and cuDNN from pip's packages, where the system has none
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # of a provider that cannot be had
            session = ort.InferenceSession(path, options, providers=list(providers))
    except Exception as error:  # ONNX Runtime has a dozen kinds of its own for a broken file
        reason = str(error).splitlines()[0]
        raise BadModel(f"{path} cannot be loaded: {reason}. Run `{_export_command(path)}` to make it anew.") from error
    model_input, model_output = session.get_inputs()[0], session.get_outputs()[0]
    if isinstance(model_input.shape[0], int):
        raise BadModel(f"{path} takes batches of {model_input.shape[0]} only: export it with a dynamic batch axis.")
    if model_input.type != "tensor(float)" or model_input.shape[1:] != [3, 224, 224]:
        raise BadModel(
            f"{path} takes {model_input.type} of shape {model_input.shape}; "
            "expected tensor(float) of shape (batch, 3, 224, 224)."
        )
    if len(labels(session)) != model_output.shape[1]:
        raise BadModel(
            f"{path} has {len(labels(session))} labels in its metadata for {model_output.shape[1]} outputs. "
            f"Run `{_export_command(path)}` to make it anew."
        )
    return session


def _export_command(path: Path) -> str:
    known = path.parent != MODELS_DIR or path.name in ("resnet18.onnx", MODEL_A_PATH.name, MODEL_B_PATH.name)
    return "make export" if known else f"make export MODEL={path.stem}"


def labels(session: ort.InferenceSession) -> list[str]:
    """The names of the classes, in the order of the model's outputs; empty where the file has none."""
    return json.loads(session.get_modelmeta().custom_metadata_map.get("labels", "[]"))


def weights(session: ort.InferenceSession) -> str:
    """Where the weights came from, e.g. `imagenet IMAGENET1K_V1` or `random seed 0`."""
    return session.get_modelmeta().custom_metadata_map.get("weights", "unknown")
