# One image for all modes: BYTEOR_CLOUD_DEPLOYMENT_MODE is combined (the default), api or worker.
# Without BYTEOR_CLOUD_DATABASE_URL a container runs the embedded PostgreSQL and stores all data in /data.

FROM python:3.13-slim AS build
WORKDIR /app
COPY requirements/ requirements/
RUN pip install --no-cache-dir --require-hashes --requirement requirements/build.lock \
    && uv venv --python /usr/local/bin/python /opt/venv \
    && uv pip sync --no-cache --compile-bytecode --python /opt/venv/bin/python --require-hashes requirements/runtime.lock
COPY . .
RUN uv pip install --no-cache --python /opt/venv/bin/python --no-deps \
    --build-constraints requirements/build.lock --editable byteor --editable .

FROM python:3.13-slim
# The account needs an entry in /etc/passwd, because PostgreSQL's initdb looks up its name.
RUN useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin byteor \
    && install --directory --owner=byteor --group=byteor --mode=0700 /data
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
WORKDIR /app
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    BYTEOR_CLOUD_DATA_DIR=/data \
    BYTEOR_CLOUD_API_BIND_ADDR=0.0.0.0:8080
USER byteor
VOLUME /data
EXPOSE 8080
# This check is for the modes that serve the API. compose.yaml replaces it for a worker.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
ENTRYPOINT ["python", "manage.py"]
CMD ["serve"]
