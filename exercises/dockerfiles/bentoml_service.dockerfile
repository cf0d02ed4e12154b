# Exercise 17: a BentoML service in an image written by hand. One file for all: build arguments say which service.
#
#   docker build --file exercises/dockerfiles/bentoml_service.dockerfile --tag ex10_service:hand .
#   docker build --file exercises/dockerfiles/bentoml_service.dockerfile --tag ex16_pipeline:hand \
#     --build-arg SERVICE=ex16_pipeline --build-arg MODELS='model_[ab].onnx' .
#
# Needs BuildKit: the builder of every Docker since 23.0, before that with DOCKER_BUILDKIT=1.

ARG BASE_IMAGE=python:3.11-slim-bookworm

# TODO 7: a stage that installs dockerfiles/requirements/serving.txt, which is complete, into a virtual environment without
# pip. The arguments PIP_INDEX_URL and PIP_EXTRA_INDEX_URL are for mirrors.
FROM ${BASE_IMAGE}
ARG BASE_IMAGE
# TODO 8: the environment, and HOME, BENTOML_HOME and PORT as variables: what the server writes goes to /tmp.
# BENTOML_DO_NOT_TRACK=True and ORT_DISABLE_TELEMETRY=1: otherwise both report each start to their makers.
ARG MODELS=resnet18.onnx
# TODO 9: models/${MODELS} and serving/. What changes least comes first, so that a build repeats as little as possible.
ARG FOLDER=exercises
ARG SERVICE=ex10_service
# TODO 10: the rest:
# - ${FOLDER}/${SERVICE}.py, and SERVICE as a variable
# - the labels org.opencontainers.image.title, .description, .version and .base.name
# - a user that is not root, the port 3000
# - a health check: python -m serving.container ready
# - an entry point without a shell: python -m serving.container serve
RUN echo "Still to do: bentoml_service.dockerfile. Its comments say what belongs there." >&2; exit 1
