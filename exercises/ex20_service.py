"""Exercise 20: a service that takes its model from BentoML's store, by tag, and says which version it serves.

MODEL_TAG=resnet18:latest bentoml serve exercises.ex20_service:ImageClassifierService
"""

import os
from typing import Annotated

import bentoml
from bentoml.exceptions import BentoMLException, InvalidArgument
from bentoml.models import BentoModel
from bentoml.validators import ContentType

from serving.http import (
    RequestLimits,
    compute_schemas_once,
    log_client_errors_in_one_line,
    restart_dead_workers_quickly,
)
from serving.images import BadImage, open_image, preprocess
from serving.model import BadModel, labels, open_model, top5, weights
from serving.store import checked_file, stored

CORES = os.cpu_count() or 1

ImageFile = Annotated[bytes, ContentType("image/*")]
Json = Annotated[dict, ContentType("application/json")]

log_client_errors_in_one_line()


def served_model() -> bentoml.Model:
    """The version that MODEL_TAG means now; what is wrong with it as one sentence, which ends `bentoml serve`."""
    # TODO: stored(tag) of the environment variable MODEL_TAG, or else of resnet18:latest. It raises BadModel with a
    # sentence: raise BentoMLException with it.
    raise NotImplementedError("Look the model up in the store.")


@bentoml.service(threads=CORES, traffic={"timeout": 30, "max_concurrency": 256})
class ImageClassifierService:
    """Classifies images with one version of resnet18, and says which."""

    # TODO: model = BentoModel(served_model().tag) tells `bentoml build` to pack this version into the bento, and
    # makes self.model the version in the store.

    @bentoml.on_deployment
    def check_model() -> None:
        """Runs once, before any worker."""
        # TODO: open the model's checked_file, so that a broken one ends the start; keep the exact tag in
        # os.environ["MODEL_TAG"] for all workers; restart_dead_workers_quickly().
        return

    def __init__(self) -> None:
        # TODO: open the file of self.model with threads=1, and keep its labels, weights and tag.
        self.session = None

    @bentoml.api
    def classify(self, image: ImageFile, /) -> Json:
        """The five best labels for one image file (JPEG, PNG, WebP, GIF, BMP or TIFF), which is the whole body.
        Answers `{"predictions": [{"label": ..., "probability": ...}, ...], "weights": ..., "version": ...}`.
        """
        # TODO: as in exercise 10, and the tag as "version".
        raise NotImplementedError("Answer the five best labels and the version.")

    @bentoml.api
    def version(self) -> Json:
        """The version that is served: its tag, when it was saved, its labels and metadata."""
        # TODO: self.model.info has creation_time, labels and metadata.
        raise NotImplementedError("Answer which version is served.")


compute_schemas_once(ImageClassifierService)
ImageClassifierService.add_asgi_middleware(RequestLimits, max_bytes={"/classify": 10 * 2**20})
