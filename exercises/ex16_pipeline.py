"""Exercise 16: preprocess, two models at once, combine, label; and say which model it was when one fails.

bentoml serve exercises.ex16_pipeline:ImageClassifierService
"""

import asyncio
import logging
from pathlib import Path

import bentoml
import numpy as np
from aiohttp import ClientError
from anyio import to_thread
from bentoml.exceptions import BentoMLException
from starlette.responses import JSONResponse

from serving.cores import cores
from serving.model import MODEL_A_PATH, MODEL_B_PATH, best5, open_model, softmax
from serving.service import ImageFile, Json, TwoModels, finish, read_image

logger = logging.getLogger("bentoml.pipeline")


def model_service(name: str, path: Path) -> bentoml.Service:
    """A service that runs one model, one thread for each run, as many runs at a time as cores."""

    # TODO 1: traffic={"timeout": ...}: longer than a dead worker takes to be replaced, shorter than the entry's 30 s. The
    # entry must have time left to say which model did not answer.
    @bentoml.service(name=name, threads=cores())
    class Model:
        def __init__(self) -> None:
            self.session = open_model(path, threads=1)

        @bentoml.api
        def probabilities(self, images: np.ndarray) -> np.ndarray:
            """What the model thinks of each image, (batch, 1000)."""
            # TODO 2: run the session, make probabilities of its logits. NaN is not an answer: raise ValueError.
            raise NotImplementedError("Answer the model's probabilities.")

    return Model


class ModelFailed(Exception):
    """A model gave no answer; the message is for the caller and names it."""


@bentoml.service(traffic={"timeout": 30, "max_concurrency": 256})
class ImageClassifierService(TwoModels):
    """Classifies images with the mean of two models' probabilities."""

    # TODO 3: name the services that this one asks: bentoml.depends(model_service("ModelA", ...)), and ModelB.
    model_a = None
    model_b = None
    # TODO 4: delete this line. As long as it is here, the service does not start.
    still_to_do = "write classify(), and say which model it is that fails."

    @bentoml.api
    async def classify(self, image: ImageFile, /) -> Json[dict]:
        """The five best labels for one image file (JPEG, PNG, WebP, GIF, BMP or TIFF), which is the whole body.
        Answers `{"predictions": [{"label": ..., "probability": ...}, ...]}`, best first; 503 where a model fails.
        """
        # TODO 5: in `async with self.in_work`, run read_image in a thread and ask both models at once with _ask. Answer
        # best5 of their mean. ModelFailed becomes a JSONResponse({"error": ...}, status_code=503): of a BentoMLException
        # of 500 or more, callers see one general sentence.
        raise NotImplementedError("Preprocess, ask both models, combine, label.")

    async def _ask(self, name: str, model: bentoml.Service, batch: np.ndarray) -> np.ndarray:
        """One model's probabilities. Where its worker dies meanwhile, the next worker is asked, once."""
        # TODO 6: await model.to_async.probabilities(images=batch). It raises ClientError when the worker dies (ask again:
        # a classification changes nothing), TimeoutError, and BentoMLException when the model fails. Log what it was, and
        # raise ModelFailed with a sentence that names the model.
        raise NotImplementedError("Ask one model, and say so when it fails.")


finish(ImageClassifierService)
