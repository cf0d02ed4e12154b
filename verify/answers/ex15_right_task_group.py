"""Exercise 15 with services made by a function, a task group, and arithmetic spelt out."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import bentoml
import numpy
from pydantic import BaseModel, BeforeValidator

from serving import bentoml_repairs, model, request_limits
from serving.cores import cores
from serving.images import open_image, preprocess
from serving.tensors import as_batch


def service_for(path, name):
    @bentoml.service(
        name=name,
        threads=cores(),
        runner_connection={"max_requests": 10_000_000, "max_age": 1e6},
        traffic={"timeout": 60},
    )
    class OneModel:
        def __init__(self):
            self.session = model.open_model(path, threads=1)

        @bentoml.api
        def ask(self, tensor: numpy.ndarray) -> numpy.ndarray:
            first = time.time()
            raw = self.session.run(None, {"input": tensor})[0].astype("float64")
            powers = numpy.exp(raw - raw.max(axis=1)[:, None])
            times = numpy.tile([first, time.time()], (len(raw), 1))
            return numpy.hstack([powers / powers.sum(axis=1)[:, None], times])

    return OneModel


ModelA = service_for(model.MODEL_A_PATH, "ModelA")
ModelB = service_for(model.MODEL_B_PATH, "ModelB")


class Best(BaseModel):
    label: str
    probability: float


class Told(BaseModel):
    timing: dict[str, tuple[float, float]]
    predictions: list[Best]


@bentoml.service(traffic={"timeout": 60, "max_concurrency": 200})
class ImageClassifierService:
    first = bentoml.depends(ModelA)
    second = bentoml.depends(ModelB)

    @bentoml.on_deployment
    def look_for_both():
        bentoml_repairs.restart_dead_workers_quickly()
        bentoml_repairs.stop_dependencies_last()
        try:
            known = [model.labels(model.open_model(path)) for path in (model.MODEL_A_PATH, model.MODEL_B_PATH)]
        except model.BadModel as error:
            raise bentoml.exceptions.BentoMLException(str(error)) from None
        if known[0] != known[1]:
            raise bentoml.exceptions.BentoMLException("The labels of the models differ.")

    def __init__(self):
        self.pool = ThreadPoolExecutor(2)
        self.names = model.labels(model.open_model(model.MODEL_A_PATH))

    async def __is_ready__(self):
        return await bentoml_repairs.all_ready(self.first, self.second)

    async def both(self, tensor):
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(one.to_async.ask(tensor=tensor)) for one in (self.second, self.first)]
        second, first = (task.result() for task in asked)
        return first, second

    @bentoml.api
    async def predict(self, image: Annotated[list, BeforeValidator(lambda value: as_batch(value).tolist())]) -> list:
        first, second = await self.both(numpy.array(image, dtype="float32"))
        return numpy.mean([first[:, :1000], second[:, :1000]], axis=0).tolist()

    @bentoml.api
    async def classify(self, image: bytes, /) -> Told:
        arrived = time.time()
        try:
            tensor = await asyncio.get_running_loop().run_in_executor(self.pool, lambda: preprocess(open_image(image)))
        except Exception as error:
            raise bentoml.exceptions.InvalidArgument(str(error)) from None
        first, second = await self.both(tensor)
        shares = 0.5 * first[0, :1000] + 0.5 * second[0, :1000]
        best = sorted(range(1000), key=shares.__getitem__, reverse=True)[:5]
        return Told(
            timing={
                name: [1000 * (answer[0, column] - arrived) for column in (1000, 1001)]
                for name, answer in (("model_a", first), ("model_b", second))
            },
            predictions=[Best(label=self.names[i], probability=shares[i]) for i in best],
        )


ImageClassifierService.add_asgi_middleware(
    request_limits.RequestLimits, max_bytes={"/predict": 64 * 2**20, "/classify": 10 * 2**20}
)
