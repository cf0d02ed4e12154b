"""Exercise 14: one service decodes and prepares the image, the next one classifies it.

bentoml serve solutions.ex14_sequential:ImageClassifierService
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
# BentoML's own limits, 100 requests and 300 s, close connections on which others still wait for their answer.
KEEP_CONNECTIONS = {"max_requests": 1_000_000, "max_age": 86400.0}

log_client_errors_in_one_line()


@bentoml.service(threads=CORES, runner_connection=KEEP_CONNECTIONS, traffic={"timeout": 30})
class Preprocessing:
    """Makes the model's input from image files, in a process of its own. It needs no model."""

    @bentoml.api
    def prepare(self, file: bytes) -> np.ndarray:
        """The file as (1, 3, 224, 224) float32."""
        # BentoML runs a `def` in a thread. In an `async def` this would stop the event loop.
        try:
            return preprocess(open_image(file))
        except BadImage as error:
            raise InvalidArgument(str(error)) from error


@bentoml.service(traffic={"timeout": 30, "max_concurrency": 256})
class ImageClassifierService:
    """Classifies images: asks Preprocessing for the tensor, and runs resnet18 on it."""

    preprocessing = bentoml.depends(Preprocessing)

    @bentoml.on_deployment
    def check_model() -> None:
        """Runs once, before any worker: a broken model ends the start here instead of worker after worker."""
        restart_dead_workers_quickly()
        stop_dependencies_last()
        try:
            open_model()
        except BadModel as error:
            raise BentoMLException(str(error)) from error

    def __init__(self) -> None:
        self.session = open_model(threads=1)
        self.labels = labels(self.session)
        self.weights = weights(self.session)
        self.threads = CapacityLimiter(CORES)  # as many runs at a time as there are cores, each with one thread
        self.in_work = asyncio.Semaphore(4 * CORES)  # more would only wait further on, decoded and large

    async def __is_ready__(self) -> bool:
        return await all_ready(self.preprocessing)

    @bentoml.api
    async def classify(self, image: ImageFile, /) -> Answer:
        """The five best labels for one image file (JPEG, PNG, WebP, GIF, BMP or TIFF), which is the whole body.
        Answers `{"predictions": [{"label": ..., "probability": ...}, ...], "weights": ...}`, best first.
        """
        async with self.in_work:
            try:
                batch = await self.preprocessing.to_async.prepare(file=image)
            except InvalidArgument as error:
                raise InvalidArgument(reason(error)) from error
            # Called right here, it would stop the event loop: no other request, no /livez meanwhile.
            logits = await to_thread.run_sync(self._run, batch, limiter=self.threads)
        return {"predictions": top5(logits[0], self.labels), "weights": self.weights}

    def _run(self, batch: np.ndarray) -> np.ndarray:
        return self.session.run(["output"], {"input": batch})[0]


compute_schemas_once(ImageClassifierService)
ImageClassifierService.add_asgi_middleware(RequestLimits, max_bytes={"/classify": 10 * 2**20})
