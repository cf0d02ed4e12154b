# resnet18 in ONNX Runtime: installed into a folder, without a virtual environment.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG CUDA=""
RUN if [ -n "$CUDA" ] && [ "$CUDA" != true ]; then echo "What is CUDA=$CUDA? There is CUDA=true." && false; fi
COPY dockerfiles/requirements/ /requirements/
RUN pip install --no-cache-dir --no-deps --target=/packages --requirement "/requirements/onnx${CUDA:+-cuda}.txt"

FROM ${BASE_IMAGE} AS run
ARG BASE_IMAGE
LABEL org.opencontainers.image.title="A classifier" org.opencontainers.image.description="1000 labels"
LABEL org.opencontainers.image.base.name=${BASE_IMAGE}
ENV PYTHONPATH=/packages
WORKDIR /srv/classifier
COPY --from=build /packages /packages
COPY serving ./serving
COPY models/resnet18.onnx /models/
ARG CUDA=""
RUN ["/bin/sh", "-c", "python -m serving.inference_check /models/resnet18.onnx $CUDA"]
ENV ORT_DISABLE_TELEMETRY=1 PORT=3000 PYTHONDONTWRITEBYTECODE=1
USER 65534
EXPOSE 3000
HEALTHCHECK --interval=2s --start-period=60s \
    CMD ["sh", "-c", "python -c \"from urllib.request import urlopen; urlopen('http://localhost:$PORT/readyz')\""]
ENTRYPOINT ["python3", "-u", "-m", "serving.inference"]
CMD ["/models/resnet18.onnx"]
