"""Exercise 10: resnet18 as a BentoML service.

bentoml serve solutions.ex10_service:ImageClassifierService
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

# Shape and DType tell clients what to send. They convert rather than check, so as_batch checks first.
ImageBatch = Annotated[np.ndarray, Shape((-1, 3, 224, 224)), DType("float32"), BeforeValidator(as_batch)]
# Bytes, not Path or PIL.Image: for these BentoML would fetch any URL that a caller sends instead.
ImageFile = Annotated[bytes, ContentType("image/*")]

repair_every_service()


@bentoml.service(traffic={"timeout": 30, "max_concurrency": 256})  # beyond: 504 and 429, not a pile of requests
class ImageClassifierService:
    """Classifies images with resnet18, exported to ONNX, on ONNX Runtime."""

    @bentoml.on_deployment
    def check_model() -> None:
        """Runs once, before any worker: a broken model ends the start here instead of worker after worker."""
        try:
            open_model()
        except BadModel as error:
            raise BentoMLException(str(error)) from error

    def __init__(self) -> None:
        # Once for each worker, not once for each request: loading costs ten times as much as running.
        self.session = open_model()
        self.labels = labels(self.session)
        self.weights = weights(self.session)

    @bentoml.api
    def predict(self, image: ImageBatch) -> np.ndarray:
        """Logits, (batch, 1000) float32, for 1 to 16 images.
        `image`: (batch, 3, 224, 224) numbers of any type, preprocessed and normalised as ImageNet models expect.
        """
        return self._run(image)

    @bentoml.api
    def classify(self, image: ImageFile, /) -> dict:
        """The five best labels for one image file (JPEG, PNG, WebP, GIF, BMP or TIFF), which is the whole body.
        Answers `{"predictions": [{"label": ..., "probability": ...}, ...], "weights": ...}`, best first.
        """
        try:
            batch = preprocess(open_image(image))
        except BadImage as error:
            raise InvalidArgument(str(error)) from error
        return {"predictions": top5(self._run(batch)[0], self.labels), "weights": self.weights}

    def _run(self, batch: np.ndarray) -> np.ndarray:
        return self.session.run(["output"], {"input": batch})[0]


ImageClassifierService.add_asgi_middleware(DemoPage, model=MODEL_PATH.stem)  # at /demo
ImageClassifierService.add_asgi_middleware(RequestLimits, max_bytes={"/predict": 64 * 2**20, "/classify": 10 * 2**20})
