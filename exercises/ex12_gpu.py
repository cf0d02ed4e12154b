"""Exercise 12: the service of exercise 10 on a GPU, and what it does where there is none.

bentoml serve exercises.ex12_gpu:ImageClassifierService
REQUIRE_GPU=1 bentoml serve exercises.ex12_gpu:ImageClassifierService
"""

import logging
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Annotated

import bentoml
import numpy as np
import onnxruntime as ort
from bentoml.exceptions import BentoMLException, InvalidArgument
from bentoml.validators import ContentType, DType, Shape
from pydantic import BeforeValidator

from serving.http import (
    RequestLimits,
    compute_schemas_once,
    log_client_errors_in_one_line,
    restart_dead_workers_quickly,
)
from serving.images import BadImage, open_image, preprocess
from serving.model import BadModel, labels, open_model, top5, weights
from serving.tensors import as_batch

# TODO: the one change: the GPU's provider first. What it cannot run, the second does.
PROVIDERS = ("CPUExecutionProvider",)

JSON = ContentType("application/json")
ImageBatch = Annotated[np.ndarray, Shape((-1, 3, 224, 224)), DType("float32"), BeforeValidator(as_batch)]
ImageFile = Annotated[bytes, ContentType("image/*")]

log = logging.getLogger("bentoml.service")
log_client_errors_in_one_line()


def open_session() -> ort.InferenceSession:
    """The model with PROVIDERS in order of preference. ONNX Runtime itself falls back to the CPU and goes on.

    Raises:
        BadModel: as open_model(), and with REQUIRE_GPU=1 where the session does not have PROVIDERS[0].
    """
    if PROVIDERS[0] in ort.get_available_providers():
        ort.preload_dlls()  # CUDA and cuDNN from pip's packages, where the system has none
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # check_provider() says it more clearly, and once
        session = open_model(providers=PROVIDERS)
    # TODO: where the user set REQUIRE_GPU=1 and the session has another provider than PROVIDERS[0]: raise BadModel.
    return session


def provider_of(session: ort.InferenceSession) -> str:
    """The execution provider that a session really has, not the one that it was asked for."""
    raise NotImplementedError("Say which execution provider the session really has.")


def find_provider() -> str:
    """The execution provider that a session gets on this machine; raises BadModel."""
    return provider_of(open_session())


def why_not() -> str:
    """Why there is no session on PROVIDERS[0], in half a sentence."""
    if PROVIDERS[0] not in ort.get_available_providers():
        return f"this build of ONNX Runtime ({ort.__version__}) does not have it: pip install -r requirements-gpu.txt"
    return "it did not start: there is no GPU, no driver, or no CUDA library; `nvidia-smi` tells which"


# TODO: resources={"gpu": 1} gives the service a GPU of its own (CUDA_VISIBLE_DEVICES).
@bentoml.service(traffic={"timeout": 30, "max_concurrency": 256})
class ImageClassifierService:
    """Classifies images with resnet18 on a GPU; on the CPU where there is none, unless REQUIRE_GPU=1."""

    @bentoml.on_deployment
    def check_provider() -> None:
        """Runs once, before any worker: says which provider there is, or ends the start."""
        restart_dead_workers_quickly()
        # In a process of its own: one that has used CUDA keeps hundreds of megabytes on the GPU until it ends.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            try:
                provider = pool.submit(find_provider).result()
            except BadModel as error:
                raise BentoMLException(str(error)) from error
        # TODO: nobody reads what is not there: log a warning that names both providers where they differ, and why_not().
        log.info("Running on %s.", provider)

    def __init__(self) -> None:
        self.session = open_session()
        self.labels = labels(self.session)
        self.weights = weights(self.session)

    @bentoml.api
    def provider(self) -> Annotated[dict, JSON]:
        """The execution provider that this worker runs on, and the one that was wanted.
        Answers `{"provider": ..., "wanted": ...}`.
        """
        # TODO: the provider that this worker's session really has, and PROVIDERS[0].
        raise NotImplementedError("Answer which execution provider this worker runs on.")

    @bentoml.api
    def predict(self, image: ImageBatch) -> Annotated[np.ndarray, JSON]:
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
