# Exercise 08: resnet18 in PyTorch, on the CPU or, with CUDA=true, on a GPU.
#
#   docker build --file exercises/dockerfiles/inference_pytorch.dockerfile --tag mine/inference-pytorch:cpu .
#   docker build --file exercises/dockerfiles/inference_pytorch.dockerfile --tag mine/inference-pytorch:cuda --build-arg CUDA=true .
#
# Given: the application (serving/inference.py), what it needs (dockerfiles/requirements/pytorch.txt and pytorch-cuda.txt,
# complete), and the check that a build must end with (serving/inference_check.py).

ARG BASE_IMAGE=python:3.11-slim-bookworm
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

# TODO 1. A stage that downloads the wheels. It takes the build argument CUDA, `true` or empty, refuses anything else,
#         and chooses one of the two lists. The arguments PIP_INDEX_URL and PIP_EXTRA_INDEX_URL are for mirrors.
#         PyPI has PyTorch with CUDA only: without it, `--extra-index-url "$TORCH_INDEX"` is PyTorch's own index, unless
#         a wheel lies in wheels/, where that index cannot be reached.
# TODO 2. A stage that installs them, from the first stage alone, into a virtual environment without pip.
# TODO 3. The stage that runs:
#         - the environment, the six files of serving/ (labels, limits, images, inference, inference_check, __init__),
#           and the model, each where it is expected: python -m serving.inference models/resnet18.pt2
#         - python -m serving.inference_check models/resnet18.pt2 "$CUDA": no image without it
#         - a user that is not root, the port 3000, a health check of /readyz on the port that PORT names
#         - the labels org.opencontainers.image.title, .description and .base.name
#         - an entry point without a shell, so that SIGTERM reaches the server; the model as its argument
FROM ${BASE_IMAGE}
ARG CUDA
RUN echo "Still to do: inference_pytorch.dockerfile has nothing in it yet. Its comments say what belongs there." >&2; exit 1
