# syntax=docker/dockerfile:1
# One image for web, live, meter, worker, beat and watcher; what runs is the command (docker-compose.yml, k8s/portal).
FROM python:3.11-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/slipway
COPY requirements/portal.txt /tmp/portal.txt
# Of botocore nothing but signatures is used: descriptions of Amazon's services stay out.
RUN /opt/slipway/bin/pip install --require-hashes --no-deps --only-binary :all: -r /tmp/portal.txt \
    && rm -r /opt/slipway/lib/python3.11/site-packages/botocore/data

FROM python:3.11-slim-bookworm
RUN groupadd --gid 10001 slipway && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent slipway
COPY --from=build /opt/slipway /opt/slipway
WORKDIR /srv/slipway
COPY manage.py ./
COPY portal portal
COPY deployments deployments
COPY monitoring monitoring
COPY metering metering
COPY templates templates
COPY static static
ENV PATH=/opt/slipway/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DJANGO_SETTINGS_MODULE=portal.settings \
    SLIPWAY_STATIC_ROOT=/srv/static
RUN python -m compileall -q portal deployments monitoring metering && python manage.py collectstatic --no-input
USER 10001:10001
EXPOSE 8000
CMD ["uvicorn", "portal.asgi:application", "--host=0.0.0.0", "--port=8000", "--timeout-graceful-shutdown=3", "--no-access-log"]
