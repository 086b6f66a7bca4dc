#!/usr/bin/env bash
# Kyverno's command, for the test of demo 3's rules for a cluster.
#
#   ./tests/real_kyverno.sh          builds it with Go if it is missing; prints where it is
#   ./tests/real_kyverno.sh --have   builds nothing; exit code 1 if it is missing
#
# The build takes minutes and about 8 GB of disk for Go's caches, so the tests do not start it. The program stays
# beside those of real_tools.sh.
set -euo pipefail

VERSION=v1.19.1
FORK=github.com/kyverno/pod-security-admission@v0.0.0-20251031094455-46f20778634f # as Kyverno's go.mod has it
PACKAGE=github.com/kyverno/kyverno/cmd/cli/kubectl-kyverno
TOOLS=${WORKSHOP_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/ml-pipeline-security/bin}
PROGRAM=$TOOLS/kyverno-$VERSION
export GOFLAGS=-mod=mod CGO_ENABLED=0

if [ ! -x "$PROGRAM" ]; then
    [ "${1:-}" != --have ] || exit 1
    command -v go >/dev/null 2>&1 || { echo "error: Go is missing: install it from https://go.dev/dl/ first." >&2; exit 2; }
    mkdir -p "$TOOLS"
    work=$(mktemp -d "$TOOLS/.work.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    # `go install` refuses a module that replaces another one, so it is built from a module of our own
    (cd "$work" && go mod init kyverno-command && go mod edit -replace "k8s.io/pod-security-admission=$FORK" &&
        go get "$PACKAGE@$VERSION" && go build -trimpath -ldflags "-s -w" -o kyverno "$PACKAGE") >&2
    mv "$work/kyverno" "$PROGRAM"
fi
printf '%s\n' "$PROGRAM"
