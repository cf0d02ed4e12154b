"""Exercise 20: a service that takes its model from BentoML's store, by tag, and says which version it serves.

MODEL_TAG=resnet18:latest bentoml serve solutions.ex20_service:ImageClassifierService
"""

import os

import bentoml
from bentoml.exceptions import BentoMLException
from bentoml.models import BentoModel

from serving.cores import cores
from serving.model import BadModel, open_model
from serving.service import ImageFile, Json, OneModel, finish, read_image
from serving.store import checked_file, stored


def served_model() -> bentoml.Model:
    """The version that MODEL_TAG means now. A BentoMLException that says what is wrong with it ends `bentoml serve`."""
    try:
        return stored(os.environ.get("MODEL_TAG") or "resnet18:latest")
    except BadModel as error:
        raise BentoMLException(str(error)) from error


# Each of the threads runs its own image, on one core.
@bentoml.service(threads=cores(), traffic={"timeout": 30, "max_concurrency": 256})
class ImageClassifierService(OneModel):
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

    def __init__(self) -> None:
        super().__init__(open_model(checked_file(self.model), threads=1))
        self.tag = str(self.model.tag)

    @bentoml.api
    def classify(self, image: ImageFile, /) -> Json[dict]:
        """The five best labels for one image file (JPEG, PNG, WebP, GIF, BMP or TIFF), which is the whole body.
        Answers `{"predictions": [{"label": ..., "probability": ...}, ...], "weights": ..., "version": ...}`.
        """
        return self.best_labels(self.run(read_image(image))) | {"version": self.tag}

    @bentoml.api
    def version(self) -> Json[dict]:
        """The version that is served: its tag, when it was saved, its labels and metadata."""
        info = self.model.info
        saved = info.creation_time.isoformat()
        return {"tag": self.tag, "saved": saved, "labels": dict(info.labels), "metadata": dict(info.metadata)}


finish(ImageClassifierService)
