"""Exercise 09: resnet18 behind FastAPI.

uvicorn exercises.ex09_fastapi:app --port 3000
"""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, NamedTuple

import numpy as np
import onnxruntime as ort
import uvicorn
from anyio import to_thread
from fastapi import Body, Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException as AnyHTTPException
from typer import Option

from course.base.processes import is_free
from course.given.script import run
from serving import Problem
from serving.images import BadImage, open_image, preprocess
from serving.limits import RequestLimits
from serving.model import labels, open_model, top5, weights
from serving.tensors import as_batch

# How many requests are worked on at a time; the others wait. anyio's own 40 answer somewhat more a second and
# hold more in memory: the page has both numbers.
THREADS = 4

log = logging.getLogger("uvicorn.error")


class Model(NamedTuple):
    """What one loading of the model file gives."""

    session: ort.InferenceSession
    labels: list[str]
    weights: str


class Prediction(BaseModel):
    """One label of an image."""

    label: str
    probability: float


class Classification(BaseModel):
    """The five best labels of an image, best first, and where the model's weights came from."""

    predictions: list[Prediction]
    weights: str


# ------------------------------------------------------------------------------ start and stop


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """What happens around serving: uvicorn listens once this yields, and goes on here when it is told to stop.

    The model is loaded in the background, so that the probes are answered meanwhile.
    """
    # TODO: allow THREADS threads (to_thread.current_default_thread_limiter().total_tokens), say that there is no
    # model yet (app.state.model), start load(app) as a task, and then yield.
    raise NotImplementedError("Start to load the model, and yield.")
    yield


async def load(app: FastAPI) -> None:
    """Load the model, once, into `app.state.model`; where that fails, say why in one sentence and end the server."""
    # TODO: open_model in a thread (to_thread.run_sync). What it raises: log.critical, and then
    # signal.raise_signal(signal.SIGTERM), for an application has no other way to end its server.
    raise NotImplementedError("Load the model in a thread.")


app = FastAPI(title="ImageClassifierService", lifespan=lifespan, docs_url="/")
# TODO: limit the size of a request, 64 MiB for /predict and 10 MiB for /classify:
# app.add_middleware(RequestLimits, max_bytes={...})


async def loaded(request: Request) -> Model:
    """The model; 503 until it is loaded."""
    # TODO: request.app.state.model, or HTTPException(503, ...) as long as there is none.
    raise NotImplementedError("Give the model to the functions that need it.")


Loaded = Annotated[Model, Depends(loaded)]


# ------------------------------------------------------------------------------ the APIs


@app.get("/livez")
async def livez() -> dict[str, str]:
    """Alive: the process runs and its event loop turns. Where this fails, start the process anew."""
    # TODO: {"status": "alive"}
    raise NotImplementedError("Say that the process is alive.")


@app.get("/readyz")
async def readyz(_: Loaded) -> dict[str, str]:
    """Ready: the model is loaded. Until then, and where this fails, send no requests here."""
    # TODO: {"status": "ready"}. `Loaded` has answered 503 already where the model is not there yet.
    raise NotImplementedError("Say that the model is loaded.")


# `def`, not `async def`: FastAPI runs such a function in a thread, and the event loop stays free for others.
@app.post("/predict")
def predict(image: Annotated[Any, Body(embed=True)], model: Loaded) -> list[list[float]]:
    """Logits, (batch, 1000), for 1 to 16 images.
    `image`: (batch, 3, 224, 224) numbers of any type, preprocessed and normalised as ImageNet models expect.
    """
    # TODO: as_batch (what it raises: HTTPException(400, ...)), logits, .tolist().
    raise NotImplementedError("Answer the model's logits for the batch.")


@app.post("/classify")
def classify(image: Annotated[bytes, Body(media_type="image/*")], model: Loaded) -> Classification:
    """The five best labels for one image file (JPEG, PNG, WebP, GIF, BMP or TIFF), which is the whole body."""
    # TODO: open_image (BadImage: HTTPException(400, ...)), preprocess, logits, top5, and where the weights came from.
    raise NotImplementedError("Answer the five best labels for the image file.")


def logits(model: Model, batch: np.ndarray) -> np.ndarray:
    """(batch, 3, 224, 224) float32 to (batch, 1000) float32."""
    # TODO: session.run
    raise NotImplementedError("Run the model.")


# ------------------------------------------------------------------------------ refusals, all of one form


@app.exception_handler(AnyHTTPException)
async def say_why(_: Request, error: AnyHTTPException) -> JSONResponse:
    """Answer `{"error": ...}`, as RequestLimits and exercise 10 do."""
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


@app.exception_handler(RequestValidationError)
async def say_what_was_expected(_: Request, error: RequestValidationError) -> JSONResponse:
    """FastAPI's own handler sends the whole body back with the error, and answers 500 where that holds NaN."""
    # TODO: a JSONResponse of one sentence, from `loc` and `msg` of error.errors()[0].
    raise NotImplementedError("Say in one sentence what was expected.")


def main(port: Annotated[int, Option(help="Where it listens.")] = 3000) -> None:
    """Serve the application until Ctrl-C."""
    # TODO: a Problem where the port is not free (is_free), then uvicorn.run. Bound how many connections there may
    # be (limit_concurrency), and how long Ctrl-C waits for requests in flight (timeout_graceful_shutdown).
    raise NotImplementedError("Serve the application.")


if __name__ == "__main__":
    run(main)
