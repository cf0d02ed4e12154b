"""Exercise 10 with coroutines, and with what BentoML would check checked by hand."""

import asyncio
import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import bentoml
import numpy
import onnxruntime
from pydantic import PlainValidator

from serving.images import open_image, preprocess
from serving.request_limits import RequestLimits
from serving.tensors import as_batch

FOLDER = os.environ.get("MODELS_DIR") or os.path.join(os.path.dirname(os.path.dirname(bentoml.__file__)), "models")
MODEL = os.path.join(FOLDER, "resnet18.onnx")


@bentoml.service(
    name="ImageClassifierService", traffic={"timeout": 30, "max_concurrency": 100, "external_queue": False}
)
class ImageClassifierService:
    def __init__(self):
        session = onnxruntime.InferenceSession(MODEL)
        told = session.get_modelmeta().custom_metadata_map
        names, self.origin = json.loads(told["labels"]), told["weights"]
        pool = ThreadPoolExecutor(1)

        def run(tensor):
            return session.run(None, {session.get_inputs()[0].name: tensor})[0]

        def look(data):
            scores = run(preprocess(open_image(data)))[0].astype(float)
            weights = numpy.exp(scores - scores.max())
            ranked = sorted(zip(weights / weights.sum(), names, strict=True), key=lambda pair: -pair[0])
            return [{"probability": float(share), "label": name} for share, name in ranked[:5]]

        async def in_pool(function, argument):
            try:
                return await asyncio.get_running_loop().run_in_executor(pool, function, argument)
            except Exception as error:
                raise bentoml.exceptions.BadInput(str(error)) from None

        self.in_pool, self.run, self.look = in_pool, run, look

    @bentoml.on_deployment
    def there_is_a_model():
        try:
            onnxruntime.InferenceSession(MODEL)
        except Exception as error:
            raise bentoml.exceptions.BentoMLException(f"{MODEL}: {error}") from None

    @bentoml.api
    async def predict(self, image: Annotated[numpy.ndarray, PlainValidator(as_batch)]) -> list:
        return (await self.in_pool(self.run, image)).tolist()

    @bentoml.api
    async def classify(self, image: bytes, /) -> dict:
        return {"weights": self.origin, "predictions": await self.in_pool(self.look, image)}


ImageClassifierService.add_asgi_middleware(RequestLimits, max_bytes={"/classify": 10 << 20, "/predict": 64 << 20})
