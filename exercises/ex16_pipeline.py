"""Exercise 16: preprocess, two models at once, combine, label; and say which model it was when one fails.

bentoml serve exercises.ex16_pipeline:ImageClassifierService
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
    "threads": CORES,
    # TODO: "runner_connection", as in exercise 15.
    # TODO: "traffic": {"timeout": ...}. Longer than a dead worker takes to be replaced, shorter than the entry's 30 s:
    # the entry must have time left to say which model it was that did not answer.
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
        # TODO: run the session, make probabilities of its logits; NaN is no answer: raise ValueError.
        raise NotImplementedError("Answer the model's probabilities.")


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

    # TODO: say that it depends on ModelA and ModelB: bentoml.depends(...)
    model_a = None
    model_b = None

    @bentoml.on_deployment
    def check_models() -> None:
        """Runs once, before any worker: without two models whose answers can be averaged there is no start."""
        restart_dead_workers_quickly()
        stop_dependencies_last()
        # TODO: as in exercise 15. Its BentoMLException takes the place of this one, which only says what is left.
        raise BentoMLException(
            "Still to do: check both models, write classify(), and say which model it is that fails."
        )

    def __init__(self) -> None:
        self.labels = labels(open_model(MODEL_A_PATH))  # which is then closed: this process runs no model
        self.in_work = asyncio.Semaphore(4 * CORES)  # more would only wait further on, decoded and large

    # TODO: async def __is_ready__(self) -> bool: whether every dependency is ready, with all_ready.

    @bentoml.api
    async def classify(self, image: ImageFile, /) -> Answer:
        """The five best labels for one image file (JPEG, PNG, WebP, GIF, BMP or TIFF), which is the whole body.
        Answers `{"predictions": [{"label": ..., "probability": ...}, ...]}`, best first; 503 where a model fails.
        """
        async with self.in_work:
            # TODO: preprocess in a thread, ask both models at once with _ask, answer best5 of their mean.
            # BadImage becomes InvalidArgument; ModelFailed a JSONResponse({"error": ...}, status_code=503), for of a
            # BentoMLException of 500 or more callers see one general sentence.
            raise NotImplementedError("Preprocess, ask both models, combine, label.")

    async def _ask(self, name: str, batch: np.ndarray) -> np.ndarray:
        """One model's probabilities. Where its worker dies meanwhile, the next worker is asked, once."""
        # TODO: await getattr(self, name).to_async.probabilities(images=batch). It raises ClientError when the worker
        # dies (ask again: nothing has happened that could not happen twice), TimeoutError, and BentoMLException when
        # the model fails. Log what it was, and raise ModelFailed with a sentence that names the model.
        raise NotImplementedError("Ask one model, and say so when it fails.")


compute_schemas_once(ImageClassifierService)
ImageClassifierService.add_asgi_middleware(RequestLimits, max_bytes={"/classify": 10 * 2**20})
