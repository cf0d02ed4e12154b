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
    # TODO 1: allow THREADS threads (to_thread.current_default_thread_limiter().total_tokens), set app.state.model to
    # None, start load(app) as a task, and yield.
    raise NotImplementedError("Start to load the model, and yield.")
    yield  # TODO 2: then cancel the task.


async def load(app: FastAPI) -> None:
    """Load the model once, into `app.state.model`. If that fails, log one sentence that says why and end the server."""
    # TODO 3: run open_model in a thread (to_thread.run_sync). If it raises: log.critical, and then
    # signal.raise_signal(signal.SIGTERM), since an application cannot end its server in another way.
    raise NotImplementedError("Load the model in a thread.")


app = FastAPI(title="ImageClassifierService", lifespan=lifespan, docs_url="/")
app.add_middleware(DemoPage, model=MODEL_PATH.stem)  # at /demo
# TODO 4: limit the size of a request, 64 MiB for /predict and 10 MiB for /classify:
# app.add_middleware(RequestLimits, max_bytes={...})


async def loaded(request: Request) -> Model:
    """The model; 503 until it is loaded."""
    # TODO 5: request.app.state.model, or HTTPException(503, ...) while there is none.
    raise NotImplementedError("Return the model to the functions that need it.")


Loaded = Annotated[Model, Depends(loaded)]


@app.get("/livez")
async def livez() -> dict[str, str]:
    """Alive: the process runs and its event loop is free. If this fails, restart the process."""
    # TODO 6: {"status": "alive"}
    raise NotImplementedError("Say that the process is alive.")


@app.get("/readyz")
async def readyz(_: Loaded) -> dict[str, str]:
    """Ready: the model is loaded. Until then, and if this fails, send no requests here."""
    # TODO 7: {"status": "ready"}. While there is no model, `Loaded` has returned 503 already.
    raise NotImplementedError("Say that the model is loaded.")


# `def`, not `async def`: FastAPI runs it in a thread, and the event loop stays free for other requests.
@app.post("/predict")
def predict(image: Annotated[Any, Body(embed=True)], model: Loaded) -> list[list[float]]:
    """Logits, (batch, 1000), for 1 to 16 images.
    `image`: (batch, 3, 224, 224) numbers of any type, preprocessed and normalised as ImageNet models expect.
    """
    # TODO 8: as_batch (HTTPException(400, ...) for what it raises), logits, .tolist().
    raise NotImplementedError("Return the model's logits for the batch.")


@app.post("/classify")
def classify(image: Annotated[bytes, Body(media_type="image/*")], model: Loaded) -> dict:
    """The five best labels for one image file (JPEG, PNG, WebP, GIF, BMP or TIFF), which is the whole body.
    Answers `{"predictions": [{"label": ..., "probability": ...}, ...], "weights": ...}`, best first.
    """
    # TODO 9: open_image (HTTPException(400, ...) for BadImage), preprocess, logits, top5, and the model's weights.
    raise NotImplementedError("Return the five best labels for the image file.")


def logits(model: Model, batch: np.ndarray) -> np.ndarray:
    """(batch, 3, 224, 224) float32 to (batch, 1000) float32."""
    # TODO 10: session.run
    raise NotImplementedError("Run the model.")


@app.exception_handler(AnyHTTPException)
async def say_why(_: Request, error: AnyHTTPException) -> JSONResponse:
    """Return `{"error": ...}`, as RequestLimits and exercise 10 do."""
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


@app.exception_handler(RequestValidationError)
async def say_what_was_expected(_: Request, error: RequestValidationError) -> JSONResponse:
    """FastAPI's own handler returns the whole body with the error, and 500 if the body holds NaN."""
    # TODO 11: a JSONResponse with one sentence, made of `loc` and `msg` of error.errors()[0].
    raise NotImplementedError("Say in one sentence what was expected.")


def main(port: Annotated[int, Option(help="The port to listen on.")] = 3000) -> None:
    """Serve the application until Ctrl-C."""
    # TODO 12: a Problem if the port is not free (is_free), then uvicorn.run. Limit the connections to 256
    # (limit_concurrency), and how long Ctrl-C waits for requests in progress to 5 s (timeout_graceful_shutdown).
    raise NotImplementedError("Serve the application.")


if __name__ == "__main__":
    run(main)
