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

probe_python() { # probe_python NAME: prints its version, or why it will not do (then 1)
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
        PYTHON_VERSION=$(probe_python "$name") && PYTHON=$name && return 0
    done
    return 1
}

explain_pythons() { # one line: what is on PATH and why none of it will do
    local name found=""
    for name in ${WORKSHOP_PYTHON:-$PYTHON_NAMES}; do
        command -v "$name" >/dev/null 2>&1 || continue
        found="$found${found:+; }$name $(probe_python "$name")"
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

# What .venv consists of: `packages` (small, locked), `torch` (large) and `dev` (the test tools).
requirements_of() { # requirements_of PART: the files, one a line
    local file
    case $1 in
        packages) for file in "$ROOT"/demo-*/requirements.txt; do say "$file"; done ;;
        torch) for file in "$ROOT"/demo-*/requirements-torch.txt; do say "$file"; done ;;
        dev) say "$ROOT/requirements-dev.txt" ;;
    esac
}

# .venv carries marks of ours: workshop-installing while pip works, so that an interrupted installation
# is seen and started over, and installed-PART with the checksum of what the part was made from.
wanted() { # wanted PART: the checksum of its requirements
    local file
    requirements_of "$1" | while IFS= read -r file; do cat "$file"; done | cksum
}

venv_has() { # venv_has PART...
    local part
    [ ! -f "$VENV/workshop-installing" ] || return 1
    for part in "$@"; do
        [ "$(cat "$VENV/workshop-installed-$part" 2>/dev/null)" = "$(wanted "$part")" ] || return 1
    done
    "$VENV/bin/python" -c '' >/dev/null 2>&1
}

clear_unfinished_venv() { # remove a .venv that is broken or half made, but never one that is not ours
    [ -e "$VENV" ] || return 0
    if [ -f "$VENV/workshop-installing" ]; then
        say "An earlier installation did not finish: .venv is made again."
    elif ! ls "$VENV"/workshop-installed-* >/dev/null 2>&1; then
        fail "$VENV was not made by workshop.sh: move it away, then run this again."
    elif "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
        return 0
    else
        say ".venv no longer works (its Python is gone): it is made again."
    fi
    rm -rf "$VENV"
}

make_venv() { # make_venv PART...: make .venv, or bring it up to date
    local part
    clear_unfinished_venv || return 1
    mkdir -p "$VENV" && touch "$VENV/workshop-installing" || return 1
    [ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV" || return 1
    for part in "$@"; do
        "install_$part" && wanted "$part" >"$VENV/workshop-installed-$part" || return 1
    done
    rm "$VENV/workshop-installing"
}

pip_install() { # WORKSHOP_UV=uv takes uv instead, several times as fast; pip's own settings mean nothing to uv
    local bar=on
    if [ -n "${WORKSHOP_UV:-}" ] && [ "$TORCH_SOURCE" != kit ]; then
        logged "$WORKSHOP_UV" pip install --python "$VENV/bin/python" "$@" && return 0
        say "$WORKSHOP_UV could not install them: pip tries."
    fi
    [ -t 1 ] && [ -z "${NO_COLOR:-}" ] || bar=off
    logged "$VENV/bin/python" -m pip install --disable-pip-version-check --progress-bar "$bar" "$@"
}

install_packages() { install_locked packages; }

install_dev() { install_locked dev; }

install_locked() { # install_locked PART: nothing but the files whose hashes the lock names
    local file
    requirements_of "$1" | while IFS= read -r file; do
        pip_install --no-deps --require-hashes -r "$file" </dev/null || return 1
    done
}

install_torch() {
    local file files=()
    while IFS= read -r file; do files+=(-r "$file"); done < <(requirements_of torch)
    if [ "$TORCH_SOURCE" = cpu ]; then
        pip_install ${files[@]+"${files[@]}"} --index-url "$TORCH_INDEX" && return 0
        say "PyTorch's CPU build could not be installed: trying the ordinary package registry."
    fi
    pip_install ${files[@]+"${files[@]}"}
}
