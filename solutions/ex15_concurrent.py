"""Exercise 15: two models at the same time, each in a service of its own, and a third that combines them.

bentoml serve solutions.ex15_concurrent:ImageClassifierService
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
        # One thread for each run, as many runs at a time as cores: more threads would fight over the cores.
        self.session = open_model(self.path, threads=1)

    @bentoml.api
    def probabilities(self, images: np.ndarray) -> dict:
        """What the model thinks of each image, (batch, 1000), and when it began and ended to think so."""
        began = time.monotonic()  # one clock for all processes of a machine
        logits = self.session.run(["output"], {"input": images})[0]
        return {"probabilities": softmax(logits), "began": began, "ended": time.monotonic()}


@bentoml.service(threads=cores(), traffic={"timeout": 30})
class ModelA(Model):
    path = MODEL_A_PATH


@bentoml.service(threads=cores(), traffic={"timeout": 30})
class ModelB(Model):
    path = MODEL_B_PATH


@bentoml.service(traffic={"timeout": 30, "max_concurrency": 256})
class ImageClassifierService(TwoModels):
    """Asks both models at once, and answers the mean of their probabilities."""

    model_a = bentoml.depends(ModelA)
    model_b = bentoml.depends(ModelB)

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
        came = time.monotonic()
        async with self.in_work:
            a, b = await self._ask_both(await to_thread.run_sync(read_image, image))
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


finish(ImageClassifierService)
