"""Exercise 15: two models at the same time, each in a service of its own, and a third that combines them.

bentoml serve exercises.ex15_concurrent:ImageClassifierService
"""

import asyncio
import time
from pathlib import Path

import bentoml
import numpy as np
from anyio import to_thread

from serving.cores import cores
from serving.model import MODEL_A_PATH, MODEL_B_PATH, best5, open_model, softmax
from serving.service import ImageBatch, ImageFile, Json, TwoModels, finish, read_image


class Model:
    """What both model services do."""

    path: Path

    def __init__(self) -> None:
        # TODO 1: open the model at self.path. With how many threads, if two models share the cores?
        self.session = None

    @bentoml.api
    def probabilities(self, images: np.ndarray) -> dict:
        """What the model thinks of each image, (batch, 1000), and when it began and ended to think so."""
        # TODO 2: run the session, make probabilities of its logits. When it began: time.monotonic(), one clock for all
        # processes of a machine.
        raise NotImplementedError('Answer {"probabilities": ..., "began": ..., "ended": ...}.')


@bentoml.service(threads=cores(), traffic={"timeout": 30})
class ModelA(Model):
    path = MODEL_A_PATH


@bentoml.service(threads=cores(), traffic={"timeout": 30})
class ModelB(Model):
    path = MODEL_B_PATH


@bentoml.service(traffic={"timeout": 30, "max_concurrency": 256})
class ImageClassifierService(TwoModels):
    """Asks both models at once, and answers the mean of their probabilities."""

    # TODO 3: name the services that this one asks, ModelA and ModelB: bentoml.depends(...)
    model_a = None
    model_b = None
    # TODO 4: delete this line. As long as it is here, the service does not start.
    still_to_do = "ask both models at once, and combine their answers."

    @bentoml.api
    async def predict(self, image: ImageBatch) -> Json[np.ndarray]:
        """The mean of both models' probabilities, (batch, 1000) float32, for 1 to 16 images.
        `image`: (batch, 3, 224, 224) numbers of any type, preprocessed and normalised as ImageNet models expect.
        """
        async with self.in_work:
            a, b = await self._ask_both(image)
        return combined(a, b)

    @bentoml.api
    async def classify(self, image: ImageFile, /) -> Json[dict]:
        """The five best labels of both models for one image file (JPEG, PNG, WebP, GIF, BMP or TIFF), the whole body.
        Answers `{"predictions": [{"label": ..., "probability": ...}, ...], "timing": ...}`, best first;
        `timing` holds when each model began and ended, in milliseconds after the request came.
        """
        # TODO 5: remember when the request came: time.monotonic(). In `async with self.in_work`, run read_image in a
        # thread (await to_thread.run_sync(...)) and ask both models. Answer best5 of what they say together, and
        # "timing": {"model_a": [began, ended], "model_b": [began, ended]}.
        raise NotImplementedError("Prepare the image in a thread, ask both models, answer labels and timing.")

    async def _ask_both(self, batch: np.ndarray) -> list[dict]:
        # TODO 6: self.model_a.to_async.probabilities(images=batch) can be awaited. If one `await` follows the other, the
        # second model begins when the first has ended.
        raise NotImplementedError("Ask both models at the same time.")


def combined(a: dict, b: dict) -> np.ndarray:
    """One answer made of two; each model's vote has equal weight."""
    # TODO 7: which numbers of two models can be averaged?
    raise NotImplementedError("Combine the two answers.")


finish(ImageClassifierService)
