# shellcheck shell=sh
# What the two narrated scripts share: say what comes, show the command, run it.
# With PAUSE=1 and a terminal they wait for Enter after each step, so that an instructor can talk.
PYTHON=${PYTHON:-python}

read_arguments() { # read_arguments SCRIPT ARGUMENTS...: the only one is --help, the comment at the script's top
    case ${2:-} in
        "") return ;;
        -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$1" && exit 0 ;;
    esac
    echo "error: $1 takes no argument $2: type ./$1 --help." >&2
    exit 2
}

need_models() {
    if [ ! -f models/clean_model.pt ] || [ ! -f models/poisoned_model.pt ]; then
        echo "error: models/ holds no trained models: run ./prepare.sh first." >&2
        exit 2
    fi
}

step() { # step "What comes": a heading with the number that README.md and WORKSHOP.md give to this step
    STEP=$((${STEP:-0} + 1))
    printf '\n== Step 2.%s: %s ==\n' "$STEP" "$1"
}

show() { # show COMMAND...: print a python command as a person would type it, then run it
    printf '$ python %s\n' "$*"
    "$PYTHON" "$@"
}

pause() {
    if [ "${PAUSE:-0}" = 1 ] && [ -t 0 ]; then
        printf 'Press Enter to go on. '
        read -r _
    fi
}
