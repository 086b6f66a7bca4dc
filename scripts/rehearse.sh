# shellcheck shell=bash
# ./workshop.sh rehearse: the whole show, typed by nobody, and timed against the plan in WORKSHOP.md.

rehearse_command() {
    local asked="" argument words=() demos="" python
    for argument in "$@"; do
        case $argument in
            --docker | --native)
                [ -z "$asked" ] || [ "$asked" = "${argument#--}" ] || wrong_usage "choose one of --docker and --native"
                asked=${argument#--}
                ;;
            --update) words+=(--update) ;;
            [123])
                words+=("$argument")
                demos="$demos $argument"
                ;;
            --plain) use_plain_text ;;
            *) wrong_usage "rehearse does not know $argument" ;;
        esac
    done
    choose_way "$asked"
    python=$(plain_python) || fail "rehearse needs a Python of this machine, also on the way with Docker: install one."
    say "Nothing waits for a person: the times are those of the commands alone."
    if [ "$WAY" = docker ]; then
        rehearse_with_docker "$python" ${words[@]+"${words[@]}"}
    else
        prepare_python "${demos:-1 2 3}" || return
        case ${demos:-2} in *2*) (cd "$ROOT/demo-poisoning" && PATH=$VENV/bin:$PATH ./prepare.sh) || return ;; esac
        PATH=$VENV/bin:$PATH "$python" -B "$ROOT/scripts/rehearse.py" ${words[@]+"${words[@]}"}
    fi
}

rehearse_with_docker() { # rehearse_with_docker PYTHON OPTION...: demos 1 and 2 in containers, demo 3 here, as the plan says
    local python=$1 first code=0
    shift
    build_image pickle-demo demo-malicious && build_image poisoning-demo demo-poisoning || return
    start_container pickle-demo || return
    first=$CONTAINER
    if start_container poisoning-demo; then
        "$python" -B "$ROOT/scripts/rehearse.py" --container "1=$first" --container "2=$CONTAINER" "$@" || code=$?
    else
        code=1
    fi
    docker rm --force --volumes "$first" >/dev/null 2>&1
    remove_container
    return "$code"
}
