"""Exercise 15: two models at the same time, each in a service of its own, and a third that combines them.

bentoml serve exercises.ex15_concurrent:ImageClassifierService
"""

import asyncio
import time
from pathlib import Path
from typing import Annotated

import bentoml
import numpy as np
from anyio import to_thread
from bentoml.exceptions import BentoMLException, InvalidArgument
from bentoml.validators import ContentType, DType, Shape
from pydantic import BeforeValidator

from serving.cores import cores
from serving.http import (
    RequestLimits,
    all_ready,
    compute_schemas_once,
    log_client_errors_in_one_line,
    restart_dead_workers_quickly,
    stop_dependencies_last,
)
from serving.images import BadImage, open_image, preprocess
from serving.model import MODEL_A_PATH, MODEL_B_PATH, BadModel, best5, labels, open_model, softmax
from serving.tensors import as_batch

ImageBatch = Annotated[np.ndarray, Shape((-1, 3, 224, 224)), DType("float32"), BeforeValidator(as_batch)]
ImageFile = Annotated[bytes, ContentType("image/*")]
Answer = Annotated[dict, ContentType("application/json")]
CORES = cores()
# TODO: BentoML's own limits, 100 requests and 300 s, close connections on which others still wait for their answer.
KEEP_CONNECTIONS = {}

log_client_errors_in_one_line()


class Model:
    """What both model services do."""

    path: Path

    def __init__(self) -> None:
        # TODO: open the model at self.path. With how many threads, if two models share the cores?
        self.session = None

    @bentoml.api
    def probabilities(self, images: np.ndarray) -> dict:
        """What the model thinks of each image, (batch, 1000), and when it began and ended to think so."""
        # TODO: run the session, make probabilities of its logits. When it began: time.monotonic(), one clock for all
        # processes of a machine.
        raise NotImplementedError('Answer {"probabilities": ..., "began": ..., "ended": ...}.')


@bentoml.service(threads=CORES, runner_connection=KEEP_CONNECTIONS, traffic={"timeout": 30})
class ModelA(Model):
    path = MODEL_A_PATH


@bentoml.service(threads=CORES, runner_connection=KEEP_CONNECTIONS, traffic={"timeout": 30})
class ModelB(Model):
    path = MODEL_B_PATH


@bentoml.service(traffic={"timeout": 30, "max_concurrency": 256})
class ImageClassifierService:
    """Asks both models at once, and answers the mean of their probabilities."""

    # TODO: say that it depends on ModelA and ModelB: bentoml.depends(...)
    model_a = None
    model_b = None

    @bentoml.on_deployment
    def check_models() -> None:
        """Runs once, before any worker: without two models whose answers can be averaged there is no start."""
        restart_dead_workers_quickly()
        stop_dependencies_last()
        # TODO: open both models, and compare their labels. Raise BentoMLException with a sentence where one is
        # missing or broken (BadModel), or where they differ. It takes the place of this one.
        raise BentoMLException("Still to do: check both models, ask them at the same time, and combine their answers.")

    def __init__(self) -> None:
        self.labels = labels(open_model(MODEL_A_PATH))  # which is then closed: this process runs no model
        self.in_work = asyncio.Semaphore(4 * CORES)  # more would only wait further on, decoded and large

    # TODO: async def __is_ready__(self) -> bool: whether every dependency is ready, with all_ready.

    @bentoml.api
    async def predict(self, image: ImageBatch) -> np.ndarray:
        """The mean of both models' probabilities, (batch, 1000) float32, for 1 to 16 images.
        `image`: (batch, 3, 224, 224) numbers of any type, preprocessed and normalised as ImageNet models expect.
        """
        async with self.in_work:
            a, b = await self._ask_both(image)
        return combined(a, b)

    @bentoml.api
    async def classify(self, image: ImageFile, /) -> Answer:
        """The five best labels for one image file (JPEG, PNG, WebP, GIF, BMP or TIFF), which is the whole body.
        Answers `{"predictions": [{"label": ..., "probability": ...}, ...], "timing": ...}`, best first;
        `timing` holds when each model began and ended, in milliseconds after the request came.
        """
        # TODO: remember when the request came: time.monotonic()
        async with self.in_work:
            # TODO: open_image and preprocess in a thread (await to_thread.run_sync(...)), answering InvalidArgument
            # for BadImage; ask both models; answer best5 of what they say, and
            # "timing": {"model_a": [began, ended], "model_b": [began, ended]}.
            raise NotImplementedError("Prepare the image in a thread, ask both models, answer labels and timing.")

    async def _ask_both(self, batch: np.ndarray) -> list[dict]:
        # TODO: self.model_a.to_async.probabilities(images=batch) can be awaited. If one `await` follows the other,
        # the second model begins when the first has ended.
        raise NotImplementedError("Ask both models at the same time.")


def combined(a: dict, b: dict) -> np.ndarray:
    """One answer made of two; each model's vote has equal weight."""
    # TODO: which numbers of two models can be averaged?
    raise NotImplementedError("Combine the two answers.")


compute_schemas_once(ImageClassifierService)
ImageClassifierService.add_asgi_middleware(RequestLimits, max_bytes={"/predict": 64 * 2**20, "/classify": 10 * 2**20})
