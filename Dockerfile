# nst-pipeline in a container; docs/containers.md says how to use it.
#
#   docker build -t nst-pipeline:cpu .
#   docker build -t nst-pipeline:cuda --build-arg VARIANT=cuda .

ARG PYTHON=3.12
ARG VARIANT=cpu

FROM python:${PYTHON}-slim-bookworm AS base
ENV PATH=/opt/nst-pipeline/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /data

# What is large and seldom changes: PyTorch, without CUDA or with it (its wheels bring their own).
FROM base AS torch-cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN python -m venv /opt/nst-pipeline \
    && pip install --no-cache-dir --index-url "$TORCH_INDEX" "torch>=2.8" "torchvision>=0.23"

FROM base AS torch-cuda
RUN python -m venv /opt/nst-pipeline \
    && pip install --no-cache-dir "torch>=2.8" "torchvision>=0.23"

# hadolint ignore=DL3006
FROM torch-${VARIANT} AS build
ARG EXTRAS=heif,raw,cjk,web
COPY pyproject.toml README.md LICENSE NOTICE /src/
COPY share /src/share
COPY nst_pipeline /src/nst_pipeline
RUN pip install --no-cache-dir "/src[$EXTRAS]" \
    && python -m compileall -q /opt/nst-pipeline/lib

FROM base
# For names in Hebrew and Arabic on preview sheets.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libfribidi0 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --home-dir /tmp --no-create-home nst-pipeline \
    && chown nst-pipeline: /data
COPY --from=build /opt/nst-pipeline /opt/nst-pipeline
# Nothing is written but below /data and /tmp, so that the root may be read-only.
ENV HOME=/tmp \
    NST_PIPELINE_CONFIG=/data/pipeline.yaml \
    NST_PIPELINE_LOG_FORMAT=json \
    TORCH_HOME=/data/weights
USER 10001
VOLUME /data
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=20s --start-period=2m \
    CMD ["sh", "-c", "nst-pipeline status --json | grep -q '\"alive\": true'"]
ENTRYPOINT ["nst-pipeline"]
CMD ["watch"]
