"""Exercise 16 with exceptions gathered as values, and the class of a model service written twice."""

import asyncio

import aiohttp
import bentoml
import numpy
from starlette.responses import Response

from serving import bentoml_repairs, model, request_limits
from serving.images import open_image, preprocess

SETTINGS = {"threads": 2, "runner_connection": {"max_requests": 10**9, "max_age": 1e9}, "traffic": {"timeout": 8}}


@bentoml.service(**SETTINGS)
class ModelA:
    def __init__(self):
        self.session = model.open_model(model.MODEL_A_PATH, threads=1)

    @bentoml.api
    def vote(self, tensor: numpy.ndarray) -> list:
        return model.softmax(self.session.run(None, {"input": tensor})[0])[0].tolist()


@bentoml.service(**SETTINGS)
class ModelB:
    def __init__(self):
        self.session = model.open_model(model.MODEL_B_PATH, threads=1)

    @bentoml.api
    def vote(self, tensor: numpy.ndarray) -> list:
        return model.softmax(self.session.run(None, {"input": tensor})[0])[0].tolist()


@bentoml.service(traffic={"timeout": 40, "max_concurrency": 200})
class ImageClassifierService:
    one = bentoml.depends(ModelA)
    other = bentoml.depends(ModelB)

    @bentoml.on_deployment
    def prepare():
        bentoml_repairs.restart_dead_workers_quickly()
        bentoml_repairs.stop_dependencies_last()
        try:
            a, b = (model.labels(model.open_model(path)) for path in (model.MODEL_A_PATH, model.MODEL_B_PATH))
        except model.BadModel as error:
            raise bentoml.exceptions.BentoMLException(str(error)) from None
        if a != b:
            raise bentoml.exceptions.BentoMLException("Both models must have the same labels.")

    def __init__(self):
        self.names = model.labels(model.open_model(model.MODEL_B_PATH))
        self.turns = asyncio.Semaphore(8)

    async def __is_ready__(self):
        return await bentoml_repairs.all_ready(self.one, self.other)

    async def ask(self, service, tensor):
        for _ in range(3):
            try:
                shares = await service.to_async.vote(tensor=tensor)
            except (ConnectionError, OSError, aiohttp.ClientError) as error:
                failed = error
                await asyncio.sleep(0.2)
                continue
            if any(share is None or share != share for share in shares):
                raise ValueError("not a number")
            return shares
        raise failed

    @bentoml.api
    async def classify(self, image: bytes, /) -> dict:
        async with self.turns:
            try:
                tensor = await asyncio.to_thread(lambda: preprocess(open_image(image)))
            except Exception as error:
                raise bentoml.exceptions.InvalidArgument(str(error)) from None
            votes = await asyncio.gather(
                self.ask(self.other, tensor), self.ask(self.one, tensor), return_exceptions=True
            )
        for name, vote in zip(("model_b", "model_a"), votes, strict=True):
            if isinstance(vote, BaseException):
                return Response(f"{name} is out of order", 502)
        ranked = sorted(((a + b) / 2, i) for i, (a, b) in enumerate(zip(*votes, strict=True)))
        return {"predictions": [{"label": self.names[i], "probability": p} for p, i in ranked[:-6:-1]]}


ImageClassifierService.add_asgi_middleware(request_limits.RequestLimits, max_bytes={"/classify": 10 * 2**20})
