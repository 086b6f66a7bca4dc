#!/usr/bin/env bash
# Build the image poisoning-demo: images, poisoned images and both trained models are made inside.
#   ./build.sh
#   WORKSHOP_BUILD_ARGS="--build-arg TORCH_INDEX=" ./build.sh     more arguments for docker build
set -eu
cd "$(dirname "$0")"
case ${1:-} in
    "") ;;
    -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' build.sh && exit 0 ;;
    *) echo "error: build.sh takes no argument $1: type ./build.sh --help." >&2 && exit 2 ;;
esac
export DOCKER_BUILDKIT=${DOCKER_BUILDKIT:-1} # the Dockerfile uses a cache mount

if ! docker info >/dev/null 2>&1; then
    echo "error: no Docker engine answers: start Docker, or run ./prepare.sh to go without it." >&2
    exit 2
fi
echo "Building poisoning-demo. The first build downloads PyTorch and trains two models."
started=$(date +%s)
# shellcheck disable=SC2086 # several arguments in one variable
docker build -t poisoning-demo ${WORKSHOP_BUILD_ARGS:-} .
size=$(docker image inspect --format '{{.Size}}' poisoning-demo)
echo "Built poisoning-demo in $(($(date +%s) - started)) seconds, $((size / 1000000)) MB."
