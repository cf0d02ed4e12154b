"""Exercise 15: two models at the same time, each in a service of its own, and a third that combines them.

bentoml serve solutions.ex15_concurrent:ImageClassifierService
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
# BentoML's own limits, 100 requests and 300 s, close connections on which others still wait for their answer.
KEEP_CONNECTIONS = {"max_requests": 1_000_000, "max_age": 86400.0}

log_client_errors_in_one_line()


class Model:
    """What both model services do."""

    path: Path

    def __init__(self) -> None:
        # One thread for each run, CORES runs at a time: the models' threads would fight over the cores otherwise.
        self.session = open_model(self.path, threads=1)

    @bentoml.api
    def probabilities(self, images: np.ndarray) -> dict:
        """What the model thinks of each image, (batch, 1000), and when it began and ended to think so."""
        began = time.monotonic()  # one clock for all processes of a machine
        logits = self.session.run(["output"], {"input": images})[0]
        return {"probabilities": softmax(logits), "began": began, "ended": time.monotonic()}


@bentoml.service(threads=CORES, runner_connection=KEEP_CONNECTIONS, traffic={"timeout": 30})
class ModelA(Model):
    path = MODEL_A_PATH


@bentoml.service(threads=CORES, runner_connection=KEEP_CONNECTIONS, traffic={"timeout": 30})
class ModelB(Model):
    path = MODEL_B_PATH


@bentoml.service(traffic={"timeout": 30, "max_concurrency": 256})
class ImageClassifierService:
    """Asks both models at once, and answers the mean of their probabilities."""

    model_a = bentoml.depends(ModelA)
    model_b = bentoml.depends(ModelB)

    @bentoml.on_deployment
    def check_models() -> None:
        """Runs once, before any worker: without two models whose answers can be averaged there is no start."""
        restart_dead_workers_quickly()
        stop_dependencies_last()
        try:
            model_a, model_b = open_model(MODEL_A_PATH), open_model(MODEL_B_PATH)
        except BadModel as error:
            raise BentoMLException(str(error)) from error
        if labels(model_a) != labels(model_b):
            raise BentoMLException(f"{MODEL_A_PATH} and {MODEL_B_PATH} have different labels: a mean means nothing.")

    def __init__(self) -> None:
        self.labels = labels(open_model(MODEL_A_PATH))  # which is then closed: this process runs no model
        self.in_work = asyncio.Semaphore(4 * CORES)  # more would only wait further on, decoded and large

    async def __is_ready__(self) -> bool:
        return await all_ready(self.model_a, self.model_b)

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
        came = time.monotonic()
        async with self.in_work:
            try:
                batch = await to_thread.run_sync(lambda: preprocess(open_image(image)))
            except BadImage as error:
                raise InvalidArgument(str(error)) from error
            a, b = await self._ask_both(batch)
        timing = {
            name: [round(1000 * (answer[moment] - came), 2) for moment in ("began", "ended")]
            for name, answer in (("model_a", a), ("model_b", b))
        }
        return {"predictions": best5(combined(a, b)[0], self.labels), "timing": timing}

    async def _ask_both(self, batch: np.ndarray) -> list[dict]:
        # Two `await`s, one after the other, would let the second model begin when the first has ended.
        return await asyncio.gather(
            self.model_a.to_async.probabilities(images=batch),
            self.model_b.to_async.probabilities(images=batch),
        )


def combined(a: dict, b: dict) -> np.ndarray:
    """One answer made of two; each model's vote has equal weight."""
    # Probabilities, not logits: the model with the larger logits would decide alone.
    return (a["probabilities"] + b["probabilities"]) / 2


compute_schemas_once(ImageClassifierService)
ImageClassifierService.add_asgi_middleware(RequestLimits, max_bytes={"/predict": 64 * 2**20, "/classify": 10 * 2**20})
