# The receiver with its embedded store. Build: docker build -t receiver .
# Run:   docker run -p 8000:8000 -v receiver-data:/data -v "$PWD/receiver.toml:/etc/receiver.toml:ro" receiver
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md ./
COPY receiver ./receiver
RUN python -m venv /opt/receiver && /opt/receiver/bin/pip install --no-cache-dir '.[embedded]'

FROM python:3.12-slim
COPY --from=build /opt/receiver /opt/receiver
RUN useradd --system --uid 10001 --no-create-home receiver \
    && install -d -o receiver -m 0700 /data
USER receiver
WORKDIR /data
ENV PATH=/opt/receiver/bin:$PATH \
    RECEIVER_CONFIG=/etc/receiver.toml \
    RECEIVER_DATA_DIR=/data \
    RECEIVER_HTTP__HOST=0.0.0.0
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["receiver"]
CMD ["serve"]
