"""Exercise 14: one service decodes and prepares the image, the next one classifies it.

bentoml serve exercises.ex14_sequential:ImageClassifierService
"""

import asyncio
from typing import Annotated

import bentoml
import numpy as np
from anyio import CapacityLimiter, to_thread
from bentoml.exceptions import BentoMLException, InvalidArgument
from bentoml.validators import ContentType

from serving.cores import cores
from serving.http import (
    RequestLimits,
    all_ready,
    compute_schemas_once,
    log_client_errors_in_one_line,
    reason,
    restart_dead_workers_quickly,
    stop_dependencies_last,
)
from serving.images import BadImage, open_image, preprocess
from serving.model import BadModel, labels, open_model, top5, weights

ImageFile = Annotated[bytes, ContentType("image/*")]
Answer = Annotated[dict, ContentType("application/json")]
CORES = cores()

log_client_errors_in_one_line()


# TODO: threads=CORES lets it prepare several images at a time, traffic={"timeout": 30} ends what hangs. And keep the
# connections to it open, or some requests fail: runner_connection={"max_requests": ..., "max_age": ...}.
@bentoml.service
class Preprocessing:
    """Makes the model's input from image files, in a process of its own. It needs no model."""

    @bentoml.api
    def prepare(self, file: bytes) -> np.ndarray:
        """The file as (1, 3, 224, 224) float32."""
        # TODO: open_image and preprocess. For what is no image: InvalidArgument with the sentence of BadImage.
        raise NotImplementedError("Make the model's input of the image file.")


@bentoml.service  # TODO: bound the time of a request and how many may wait: traffic={...}
class ImageClassifierService:
    """Classifies images: asks Preprocessing for the tensor, and runs resnet18 on it."""

    # TODO: say that it depends on Preprocessing: bentoml.depends(...)
    preprocessing = None

    @bentoml.on_deployment
    def check_model() -> None:
        """Runs once, before any worker: a broken model ends the start here instead of worker after worker."""
        restart_dead_workers_quickly()
        stop_dependencies_last()
        # TODO: as in exercise 10. Its BentoMLException takes the place of this one, which only says what is left.
        raise BentoMLException("Still to do: check the model, then ask Preprocessing and run the model in classify().")

    def __init__(self) -> None:
        # TODO: open the model with one thread, keep its labels and weights.
        self.session = None
        self.threads = CapacityLimiter(CORES)  # as many runs at a time as there are cores, each with one thread
        self.in_work = asyncio.Semaphore(4 * CORES)  # more would only wait further on, decoded and large

    # TODO: async def __is_ready__(self) -> bool: whether every dependency is ready, with all_ready.

    @bentoml.api
    async def classify(self, image: ImageFile, /) -> Answer:
        """The five best labels for one image file (JPEG, PNG, WebP, GIF, BMP or TIFF), which is the whole body.
        Answers `{"predictions": [{"label": ..., "probability": ...}, ...], "weights": ...}`, best first.
        """
        async with self.in_work:
            # TODO: await what Preprocessing makes of the image: self.preprocessing.to_async...
            # Where it refuses, answer InvalidArgument with reason(error). Then run the session in a thread:
            # `await to_thread.run_sync(function, argument, limiter=self.threads)`.
            raise NotImplementedError("Ask Preprocessing, then run the model without blocking the event loop.")


compute_schemas_once(ImageClassifierService)
ImageClassifierService.add_asgi_middleware(RequestLimits, max_bytes={"/classify": 10 * 2**20})
