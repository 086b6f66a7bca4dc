# shellcheck shell=bash
# ./workshop.sh run: all demos, or one, with Docker or without.

WAY="" # docker or native

run_command() {
    local demos="" asked="" argument demo
    for argument in "$@"; do
        case $argument in
            [123]) demos="$demos $argument" ;;
            --docker | --native)
                [ -z "$asked" ] || [ "$asked" = "${argument#--}" ] || wrong_usage "choose one of --docker and --native"
                asked=${argument#--}
                ;;
            --plain) use_plain_text ;;
            *) wrong_usage "run does not know $argument" ;;
        esac
    done
    demos=${demos:-1 2 3}
    choose_way "$asked"
    announce_plan "$demos"
    if [ "$WAY" = docker ] || prepare_python "$demos"; then
        for demo in $demos; do
            "run_demo_$demo" && note shown "$demo"
            remove_container
        done
    fi
    summarise
}

choose_way() { # choose_way docker|native|"": sets WAY, and PYTHON for the native way
    local problem="no Docker engine answers: start Docker (./workshop.sh check tells more)"
    if [ "$1" != native ]; then
        if engine_answers && can_build; then
            WAY=docker
            say "Way: Docker, because an engine answers. (--native takes Python instead.)"
            return
        fi
        ! engine_answers ||
            problem="a Docker engine answers but cannot build images: install Docker's buildx component"
        [ "$1" != docker ] || fail "$problem, or run without --docker."
        say "No Docker: $problem. Python will do as well."
    fi
    find_python || fail "neither a Docker engine nor a Python 3.10 to 3.14 that works was found: start Docker or install Python, then run ./workshop.sh check. Found: $(explain_pythons)"
    WAY=native
    say "Way: Python $PYTHON_VERSION ($PYTHON), without Docker, in $VENV."
}

announce_plan() { # announce_plan DEMOS: what will be downloaded, and how long it takes
    local megabytes=0 minutes=0 demo # the two plan_ functions add to the first two
    if [ "$WAY" = native ]; then
        plan_python "$1"
    else
        plan_images "$1"
    fi
    for demo in $1; do
        if demo_is_prepared "$demo"; then
            minutes=$((minutes + MINUTES_AGAIN[demo]))
        else
            minutes=$((minutes + MINUTES_FIRST[demo]))
        fi
        if [ "$demo" = 3 ] && { [ "$WAY" = docker ] || command -v grype >/dev/null 2>&1; }; then
            megabytes=$((megabytes + MB_DEMO_3)) # without Grype the recorded summary is shown
        fi
    done
    if [ "$megabytes" -eq 0 ]; then
        say "Download: nothing."
    else
        say "Download: at most about $megabytes MB; less if some of it is here already."
    fi
    say "Time: about $minutes min on 2 cores, without the download. A second run is faster."
}

plan_python() {
    # shellcheck disable=SC2046 # a list of words
    venv_has $(parts_for "$1") && return 0
    minutes=$MINUTES_INSTALL
    case "$(parts_for "$1")" in
        *torch*)
            find_torch_source
            describe_torch_source
            megabytes=$((MB_PACKAGES + $(torch_megabytes)))
            warn_about_disk
            ;;
        *) megabytes=$MB_PACKAGES ;;
    esac
}

parts_for() { # parts_for DEMOS: the parts of .venv that they need
    case $1 in *[12]*) say packages torch ;; *) say packages ;; esac
}

plan_images() {
    local demo new=no
    for demo in $1; do demo_is_prepared "$demo" || new=yes; done
    [ "$new" = yes ] || return 0
    TORCH_SOURCE=cpu
    case "$WORKSHOP_BUILD_ARGS " in *"TORCH_INDEX= "*) TORCH_SOURCE=cuda ;; esac
    megabytes=$((MB_BASE_IMAGES + MB_PACKAGES + $(torch_megabytes)))
    minutes=$MINUTES_BUILD
    warn_about_disk
}

warn_about_disk() {
    local free need=$GB_DISK
    [ "$TORCH_SOURCE" != cuda ] || need=$GB_DISK_CUDA
    free=$(free_gigabytes)
    [ "$free" -ge "$need" ] || say "WARNING: $free GB of disk are free, about $need GB are needed: free some space if this stops."
}

demo_is_prepared() { # demo_is_prepared DEMO: is what takes long there already?
    case $WAY-$1 in
        docker-1) image_is_current pickle-demo demo-malicious ;;
        docker-2) image_is_current poisoning-demo demo-poisoning ;;
        native-2) [ -f "$ROOT/demo-poisoning/models/clean_model.pt" ] && [ -f "$ROOT/demo-poisoning/models/poisoned_model.pt" ] ;;
        *) return 0 ;;
    esac
}

prepare_python() { # prepare_python DEMOS
    local parts
    parts=$(parts_for "$1")
    # shellcheck disable=SC2086 # a list of words
    if venv_has $parts; then
        say "$VENV is ready: nothing to install."
    else
        step "Install the Python packages in .venv" 0 make_venv $parts
    fi
}

summarise() {
    local line
    heading "Summary"
    say "Steps, with seconds:"
    list_steps
    for line in ${IMAGE_LINES[@]+"${IMAGE_LINES[@]}"}; do say "- $line"; done
    say
    say "What was shown:"
    for line in ${SHOWN[@]+"${SHOWN[@]}"}; do say "- $line"; done
    [ "${#SHOWN[@]}" -gt 0 ] || say "- nothing"
    if [ "${#RESULT_LINES[@]}" -gt 0 ]; then
        say
        say "Results to look at:"
        for line in "${RESULT_LINES[@]}"; do say "- $line"; done
    fi
    say
    finish "run"
}

finish() { # finish WHAT: the last line, and the exit code
    local name
    if [ "${#FAILED_STEPS[@]}" -eq 0 ]; then
        say "Done: every step of $1 worked, in $SECONDS s."
        return 0
    fi
    for name in "${FAILED_STEPS[@]}"; do
        printf 'error: this step of %s failed: %s. Its output above says why.\n' "$1" "$name" >&2
    done
    return 1
}
