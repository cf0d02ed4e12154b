"""Exercise 16: preprocess, two models at once, combine, label; and say which model it was when one fails.

bentoml serve solutions.ex16_pipeline:ImageClassifierService
"""

import asyncio
import logging
from pathlib import Path
from typing import Annotated

import bentoml
import numpy as np
from aiohttp import ClientError
from anyio import to_thread
from bentoml.exceptions import BentoMLException, InvalidArgument
from bentoml.validators import ContentType
from starlette.responses import JSONResponse

from serving.cores import cores
from serving.http import (
    NO_TRACES,
    RequestLimits,
    all_ready,
    compute_schemas_once,
    log_client_errors_in_one_line,
    restart_dead_workers_quickly,
    stop_dependencies_last,
)
from serving.images import BadImage, open_image, preprocess
from serving.model import MODEL_A_PATH, MODEL_B_PATH, BadModel, best5, labels, open_model, softmax

ImageFile = Annotated[bytes, ContentType("image/*")]
Answer = Annotated[dict, ContentType("application/json")]
CORES = cores()
MODEL_SERVICE = {
    # One thread for each run, CORES runs at a time: the models' threads would fight over the cores otherwise.
    "threads": CORES,
    # BentoML's own limits, 100 requests and 300 s, close connections on which others still wait for their answer.
    "runner_connection": {"max_requests": 1_000_000, "max_age": 86400.0},
    # Longer than a worker takes to be replaced; less than the entry's 30, which has time left to say what failed.
    "traffic": {"timeout": 10},
    "tracing": NO_TRACES,
}
logger = logging.getLogger("bentoml.pipeline")

log_client_errors_in_one_line()


class Model:
    """What both model services do."""

    path: Path

    def __init__(self) -> None:
        self.session = open_model(self.path, threads=1)

    @bentoml.api
    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """What the model thinks of each image, (batch, 1000)."""
        probabilities = softmax(self.session.run(["output"], {"input": images})[0])
        if not np.isfinite(probabilities).all():
            raise ValueError(f"{self.path} gives NaN")
        return probabilities


@bentoml.service(**MODEL_SERVICE)
class ModelA(Model):
    path = MODEL_A_PATH


@bentoml.service(**MODEL_SERVICE)
class ModelB(Model):
    path = MODEL_B_PATH


class ModelFailed(Exception):
    """A model gave no answer; the message is for the caller and names it."""


@bentoml.service(traffic={"timeout": 30, "max_concurrency": 256}, tracing=NO_TRACES)
class ImageClassifierService:
    """Classifies images with the mean of two models' probabilities."""

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
    async def classify(self, image: ImageFile, /) -> Answer:
        """The five best labels for one image file (JPEG, PNG, WebP, GIF, BMP or TIFF), which is the whole body.
        Answers `{"predictions": [{"label": ..., "probability": ...}, ...]}`, best first; 503 where a model fails.
        """
        try:
            async with self.in_work:
                batch = await to_thread.run_sync(lambda: preprocess(open_image(image)))
                votes = await asyncio.gather(self._ask("model_a", batch), self._ask("model_b", batch))
        except BadImage as error:
            raise InvalidArgument(str(error)) from error
        except ModelFailed as error:  # not raised as BentoMLException, whose text callers see only below 500
            return JSONResponse({"error": str(error)}, status_code=503)
        return {"predictions": best5(np.mean(votes, axis=0)[0], self.labels)}

    async def _ask(self, name: str, batch: np.ndarray) -> np.ndarray:
        """One model's probabilities. Where its worker dies meanwhile, the next worker is asked, once."""
        model = getattr(self, name).to_async
        try:
            try:
                return await model.probabilities(images=batch)
            except ClientError:
                await asyncio.sleep(0.1)  # until every connection to the dead worker is known to be closed
                return await model.probabilities(images=batch)
        except (ClientError, TimeoutError, BentoMLException) as error:
            logger.error("%s failed: %r", name, error)
            raise ModelFailed(f"{name} gave no answer; the server's log says why") from error


compute_schemas_once(ImageClassifierService)
ImageClassifierService.add_asgi_middleware(RequestLimits, max_bytes={"/classify": 10 * 2**20})
