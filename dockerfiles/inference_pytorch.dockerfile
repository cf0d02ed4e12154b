# Exercise 08: resnet18 in PyTorch, on the CPU or, with CUDA=true, on a GPU.
#
#   docker build --file dockerfiles/inference_pytorch.dockerfile --tag course/inference-pytorch:cpu .
#   docker build --file dockerfiles/inference_pytorch.dockerfile --tag course/inference-pytorch:cuda --build-arg CUDA=true .
#
# Needs BuildKit: the builder of every Docker since 23.0, before that with DOCKER_BUILDKIT=1.

ARG BASE_IMAGE=python:3.11-slim-bookworm

# ---- 1. Download. A stage of its own: it stays behind, and what it takes is told apart from what installing takes.
FROM ${BASE_IMAGE} AS wheels
# Empty or `true`. Anything else is a mistake that would end in one of the two without a word.
ARG CUDA
RUN case "$CUDA" in true|"") ;; *) echo "CUDA=$CUDA: say CUDA=true, or leave it out." >&2; exit 1 ;; esac
# Behind a mirror: pip reads these two.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
# PyTorch's own index: PyPI has only the build with CUDA.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY dockerfiles/requirements/pytorch${CUDA:+-cuda}.txt /requirements.txt
# A wheel that lies in wheels/ is taken in its stead, where that index cannot be reached.
RUN --mount=type=bind,source=wheels,target=/at-hand \
    if [ -n "$CUDA" ]; then set --; \
    elif ls /at-hand/torch-*.whl; then set -- --find-links /at-hand; \
    else set -- --extra-index-url "$TORCH_INDEX"; fi \
    && pip download --no-cache-dir --no-deps --only-binary :all: --dest /wheels --requirement /requirements.txt "$@"

# ---- 2. Install, into a virtual environment without pip.
FROM ${BASE_IMAGE} AS venv
RUN python -m venv --without-pip /opt/venv
# The wheels are lent to this one command; no layer holds them. Left out of what is installed: tests and headers.
RUN --mount=type=bind,from=wheels,target=/from \
    pip --python /opt/venv/bin/python install --no-cache-dir --no-compile --no-deps \
      --no-index --find-links /from/wheels --requirement /from/requirements.txt \
    && find /opt/venv -depth -type d \( -name tests -o -name test -o -name include \) -exec rm -r {} +

# ---- 3. What runs.
FROM ${BASE_IMAGE}
ARG BASE_IMAGE
ARG CUDA
LABEL org.opencontainers.image.title="resnet18 in PyTorch${CUDA:+, with CUDA}" \
      org.opencontainers.image.description="POST /classify: an image file in, its five best labels out" \
      org.opencontainers.image.version="1.0.0" \
      org.opencontainers.image.base.name="${BASE_IMAGE}"
ENV PATH="/opt/venv/bin:$PATH" PYTHONUNBUFFERED=1 PORT=3000
WORKDIR /app
COPY --from=venv /opt/venv /opt/venv
COPY serving/__init__.py serving/images.py serving/inference.py serving/inference_check.py \
     serving/labels.py serving/request_limits.py serving/
COPY models/resnet18.pt2 models/
# No image without this: a model that runs, with CUDA the provider and every library that it loads, without CUDA none.
# It also leaves behind what Python compiles at the first import, of that which is imported alone.
RUN python -m serving.inference_check models/resnet18.pt2 "$CUDA"
# A number, so that an orchestrator can see that it is not root.
USER 10001:10001
EXPOSE 3000
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/readyz', timeout=2)"]
# As a list, without a shell: the server is process 1 and gets SIGTERM itself.
ENTRYPOINT ["python", "-m", "serving.inference"]
CMD ["models/resnet18.pt2"]
