#!/usr/bin/env bash
# One of the checkers of ./workshop.sh test, for the hooks of pre-commit:
#   scripts/checker.sh check_types | check_scripts | check_dockerfiles
set -u -o pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
. scripts/say.sh
. scripts/test.sh
case ${1:-} in
    check_types | check_scripts | check_dockerfiles) ;;
    *) say "error: scripts/checker.sh takes check_types, check_scripts or check_dockerfiles." >&2 && exit 2 ;;
esac
PATH=$PWD/.venv/bin:$PATH "$1"
