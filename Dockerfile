# Two images from one build. The last stage, the default, has all processes: webhook, controller, broker and sidecar are
# subcommands of one entry point. `--target sidecar` has only the key sidecar, which starts in every pod that reads weights.
# Both start from nothing (docs/decisions/0020-two-images-from-scratch.md): no shell, no package manager.
# Pin the base by digest in a release build: --build-arg PYTHON_IMAGE=python@sha256:…
ARG PYTHON_IMAGE=python:3.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
# PYTHONHASHSEED makes compiled modules the same in every build.
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1 PYTHONHASHSEED=0
WORKDIR /src
RUN python -m venv /opt/weightlock
# The dependencies first: they change less often than the code.
COPY requirements.txt ./
RUN /opt/weightlock/bin/pip install --no-compile --require-hashes --requirement requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY webhook ./webhook
COPY policies ./policies
COPY detections ./detections
COPY tests/redteam ./tests/redteam
COPY docs/denied.md ./docs/denied.md
RUN /opt/weightlock/bin/pip install --no-compile --no-deps .
COPY scripts/imageroot.py ./
# The time of all files: that of the commit.
ARG SOURCE_DATE_EPOCH=0
RUN SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH} /opt/weightlock/bin/python imageroot.py --environment /opt/weightlock --profile sidecar --root /images/sidecar \
 && SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH} /opt/weightlock/bin/python imageroot.py --environment /opt/weightlock --profile full --root /images/full

FROM scratch AS sidecar
LABEL org.opencontainers.image.title="weightlock-sidecar" \
      org.opencontainers.image.description="The key sidecar of Weightlock: fetches, renews and wipes the keys of a pod" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /images/sidecar /
ENV PATH=/opt/weightlock/bin PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
WORKDIR /
ENTRYPOINT ["weightlock"]
CMD ["agent", "--help"]

FROM scratch
LABEL org.opencontainers.image.title="weightlock" \
      org.opencontainers.image.description="Keeps AI model weights and GPUs in the hands of approved workloads" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /images/full /
ENV PATH=/opt/weightlock/bin PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# No shell, no home, and nothing on the root file system that it may write: run it with a read-only root.
USER 65532:65532
WORKDIR /
EXPOSE 8443
ENTRYPOINT ["weightlock"]
CMD ["serve", "--config", "/etc/weightlock/config.yaml"]
