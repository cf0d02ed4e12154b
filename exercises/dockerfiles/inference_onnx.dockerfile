# Exercise 08: resnet18 in ONNX Runtime, on the CPU or, with CUDA=true, on a GPU.
#
#   docker build --file exercises/dockerfiles/inference_onnx.dockerfile --tag mine/inference-onnx:cpu .
#   docker build --file exercises/dockerfiles/inference_onnx.dockerfile --tag mine/inference-onnx:cuda --build-arg CUDA=true .
#
# Given: the application (serving/inference.py), what it needs (dockerfiles/requirements/onnx.txt and onnx-cuda.txt,
# complete), and the check that a build must end with (serving/inference_check.py).

ARG BASE_IMAGE=python:3.11-slim-bookworm

# TODO 1. A stage that downloads the wheels. It takes the build argument CUDA, `true` or empty, refuses anything else,
#         and chooses one of the two lists. The arguments PIP_INDEX_URL and PIP_EXTRA_INDEX_URL are for mirrors.
# TODO 2. A stage that installs them, from the first stage alone, into a virtual environment without pip.
# TODO 3. The stage that runs:
#         - the environment, the six files of serving/ (labels, limits, images, inference, inference_check, __init__),
#           and the model, each where it is expected: python -m serving.inference models/resnet18.onnx
#         - python -m serving.inference_check models/resnet18.onnx "$CUDA": no image without it
#         - a user that is not root, the port 3000, a health check of /readyz on the port that PORT names
#         - the labels org.opencontainers.image.title, .description and .base.name
#         - an entry point without a shell, so that SIGTERM reaches the server; the model as its argument
FROM ${BASE_IMAGE}
ARG CUDA
RUN echo "Still to do: inference_onnx.dockerfile has nothing in it yet. Its comments say what belongs there." >&2; exit 1
