# shellcheck shell=bash
# ./workshop.sh shell: from here to typing. It opens a shell where the commands of a demo work, in a container
# or in .venv, and says which; the commands are the same in both.

DEMO_FOLDERS=(- demo-malicious demo-poisoning demo-supply-chain) # demo 1, 2 and 3
DEMO_IMAGES=(- pickle-demo poisoning-demo grype-demo)

shell_command() {
    local demo="" asked="" argument
    for argument in "$@"; do
        case $argument in
            [123])
                [ -z "$demo" ] || wrong_usage "shell opens one demo at a time"
                demo=$argument
                ;;
            --docker | --native)
                [ -z "$asked" ] || [ "$asked" = "${argument#--}" ] || wrong_usage "choose one of --docker and --native"
                asked=${argument#--}
                ;;
            --plain) use_plain_text ;;
            *) wrong_usage "shell does not know $argument" ;;
        esac
    done
    [ -n "$demo" ] || wrong_usage "shell takes the number of a demo: 1, 2 or 3"
    [ -z "${WORKSHOP_SHELL:-}" ] || fail "this is the shell of demo $WORKSHOP_SHELL already: leave it first, with exit."
    choose_way "$asked"
    note opened "$demo"
    export WORKSHOP_SHELL=$demo
    "open_${WAY}_shell" "$demo" "${DEMO_FOLDERS[demo]}"
}

open_native_shell() { # open_native_shell DEMO FOLDER
    prepare_python "$1" || fail "the Python packages could not be installed; the output above says why."
    greet "$1" "bash on this machine, in $ROOT/$2, with the Python of $VENV"
    [ "$1" != 2 ] || [ -f "$ROOT/$2/models/poisoned_model.pt" ] ||
        say "The images and both models are not there yet. This makes them: ./prepare.sh"
    cd "$ROOT/$2" || return 1
    PATH=$ROOT/scripts/bin:$VENV/bin:$PATH VENV_OF_SHELL=$VENV bash --rcfile "$ROOT/scripts/bashrc"
}

open_docker_shell() { # open_docker_shell DEMO FOLDER
    local image=${DEMO_IMAGES[$1]} terminal=(--interactive) volume
    build_image "$image" "$2" || fail "the image $image could not be built; the output above says why."
    [ ! -t 0 ] || [ ! -t 1 ] || terminal+=(--tty)
    prepare_progress
    container_options
    # What is made in /app stays until reset; another image, another volume.
    volume=workshop-demo-$1-$(image_field "$image" '{{.Id}}' | cut -c 8-19)
    greet "$1" "a container of the image $image, without network, in /app; your files there stay until ./workshop.sh reset $1"
    docker run --rm "${terminal[@]}" ${OPTIONS[@]+"${OPTIONS[@]}"} --env "WORKSHOP_SHELL=$1" \
        --env "PATH=$INSIDE/scripts/bin:/usr/local/bin:/usr/bin:/bin" --env "TERM=${TERM:-dumb}" \
        --volume "$volume:/app" --volume "$ROOT/$2/EXERCISES.md:/app/EXERCISES.md:ro" \
        --workdir /app --entrypoint /bin/sh "$image" \
        -c "if command -v bash >/dev/null; then exec bash --rcfile $INSIDE/scripts/bashrc; else exec sh; fi"
}

greet() { # greet DEMO WHERE
    say
    say "Demo $1. You type in $2. exit leaves it."
    say "The steps are in the README.md of demo $1 in the repository, the tasks in EXERCISES.md. workshop next says what comes now, workshop hint helps, workshop status lists all."
    progress_command next "$1"
    say
}

remove_work() { # remove_work DEMO YES: what was made in the containers that shell opened
    local volumes
    engine_answers || return 0
    volumes=$(docker volume ls --quiet --filter "name=^workshop-demo-$1-" 2>/dev/null)
    [ -n "$volumes" ] || return 0
    [ "$2" = yes ] || ask "Remove your files in the containers of demo $1?" || return 0
    # shellcheck disable=SC2086 # a list of names
    docker volume rm $volumes >/dev/null && say "Removed your files in the containers of demo $1."
}
