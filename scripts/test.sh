# shellcheck shell=bash
# ./workshop.sh test: every checker, then the tests. One failure does not stop the others.

test_command() {
    [ "${1:-}" != --plain ] || { use_plain_text && shift; }
    prepare_tests || fail "the test tools could not be installed; the output above says why."
    [ "${1:-}" != --install ] || { say "$VENV is ready." && return; }
    export PATH=$VENV/bin:$PATH
    cd "$ROOT" || return 1
    step "ruff: mistakes" 0 ruff check .
    step "ruff: layout" 0 ruff format --check .
    step "mypy: types" 0 check_types
    step "shellcheck: shell scripts" 0 check_scripts
    step "hadolint: Dockerfiles" 0 check_dockerfiles
    # two tests at a time, one thread each: threads that wait for each other on busy cores lose most of their time
    export OMP_NUM_THREADS=1
    step "pytest" 0 python -m pytest --numprocesses 2 --dist loadscope --no-loadscope-reorder "$@"
    heading "Summary"
    list_steps
    say
    finish "test"
}

prepare_tests() {
    venv_has packages torch dev && return 0
    find_python || fail "no Python 3.10 to 3.14 that works was found: install one. Found: $(explain_pythons)"
    say "Installing the packages of the demos and of the tests in $VENV, with Python $PYTHON_VERSION ($PYTHON)."
    if ! venv_has torch; then
        find_torch_source
        describe_torch_source
        say "Download: at most about $(($(torch_megabytes) + MB_PACKAGES + MB_TEST_TOOLS)) MB."
    fi
    make_venv packages torch dev
}

check_types() { # each demo folder stands alone: what it imports, also from its own folders, is found from inside it
    local folder failed=0
    for folder in demo-* benchmarks docs scripts tests; do
        [ -n "$(find "$folder" -name '*.py' 2>/dev/null)" ] || continue
        say "$folder"
        # one cache for all: PyTorch's own types are read once, which is most of the work
        (cd "$folder" && mypy --config-file ../pyproject.toml --cache-dir ../.mypy_cache .) || failed=1
    done
    return "$failed"
}

check_scripts() { # the parts in scripts/ are checked where workshop.sh reads them
    local script scripts=(workshop.sh scripts/checker.sh scripts/refresh_pins.sh scripts/release.sh scripts/bashrc scripts/bin/workshop)
    for script in .ci/run $(find demo-* class .devcontainer -name '*.sh' 2>/dev/null | LC_ALL=C sort); do
        [ ! -f "$script" ] || scripts+=("$script")
    done
    shellcheck --external-sources --check-sourced --source-path=SCRIPTDIR "${scripts[@]}"
}

check_dockerfiles() { hadolint demo-*/Dockerfile demo-*/*/*.Dockerfile; }
