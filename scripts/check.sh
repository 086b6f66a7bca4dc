# shellcheck shell=bash
# ./workshop.sh check: is this machine ready? One line each: OK, WARNING or MISSING, and what to do.

check_command() {
    local option
    for option in "$@"; do
        case $option in
            --plain) use_plain_text ;;
            *) wrong_usage "check takes no $option" ;;
        esac
    done
    local engine=no python=no
    check_engine && engine=yes
    check_architecture
    check_disk
    check_memory "$engine"
    check_python && python=yes
    check_grype "$engine"
    say
    if [ "$engine" = yes ]; then
        say "Ready: ./workshop.sh run will use Docker."
    elif [ "$python" = yes ]; then
        say "Ready: ./workshop.sh run will use Python, without Docker."
    else
        say "Not ready: install Docker or Python 3.10 to 3.14, then check again."
        return 1
    fi
}

check_engine() {
    if engine_answers && ! can_build; then
        say "MISSING: Docker engine - it answers but cannot build images: install Docker's buildx component, or go on with Python"
        return 1
    elif engine_answers; then
        say "OK: Docker engine $(docker info --format '{{.ServerVersion}}' 2>/dev/null)"
    elif command -v docker >/dev/null 2>&1; then
        say "MISSING: Docker engine - docker is installed but no engine answers: start Docker (or Docker Desktop), or go on with Python"
        return 1
    else
        say "MISSING: Docker engine - install Docker (Docker Desktop on macOS and Windows), or go on with Python"
        return 1
    fi
}

check_architecture() {
    local name
    name="$(uname -s) $(uname -m)"
    case $name in
        "Darwin x86_64") say "WARNING: $name - PyTorch has no packages for Macs with Intel: use Docker" ;;
        *\ x86_64 | *\ arm64 | *\ aarch64) say "OK: $name" ;;
        *) say "WARNING: $name - untested: x86-64 and ARM64 are the ones we know to work" ;;
    esac
}

free_gigabytes() { df -Pk "$ROOT" | awk 'NR == 2 {print int($4 / 1000000)}'; }

check_disk() {
    local free
    free=$(free_gigabytes)
    if [ "$free" -ge "$GB_DISK" ]; then
        say "OK: disk, $free GB free"
    else
        say "WARNING: disk, $free GB free - free some space: the workshop needs about $GB_DISK GB"
    fi
}

memory_gigabytes() {
    if [ -r /proc/meminfo ]; then
        awk '/^MemTotal:/ {print int($2 / 1000000 + 0.5)}' /proc/meminfo
    else
        say "$(($(sysctl -n hw.memsize 2>/dev/null || echo 0) / 1000000000))"
    fi
}

check_memory() { # check_memory ENGINE
    local all need=$GB_MEMORY
    [ "$1" != yes ] || need=$GB_MEMORY_DOCKER
    all=$(memory_gigabytes)
    if [ "$all" -ge "$need" ]; then
        say "OK: memory, $all GB"
    else
        say "WARNING: memory, $all GB - close other programs: training needs about $need GB"
    fi
}

check_python() {
    if find_python; then
        say "OK: Python $PYTHON_VERSION ($PYTHON)"
    else
        say "MISSING: Python 3.10 to 3.14 - install one, or go on with Docker ($(explain_pythons))"
        return 1
    fi
}

check_grype() { # check_grype ENGINE
    if command -v grype >/dev/null 2>&1; then
        say "OK: Grype $(grype version 2>/dev/null | awk '/^Version:/ {print $2}')"
    elif [ "$1" = yes ]; then
        say "WARNING: Grype is not installed - nothing to do: demo 3 builds an image that has it"
    else
        say "WARNING: Grype is not installed - demo 3 can then only show its recorded summary: install Grype or start Docker for a live scan"
    fi
}
