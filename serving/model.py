"""The model file: where it is, whether it can be served, what its metadata says, what its logits mean."""

import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from serving import Problem
from serving.labels import best5 as best5  # these three are taken from here by everything that has ONNX Runtime
from serving.labels import softmax as softmax
from serving.labels import top5 as top5

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

    threads: that work on one operator (intra-op); 0 leaves the number to ONNX Runtime: one a core.
    providers: execution providers in order of preference. Without a warning, the session has those that there are.

    Raises BadModel: missing, not an ONNX model, or one that does not keep the contract: other inputs or outputs, no
    label for each class, or no answer to two images.
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
    except Exception as error:  # ONNX Runtime raises a dozen kinds of its own
        problem = f"cannot be loaded: {str(error).splitlines()[0]}"
    else:
        problem = _problem_of(session)
    if problem:
        raise BadModel(f"{path} {problem}. Run `{_export_command(path)}` to export it again.")
    return session


def _problem_of(session: ort.InferenceSession) -> str:
    """What keeps a model from being served, as the end of a sentence; empty where it keeps the contract.

    A service whose model cannot answer would start, call itself ready and fail at every request.
    """
    inputs, outputs = ([value.name for value in values] for values in (session.get_inputs(), session.get_outputs()))
    if (inputs, outputs) != (["input"], ["output"]):
        return f"has inputs {inputs} and outputs {outputs}; expected ['input'] and ['output']"
    kind, shape = session.get_inputs()[0].type, session.get_inputs()[0].shape
    if kind != "tensor(float)" or len(shape) != 4 or shape[1:] != [3, 224, 224]:
        return f"takes {kind} of shape {shape}; expected tensor(float) of shape (batch, 3, 224, 224)"
    if isinstance(shape[0], int):
        return f"takes batches of {shape[0]} only: it needs a dynamic batch axis"
    try:
        names = labels(session)
    except ValueError as error:
        return f"has labels in its metadata that cannot be read: {error}"
    try:
        answer = session.run(["output"], {"input": np.zeros((2, 3, 224, 224), np.float32)})[0]
    except Exception as error:  # as above
        return f"cannot classify two images at once: {str(error).splitlines()[0]}"
    if not isinstance(answer, np.ndarray) or answer.dtype != np.float32 or answer.shape != (2, len(names)):
        got = f"{answer.dtype} of shape {answer.shape}" if isinstance(answer, np.ndarray) else type(answer).__name__
        return f"has {len(names)} labels in its metadata, but answers two images with {got}"
    return ""


def _export_command(path: Path) -> str:
    known = path.parent != MODELS_DIR or path.name in ("resnet18.onnx", MODEL_A_PATH.name, MODEL_B_PATH.name)
    return "make export" if known else f"make export MODEL={path.stem}"


def labels(session: ort.InferenceSession) -> list[str]:
    """The names of the classes, in the order of the outputs, if there are any; raises ValueError for anything else."""
    found = json.loads(session.get_modelmeta().custom_metadata_map.get("labels", "[]"))
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise ValueError("expected a JSON list of strings")
    return found


def weights(session: ort.InferenceSession) -> str:
    """Where the weights came from, e.g. `imagenet IMAGENET1K_V1` or `random seed 0`."""
    return session.get_modelmeta().custom_metadata_map.get("weights", "unknown")
