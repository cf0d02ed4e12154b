"""Exercise 11: adaptive batching. Requests that come while a batch runs make the next batch.

bentoml serve solutions.ex11_adaptive_batching:ImageClassifierService
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
NpyFile = Annotated[bytes, ContentType("application/octet-stream"), AfterValidator(read_npy)]
ImageFile = Annotated[bytes, ContentType("image/*")]
JSON = ContentType("application/json")

# max_batch_size is in rows. max_latency_ms is no time to wait for a batch to fill: it is how long a request may
# take before it is cancelled with 503. Never reached here; the timeout of 30 s and max_concurrency bound the queue.
BATCHING = {"batchable": True, "max_batch_size": 32, "max_latency_ms": 60_000}
if os.environ.get("BATCHING") == "0":  # the same service without, to compare
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
        return self._run(image)  # image: the rows of several requests; BentoML gives each its own rows of the answer

    @bentoml.api(**BATCHING)
    def predict_npy(self, image: NpyFile, /) -> Annotated[np.ndarray, JSON]:
        """As predict, with a .npy file, what numpy.save() writes, as the whole body."""
        return self._run(image)

    @bentoml.api
    def classify(self, image: ImageFile, /) -> Annotated[dict, JSON]:
        """The five best labels for one image file (JPEG, PNG, WebP, GIF, BMP or TIFF), which is the whole body.
        Answers `{"predictions": [{"label": ..., "probability": ...}, ...], "weights": ...}`, best first.
        """
        # Not batched: files would have to be decoded inside the batch, where one broken file fails all, or
        # before the queue, on the event loop, where decoding keeps everybody waiting.
        try:
            batch = preprocess(open_image(image))
        except BadImage as error:
            raise InvalidArgument(str(error)) from error
        return {"predictions": top5(self._run(batch)[0], self.labels), "weights": self.weights}

    def _run(self, batch: np.ndarray) -> np.ndarray:
        return self.session.run(["output"], {"input": batch})[0]


compute_schemas_once(ImageClassifierService)
ImageClassifierService.add_asgi_middleware(
    RequestLimits, max_bytes={"/predict": 64 * 2**20, "/predict_npy": 32 * 2**20, "/classify": 10 * 2**20}
)
