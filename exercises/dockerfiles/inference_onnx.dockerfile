# Exercise 08: resnet18 in ONNX Runtime, on the CPU or, with CUDA=true, on a GPU.
#
#   docker build --file exercises/dockerfiles/inference_onnx.dockerfile --tag course/inference-onnx:cpu .
#   docker build --file exercises/dockerfiles/inference_onnx.dockerfile --tag course/inference-onnx:cuda --build-arg CUDA=true .
#
# Needs BuildKit: the builder of every Docker since 23.0, before that with DOCKER_BUILDKIT=1.

ARG BASE_IMAGE=python:3.11-slim-bookworm

# TODO 1: a stage that downloads the wheels of dockerfiles/requirements/onnx.txt, or of onnx-cuda.txt: both are
# complete. It takes the build argument CUDA, `true` or empty, and refuses anything else. The arguments PIP_INDEX_URL and
# PIP_EXTRA_INDEX_URL are for mirrors.
# TODO 2: a stage that installs them, from the first stage alone, into a virtual environment without pip.
FROM ${BASE_IMAGE}
ARG BASE_IMAGE
ARG CUDA
# TODO 3: the stage that runs:
# - the labels org.opencontainers.image.title, .description and .base.name
# - the environment, the six files of serving/ (labels, limits, images, inference, inference_check, __init__), and the
#   model, each where `python -m serving.inference models/resnet18.onnx` expects it
# - python -m serving.inference_check models/resnet18.onnx "$CUDA": without it, there must be no image
# - a user that is not root, the port 3000, a health check of /readyz on the port in PORT
# - ORT_DISABLE_TELEMETRY=1, so that ONNX Runtime does not report its use
# - an entry point without a shell, so that SIGTERM reaches the server; the model as its argument
RUN echo "Still to do: inference_onnx.dockerfile. Its comments say what belongs there." >&2; exit 1
