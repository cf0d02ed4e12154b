"""Exercise 20: a service that takes its model from BentoML's store, by tag, and says which version it serves.

MODEL_TAG=resnet18:latest bentoml serve solutions.ex20_service:ImageClassifierService
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
    try:
        return stored(os.environ.get("MODEL_TAG") or "resnet18:latest")
    except BadModel as error:
        raise BentoMLException(str(error)) from error


@bentoml.service(threads=CORES, traffic={"timeout": 30, "max_concurrency": 256})
class ImageClassifierService:
    """Classifies images with one version of resnet18, and says which."""

    # Tells `bentoml build` to pack this version, and no other, into the bento.
    model = BentoModel(served_model().tag)

    @bentoml.on_deployment
    def check_model() -> None:
        """Runs once, before any worker."""
        model = served_model()
        try:
            open_model(checked_file(model))
        except BadModel as error:
            raise BentoMLException(str(error)) from error
        # "latest" was looked up for the last time: a worker that is restarted serves what the others serve.
        os.environ["MODEL_TAG"] = str(model.tag)
        restart_dead_workers_quickly()

    def __init__(self) -> None:
        self.session = open_model(checked_file(self.model), threads=1)
        self.labels = labels(self.session)
        self.weights = weights(self.session)
        self.tag = str(self.model.tag)

    @bentoml.api
    def classify(self, image: ImageFile, /) -> Json:
        """The five best labels for one image file (JPEG, PNG, WebP, GIF, BMP or TIFF), which is the whole body.
        Answers `{"predictions": [{"label": ..., "probability": ...}, ...], "weights": ..., "version": ...}`.
        """
        try:
            batch = preprocess(open_image(image))
        except BadImage as error:
            raise InvalidArgument(str(error)) from error
        logits = self.session.run(["output"], {"input": batch})[0][0]
        return {"predictions": top5(logits, self.labels), "weights": self.weights, "version": self.tag}

    @bentoml.api
    def version(self) -> Json:
        """The version that is served: its tag, when it was saved, its labels and metadata."""
        info = self.model.info
        saved = info.creation_time.isoformat()
        return {"tag": self.tag, "saved": saved, "labels": dict(info.labels), "metadata": dict(info.metadata)}


compute_schemas_once(ImageClassifierService)
ImageClassifierService.add_asgi_middleware(RequestLimits, max_bytes={"/classify": 10 * 2**20})
