"""Exercise 20: a service that takes its model from BentoML's store, by tag, and says which version it serves.

MODEL_TAG=resnet18:latest bentoml serve exercises.ex20_service:ImageClassifierService
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
    # TODO 7: stored(tag) of the environment variable MODEL_TAG, or else of resnet18:latest. It raises BadModel with a
    # sentence: raise BentoMLException with it.
    raise NotImplementedError("Look the model up in the store.")


# Each of the threads runs its own image, on one core.
@bentoml.service(threads=cores(), traffic={"timeout": 30, "max_concurrency": 256})
class ImageClassifierService(OneModel):
    """Classifies images with one version of resnet18, and says which."""

    # TODO 8: model = BentoModel(served_model().tag) tells `bentoml build` to pack this version, and no other, into the
    # bento. self.model is then that version.

    @bentoml.on_deployment
    def check_model() -> None:
        """Runs once, before any worker."""
        # TODO 9: open the model's checked_file, so that a broken one ends the start. Then keep the exact tag in
        # os.environ["MODEL_TAG"], for all workers: "latest" may mean another version when one is restarted.
        raise BentoMLException("Still to do: check the version and serve it.")

    def __init__(self) -> None:
        # TODO 10: super().__init__ with a session of self.model's checked_file and one thread; self.tag, the tag as text.
        raise NotImplementedError("Open the model of this version.")

    @bentoml.api
    def classify(self, image: ImageFile, /) -> Json[dict]:
        """The five best labels for one image file (JPEG, PNG, WebP, GIF, BMP or TIFF), which is the whole body.
        Answers `{"predictions": [{"label": ..., "probability": ...}, ...], "weights": ..., "version": ...}`.
        """
        # TODO 11: what Classifier's classify answers (serving/service.py), and the tag as "version".
        raise NotImplementedError("Answer the five best labels and the version.")

    @bentoml.api
    def version(self) -> Json[dict]:
        """The version that is served: its tag, when it was saved, its labels and metadata."""
        # TODO 12: self.model.info has creation_time, labels and metadata.
        raise NotImplementedError("Answer which version is served.")


finish(ImageClassifierService)
