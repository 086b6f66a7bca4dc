# shellcheck shell=bash
# For scan.sh and gold_demo.sh: find a Python on this machine, or run the same script in this demo's image.
# Sourced, not run. Works with the bash 3.2 of macOS.

IMAGE=${SCAN_IMAGE:-grype-demo}  # the tests use another name
HARDENED=(--read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges)
# these settings name places on this machine, which mean nothing inside a container
LOCAL_PATHS=" GRYPE_DB_CACHE_DIR GRYPE_CONFIG GRYPE_FILE GRYPE_LOG_FILE GRYPE_REGISTRY_CA_CERT GRYPE_DB_CA_CERT "

say() { printf '%s\n' "$*" >&2; }

find_python() {  # [MODULE]: prints a Python that really runs, and has the module; some launchers have none behind
    local name
    for name in ${PYTHON:-} python3 python; do
        if "$name" -c "import sys${1:+, $1}; sys.exit(sys.version_info < (3, 10))" >/dev/null 2>&1; then
            printf '%s\n' "$name"
            return
        fi
    done
    return 1
}

has_docker() { command -v docker >/dev/null 2>&1 && docker info >/dev/null 2>&1; }

build_image() {
    docker image inspect "$IMAGE" >/dev/null 2>&1 && return
    say "Building the image $IMAGE, once: this downloads Grype and a Python base image."
    # shellcheck disable=SC2086  # several arguments in one variable, split on purpose
    DOCKER_BUILDKIT=${DOCKER_BUILDKIT:-1} docker build -q -t "$IMAGE" ${WORKSHOP_BUILD_ARGS:-} "$HERE" >/dev/null
}

settings() {  # prints the names of the settings that the container needs from here, one per line
    local name
    for name in $(compgen -e); do
        case $name in
            GRYPE_* | HTTP_PROXY | HTTPS_PROXY | NO_PROXY | http_proxy | https_proxy | no_proxy | NO_COLOR | WORKSHOP_PLAIN)
                case $LOCAL_PATHS in *" $name "*) ;; *) printf '%s\n' "$name" ;; esac ;;
        esac
    done
}

# run_in_container NETWORK RESULTS FOLDER SCRIPT [ARGUMENT...]
# Copies FOLDER ('' for none) in, runs the script, and copies results/ out. No bind mount: so it works with
# any user id and with an engine on another machine.
run_in_container() {
    local network=$1 results=$2 folder=$3 name code=0 flags
    shift 3
    if ! mkdir -p "$results" 2>/dev/null || [ ! -w "$results" ]; then
        say "error: Cannot write in $results: choose a folder that you may write to."
        return 2
    fi
    flags=(--network "$network" "${HARDENED[@]}" -v "${IMAGE//[:\/]/_}-db:/db")
    for name in $(settings); do flags+=(-e "$name"); done
    if [ -t 1 ] && [ -t 2 ]; then flags+=(-t); fi
    CONTAINER=$(docker create "${flags[@]}" "$IMAGE" "$@")
    trap 'docker rm -f -v "$CONTAINER" >/dev/null 2>&1 || true; rm -rf "${SCRATCH:-}"' EXIT
    [ -z "$folder" ] || docker cp "$folder/." "$CONTAINER:/app/results/" >/dev/null 2>&1 || code=$?
    docker start -a "$CONTAINER" || code=$?
    fetch_results "$results"
    return "$code"
}

fetch_results() {  # RESULTS: takes whole files of ours; models that we handed over stay behind
    local new
    new=$(mktemp -d "$1/.unfinished.XXXXXX")
    docker cp "$CONTAINER:/app/results/." "$new" >/dev/null 2>&1 || true
    find "$new" -maxdepth 1 -type f \( -name '*.json' -o -name 'comparison.*' -o -name 'example.*' \) -exec mv -f {} "$1/" \;
    rm -rf "$new"
}
