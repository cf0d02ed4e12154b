# Exercise 08: resnet18 in PyTorch, on the CPU or, with CUDA=true, on a GPU.
#
#   docker build --file exercises/dockerfiles/inference_pytorch.dockerfile --tag course/inference-pytorch:cpu .
#   docker build --file exercises/dockerfiles/inference_pytorch.dockerfile --tag course/inference-pytorch:cuda --build-arg CUDA=true .
#
# Needs BuildKit: the builder of every Docker since 23.0, before that with DOCKER_BUILDKIT=1.

ARG BASE_IMAGE=python:3.11-slim-bookworm

# TODO 4: a stage that downloads the wheels of dockerfiles/requirements/pytorch.txt, or of pytorch-cuda.txt: both are
# complete. It takes the build argument CUDA, `true` or empty, and refuses anything else. The arguments PIP_INDEX_URL and
# PIP_EXTRA_INDEX_URL are for mirrors.
# PyPI has PyTorch with CUDA only. Without it, take `--extra-index-url "$TORCH_INDEX"`, PyTorch's own index
# (ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu), unless there is a wheel in wheels/ (where this index cannot be
# reached).
# TODO 5: a stage that installs them, from the first stage alone, into a virtual environment without pip.
FROM ${BASE_IMAGE}
ARG BASE_IMAGE
ARG CUDA
# TODO 6: the stage that runs:
# - the labels org.opencontainers.image.title, .description and .base.name
# - the environment, the six files of serving/ (labels, limits, images, inference, inference_check, __init__), and the
#   model, each where `python -m serving.inference models/resnet18.pt2` expects it
# - python -m serving.inference_check models/resnet18.pt2 "$CUDA": without it, there must be no image
# - a user that is not root, the port 3000, a health check of /readyz on the port in PORT
# - an entry point without a shell, so that SIGTERM reaches the server; the model as its argument
RUN echo "Still to do: inference_pytorch.dockerfile. Its comments say what belongs there." >&2; exit 1
