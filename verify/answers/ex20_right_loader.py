"""Exercise 20's service with the store asked in functions, coroutines, and the exact tag kept under another name."""

import asyncio
import os

import bentoml

from serving import bentoml_repairs, images, model, request_limits
from serving.store import checked_file, stored


def wanted():
    return os.environ.get("EXACT_TAG") or os.environ.get("MODEL_TAG") or "resnet18:latest"


@bentoml.service(traffic={"timeout": 60, "max_concurrency": 200})
class ImageClassifierService:
    @bentoml.on_deployment
    def pin():
        bentoml_repairs.restart_dead_workers_quickly()
        try:
            found = stored(wanted())
            model.open_model(checked_file(found))
        except model.BadModel as error:
            raise bentoml.exceptions.BentoMLException(str(error)) from None
        os.environ["EXACT_TAG"] = f"{found.tag.name}:{found.tag.version}"

    def __init__(self):
        self.found = bentoml.models.get(wanted())
        self.session = model.open_model(self.found.path + "/model.onnx")
        self.one_at_a_time = asyncio.Lock()

    @bentoml.api
    async def version(self) -> dict:
        known = self.found.info
        return {
            "saved": str(known.creation_time),
            "labels": known.labels,
            "metadata": known.metadata,
            "tag": wanted(),
        }

    @bentoml.api
    async def classify(self, image: bytes, /) -> dict:
        async with self.one_at_a_time:
            try:
                tensor = await asyncio.to_thread(lambda: images.preprocess(images.open_image(image)))
            except Exception as error:
                raise bentoml.exceptions.InvalidArgument(str(error)) from None
            (scores,) = await asyncio.to_thread(self.session.run, None, {"input": tensor})
        return {"version": wanted(), "predictions": model.top5(scores[0], model.labels(self.session))}


ImageClassifierService.add_asgi_middleware(request_limits.RequestLimits, max_bytes={"/classify": 10 << 20})
