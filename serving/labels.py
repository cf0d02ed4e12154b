"""From logits to names, with NumPy alone."""

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities along the last axis, same shape; the maximum is taken off so that exp() cannot overflow."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def top5(logits: np.ndarray, names: list[str]) -> list[dict]:
    """The five most probable classes of one image, best first: {"label": str, "probability": float} of each.

    logits: float32 array of shape (classes,); names: one name a class.
    """
    return best5(softmax(logits), names)


def best5(probabilities: np.ndarray, names: list[str]) -> list[dict]:
    """As top5(), from probabilities: a float32 array of shape (classes,)."""
    best = np.argsort(probabilities)[::-1][:5]
    return [{"label": names[i], "probability": float(probabilities[i])} for i in best]
