# The image of all of Weightlock's processes: webhook, controller, broker and agent are subcommands of one entry point.
# Pin both bases by digest in a release build: --build-arg PYTHON_IMAGE=python@sha256:…
ARG PYTHON_IMAGE=python:3.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
RUN python -m venv /opt/weightlock
# The dependencies first: they change less often than the code.
COPY requirements.txt ./
RUN /opt/weightlock/bin/pip install --require-hashes --requirement requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY webhook ./webhook
COPY policies ./policies
COPY detections ./detections
COPY tests/redteam ./tests/redteam
COPY docs/denied.md ./docs/denied.md
RUN /opt/weightlock/bin/pip install --no-deps . \
 && /opt/weightlock/bin/python -m compileall -q /opt/weightlock/lib

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="weightlock" \
      org.opencontainers.image.description="Keeps AI model weights and GPUs in the hands of approved workloads" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/weightlock /opt/weightlock
ENV PATH=/opt/weightlock/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# No name, no shell, no home, and nothing on the root file system that it may write: run it with a read-only root.
USER 65532:65532
WORKDIR /
EXPOSE 8443
ENTRYPOINT ["weightlock"]
CMD ["serve", "--config", "/etc/weightlock/config.yaml"]
