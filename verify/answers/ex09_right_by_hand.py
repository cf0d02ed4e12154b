"""Exercise 09 with the body read by hand, an executor of one's own, and argparse."""

import argparse
import asyncio
import concurrent.futures
import contextlib
import json
import os
import socket
import sys

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse

from serving import images, model, tensors
from serving.request_limits import RequestLimits

pool = concurrent.futures.ThreadPoolExecutor(8)
loaded = {}


def load():
    try:
        session = model.open_model()
    except Exception as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(3)
    loaded.update(session=session, names=model.labels(session), weights=model.weights(session))


@contextlib.asynccontextmanager
async def life(_):
    pool.submit(load)
    yield
    pool.shutdown(wait=False)


app = FastAPI(lifespan=life)


def scores(tensor):
    return loaded["session"].run(None, {"input": tensor})[0]


def answer_to_tensor(body):
    return scores(tensors.as_batch(json.loads(body)["image"])).tolist()


def answer_to_image(body):
    row = scores(images.preprocess(images.open_image(body)))[0]
    return {"weights": loaded["weights"], "predictions": model.top5(row, loaded["names"])}


async def answered(request, function):
    if not loaded:
        return JSONResponse({"error": "expected some patience: the model is being loaded"}, 503)
    body = await request.body()
    try:
        return JSONResponse(await asyncio.get_running_loop().run_in_executor(pool, function, body))
    except (KeyError, TypeError, ValueError, RecursionError, images.BadImage) as error:
        return JSONResponse({"error": f"expected something else: {str(error)[:200]}"}, 400)


@app.post("/predict")
async def predict(request: Request):
    return await answered(request, answer_to_tensor)


@app.post("/classify")
async def classify(request: Request):
    return await answered(request, answer_to_image)


@app.get("/{probe}")
async def look(probe: str):
    if probe not in ("livez", "readyz"):
        return PlainTextResponse("not here", 404)
    return PlainTextResponse(probe, 200 if loaded or probe == "livez" else 503)


app.add_middleware(RequestLimits, max_bytes={"/classify": 10 * 2**20, "/predict": 64 * 2**20})

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=3000)
    port = parser.parse_args().port
    with socket.socket() as one, contextlib.suppress(ConnectionError):
        one.connect(("127.0.0.1", port))
        sys.exit(f"Something listens on port {port} already.")
    uvicorn.run(app, host="127.0.0.1", port=port, timeout_graceful_shutdown=4, limit_concurrency=250)
