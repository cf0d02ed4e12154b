"""What exercise 10 writes in full, for every service after it: annotations, checks, a model's APIs, limits.

A service of one model is a subclass of Classifier. Its module ends with `finish(ImageClassifierService)`.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, TypeVar

import bentoml
import numpy as np
import onnxruntime as ort
from bentoml.exceptions import BentoMLException, InvalidArgument
from bentoml.validators import ContentType, DType, Shape
from pydantic import AfterValidator, BeforeValidator

from serving import bentoml_repairs
from serving.bentoml_repairs import all_ready as all_ready  # for exercise 14
from serving.bentoml_repairs import reason as reason
from serving.cores import cores
from serving.demo import DemoPage
from serving.images import BadImage, open_image, preprocess
from serving.model import MODEL_A_PATH, MODEL_B_PATH, MODEL_PATH, BadModel, labels, open_model, top5, weights
from serving.request_limits import RequestLimits
from serving.tensors import as_batch, read_npy

# What a caller sends. It is checked while the request is read: before the method, and before a batch's queue.
ImageBatch = Annotated[np.ndarray, Shape((-1, 3, 224, 224)), DType("float32"), BeforeValidator(as_batch)]
ImageFile = Annotated[bytes, ContentType("image/*")]
NpyFile = Annotated[bytes, ContentType("application/octet-stream"), AfterValidator(read_npy)]

# What a service answers: Json[dict], Json[np.ndarray].
T = TypeVar("T")
Json = Annotated[T, ContentType("application/json")]

# The largest body that each API reads, where a service has that API.
MAX_BYTES = {"/predict": 64 * 2**20, "/predict_npy": 32 * 2**20, "/classify": 10 * 2**20, "/summarize": 2**20}


def check_models(*paths: Path | str) -> None:
    """Make sure that models can be served, and have the same labels. Call it under `@bentoml.on_deployment`.

    Raises BentoMLException if not: `bentoml serve` ends with this sentence.
    """
    try:
        first, *others = [labels(open_model(path)) for path in paths]
    except BadModel as error:
        raise BentoMLException(str(error)) from error
    if any(other != first for other in others):
        names = " and ".join(map(str, paths))
        raise BentoMLException(f"{names} have different labels: their answers cannot be combined.")


def read_image(file: bytes) -> np.ndarray:
    """Turn an image file into the model's input, a float32 array of shape (1, 3, 224, 224). Takes some milliseconds.

    Raises InvalidArgument for what cannot be classified; BentoML answers 400 with the reason.
    """
    try:
        return preprocess(open_image(file))
    except BadImage as error:
        raise InvalidArgument(str(error)) from error


def in_another_process(function: Callable[[], T]) -> T:
    """What a module's function returns, called in a process of its own, which ends then.

    If the function raises BadModel, this raises BentoMLException: under `@bentoml.on_deployment` it ends the start.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(function).result()
        except BadModel as error:
            raise BentoMLException(str(error)) from error


class OneModel:
    """A service's model: checked before the start, opened once for each worker."""

    model_name = MODEL_PATH.stem  # as the page at /demo shows it

    @bentoml.on_deployment
    def check_model() -> None:
        """Runs once, before any worker: a broken model ends the start here instead of worker after worker."""
        check_models(MODEL_PATH)

    def __init__(self, session: ort.InferenceSession | None = None) -> None:
        """session: models/resnet18.onnx on all cores, unless given."""
        self.session = session or open_model()
        self.labels = labels(self.session)
        self.weights = weights(self.session)

    def run(self, batch: np.ndarray) -> np.ndarray:
        """The model's logits, (batch, 1000) float32, for (batch, 3, 224, 224) float32."""
        return self.session.run(["output"], {"input": batch})[0]

    def best_labels(self, logits: np.ndarray) -> dict:
        """What `classify` answers for the logits of one image, (1, 1000)."""
        return {"predictions": top5(logits[0], self.labels), "weights": self.weights}


class Classifier(OneModel):
    """One model behind `predict` and `classify`, as in exercise 10."""

    @bentoml.api
    def predict(self, image: ImageBatch) -> Json[np.ndarray]:
        """Logits, (batch, 1000) float32, for 1 to 16 images.
        `image`: (batch, 3, 224, 224) numbers of any type, preprocessed and normalised as ImageNet models expect.
        """
        return self.run(image)

    @bentoml.api
    def classify(self, image: ImageFile, /) -> Json[dict]:
        """The five best labels for one image file (JPEG, PNG, WebP, GIF, BMP or TIFF), which is the whole body.
        Answers `{"predictions": [{"label": ..., "probability": ...}, ...], "weights": ...}`, best first.
        """
        return self.best_labels(self.run(read_image(image)))


class TwoModels:
    """An entry service that asks `model_a` and `model_b`, services of its subclass: ready when both of them are."""

    model_name = "resnet18 and resnet34"

    @bentoml.on_deployment
    def check_models() -> None:
        """Runs once, before any worker: without two models whose answers can be combined there is no start."""
        check_models(MODEL_A_PATH, MODEL_B_PATH)

    def __init__(self) -> None:
        self.labels = labels(open_model(MODEL_A_PATH))  # which is then closed: this process runs no model
        self.in_work = asyncio.Semaphore(4 * cores())  # images; more would only wait further on, decoded and large

    async def __is_ready__(self) -> bool:
        return await all_ready(self.model_a, self.model_b)


def finish(service: "bentoml.Service") -> None:
    """Limit what callers may send to a service, and repair what BentoML does under load. The last line of its module."""
    bentoml_repairs.apply(service)
    if left := getattr(service.inner, "still_to_do", ""):  # as in a starter of the course

        def refuse() -> None:
            raise BentoMLException(f"Still to do: {left}")

        service.inner._refuse = bentoml.on_deployment(refuse)
    limits = {api.route: MAX_BYTES[api.route] for api in service.apis.values() if api.route in MAX_BYTES}
    if "/classify" in limits:
        service.add_asgi_middleware(DemoPage, model=service.inner.model_name)
    service.add_asgi_middleware(RequestLimits, max_bytes=limits)
