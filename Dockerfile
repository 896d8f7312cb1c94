# KMS Console in a container: web, worker, beat and the one-shot `prepare` are the same image.
# Build and run it with docker-compose.yml; docs/operator-guide.md explains both.

FROM python:3.12-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
# With the vendors' libraries, so that any kind of key store can be configured.
COPY requirements-stores.lock /tmp/requirements.lock
RUN /opt/venv/bin/pip install --require-hashes -r /tmp/requirements.lock

FROM python:3.12-slim
# Never root, and always the same number: the owner of the secret files must be named by it.
RUN groupadd --system --gid 10001 kms \
    && useradd --system --uid 10001 --gid 10001 --home-dir /app --shell /usr/sbin/nologin kms \
    && install -d -o 10001 -g 10001 -m 0700 /data /data/run
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    DJANGO_SETTINGS_MODULE=kms_console.settings KMS_DATA=/data STATIC_ROOT=/app/static
WORKDIR /app
COPY --from=build /opt/venv /opt/venv
COPY manage.py ./
COPY audit ./audit
COPY keys ./keys
COPY kms_console ./kms_console
COPY templates ./templates
# The settings want a secret key and make folders; what this step needs does not stay in the image.
RUN SECRET_KEY=only-while-building KMS_DATA=/tmp/build python manage.py collectstatic --no-input \
    && rm -rf /tmp/build
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=8s --start-period=30s --retries=3 \
    CMD ["python", "-m", "kms_console.supervisor.probe", "http://127.0.0.1:8000"]
STOPSIGNAL SIGTERM
CMD ["python", "-m", "uvicorn", "kms_console.asgi:application", "--host", "0.0.0.0", "--port", "8000", "--loop", "uvloop", "--http", "kms_console.connections:Connection", "--lifespan", "on", "--no-access-log", "--no-proxy-headers", "--no-server-header", "--no-date-header", "--timeout-keep-alive", "75", "--timeout-graceful-shutdown", "20"]
