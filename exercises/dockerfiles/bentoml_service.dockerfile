# Exercise 17: a BentoML service in an image written by hand. One file for all: build arguments say which service.
#
#   docker build --file exercises/dockerfiles/bentoml_service.dockerfile --tag mine/ex10 .
#   docker build --file exercises/dockerfiles/bentoml_service.dockerfile --tag mine/ex16 \
#     --build-arg SERVICE=ex16_pipeline --build-arg MODELS='model_[ab].onnx' .
#
# Given: what is installed (dockerfiles/requirements/serving.txt, complete), and serving/container.py, which starts
# the service that SERVICE names where PORT says, and asks whether it is ready.

ARG BASE_IMAGE=python:3.11-slim-bookworm

# TODO 1. A stage that installs the packages into a virtual environment without pip. The arguments PIP_INDEX_URL and
#         PIP_EXTRA_INDEX_URL are for mirrors.
# TODO 2. The stage that runs:
#         - the environment; SERVICE, HOME, BENTOML_HOME and PORT as variables: what is written goes to /tmp; BENTOML_DO_NOT_TRACK=True
#           and ORT_DISABLE_TELEMETRY=1, or their makers are told of each start
#         - models/${MODELS}, serving/ and ${FOLDER}/${SERVICE}.py, in an order that rebuilds little
#         - the labels org.opencontainers.image.title, .description, .version and .base.name
#         - a user that is not root, the port 3000
#         - a health check: python -m serving.container ready
#         - an entry point without a shell: python -m serving.container serve
FROM ${BASE_IMAGE}
ARG MODELS=resnet18.onnx
ARG FOLDER=exercises
ARG SERVICE=ex10_service
RUN echo "Still to do: bentoml_service.dockerfile has nothing in it yet. Its comments say what belongs there." >&2; exit 1
