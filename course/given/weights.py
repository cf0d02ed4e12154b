"""torchvision's classifiers and efficientnet_lite0, with ImageNet weights, random ones, or those of a checkpoint."""

import difflib
import hashlib
import pickle
import socket
from pathlib import Path
from typing import NamedTuple

import torch
import torchvision
from torch import nn

from course.given.efficientnet_lite0 import EfficientNetLite0, imagenet
from serving import Problem

DOWNLOAD_TIMEOUT = 10  # seconds without an answer


class Classifier(NamedTuple):
    """A model in evaluation mode, and what the metadata of its ONNX file says about it."""

    model: nn.Module
    labels: list[str]  # one name an output
    provenance: str  # "imagenet IMAGENET1K_V1", "random seed 0" or "checkpoint NAME sha256 DIGEST"


def load_classifier(architecture: str = "resnet18", weights: str = "imagenet", seed: int = 0) -> Classifier:
    """Build an ImageNet classifier: one of torchvision's, such as resnet18, or efficientnet_lite0.

    weights: `imagenet` (torchvision's are downloaded on first use), `random`, or the path of a checkpoint: a state dict
    saved with torch.save.

    Raises Problem: no such architecture, weights that cannot be downloaded, a checkpoint that does not fit.
    """
    names = ["efficientnet_lite0", *torchvision.models.list_models(module=torchvision.models)]
    if architecture not in names:
        close = difflib.get_close_matches(architecture, names, n=3) or names[:3]
        raise Problem(f"There is no classifier called {architecture!r}. Did you mean {' or '.join(close)}?")
    if weights == "imagenet":
        state, provenance = imagenet_weights(architecture)
    elif weights == "random":
        state, provenance = None, f"random seed {seed}"
    else:
        state, provenance = _read_checkpoint(Path(weights))

    torch.manual_seed(seed)
    if architecture == "efficientnet_lite0":
        model = EfficientNetLite0()
    else:
        # init_weights=False: the two oldest architectures would otherwise spend a minute on scipy's truncated normal.
        extra = {"init_weights": False} if architecture in ("googlenet", "inception_v3") else {}
        model = torchvision.models.get_model(architecture, weights=None, **extra)
    if state is None:
        for layer in model.modules():  # vision transformers end with a layer of zeros: any export would agree
            if isinstance(layer, nn.Linear) and not layer.weight.any():
                nn.init.normal_(layer.weight, std=0.02)
    elif _fits(state, model):
        model.load_state_dict(state, strict=False)
    else:
        raise Problem(f"The weights ({provenance}) do not fit {architecture} with its 1000 classes.")
    return Classifier(model.eval(), torchvision.models.ResNet18_Weights.DEFAULT.meta["categories"], provenance)


def imagenet_weights(architecture: str) -> tuple[dict, str]:
    """An architecture's weights, and where they came from; raises Problem where they cannot be downloaded."""
    if architecture == "efficientnet_lite0":
        return imagenet()
    pretrained = torchvision.models.get_model_weights(architecture).DEFAULT
    try:
        return _download(pretrained), f"imagenet {pretrained.name}"
    except OSError as error:
        raise Problem(
            f"The ImageNet weights of {architecture} could not be downloaded from {pretrained.url}: {error}. The course "
            "brings those of efficientnet_lite0 (make: MODEL=efficientnet_lite0; script: --architecture "
            "efficientnet_lite0). Where labels do not matter, take random ones (WEIGHTS=random; --weights random)."
        ) from error


def load_again(architecture: str, provenance: str, checkpoint: Path | None = None) -> nn.Module:
    """The model that an ONNX file was exported from, by its metadata; raises Problem if that is not enough."""
    match provenance.split():
        case ["random", "seed", seed]:
            return load_classifier(architecture, "random", int(seed)).model
        case ["imagenet", *_]:
            return load_classifier(architecture, "imagenet").model
        case ["checkpoint", *_] if checkpoint is not None:
            return load_classifier(architecture, str(checkpoint)).model
    raise Problem(f"The metadata says only {provenance!r} about the weights: give their file with --checkpoint.")


def _download(pretrained: torchvision.models.WeightsEnum) -> dict:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        return pretrained.get_state_dict(progress=True, check_hash=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:  # a broken file in the cache, or on the way
        raise OSError(f"{error}; delete what is in {torch.hub.get_dir()}/checkpoints and try again") from error
    finally:
        socket.setdefaulttimeout(before)


def _read_checkpoint(path: Path) -> tuple[dict, str]:
    if not path.is_file():
        raise Problem(f"--weights is imagenet, random or a checkpoint file; {path} is none of these.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds of errors for a file that is not a checkpoint
        raise Problem(f"{path} is not a checkpoint that torch.load can read with weights_only=True.") from error
    return state, f"checkpoint {path.name} sha256 {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"


def _fits(state: object, model: nn.Module) -> bool:
    """Whether a checkpoint has all weights, of the right shapes; but for GoogLeNet's and Inception's for training."""
    wanted = {name: one for name, one in model.state_dict().items() if not name.startswith(("aux", "AuxLogits"))}
    return isinstance(state, dict) and all(
        name in state and state[name].shape == tensor.shape for name, tensor in wanted.items()
    )
