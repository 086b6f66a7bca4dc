# shellcheck shell=bash
# ./workshop.sh next, hint, status, wanted, share and class: what is done, what comes next, and the ending.
# The work is done by Python files beside this one, which need nothing but Python: that of .venv, one of this
# machine, or the one in an image of ours.

export WORKSHOP_PROGRESS=${WORKSHOP_PROGRESS:-$ROOT/progress}
IMAGES="pickle-demo poisoning-demo grype-demo"
INSIDE=/workshop # where a container finds this workshop's own tools

# what of this repository a container sees, read-only; it can write into progress/ alone
SEEN_INSIDE="workshop.sh scripts demo-malicious/exercises demo-malicious/EXERCISES.md demo-poisoning/EXERCISES.md demo-supply-chain/EXERCISES.md"

progress_command() { run_tool progress.py "$@"; }

wanted_command() { run_tool wanted.py "$@"; }

share_command() { run_tool class_page.py share "$@"; }

class_command() { run_tool class_page.py page "$@"; }

run_tool() { # run_tool FILE ARGUMENTS...
    local file=$1 python image
    shift
    if python=$(plain_python); then
        "$python" -B "$ROOT/scripts/$file" "$@"
    elif image=$(image_there); then
        prepare_progress
        container_options
        docker run --rm ${OPTIONS[@]+"${OPTIONS[@]}"} --volume "$PWD:/here:ro" --workdir /here --entrypoint python "$image" -B "$INSIDE/scripts/$file" "$@"
    else
        say "Next: get what this needs, a Python or an image of the workshop: ./workshop.sh run"
        return 2
    fi
}

plain_python() { # prints a Python that runs; for these tools any from 3.10 on will do
    local name
    for name in "$VENV/bin/python" ${WORKSHOP_PYTHON:-$PYTHON_NAMES}; do
        command -v "$name" >/dev/null 2>&1 || continue
        "$name" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1 </dev/null || continue
        say "$name"
        return 0
    done
    return 1
}

image_there() { # prints an image of ours, if there is one
    local image
    engine_answers || return 1
    for image in $IMAGES; do
        ! docker image inspect "$image" >/dev/null 2>&1 || { say "$image" && return 0; }
    done
    return 1
}

prepare_progress() { # a folder that the containers' user can write to: it is made a member of the folder's group
    mkdir -p "$WORKSHOP_PROGRESS" && chmod 2775 "$WORKSHOP_PROGRESS" 2>/dev/null
    [ -d "$WORKSHOP_PROGRESS" ] || fail "$WORKSHOP_PROGRESS cannot be made: make it a folder that you may write to."
}

container_options() { # sets OPTIONS: a locked container with our tools and progress/ in it
    local path group
    group=$(id -g)
    case $(docker info --format '{{.SecurityOptions}}' 2>/dev/null) in *rootless*) group=0 ;; esac
    # shellcheck disable=SC2206 # a list of flags
    OPTIONS=($HARDENED --group-add "$group" --env "NO_COLOR=${NO_COLOR:-}" --env "WORKSHOP_PLAIN=${WORKSHOP_PLAIN:-}"
        --env "WORKSHOP_PROGRESS=$INSIDE/progress")
    for path in $SEEN_INSIDE; do OPTIONS+=(--volume "$ROOT/$path:$INSIDE/$path:ro"); done
    OPTIONS+=(--volume "$WORKSHOP_PROGRESS:$INSIDE/progress:z")
}

note() { # note EVENT ITEM: a failure is said, and stops nothing
    local python
    python=$(plain_python) || return 0
    "$python" -B "$ROOT/scripts/progress.py" note "$@" || true
}

forget() { # forget WHAT YES: the progress of a demo, or that of the pipeline, for reset
    local name="demo $1"
    [ "$1" != pipeline ] || name="the pipeline"
    grep -q "\"item\": \"$1" "$WORKSHOP_PROGRESS/log.jsonl" 2>/dev/null || return 0
    [ "$2" = yes ] || ask "Forget your progress in $name?" || return 0
    note forgotten "$1" && say "Your progress in $name is forgotten."
}
