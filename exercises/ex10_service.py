"""Exercise 10: resnet18 as a BentoML service.

bentoml serve exercises.ex10_service:ImageClassifierService
"""

from typing import Annotated

import bentoml
import numpy as np
from bentoml.exceptions import BentoMLException, InvalidArgument
from bentoml.validators import ContentType, DType, Shape
from pydantic import BeforeValidator

from serving.bentoml_repairs import repair_every_service
from serving.demo import DemoPage
from serving.images import BadImage, open_image, preprocess
from serving.model import MODEL_PATH, BadModel, labels, open_model, top5, weights
from serving.request_limits import RequestLimits
from serving.tensors import as_batch

# TODO 1: np.ndarray alone lets nearly everything through, and most of it ends in a 500. Say what you expect (Shape and
# DType from bentoml.validators), and check it (BeforeValidator from pydantic, with as_batch).
ImageBatch = np.ndarray
# Bytes, not Path or PIL.Image: for these BentoML would fetch any URL that a caller sends instead.
ImageFile = Annotated[bytes, ContentType("image/*")]

repair_every_service()


@bentoml.service  # TODO 2: limit a request to 30 s, and how many may wait to 256: traffic={...}
class ImageClassifierService:
    """Classifies images with resnet18, exported to ONNX, on ONNX Runtime."""

    @bentoml.on_deployment
    def check_model() -> None:
        """Runs once, before any worker: a broken model ends the start here instead of worker after worker."""
        # TODO 3: open_model() raises BadModel with a sentence. Raise BentoMLException with it.
        return

    def __init__(self) -> None:
        # TODO 4: open the model here, once for each worker, and keep its labels and weights.
        self.session = None

    @bentoml.api
    def predict(self, image: ImageBatch) -> np.ndarray:
        """Logits, (batch, 1000) float32, for 1 to 16 images.
        `image`: (batch, 3, 224, 224) numbers of any type, preprocessed and normalised as ImageNet models expect.
        """
        # TODO 5: run the session on the batch.
        raise NotImplementedError("Answer the model's logits for the batch.")

    @bentoml.api
    def classify(self, image: ImageFile, /) -> dict:
        """The five best labels for one image file (JPEG, PNG, WebP, GIF, BMP or TIFF), which is the whole body.
        Answers `{"predictions": [{"label": ..., "probability": ...}, ...], "weights": ...}`, best first.
        """
        # TODO 6: open_image and preprocess the bytes, run the session, answer top5 and where the weights came from.
        # open_image raises BadImage for what is not an image: raise InvalidArgument with its sentence.
        raise NotImplementedError("Answer the five best labels for the image file.")


ImageClassifierService.add_asgi_middleware(DemoPage, model=MODEL_PATH.stem)  # at /demo
# TODO 7: limit the size of a request, 64 MiB for /predict and 10 MiB for /classify:
# ImageClassifierService.add_asgi_middleware(RequestLimits, max_bytes={...})
