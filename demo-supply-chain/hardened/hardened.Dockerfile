# The same app, hardened. It is the "after" of ./compare_hardened.sh.
#   docker build -f hardened.Dockerfile -t hardened-app .
# The same numbers stand in conventional.Dockerfile.

# 1. Base: a small image without package manager. Pin it by digest: scripts/refresh_pins.sh writes NAME@sha256:...
ARG BUILD_IMAGE=cgr.dev/chainguard/python:latest-dev
ARG RUNTIME_IMAGE=cgr.dev/chainguard/python:latest

# 2. Stages: two. pip and its caches are in the first one, which is thrown away.
# hadolint ignore=DL3006
FROM ${BUILD_IMAGE} AS build
# hadolint ignore=DL3002
USER 0

# 3. Packages: exact versions, every file checked against its hash. No PyTorch: serving needs one matrix product.
COPY requirements.txt /build/
RUN python -m pip install --no-cache-dir --no-deps --require-hashes --only-binary :all: --target /opt/site -r /build/requirements.txt

# hadolint ignore=DL3006
FROM ${RUNTIME_IMAGE}
COPY --from=build /opt/site /opt/site

# 4. Files: the two that the server needs, readable, and nobody's to change.
WORKDIR /app
COPY --chmod=0444 app.py model.safetensors ./
ENV PYTHONPATH=/opt/site PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1

# 5. User: a number that is not root, which a cluster can check without looking inside.
USER 65532:65532
EXPOSE 8000

# 6. Start: the program itself. There is no shell in the image.
ENTRYPOINT ["python", "app.py"]
