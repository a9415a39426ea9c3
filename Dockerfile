# The receiver with its embedded store. It needs no network, no root and no writable file system at run time but /data and /tmp:
#   docker build --build-arg VERSION=0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" -t amazon-pay-refund-receiver .
#   docker run --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges -p 127.0.0.1:8000:8000 \
#     -v receiver-data:/data -v "$PWD/receiver.toml:/etc/receiver/receiver.toml:ro" -v "$PWD/secrets:/run/secrets:ro" \
#     amazon-pay-refund-receiver
# The same base for every build: PYTHON_IMAGE=python:3.12-slim-bookworm@sha256:…
ARG PYTHON_IMAGE=python:3.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY deploy/requirements.txt deploy/build-requirements.txt deploy/
RUN python -m venv --without-pip /opt/receiver \
    && python -m pip --python /opt/receiver/bin/python install --require-hashes --only-binary :all: -r deploy/requirements.txt \
    && python -m pip install --require-hashes --only-binary :all: -r deploy/build-requirements.txt
COPY pyproject.toml README.md ./
COPY receiver receiver
RUN python -m pip wheel --no-build-isolation --no-deps --wheel-dir /wheels . \
    && python -m pip --python /opt/receiver/bin/python install --no-deps --no-index /wheels/*.whl

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="amazon-pay-refund-receiver" \
      org.opencontainers.image.description="Receives Amazon Pay refund notifications, tracks every refund in Redis, and pushes declines." \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="python:3.12-slim-bookworm"
RUN groupadd --system --gid 10001 receiver \
    && useradd --system --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin receiver \
    && install -d -o receiver -g receiver -m 0700 /data
COPY --from=build /opt/receiver /opt/receiver
ENV PATH=/opt/receiver/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    RECEIVER_CONFIG=/etc/receiver/receiver.toml \
    RECEIVER_DATA_DIR=/data \
    RECEIVER_HTTP__HOST=0.0.0.0
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-m", "receiver.commands.healthcheck"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["receiver"]
CMD ["serve"]
