# One exercise's service, by hand.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS packages
ARG PIP_INDEX_URL=https://pypi.org/simple
COPY requirements-serving.txt .
RUN python -m venv --without-pip /opt/venv \
 && python -m pip --python /opt/venv/bin/python install --no-cache-dir --requirement requirements-serving.txt

FROM ${BASE_IMAGE}
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin service
COPY --from=packages /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp BENTOML_HOME=/tmp/bentoml BENTOML_DO_NOT_TRACK=True \
    PORT=3000
WORKDIR /service
ARG MODELS=resnet18.onnx
COPY models/${MODELS} models/
COPY serving serving
ARG FOLDER=solutions
ARG SERVICE=ex10_service
COPY ${FOLDER}/${SERVICE}.py .
ENV SERVICE=${SERVICE}
USER 10001
EXPOSE 3000
CMD ["sh", "-c", "exec bentoml serve ${SERVICE}:ImageClassifierService --port ${PORT}"]
