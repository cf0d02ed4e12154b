# A BentoML service: packages in a folder instead of a virtual environment, the service's file copied last of all.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
WORKDIR /build
COPY dockerfiles/requirements/serving.txt .
RUN pip install --no-cache-dir --no-deps --no-compile --target=/packages --requirement serving.txt

FROM ${BASE_IMAGE} AS run
ARG BASE_IMAGE
ARG SERVICE=ex10_service
ARG FOLDER=solutions
ARG MODELS=resnet18.onnx
LABEL org.opencontainers.image.base.name=${BASE_IMAGE} \
      org.opencontainers.image.title="A service" \
      org.opencontainers.image.description="Classifies images" \
      org.opencontainers.image.version="2"
COPY --from=build /packages /srv/packages
COPY serving /srv/serving
COPY models/${MODELS} /srv/models/
COPY ${FOLDER}/${SERVICE}.py /srv/
WORKDIR /srv
ENV PYTHONPATH=/srv/packages PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
ENV SERVICE=${SERVICE} HOME=/tmp/home BENTOML_HOME=/tmp/home/store BENTOML_DO_NOT_TRACK=True ORT_DISABLE_TELEMETRY=1
USER 65534:65534
EXPOSE 3000
HEALTHCHECK --interval=5s --start-period=60s CMD ["sh", "-c", "python3 -m serving.container ready || exit 1"]
ENTRYPOINT ["python3", "-m", "serving.container"]
CMD ["serve"]
