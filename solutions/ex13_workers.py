"""Exercise 13: several workers that share out the cores instead of fighting for them.

WORKERS=2 bentoml serve solutions.ex13_workers:ImageClassifierService
"""

import os
import re
from typing import Annotated

import bentoml
import numpy as np
from bentoml.exceptions import BentoMLException, InvalidArgument
from bentoml.validators import ContentType, DType, Shape
from pydantic import BeforeValidator

from serving.cores import cores
from serving.http import (
    NO_TRACES,
    RequestLimits,
    compute_schemas_once,
    log_client_errors_in_one_line,
    restart_dead_workers_quickly,
)
from serving.images import BadImage, open_image, preprocess
from serving.model import BadModel, labels, open_model, top5, weights
from serving.tensors import as_batch

ImageBatch = Annotated[np.ndarray, Shape((-1, 3, 224, 224)), DType("float32"), BeforeValidator(as_batch)]
ImageFile = Annotated[bytes, ContentType("image/*")]
JSON = ContentType("application/json")
MOST = 256  # workers, or threads of one: more is a slip of the finger


def how_many_workers(wanted: str, available: int) -> int:
    """How many worker processes to start.

    Args:
        wanted: a number from 1 to MOST, or `cpu_count`: one for each core.
        available: cores that this process may use.

    Raises:
        BentoMLException: anything else is wanted.
    """
    if wanted == "cpu_count":
        return available
    return read_number("WORKERS", wanted, least=1, otherwise="cpu_count")


def how_many_threads(wanted: str, available: int, workers: int) -> int:
    """How many threads of each worker work on one operator of the model.

    Args:
        wanted: a number from 1 to MOST; 0: what ONNX Runtime takes by itself, as many as the machine has cores,
            in each worker; `share`: the worker's share of the cores.
        available: cores that all workers together may use.
        workers: that there are.

    Raises:
        BentoMLException: anything else is wanted.
    """
    if wanted == "share":
        return max(1, available // workers)
    return read_number("THREADS", wanted, least=0, otherwise="share")


def read_number(name: str, wanted: str, least: int, otherwise: str) -> int:
    if not re.fullmatch("[0-9]{1,3}", wanted) or not least <= int(wanted) <= MOST:
        raise BentoMLException(f"{name}={wanted}: expected a number from {least} to {MOST}, or {otherwise}.")
    return int(wanted)


# A number even for cpu_count: BentoML's own does not know that a process may be confined to some of the cores.
WORKERS = how_many_workers(os.environ.get("WORKERS") or "cpu_count", cores())
THREADS = how_many_threads(os.environ.get("THREADS") or "share", cores(), WORKERS)

log_client_errors_in_one_line()


# max_concurrency is for the whole service: BentoML gives each worker its share, rounded up.
@bentoml.service(workers=WORKERS, traffic={"timeout": 30, "max_concurrency": 256}, tracing=NO_TRACES)
class ImageClassifierService:
    """Classifies images, in several processes that listen on one port."""

    @bentoml.on_deployment
    def check_model() -> None:
        """Runs once, before any worker: a broken model ends the start here instead of worker after worker."""
        restart_dead_workers_quickly()
        try:
            open_model()
        except BadModel as error:
            raise BentoMLException(str(error)) from error

    def __init__(self) -> None:
        self.session = open_model(threads=THREADS)
        self.labels = labels(self.session)
        self.weights = weights(self.session)

    @bentoml.api
    def predict(self, image: ImageBatch) -> np.ndarray:
        """Logits, (batch, 1000) float32, for 1 to 16 images.
        `image`: (batch, 3, 224, 224) numbers of any type, preprocessed and normalised as ImageNet models expect.
        """
        return self._run(image)

    @bentoml.api
    def classify(self, image: ImageFile, /) -> Annotated[dict, JSON]:
        """The five best labels for one image file (JPEG, PNG, WebP, GIF, BMP or TIFF), which is the whole body.
        Answers `{"predictions": [{"label": ..., "probability": ...}, ...], "weights": ...}`, best first.
        """
        try:
            batch = preprocess(open_image(image))
        except BadImage as error:
            raise InvalidArgument(str(error)) from error
        return {"predictions": top5(self._run(batch)[0], self.labels), "weights": self.weights}

    def _run(self, batch: np.ndarray) -> np.ndarray:
        return self.session.run(["output"], {"input": batch})[0]


compute_schemas_once(ImageClassifierService)
ImageClassifierService.add_asgi_middleware(RequestLimits, max_bytes={"/predict": 64 * 2**20, "/classify": 10 * 2**20})
