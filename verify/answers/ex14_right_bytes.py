"""Exercise 14 with bytes between the services, and a refusal as a value instead of an exception."""

import asyncio
import concurrent.futures

import bentoml
import numpy

from serving import bentoml_repairs, model, request_limits
from serving.images import open_image, preprocess


@bentoml.service(threads=2, workers=2, runner_connection={"max_requests": 10**9, "max_age": 1e9})
class Preprocessing:
    @bentoml.api
    def prepare(self, data: bytes) -> dict:
        try:
            return {"tensor": preprocess(open_image(data)).tobytes(), "refused": ""}
        except Exception as error:
            return {"tensor": b"", "refused": str(error)}


@bentoml.service(traffic={"timeout": 30, "max_concurrency": 200})
class ImageClassifierService:
    helper = bentoml.depends(Preprocessing)

    @bentoml.on_deployment
    def ahead():
        bentoml_repairs.restart_dead_workers_quickly()
        bentoml_repairs.stop_dependencies_last()
        try:
            model.open_model()
        except model.BadModel as error:
            raise bentoml.exceptions.BentoMLException(f"{error}") from None

    def __init__(self):
        self.run = model.open_model(threads=1).run
        self.names, self.origin = model.labels(model.open_model()), model.weights(model.open_model())
        self.pool = concurrent.futures.ThreadPoolExecutor(2)

    async def __is_ready__(self):
        return await bentoml_repairs.all_ready(self.helper)

    @bentoml.api
    async def classify(self, image: bytes, /) -> dict:
        got = await self.helper.to_async.prepare(data=image)
        if got["refused"]:
            raise bentoml.exceptions.BadInput(got["refused"])
        tensor = numpy.frombuffer(got["tensor"], "float32").reshape(1, 3, 224, 224)
        (scores,) = await asyncio.get_running_loop().run_in_executor(self.pool, self.run, None, {"input": tensor})
        return {"weights": self.origin, "predictions": model.top5(scores[0], self.names)}


ImageClassifierService.add_asgi_middleware(request_limits.RequestLimits, max_bytes={"/classify": 10 << 20})
