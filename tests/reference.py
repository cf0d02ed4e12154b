"""What PyTorch and torchvision answer; tests call it in a process of its own, as they call student code."""

from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image


def resnet18_logits(seed: int, images: np.ndarray) -> np.ndarray:
    """PyTorch's logits (batch, 1000) of a resnet18 with torchvision's own random weights of that seed."""
    torch.manual_seed(seed)
    model = torchvision.models.resnet18(weights=None).eval()
    with torch.inference_mode():
        return model(torch.from_numpy(images)).numpy()


def transformed(image_paths: list[Path]) -> list[np.ndarray]:
    """RGB image files as torchvision's weights for resnet18 prepare them: (1, 3, 224, 224) float32 each."""
    transform = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms()
    return [transform(Image.open(path))[None].numpy() for path in image_paths]


def random_checkpoint(path: Path, architecture: str) -> Path:
    """Save the state of a random classifier."""
    torch.manual_seed(11)
    torch.save(torchvision.models.get_model(architecture, weights=None).state_dict(), path)
    return path
