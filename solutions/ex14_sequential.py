"""Exercise 14: one service decodes and prepares the image, the next one classifies it.

bentoml serve solutions.ex14_sequential:ImageClassifierService
"""

import bentoml
import numpy as np
from anyio import CapacityLimiter, to_thread
from bentoml.exceptions import InvalidArgument

from serving.cores import cores
from serving.model import open_model
from serving.service import ImageFile, Json, OneModel, all_ready, finish, read_image, reason

CORES = cores()


@bentoml.service(threads=CORES, traffic={"timeout": 30})
class Preprocessing:
    """Makes the model's input from image files, in a process of its own. It needs no model."""

    @bentoml.api
    def prepare(self, file: bytes) -> np.ndarray:
        """The file as (1, 3, 224, 224) float32."""
        # BentoML runs a `def` in a thread. In an `async def` this would stop the event loop.
        return read_image(file)


@bentoml.service(traffic={"timeout": 30, "max_concurrency": 256})
class ImageClassifierService(OneModel):
    """Classifies images: asks Preprocessing for the tensor, and runs resnet18 on it."""

    preprocessing = bentoml.depends(Preprocessing)

    def __init__(self) -> None:
        super().__init__(open_model(threads=1))
        self.threads = CapacityLimiter(CORES)  # as many runs at a time as there are cores, each with one thread
        self.in_work = CapacityLimiter(4 * CORES)  # more would only wait further on, decoded and large

    async def __is_ready__(self) -> bool:
        return await all_ready(self.preprocessing)

    @bentoml.api
    async def classify(self, image: ImageFile, /) -> Json[dict]:
        """The five best labels for one image file (JPEG, PNG, WebP, GIF, BMP or TIFF), which is the whole body.
        Answers `{"predictions": [{"label": ..., "probability": ...}, ...], "weights": ...}`, best first.
        """
        try:
            async with self.in_work:
                batch = await self.preprocessing.to_async.prepare(file=image)
                # Called right here, it would stop the event loop: no other request, no /livez meanwhile.
                logits = await to_thread.run_sync(self.run, batch, limiter=self.threads)
        except InvalidArgument as error:
            raise InvalidArgument(reason(error)) from error
        return self.best_labels(logits)


finish(ImageClassifierService)
