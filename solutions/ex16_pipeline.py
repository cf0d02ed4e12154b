"""Exercise 16: preprocess, two models at once, combine, label; and say which model it was when one fails.

bentoml serve solutions.ex16_pipeline:ImageClassifierService
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

    # Longer than a worker takes to be replaced; less than the entry's 30 s, which has time left to say what failed.
    @bentoml.service(name=name, threads=cores(), traffic={"timeout": 10})
    class Model:
        def __init__(self) -> None:
            self.session = open_model(path, threads=1)

        @bentoml.api
        def probabilities(self, images: np.ndarray) -> np.ndarray:
            """What the model thinks of each image, (batch, 1000)."""
            probabilities = softmax(self.session.run(["output"], {"input": images})[0])
            if not np.isfinite(probabilities).all():
                raise ValueError(f"{path} gives NaN")
            return probabilities

    return Model


class ModelFailed(Exception):
    """A model gave no answer; the message is for the caller and names it."""


@bentoml.service(traffic={"timeout": 30, "max_concurrency": 256})
class ImageClassifierService(TwoModels):
    """Classifies images with the mean of two models' probabilities."""

    model_a = bentoml.depends(model_service("ModelA", MODEL_A_PATH))
    model_b = bentoml.depends(model_service("ModelB", MODEL_B_PATH))

    @bentoml.api
    async def classify(self, image: ImageFile, /) -> Json[dict]:
        """The five best labels for one image file (JPEG, PNG, WebP, GIF, BMP or TIFF), which is the whole body.
        Answers `{"predictions": [{"label": ..., "probability": ...}, ...]}`, best first; 503 where a model fails.
        """
        try:
            async with self.in_work:
                batch = await to_thread.run_sync(read_image, image)
                votes = await asyncio.gather(
                    self._ask("model_a", self.model_a, batch), self._ask("model_b", self.model_b, batch)
                )
        except ModelFailed as error:  # not raised as BentoMLException, whose text callers see only below 500
            return JSONResponse({"error": str(error)}, status_code=503)
        return {"predictions": best5(np.mean(votes, axis=0)[0], self.labels)}

    async def _ask(self, name: str, model: bentoml.Service, batch: np.ndarray) -> np.ndarray:
        """One model's probabilities. Where its worker dies meanwhile, the next worker is asked, once."""
        try:
            try:
                return await model.to_async.probabilities(images=batch)
            except ClientError:
                await asyncio.sleep(0.1)  # until every connection to the dead worker is known to be closed
                return await model.to_async.probabilities(images=batch)
        except (ClientError, TimeoutError, BentoMLException) as error:
            logger.error("%s failed: %r", name, error)
            raise ModelFailed(f"{name} gave no answer; the server's log says why") from error


finish(ImageClassifierService)
