"""One model behind HTTP, in the runtime that its file is for: what the images of exercise 08 run.

python -m serving.inference models/resnet18.onnx    ONNX Runtime
python -m serving.inference models/resnet18.pt2     PyTorch, which loads a program saved by torch.export.save

Small on purpose, for what it imports is in the images: neither BentoML nor FastAPI. Environment variables:
PORT (3000); THREADS for one image (what the runtime takes by itself); REQUIRE_GPU=1 refuses to run on the CPU.
"""

import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from serving import Problem
from serving.images import BadImage, open_image, preprocess
from serving.labels import top5
from serving.request_limits import RequestLimits

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


class Model(NamedTuple):
    """A loaded model."""

    run: Callable[[np.ndarray], np.ndarray]  # (batch, 3, 224, 224) float32 to (batch, 1000) logits
    labels: list[str]
    weights: str  # where they came from
    runs_on: str  # such as "ONNX Runtime 1.32.0, CPUExecutionProvider"
    gpu: bool


def load(path: Path, threads: int = 0) -> Model:
    """Load a model in the runtime that its file is for; raises Problem if either is missing, or the file is broken."""
    loaders = {".onnx": load_onnx, ".pt2": load_pytorch}
    if path.suffix not in loaders:
        raise Problem(f"{path}: expected a model file, {' or '.join(loaders)}.")
    if not path.is_file():
        raise Problem(f"There is no model at {path}. Name one that is in the image, or mount its folder.")
    try:
        return loaders[path.suffix](path, threads)
    except ImportError as error:
        raise Problem(f"{path} needs a runtime that is not here: {error}.") from error
    except Exception as error:  # both runtimes have many kinds of their own for a broken file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Problem(f"{path} cannot be loaded: {reason}") from error


def load_onnx(path: Path, threads: int) -> Model:
    """On the GPU where ONNX Runtime was built for one and there is one, else on the CPU."""
    import onnxruntime as ort

    providers = [CPU]
    if CUDA in ort.get_available_providers():
        ort.preload_dlls(directory="")  # CUDA and cuDNN out of pip's packages
        providers = [CUDA, CPU]
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(path, options, providers=providers)

    def run(images: np.ndarray) -> np.ndarray:
        return session.run(["output"], {"input": images})[0]

    says, provider = session.get_modelmeta().custom_metadata_map, session.get_providers()[0]
    runs_on = f"ONNX Runtime {ort.__version__}, {provider}"
    return Model(run, json.loads(says["labels"]), says.get("weights", "unknown"), runs_on, provider == CUDA)


def load_pytorch(path: Path, threads: int) -> Model:
    """On the GPU where PyTorch was built for one and there is one, else on the CPU."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    says = {"labels": "", "weights": ""}
    program = torch.export.load(path, extra_files=says)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = program.module().to(device)

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(images).to(device)).cpu().numpy()

    runs_on = f"PyTorch {torch.__version__}, {device}"
    return Model(run, json.loads(says["labels"]), says["weights"], runs_on, device == "cuda")


def make_app(model: Model) -> Starlette:
    """The model behind POST /classify: an image file in, its five best labels out."""

    def classified(image: bytes) -> dict[str, Any]:
        logits = model.run(preprocess(open_image(image)))
        return {"predictions": top5(logits[0], model.labels), "weights": model.weights}

    async def classify(request: Request) -> JSONResponse:
        try:
            # In a thread: the event loop goes on answering the probes.
            return JSONResponse(await run_in_threadpool(classified, await request.body()))
        except BadImage as error:
            return JSONResponse({"error": str(error)}, 400)

    async def ready(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ready", "runs_on": model.runs_on})  # it listens once the model is loaded

    routes = [Route("/classify", classify, methods=["POST"]), Route("/readyz", ready), Route("/livez", ready)]
    app = Starlette(routes=routes)
    app.add_middleware(RequestLimits, max_bytes={"/classify": 10 * 2**20})
    return app


def number(name: str, default: int, most: int) -> int:
    """An environment variable that is a number from 0 to most; raises Problem if it is something else."""
    value = os.environ.get(name) or str(default)
    if not value.isascii() or not value.isdigit() or int(value) > most:
        raise Problem(f"{name}={value}: expected a number from 0 to {most}.")
    return int(value)


def listen(port: int) -> socket.socket:
    """A socket on a port of every address; raises Problem if the port is taken, or not allowed."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("0.0.0.0", port))
    except OSError as error:
        said = f"Port {port} is taken, or not allowed ({error.strerror}). Choose another: PORT={port + 1}"
        raise Problem(said) from error
    return listener


def main(path: Path) -> None:
    """Load, say what runs where, serve until SIGTERM."""
    port, threads = number("PORT", 3000, 65535), number("THREADS", 0, 1024)
    listener = listen(port)  # before the model is loaded: a taken port is known at once
    model = load(path, threads)
    if os.environ.get("REQUIRE_GPU") == "1" and not model.gpu:
        said = f"REQUIRE_GPU=1, but there is no GPU for this container: {model.runs_on}. Try docker run --gpus all"
        raise Problem(said)
    print(f"{path} runs in {model.runs_on}; listening on port {port}.", flush=True)
    config = uvicorn.Config(make_app(model), limit_concurrency=256, timeout_graceful_shutdown=8)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else "models/resnet18.onnx"))
    except Problem as problem:
        sys.exit(str(problem))
