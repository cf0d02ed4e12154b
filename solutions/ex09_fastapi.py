"""Exercise 09: resnet18 behind FastAPI.

uvicorn solutions.ex09_fastapi:app --port 3000
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
from starlette.exceptions import HTTPException as AnyHTTPException
from typer import Option

from course.base.processes import is_free
from course.given.script import run
from serving import Problem
from serving.demo import DemoPage
from serving.images import BadImage, open_image, preprocess
from serving.model import MODEL_PATH, labels, open_model, top5, weights
from serving.request_limits import RequestLimits
from serving.tensors import as_batch

# How many requests run at a time; the others wait. anyio's default of 40 answers slightly more per second and needs
# more memory: the page has both numbers.
THREADS = 4

log = logging.getLogger("uvicorn.error")


class Model(NamedTuple):
    """The loaded model: its session, and what its metadata says."""

    session: ort.InferenceSession
    labels: list[str]
    weights: str


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Uvicorn listens once this yields, and continues here when it stops. The model is loaded in the background."""
    to_thread.current_default_thread_limiter().total_tokens = THREADS
    app.state.model = None
    loading = asyncio.create_task(load(app))
    yield
    loading.cancel()


async def load(app: FastAPI) -> None:
    """Load the model once, into `app.state.model`. If that fails, log one sentence that says why and end the server."""
    try:
        session = await to_thread.run_sync(open_model)
        app.state.model = Model(session, labels(session), weights(session))
    except Exception as error:
        log.critical("%s", error)
        signal.raise_signal(signal.SIGTERM)  # an application cannot end its server in another way


app = FastAPI(title="ImageClassifierService", lifespan=lifespan, docs_url="/")
app.add_middleware(DemoPage, model=MODEL_PATH.stem)  # at /demo
app.add_middleware(RequestLimits, max_bytes={"/predict": 64 * 2**20, "/classify": 10 * 2**20})


async def loaded(request: Request) -> Model:
    """The model; 503 until it is loaded."""
    if request.app.state.model is None:
        raise HTTPException(503, "the model is not loaded yet")
    return request.app.state.model


Loaded = Annotated[Model, Depends(loaded)]


@app.get("/livez")
async def livez() -> dict[str, str]:
    """Alive: the process runs and its event loop is free. If this fails, restart the process."""
    return {"status": "alive"}


@app.get("/readyz")
async def readyz(_: Loaded) -> dict[str, str]:
    """Ready: the model is loaded. Until then, and if this fails, send no requests here."""
    return {"status": "ready"}


# `def`, not `async def`: FastAPI runs it in a thread, and the event loop stays free for other requests.
@app.post("/predict")
def predict(image: Annotated[Any, Body(embed=True)], model: Loaded) -> list[list[float]]:
    """Logits, (batch, 1000), for 1 to 16 images.
    `image`: (batch, 3, 224, 224) numbers of any type, preprocessed and normalised as ImageNet models expect.
    """
    try:
        # Here rather than as a validator of `image`: FastAPI runs validators in its event loop.
        batch = as_batch(image)
    except ValueError as error:
        raise HTTPException(400, str(error)) from error
    return logits(model, batch).tolist()


@app.post("/classify")
def classify(image: Annotated[bytes, Body(media_type="image/*")], model: Loaded) -> dict:
    """The five best labels for one image file (JPEG, PNG, WebP, GIF, BMP or TIFF), which is the whole body.
    Answers `{"predictions": [{"label": ..., "probability": ...}, ...], "weights": ...}`, best first.
    """
    try:
        batch = preprocess(open_image(image))
    except BadImage as error:
        raise HTTPException(400, str(error)) from error
    return {"predictions": top5(logits(model, batch)[0], model.labels), "weights": model.weights}


def logits(model: Model, batch: np.ndarray) -> np.ndarray:
    """(batch, 3, 224, 224) float32 to (batch, 1000) float32."""
    return model.session.run(["output"], {"input": batch})[0]


@app.exception_handler(AnyHTTPException)
async def say_why(_: Request, error: AnyHTTPException) -> JSONResponse:
    """Return `{"error": ...}`, as RequestLimits and exercise 10 do."""
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


@app.exception_handler(RequestValidationError)
async def say_what_was_expected(_: Request, error: RequestValidationError) -> JSONResponse:
    """FastAPI's own handler returns the whole body with the error, and 500 if the body holds NaN."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return JSONResponse({"error": f"expected a body as described at /; {where}: {first['msg']}"}, 422)


def main(port: Annotated[int, Option(help="The port to listen on.")] = 3000) -> None:
    """Serve the application until Ctrl-C."""
    if not is_free(port):
        raise Problem(f"Port {port} is taken, or not allowed. Stop what listens there, or use --port {port + 1}.")
    # More than 256 connections get 503 instead of waiting. After Ctrl-C, requests in progress have 5 s to end.
    uvicorn.run(app, port=port, limit_concurrency=256, timeout_graceful_shutdown=5)


if __name__ == "__main__":
    run(main)
