#!/usr/bin/env bash
# The gold path: compare before and after hardening, list the models that you ship, notice a changed one.
#
#   ./gold_demo.sh                   the models of the poisoning demo, else a tiny example
#   ./gold_demo.sh --models FOLDER   the .safetensors and .pt files of another folder
#
# Uses a Python of this machine that has cyclonedx-python-lib (requirements.txt); PYTHON names another one.
# Else it uses the Docker image grype-demo, without network. Exit codes: 0 fine, 2 error.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=/dev/null
. "$HERE/container.sh"

list_models() {  # FOLDER: prints its model files, one per line
    find "$1" -maxdepth 1 -type f \( -name '*.safetensors' -o -name '*.pt' \) | LC_ALL=C sort
}

main() {
    local folder='' python name models=()
    case ${1:-} in
        --models) folder=${2:-} ;;
        --help | -h) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;;
        '') [ ! -d "$HERE/../demo-poisoning/models" ] || folder=$HERE/../demo-poisoning/models ;;
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
