"""Exercise 12: the service of exercise 10 on a GPU, and what it does where there is none.

bentoml serve solutions.ex12_gpu:ImageClassifierService
REQUIRE_GPU=1 bentoml serve solutions.ex12_gpu:ImageClassifierService
"""

import logging
import os

import bentoml
import onnxruntime as ort

from serving.model import BadModel, open_model
from serving.service import Classifier, Json, finish, in_another_process

# The one change. What the first cannot run, the second does; where it cannot start, everything.
PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
log = logging.getLogger("bentoml.service")


def open_session() -> ort.InferenceSession:
    """The model, with PROVIDERS in order of preference. Raises BadModel, also with REQUIRE_GPU=1 and no PROVIDERS[0]."""
    session = open_model(providers=PROVIDERS)  # ONNX Runtime itself falls back to the CPU and goes on
    if os.environ.get("REQUIRE_GPU") == "1" and provider_of(session) != PROVIDERS[0]:
        raise BadModel(f"REQUIRE_GPU=1, but {PROVIDERS[0]} cannot be had: {why_not()}.")
    return session


def provider_of(session: ort.InferenceSession) -> str:
    """The execution provider that a session really has, not the one that it was asked for."""
    return session.get_providers()[0]


def find_provider() -> str:
    """The execution provider that a session gets on this machine; raises BadModel."""
    return provider_of(open_session())


def why_not() -> str:
    """Why there is no session on PROVIDERS[0], in half a sentence."""
    if PROVIDERS[0] not in ort.get_available_providers():
        return f"this build of ONNX Runtime ({ort.__version__}) does not have it: pip install -r requirements-gpu.txt"
    return "it did not start: there is no GPU, no driver, or no CUDA library; `nvidia-smi` tells which"


# gpu: 1 gives the service a GPU of its own (CUDA_VISIBLE_DEVICES). Where there is none, BentoML says nothing.
@bentoml.service(resources={"gpu": 1}, traffic={"timeout": 30, "max_concurrency": 256})
class ImageClassifierService(Classifier):
    """Classifies images with resnet18 on a GPU; on the CPU where there is none, unless REQUIRE_GPU=1."""

    @bentoml.on_deployment
    def check_model() -> None:
        """Runs once, before any worker: says which provider there is, or ends the start."""
        provider = in_another_process(find_provider)  # one that has used CUDA keeps memory of the GPU until it ends
        if provider == PROVIDERS[0]:
            log.info("Running on %s.", provider)
        else:
            log.warning("RUNNING ON %s, NOT ON %s: %s.", provider, PROVIDERS[0], why_not())

    def __init__(self) -> None:
        super().__init__(open_session())

    @bentoml.api
    def provider(self) -> Json[dict]:
        """The execution provider that this worker runs on, and the wanted one: `{"provider": ..., "wanted": ...}`."""
        return {"provider": provider_of(self.session), "wanted": PROVIDERS[0]}


finish(ImageClassifierService)
