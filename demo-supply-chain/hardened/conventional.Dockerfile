# The app as tutorials pack it. It works, and it is the "before" of ./compare_hardened.sh.
#   docker build -f conventional.Dockerfile -t conventional-app .
# The same numbers stand in hardened.Dockerfile.

# 1. Base: a full image with compilers and headers, named by a tag that moves.
ARG BASE=python:3.12
# hadolint ignore=DL3006
FROM ${BASE}

# 2. Stages: one, so whatever was needed to build stays in the image.
WORKDIR /app
# PyTorch's index of CPU wheels; empty means the ordinary registry, with the much larger CUDA build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG TORCH=torch

# 3. Packages: names without versions, so each build can be another one. PyTorch is there because training needed it.
# hadolint ignore=DL3013,DL3042,SC2086
RUN pip install $TORCH ${TORCH_INDEX:+--index-url $TORCH_INDEX} && pip install numpy safetensors

# 4. Files: everything that lies in the folder, whatever that is.
COPY . .

# 5. User: none is named, so it is root.
EXPOSE 8000

# 6. Start: through a shell, which is there for whoever breaks in, too.
# hadolint ignore=DL3025
CMD python app.py
