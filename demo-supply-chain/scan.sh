#!/usr/bin/env bash
# Scan container images and print one table that compares them.
#
#   ./scan.sh                        the images of images.txt
#   ./scan.sh debian:12 alpine:3     other images
#   ./scan.sh --recorded             no internet: scans that others published
#   ./scan.sh --offline              no internet: scans the package lists in results/ again, with the database that is here
#   ./scan.sh --help                 all options
#
# Uses the Grype and Python of this machine. Where one of them is missing it uses this demo's own Docker
# image, grype-demo, and builds it on first use. Exit codes: 0 fine, 1 --fail-on found something, 2 error.
# Environment: GRYPE_... reaches Grype; WORKSHOP_BUILD_ARGS is added to `docker build`.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=/dev/null
. "$HERE/container.sh"

results_folder() {  # prints the folder that the arguments name with --results, else results/
    local folder=$HERE/results
    while [ $# -gt 0 ]; do
        case $1 in
            --results) folder=${2:-$folder} ;;
            --results=*) folder=${1#--results=} ;;
        esac
        shift
    done
    printf '%s\n' "$folder"
}

names_a_path() {  # [ARGUMENT...]: is there something that only this machine has?
    local word
    for word in "$@"; do
        case $word in
            dir:* | file:* | sbom:* | docker-archive:* | oci-archive:* | oci-dir:* | singularity:* | podman:*) return 0 ;;
            --vex | --vex=* | --diff) return 0 ;;
        esac
    done
    return 1
}

save_images() {  # FOLDER [ARGUMENT...]: images of the Docker engine become archives there; sets WORDS
    local folder=$1 word name
    shift
    WORDS=()
    for word in "$@"; do
        case $word in
            docker:*:*)
                name=${word#docker:}
                say "Saving $name for the container."
                docker save "$name" >"$folder/${name//[\/:]/_}.tar" || return
                WORDS+=("docker-archive:results/${name//[\/:]/_}.tar") ;;
            *) WORDS+=("$word") ;;
        esac
    done
}

without_grype() {  # PYTHON WHY [ARGUMENT...]: one sentence and the recorded scans
    local python=$1 why=$2
    shift 2
    if [ -n "$python" ]; then exec "$python" "$HERE/scan.py" "$@" --no-scanner "$why"; fi
    say "error: No live scan: $why; here are recorded scans instead."
    sed '/^== /,$d' "$HERE/recorded/summary.txt"
    echo "Distribution, database and digest of each: ./scan.sh --recorded"
    exit 2
}

main() {
    local python=''
    python=$(find_python) || true
    case " $* " in
        *' --help '* | *' -h '*)
            if [ -n "$python" ]; then exec "$python" "$HERE/scan.py" "$@"; fi
            exec sed -n '2,12s/^# \{0,1\}//p' "$0" ;;
        *' --recorded '*)  # needs no Grype
            if [ -n "$python" ]; then exec "$python" "$HERE/scan.py" "$@"; fi
            exec cat "$HERE/recorded/summary.txt" ;;
        *' --diff '*)
            if [ -n "$python" ]; then exec "$python" "$HERE/scan.py" "$@"; fi ;;
    esac
    if [ -n "$python" ] && command -v grype >/dev/null 2>&1; then
        exec "$python" "$HERE/scan.py" "$@"
    fi
    if names_a_path "$@"; then
        say "error: A container cannot see the files of this machine: install Grype and Python 3.10 or newer for that."
        exit 2
    fi
    has_docker || without_grype "$python" "neither Grype nor a Docker engine is here" "$@"
    build_image || without_grype "$python" "the image $IMAGE could not be built (is there internet?)" "$@"
    SCRATCH=$(mktemp -d)
    trap 'rm -rf "$SCRATCH"' EXIT
    if ! save_images "$SCRATCH" "$@"; then
        say "error: This image of the Docker engine could not be saved: the line above says why."
        exit 2
    fi
    local network=bridge
    case " $* " in *' --offline '*)
        network=none
        [ ! -d "$(results_folder "$@")" ] ||
            find "$(results_folder "$@")" -maxdepth 1 \( -name '*.syft.json' -o -name '*.cdx.json' \) -exec cp {} "$SCRATCH/" \; ;;
    esac
    chmod -R a+rX "$SCRATCH"
    run_in_container "$network" "$(results_folder "$@")" "$SCRATCH" scan.py ${WORDS[@]+"${WORDS[@]}"} --results results
}

main "$@"
