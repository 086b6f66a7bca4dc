#!/usr/bin/env bash
# Real Grype, Syft, a registry for loopback (crane) and a builder of small vulnerability databases, for the tests.
#
#   ./tests/real_tools.sh          installs with Go what is missing; prints the folder that holds the four programs
#   ./tests/real_tools.sh --have   installs nothing; exit code 1 if something is missing
#
# Needs Go. The first time takes minutes, then nothing: the programs stay in $WORKSHOP_TOOLS, or, without it, in
# ~/.cache/ml-pipeline-security/bin, in a folder named after their versions. Only tests need them: whoever takes
# the workshop gets Grype and Syft from Anchore.
set -euo pipefail

GRYPE=v0.121.2 SYFT=v1.57.1 CRANE=v0.22.1
REGISTRY=github.com/google/go-containerregistry # crane is its command
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
TOOLS=${WORKSHOP_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/ml-pipeline-security/bin}/grype-$GRYPE-syft-$SYFT-crane-$CRANE
export GOFLAGS=-mod=mod CGO_ENABLED=0

builder_sum() { cksum <"$HERE/grype_db/main.go"; }

have_all() {
    local name
    for name in grype syft crane grype-db-build; do [ -x "$TOOLS/$name" ] || return 1; done
    [ "$(builder_sum)" = "$(cat "$TOOLS/grype-db-build.cksum" 2>/dev/null)" ]
}

build_all() { # our builder has Grype as its library; built aside, so that a run that is stopped leaves nothing half-made
    local anchore=github.com/anchore work
    echo "Building Grype $GRYPE, Syft $SYFT, crane $CRANE and grype-db-build with Go." >&2
    rm -rf "$TOOLS"/.work.* # of a run that was stopped; nobody else is here (see alone)
    work=$(mktemp -d "$TOOLS/.work.XXXXXX")
    cp "$HERE/grype_db/main.go" "$work/"
    # one module, so that what they share is compiled once (a library may be newer than in the release of one of them);
    # no names for debuggers, and nothing is inlined but in Go's own library, both of which only cost time here; one
    # compiler per core, which collects its garbage when it has a gigabyte; a version, as releases report it
    (
        cd "$work"
        go mod init grype-db-build
        go get "$anchore/grype@$GRYPE" "$anchore/syft@$SYFT" "$REGISTRY@$CRANE"
        mkdir bin
        export GOMAXPROCS=1 GOGC=off GOMEMLIMIT=1GiB
        go build -p "$(getconf _NPROCESSORS_ONLN)" -trimpath \
            -gcflags="all=-dwarf=false -l" -gcflags=std=-dwarf=false -ldflags="-s -w" \
            -ldflags="$anchore/grype/cmd/grype=-s -w -X main.version=${GRYPE#v}" \
            -ldflags="$anchore/syft/cmd/syft=-s -w -X main.version=${SYFT#v}" \
            -o bin/ . "$anchore/grype/cmd/grype" "$anchore/syft/cmd/syft" "$REGISTRY/cmd/crane"
    ) >&2
    mv "$work"/bin/* "$TOOLS/" && rm -rf "$work"
    builder_sum >"$TOOLS/grype-db-build.cksum"
}

alone() { # two of us at a time would build everything twice; a lock whose owner is gone counts for nothing
    until mkdir "$TOOLS/.lock" 2>/dev/null; do
        kill -0 "$(cat "$TOOLS/.lock/pid" 2>/dev/null || echo 0)" 2>/dev/null || rm -rf "$TOOLS/.lock"
        sleep 1
    done
    echo $$ >"$TOOLS/.lock/pid"
    trap 'rm -rf "$TOOLS/.lock"' EXIT
}

main() {
    if ! have_all; then
        [ "${1:-}" != --have ] || exit 1
        command -v go >/dev/null 2>&1 || { echo "error: Go is missing: install it from https://go.dev/dl/ first." >&2; exit 2; }
        mkdir -p "$TOOLS"
        alone
        build_all
    fi
    printf '%s\n' "$TOOLS"
}

main "$@"
