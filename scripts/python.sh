# shellcheck shell=bash
# Python for the way without Docker: find one that really runs, and make .venv with it.

PYTHON_NAMES="python3.12 python3.13 python3.14 python3.11 python3.10 python3 python"
PYTHON="" # set by find_python
PYTHON_VERSION=""
TORCH_SOURCE="" # set by find_torch_source: cpu, cuda or mac

# A name on PATH proves nothing: version managers leave names behind that cannot run, and Debian ships
# Python without venv. So each candidate has to answer. torchvision does not support 3.14.1.
PYTHON_PROBE='
import sys
v = sys.version_info
name = "%d.%d.%d" % v[:3]
if not (3, 10) <= v[:2] <= (3, 14) or v[:3] == (3, 14, 1):
    sys.stdout.write("is %s, which PyTorch does not support here" % name); sys.exit(1)
if sys.maxsize < 2**32:
    sys.stdout.write("is a 32-bit %s" % name); sys.exit(1)
try:
    import venv, ensurepip
except ImportError:
    sys.stdout.write("is %s without venv (Debian, Ubuntu: apt install python3-venv)" % name); sys.exit(1)
sys.stdout.write(name)
'

judge_python() { # judge_python NAME: prints its version, or why it will not do (then 1)
    local said
    if ! said=$("$1" -c "$PYTHON_PROBE" 2>/dev/null </dev/null); then
        printf '%s' "${said:-does not run}"
        return 1
    fi
    printf '%s' "$said"
}

find_python() { # sets PYTHON and PYTHON_VERSION
    local name
    for name in ${WORKSHOP_PYTHON:-$PYTHON_NAMES}; do
        command -v "$name" >/dev/null 2>&1 || continue
        PYTHON_VERSION=$(judge_python "$name") && PYTHON=$name && return 0
    done
    return 1
}

explain_pythons() { # one line: what is on PATH and why none of it will do
    local name found=""
    for name in ${WORKSHOP_PYTHON:-$PYTHON_NAMES}; do
        command -v "$name" >/dev/null 2>&1 || continue
        found="$found${found:+; }$name $(judge_python "$name")"
    done
    say "${found:-no python on PATH}"
}

find_torch_source() { # the CPU builds if their index answers within 5 seconds, else the ordinary registry
    if [ "$(uname -s)" = Darwin ]; then
        TORCH_SOURCE=mac
    elif within 6 "$PYTHON" -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=5)' \
        "$TORCH_INDEX/torch/"; then
        TORCH_SOURCE=cpu
    else
        TORCH_SOURCE=cuda
    fi
}

describe_torch_source() {
    case $TORCH_SOURCE in
        cpu) say "PyTorch: the CPU build, from $TORCH_INDEX" ;;
        mac) say "PyTorch: the build for macOS, from the ordinary package registry" ;;
        *) say "PyTorch: $TORCH_INDEX does not answer, so from the ordinary package registry. That is the large CUDA build; it runs on the CPU all the same." ;;
    esac
}

torch_megabytes() {
    case $TORCH_SOURCE in
        cpu) say "$MB_TORCH_CPU" ;;
        mac) say "$MB_TORCH_MAC" ;;
        *) say "$MB_TORCH_CUDA" ;;
    esac
}

# .venv holds two marks of ours: workshop-installing while pip works, so that an interrupted installation
# is seen and started over, and workshop-installed with the checksum of what it was made from.
checksum() { cat "$@" 2>/dev/null | cksum; }

wanted_packages() { # wanted_packages [dev]: the checksum of the requirements
    checksum "$ROOT"/demo-*/requirements*.txt ${1:+"$ROOT/requirements-dev.txt"}
}

venv_is_ready() { # venv_is_ready [dev]
    [ -f "$VENV/workshop-installed${1:+-$1}" ] && [ ! -f "$VENV/workshop-installing" ] &&
        [ "$(cat "$VENV/workshop-installed${1:+-$1}")" = "$(wanted_packages "$@")" ] &&
        "$VENV/bin/python" -c 'import torch' >/dev/null 2>&1
}

clear_unfinished_venv() { # remove a .venv that is broken or half made, but never one that is not ours
    [ -e "$VENV" ] || return 0
    if [ -f "$VENV/workshop-installing" ]; then
        say "An earlier installation did not finish: .venv is made again."
    elif [ ! -f "$VENV/workshop-installed" ]; then
        fail "$VENV was not made by workshop.sh: move it away, then run this again."
    elif "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
        return 0
    else
        say ".venv no longer works (its Python is gone): it is made again."
    fi
    rm -rf "$VENV"
}

make_venv() { # make_venv [dev]: make .venv, or bring it up to date
    clear_unfinished_venv || return 1
    mkdir -p "$VENV" && touch "$VENV/workshop-installing" || return 1
    [ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV" || return 1
    install_packages "$@" || return 1
    wanted_packages >"$VENV/workshop-installed"
    [ $# -eq 0 ] || wanted_packages "$1" >"$VENV/workshop-installed-$1"
    rm "$VENV/workshop-installing"
}

pip_install() {
    local bar=on
    [ -t 1 ] && [ -z "${NO_COLOR:-}" ] || bar=off
    "$VENV/bin/python" -m pip install --disable-pip-version-check --progress-bar "$bar" "$@"
}

install_packages() { # install_packages [dev]
    local file torch_files=()
    for file in "$ROOT"/demo-*/requirements.txt ${1:+"$ROOT/requirements-dev.txt"}; do
        [ -f "$file" ] || continue
        pip_install --no-deps --require-hashes -r "$file" || return 1
    done
    for file in "$ROOT"/demo-*/requirements-torch.txt; do
        [ ! -f "$file" ] || torch_files+=(-r "$file")
    done
    [ "${#torch_files[@]}" -gt 0 ] || return 0
    if [ "$TORCH_SOURCE" = cpu ]; then
        pip_install "${torch_files[@]}" --index-url "$TORCH_INDEX" && return 0
        say "PyTorch's CPU build could not be installed: trying the ordinary package registry."
    fi
    pip_install "${torch_files[@]}"
}
