"""Exercise 12: the service of exercise 10 on a GPU, and what it does where there is none.

bentoml serve exercises.ex12_gpu:ImageClassifierService
REQUIRE_GPU=1 bentoml serve exercises.ex12_gpu:ImageClassifierService
"""

import logging
import os

import bentoml
import onnxruntime as ort

from serving.model import BadModel, open_model
from serving.service import Classifier, Json, finish, in_another_process

# TODO 1: the one change: the GPU's provider first. What it cannot run, the second does.
PROVIDERS = ("CPUExecutionProvider",)
log = logging.getLogger("bentoml.service")


def open_session() -> ort.InferenceSession:
    """The model, with PROVIDERS in order of preference. Raises BadModel, also with REQUIRE_GPU=1 and no PROVIDERS[0]."""
    session = open_model(providers=PROVIDERS)  # ONNX Runtime itself falls back to the CPU and goes on
    # TODO 2: where the user set REQUIRE_GPU=1 and the session has another provider than PROVIDERS[0]: raise BadModel.
    return session


def provider_of(session: ort.InferenceSession) -> str:
    """The execution provider that a session really has, not the one that it was asked for."""
    # TODO 3: ask the session.
    raise NotImplementedError("Say which execution provider the session really has.")


def find_provider() -> str:
    """The execution provider that a session gets on this machine; raises BadModel."""
    return provider_of(open_session())


def why_not() -> str:
    """Why there is no session on PROVIDERS[0], in half a sentence."""
    if PROVIDERS[0] not in ort.get_available_providers():
        return f"this build of ONNX Runtime ({ort.__version__}) does not have it: pip install -r requirements-gpu.txt"
    return "it did not start: there is no GPU, no driver, or no CUDA library; `nvidia-smi` tells which"


# TODO 4: resources={"gpu": 1} gives the service a GPU of its own (CUDA_VISIBLE_DEVICES).
@bentoml.service(traffic={"timeout": 30, "max_concurrency": 256})
class ImageClassifierService(Classifier):
    """Classifies images with resnet18 on a GPU; on the CPU where there is none, unless REQUIRE_GPU=1."""

    @bentoml.on_deployment
    def check_model() -> None:
        """Runs once, before any worker: says which provider there is, or ends the start."""
        provider = in_another_process(find_provider)  # one that has used CUDA keeps memory of the GPU until it ends
        # TODO 5: nobody reads what is not there: where they differ, log a warning with both providers and why_not().
        log.info("Running on %s.", provider)

    def __init__(self) -> None:
        super().__init__(open_session())

    @bentoml.api
    def provider(self) -> Json[dict]:
        """The execution provider that this worker runs on, and the wanted one: `{"provider": ..., "wanted": ...}`."""
        # TODO 6: the provider that this worker's session really has, and PROVIDERS[0].
        raise NotImplementedError("Answer which execution provider this worker runs on.")


finish(ImageClassifierService)
