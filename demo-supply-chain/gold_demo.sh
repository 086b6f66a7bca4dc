#!/usr/bin/env bash
# The gold path: compare before and after hardening, list the models that you ship, notice a changed one.
#
#   ./gold_demo.sh                   the models of the poisoning demo, from its folder or its image, else a tiny example
#   ./gold_demo.sh --models FOLDER   the .safetensors and .pt files of another folder
#
# Uses a Python of this machine that has cyclonedx-python-lib (requirements.txt); PYTHON names another one.
# Else it uses the Docker image grype-demo, without network. Exit codes: 0 fine, 2 error.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=/dev/null
. "$HERE/container.sh"
MODELS_IMAGE=${MODELS_IMAGE:-poisoning-demo}  # the tests use another name

list_models() {  # FOLDER: prints its model files, one per line
    find "$1" -maxdepth 1 -type f \( -name '*.safetensors' -o -name '*.pt' \) | LC_ALL=C sort
}

models_of_image() {  # FOLDER: copies the models out of demo 2's image; fails where there is none
    local container code=0
    has_docker && docker image inspect "$MODELS_IMAGE" >/dev/null 2>&1 || return
    say "Taking the models out of the image $MODELS_IMAGE into $1."
    container=$(docker create "$MODELS_IMAGE") || return
    rm -rf "$1" # of an earlier image
    mkdir -p "$1" && docker cp "$container:/app/models/." "$1" >/dev/null 2>&1 || code=$?
    docker rm --force --volumes "$container" >/dev/null 2>&1
    [ "$code" -eq 0 ] || rm -rf "$1"
    return "$code"
}

main() {
    local folder='' python name models=()
    case ${1:-} in
        --models) folder=${2:-} ;;
        --help | -h) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;;
        '')
            folder=$HERE/../demo-poisoning/models
            if [ ! -d "$folder" ]; then
                folder=$HERE/results/models-of-demo-2
                models_of_image "$folder" || folder=''
            fi ;;
        *) say "error: $1 is not known: ./gold_demo.sh --help shows what is."; exit 2 ;;
    esac
    if [ -n "$folder" ]; then
        if [ ! -d "$folder" ]; then say "error: $folder is not a folder: name one with model files."; exit 2; fi
        while IFS= read -r name; do models+=("$name"); done < <(list_models "$folder")
        if [ ${#models[@]} = 0 ] && [ $# -gt 0 ]; then
            say "error: $folder holds no .safetensors or .pt file: name a folder with model files."
            exit 2
        fi
    fi
    if python=$(find_python cyclonedx); then
        exec "$python" "$HERE/gold_demo.py" ${models[@]+"${models[@]}"}
    fi
    if has_docker && build_image; then
        in_container ${models[@]+"${models[@]}"}
        return
    fi
    say "error: a library is missing: pip install -r $HERE/requirements.txt gets it, or start Docker."
    exit 2
}

in_container() {  # [MODEL...]: hands models and reports over to the container
    local name copies=() code=0
    SCRATCH=$(mktemp -d)
    for name in "$@" "$HERE"/results/*.json; do
        [ ! -f "$name" ] || cp "$name" "$SCRATCH/"
    done
    for name in "$@"; do copies+=("results/$(basename "$name")"); done
    chmod -R a+rX "$SCRATCH"
    run_in_container none "$HERE/results" "$SCRATCH" gold_demo.py ${copies[@]+"${copies[@]}"} --results results || code=$?
    rm -rf "$SCRATCH"
    return "$code"
}

main "$@"
