# Two stages: packages are built as wheels from the hash-pinned lock, then installed without a compiler.
FROM python:3.12-slim-bookworm AS build
WORKDIR /src
COPY requirements.lock pyproject.toml README.md LICENSE alembic.ini ./
RUN python -m venv /opt/csms \
 && /opt/csms/bin/pip install --no-cache-dir --require-hashes --no-deps --only-binary :all: -r requirements.lock
COPY csms csms
COPY bridges bridges
COPY migrations migrations
RUN /opt/csms/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.12-slim-bookworm
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/csms csms
COPY --from=build /opt/csms /opt/csms
ENV PATH=/opt/csms/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    CSMS_DATA_DIR=/var/lib/csms \
    CSMS_HTTP_HOST=0.0.0.0 \
    CSMS_LOG=json
USER 10001
WORKDIR /var/lib/csms
VOLUME /var/lib/csms
EXPOSE 9000 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/health/ready', timeout=4)"]
ENTRYPOINT ["csms"]
CMD ["serve"]
