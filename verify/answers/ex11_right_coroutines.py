"""Exercise 11 with coroutines, one run at a time in a thread, and batches gathered as BentoML gathers them."""

import asyncio
import functools
import io
import os
from typing import Annotated

import bentoml
import numpy
import pydantic

from serving.bentoml_repairs import restart_dead_workers_quickly
from serving.images import open_image, preprocess
from serving.model import labels, open_model, softmax, weights
from serving.request_limits import RequestLimits
from serving.tensors import as_batch


def array_in(body):
    try:
        array = numpy.lib.format.read_array(io.BytesIO(body), allow_pickle=False)
        return as_batch(numpy.ascontiguousarray(array))
    except Exception as error:
        raise ValueError(f"expected a .npy file: {error}") from None


Tensor = Annotated[numpy.ndarray, pydantic.PlainValidator(as_batch), bentoml.validators.Shape((-1, 3, 224, 224))]
in_batches = bentoml.api
if os.getenv("BATCHING", "1") != "0":
    in_batches = functools.partial(
        bentoml.api, batchable=True, batch_dim=(0, 0), max_batch_size=32, max_latency_ms=90_000
    )


@bentoml.service(traffic={"timeout": 90, "max_concurrency": 220})
class ImageClassifierService:
    def __init__(self):
        self.model = open_model()
        self.names, self.origin = labels(self.model), weights(self.model)
        self.free = asyncio.Lock()

    @bentoml.on_deployment
    def before():
        restart_dead_workers_quickly()
        open_model()

    async def scores(self, tensor):
        async with self.free:
            (output,) = await asyncio.to_thread(self.model.run, None, {"input": numpy.asarray(tensor)})
        return output

    @in_batches()
    async def predict(self, image: Tensor) -> numpy.ndarray:
        return await self.scores(image)

    @in_batches()
    async def predict_npy(
        self,
        image: Annotated[bytes, bentoml.validators.ContentType("application/x-npy"), pydantic.AfterValidator(array_in)],
        /,
    ) -> Annotated[numpy.ndarray, bentoml.validators.ContentType("application/json")]:
        return await self.scores(image)

    @bentoml.api
    async def classify(self, image: bytes, /) -> dict:
        try:
            tensor = await asyncio.to_thread(lambda: preprocess(open_image(image)))
        except Exception as error:
            raise bentoml.exceptions.InvalidArgument(str(error)) from None
        shares = softmax(await self.scores(tensor))[0]
        best = numpy.argpartition(-shares, range(5))[:5]
        five = [{"label": self.names[i], "probability": float(shares[i])} for i in best]
        return {"predictions": five, "weights": self.origin}


ImageClassifierService.add_asgi_middleware(
    RequestLimits, max_bytes={"/predict": 64 * 2**20, "/predict_npy": 64 * 2**20, "/classify": 10 * 2**20}
)
