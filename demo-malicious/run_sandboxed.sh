#!/usr/bin/env bash
# Loads a model file that you do not trust, in a container that can reach nothing, and reports what it did.
#
#   ./run_sandboxed.sh FILE               a file of this machine; only its bytes go into the container
#   ./run_sandboxed.sh --demo [VARIANT]   a file of this demo (create_malicious_model.py --list names them)
#
# Exit codes: 0 loaded and left no trace (no proof that it is harmless), 1 left a trace or was stopped,
# 2 nothing was loaded. Build the image first: docker build -t pickle-demo .
# Environment, optional: SANDBOX_IMAGE (pickle-demo), SANDBOX_SECONDS (120)
set -u -o pipefail

IMAGE=${SANDBOX_IMAGE:-pickle-demo}
SECONDS_AT_MOST=${SANDBOX_SECONDS:-120}
NAME=pickle-sandbox-$$

# shellcheck disable=SC2054 # the comma belongs to the option
SANDBOX=(
    --rm --interactive --pull never
    --network none                                  # nobody to talk to
    --read-only --tmpfs /tmp:size=512m              # nothing to change but a little memory
    --volume "$NAME:/app:ro"                        # the scripts, which the image declares as a volume
    --cap-drop ALL --security-opt no-new-privileges # no rights, and none to win
    --memory 2g --memory-swap 2g --pids-limit 64 --cpus 1
    --log-driver none                               # what it prints fills no disk
    --env OMP_NUM_THREADS=1 --env OPENBLAS_NUM_THREADS=1
)

show_help() { sed -n '2,10s/^# \{0,1\}//p' "$0"; }

fail() { # fail WORDS: nothing was loaded
    echo "error: $*" >&2
    exit 2
}

check_engine() {
    docker info >/dev/null 2>&1 || fail "no Docker engine answers: start it and try again."
    docker image inspect "$IMAGE" >/dev/null 2>&1 ||
        fail "there is no image $IMAGE: type \`docker build -t pickle-demo .\` first."
}

send_file() { # send_file FILE, or send_file --demo VARIANT: the bytes, to standard output
    if [ "$1" != --demo ]; then
        cat -- "$1"
        return
    fi
    # made in the image, so this machine needs no Python
    docker run --rm --pull never --network none --read-only --tmpfs /tmp --cap-drop ALL \
        --security-opt no-new-privileges --entrypoint python "$IMAGE" -c "
import sys, create_malicious_model as demo
sys.stdout.buffer.write(demo.malicious_bytes(sys.argv[1], demo.MARKER))" "$2"
}

load_in_sandbox() { # load_in_sandbox NAME: the file comes on standard input
    docker run --name "$NAME" "${SANDBOX[@]}" --entrypoint python "$IMAGE" load_untrusted.py --plain -- "$1" 2>&1
}

keep_printable() { LC_ALL=C tr -cd '\11\12\40-\176'; } # hostile output must not steer this terminal

stop_later() { # code in the sandbox could stop its own watchman, so there is one outside as well
    (
        trap 'kill $!' TERM
        sleep "$SECONDS_AT_MOST" &
        wait $! && docker kill "$NAME"
    ) >/dev/null 2>&1 &
    WATCHMAN=$!
}

stop_now() {
    kill "$WATCHMAN" 2>/dev/null
    docker kill "$NAME" >/dev/null 2>&1
    docker volume rm "$NAME" >/dev/null 2>&1
}

explain() { # explain CODE: of `docker run`
    case $1 in
        0 | 1 | 2) return "$1" ;;
        137) echo "The container was ended from outside: too much memory, or more than $SECONDS_AT_MOST seconds." ;;
        125 | 126 | 127) fail "Docker could not start the container; its message is above." ;;
        *) echo "The container ended with code $1." ;;
    esac
    return 1
}

main() {
    local file=${1:-} variant=${2:-system} name
    case $file in
        "") show_help >&2; exit 2 ;;
        -h | --help) show_help; exit 0 ;;
        --demo)
            [[ $variant =~ ^(system|system-legacy|resnet18|collect-env|joblib|nested|export|two-formats)$ ]] ||
                fail "there is no variant $variant: \`python create_malicious_model.py --list\` names them."
            name=demo.$variant # the ending says which loader
            [ "$variant" != export ] || name=demo.pt2
            ;;
        *)
            [ -f "$file" ] && [ -r "$file" ] || fail "$file is not a file that can be read: check the name."
            name=$(basename -- "$file")
            ;;
    esac
    check_engine
    stop_later
    trap stop_now EXIT
    trap 'exit 130' INT TERM
    send_file "$file" "$variant" | load_in_sandbox "$name" | keep_printable
    explain "${PIPESTATUS[1]}"
}

main "$@"
