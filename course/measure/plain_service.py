"""The plainest BentoML service there is, which checks nothing: docs/bentoml.md shows it, `make figures` measures it."""

import bentoml
import numpy as np
import onnxruntime as ort

from serving.model import MODEL_PATH


@bentoml.service
class ImageClassifierService:
    """resnet18, straight."""

    def __init__(self) -> None:
        self.session = ort.InferenceSession(MODEL_PATH)

    @bentoml.api
    def predict(self, image: np.ndarray) -> np.ndarray:
        """(batch, 3, 224, 224) to (batch, 1000)."""
        return self.session.run(None, {"input": image.astype(np.float32)})[0]
