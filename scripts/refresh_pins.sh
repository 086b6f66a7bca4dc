#!/usr/bin/env bash
# Pin the base images of our Dockerfiles by digest: NAME:TAG becomes NAME:TAG@sha256:..., the newest of that tag.
#
#   scripts/refresh_pins.sh [DOCKERFILE...]            asks the registries and rewrites the ARG ..._IMAGE= lines
#   scripts/refresh_pins.sh --check [DOCKERFILE...]    asks nobody, and names what is not pinned
#
# Without a DOCKERFILE: all but the conventional one of demo 3, whose moving tag is the point. Needs crane, or
# Docker with buildx. Exit codes: 0 fine, 1 --check found something, 2 error; then no file was changed.
# The repository has tags and no digests yet: it was written where no registry could be reached, and a digest
# that nobody looked up would be made up. So --check is not part of the tests. The release pins before it builds.
set -u -o pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2

fail() { printf 'error: %s\n' "$*" >&2; exit 2; }

digest_of() { # digest_of NAME:TAG
    local said
    if command -v crane >/dev/null 2>&1; then
        said=$(crane digest "$1") || return
    else
        said=$(docker buildx imagetools inspect "$1" --format '{{.Manifest.Digest}}') || return
    fi
    case $said in sha256:*) printf '%s\n' "$said" ;; *) return 1 ;; esac
}

bases_in() { # bases_in DOCKERFILE: NAME:TAG[@DIGEST] of each ARG ..._IMAGE=, one a line
    sed -n 's/^ARG [A-Z_]*_IMAGE=\(..*\)$/\1/p' "$1" | LC_ALL=C sort -u
}

check() { # check DOCKERFILE...
    local file base code=0
    for file in "$@"; do
        while IFS= read -r base; do
            case $base in *@sha256:*) ;; *) printf '%s: %s is not pinned\n' "$file" "$base" && code=1 ;; esac
        done < <(bases_in "$file")
    done
    [ "$code" -ne 0 ] || printf 'Every base image is pinned by digest.\n'
    return "$code"
}

refresh() { # refresh DOCKERFILE...: looks everything up before it changes anything
    local file base name digest edits=""
    for file in "$@"; do
        while IFS= read -r base; do
            name=${base%@*}
            case $edits in *"|=$name|="*) continue ;; esac
            digest=$(digest_of "$name") || fail "the digest of $name could not be looked up: the line above says why; nothing was changed."
            printf '%s is %s\n' "$name" "$digest"
            edits="$edits
s|=$name\\(@sha256:[0-9a-f]*\\)\\{0,1\\}\$|=$name@$digest|"
        done < <(bases_in "$file")
    done
    for file in "$@"; do
        if ! { sed "$edits" "$file" >"$file.new" && cat "$file.new" >"$file"; }; then fail "$file cannot be written."; fi
        rm "$file.new"
    done
}

main() {
    local act=refresh file
    case ${1:-} in
        --check) act=check && shift ;;
        --help | -h) sed -n '2,11s/^# \{0,1\}//p' scripts/refresh_pins.sh && exit 0 ;;
        -*) fail "$1 is not known: scripts/refresh_pins.sh --help shows what is." ;;
    esac
    [ $# -gt 0 ] || set -- demo-*/Dockerfile demo-supply-chain/hardened/hardened.Dockerfile
    for file in "$@"; do
        [ -f "$file" ] || fail "$file is not a file: name a Dockerfile."
    done
    "$act" "$@"
}

main "$@"
