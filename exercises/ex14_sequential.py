"""Exercise 14: one service decodes and prepares the image, the next one classifies it.

bentoml serve exercises.ex14_sequential:ImageClassifierService
"""

import bentoml
import numpy as np
from anyio import CapacityLimiter, to_thread
from bentoml.exceptions import InvalidArgument

from serving.cores import cores
from serving.model import open_model
from serving.service import ImageFile, Json, OneModel, all_ready, finish, read_image, reason

CORES = cores()


# TODO 1: threads=CORES lets it prepare several images at a time, traffic={"timeout": 30} ends what hangs.
@bentoml.service
class Preprocessing:
    """Makes the model's input from image files, in a process of its own. It needs no model."""

    @bentoml.api
    def prepare(self, file: bytes) -> np.ndarray:
        """The file as (1, 3, 224, 224) float32."""
        # TODO 2: read_image makes the model's input of a file, and refuses what is not an image.
        raise NotImplementedError("Make the model's input of the image file.")


@bentoml.service  # TODO 3: limit a request to 30 s, and how many may wait to 256: traffic={...}
class ImageClassifierService(OneModel):
    """Classifies images: asks Preprocessing for the tensor, and runs resnet18 on it."""

    # TODO 4: name the service that this one asks: bentoml.depends(...)
    preprocessing = None

    def __init__(self) -> None:
        # TODO 5: super().__init__ with the model, opened with one thread.
        self.threads = CapacityLimiter(CORES)  # as many runs at a time as there are cores, each with one thread
        self.in_work = CapacityLimiter(4 * CORES)  # more would only wait further on, decoded and large

    # TODO 6: async def __is_ready__(self) -> bool: whether every dependency is ready, with all_ready.
    # TODO 7: delete this line. As long as it is here, the service does not start.
    still_to_do = "ask Preprocessing, then run the model in classify()."

    @bentoml.api
    async def classify(self, image: ImageFile, /) -> Json[dict]:
        """The five best labels for one image file (JPEG, PNG, WebP, GIF, BMP or TIFF), which is the whole body.
        Answers `{"predictions": [{"label": ..., "probability": ...}, ...], "weights": ...}`, best first.
        """
        # TODO 8: in `async with self.in_work`, await what Preprocessing makes of the image: self.preprocessing.to_async...
        # Where it refuses, raise InvalidArgument with reason(error). Then run the session in a thread:
        # `await to_thread.run_sync(function, argument, limiter=self.threads)`.
        raise NotImplementedError("Ask Preprocessing, then run the model without blocking the event loop.")


finish(ImageClassifierService)
