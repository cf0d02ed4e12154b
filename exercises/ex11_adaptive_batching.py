"""Exercise 11: adaptive batching. Requests that come while a batch runs make the next batch.

bentoml serve exercises.ex11_adaptive_batching:ImageClassifierService
"""

import os
from typing import Annotated

import bentoml
import numpy as np
from bentoml.exceptions import BentoMLException, InvalidArgument
from bentoml.validators import ContentType, DType, Shape
from pydantic import AfterValidator, BeforeValidator

from serving.http import (
    RequestLimits,
    batch_without_waiting,
    compute_schemas_once,
    log_client_errors_in_one_line,
    restart_dead_workers_quickly,
)
from serving.images import BadImage, open_image, preprocess
from serving.model import BadModel, labels, open_model, top5, weights
from serving.tensors import as_batch, read_npy

# Checked while the request is read, which is before the queue: a bad row in a batch would fail its neighbours' rows.
ImageBatch = Annotated[np.ndarray, Shape((-1, 3, 224, 224)), DType("float32"), BeforeValidator(as_batch)]
# TODO: a raw body arrives as it is: turn it into an array here, with pydantic's AfterValidator and read_npy.
NpyFile = Annotated[bytes, ContentType("application/octet-stream")]
ImageFile = Annotated[bytes, ContentType("image/*")]
JSON = ContentType("application/json")

# TODO: switch batching on: batchable, max_batch_size (32 rows), max_latency_ms. Find out what BentoML does with a
# request that has waited for max_latency_ms before you choose it. With the environment variable BATCHING=0, leave it off.
BATCHING = {}

log_client_errors_in_one_line()
batch_without_waiting()


@bentoml.service(traffic={"timeout": 30, "max_concurrency": 256})
class ImageClassifierService:
    """Classifies images, tensors in batches made of the requests of many callers."""

    @bentoml.on_deployment
    def check_model() -> None:
        """Runs once, before any worker: a broken model ends the start here instead of worker after worker."""
        restart_dead_workers_quickly()
        try:
            open_model()
        except BadModel as error:
            raise BentoMLException(str(error)) from error

    def __init__(self) -> None:
        self.session = open_model()
        self.labels = labels(self.session)
        self.weights = weights(self.session)

    @bentoml.api(**BATCHING)
    def predict(self, image: ImageBatch) -> np.ndarray:
        """Logits, (batch, 1000) float32, for 1 to 16 images.
        `image`: (batch, 3, 224, 224) numbers of any type, preprocessed and normalised as ImageNet models expect.
        """
        return self._run(image)

    @bentoml.api(**BATCHING)
    def predict_npy(self, image: NpyFile, /) -> Annotated[np.ndarray, JSON]:
        """As predict, with a .npy file, what numpy.save() writes, as the whole body."""
        return self._run(image)

    @bentoml.api
    def classify(self, image: ImageFile, /) -> Annotated[dict, JSON]:
        """The five best labels for one image file (JPEG, PNG, WebP, GIF, BMP or TIFF), which is the whole body.
        Answers `{"predictions": [{"label": ..., "probability": ...}, ...], "weights": ...}`, best first.
        """
        # Not batched. Why? (The page says.)
        try:
            batch = preprocess(open_image(image))
        except BadImage as error:
            raise InvalidArgument(str(error)) from error
        return {"predictions": top5(self._run(batch)[0], self.labels), "weights": self.weights}

    def _run(self, batch: np.ndarray) -> np.ndarray:
        # TODO: run the session, as in exercise 10. `batch` may hold the rows of many callers.
        raise NotImplementedError("Answer the model's logits for the batch.")


compute_schemas_once(ImageClassifierService)
ImageClassifierService.add_asgi_middleware(
    RequestLimits, max_bytes={"/predict": 64 * 2**20, "/predict_npy": 32 * 2**20, "/classify": 10 * 2**20}
)
