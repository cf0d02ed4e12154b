# Exercise 17: a BentoML service in an image written by hand. One file for all: build arguments say which service.
#
#   docker build --file dockerfiles/bentoml_service.dockerfile --tag ex10_service:hand .
#   docker build --file dockerfiles/bentoml_service.dockerfile --tag ex16_pipeline:hand \
#     --build-arg SERVICE=ex16_pipeline --build-arg MODELS='model_[ab].onnx' .
#
# Needs BuildKit: the builder of every Docker since 23.0, before that with DOCKER_BUILDKIT=1.

ARG BASE_IMAGE=python:3.11-slim-bookworm

# ---- 1. Install, into a virtual environment without pip. Whatever this takes stays behind with this stage.
FROM ${BASE_IMAGE} AS packages
# Behind a mirror: pip reads these two.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
RUN python -m venv --without-pip /opt/venv
COPY dockerfiles/requirements/serving.txt /requirements.txt
# Every package is named there with its version: the same build next year installs the same. Wheels need no compiler.
RUN pip --python /opt/venv/bin/python install --no-cache-dir --no-deps --only-binary :all: --requirement /requirements.txt

# ---- 2. What runs.
FROM ${BASE_IMAGE}
ARG BASE_IMAGE
# All that is ever written goes to /tmp, so that the rest may be read-only.
ENV PATH="/opt/venv/bin:$PATH" PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp BENTOML_HOME=/tmp/bentoml BENTOML_DO_NOT_TRACK=True ORT_DISABLE_TELEMETRY=1 PORT=3000
WORKDIR /service
COPY --from=packages /opt/venv /opt/venv
# What changes least comes first: each line below is built again only where it, or one above it, has changed.
ARG MODELS=resnet18.onnx
COPY models/${MODELS} models/
COPY serving serving
ARG FOLDER=solutions
ARG SERVICE=ex10_service
COPY ${FOLDER}/${SERVICE}.py ./
ENV SERVICE=${SERVICE}
LABEL org.opencontainers.image.title="${SERVICE}" \
      org.opencontainers.image.description="POST /classify: an image file in, its five best labels out" \
      org.opencontainers.image.version="1.0.0" \
      org.opencontainers.image.base.name="${BASE_IMAGE}"
# A number, so that an orchestrator can see that it is not root.
USER 10001:10001
EXPOSE 3000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-m", "serving.container", "ready"]
# As a list, without a shell, which would keep SIGTERM to itself. It reads SERVICE and PORT.
ENTRYPOINT ["python", "-m", "serving.container", "serve"]
