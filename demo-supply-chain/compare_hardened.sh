#!/usr/bin/env bash
# Build one small model server twice, as tutorials pack it and hardened, and compare the two in one table.
#
#   ./compare_hardened.sh            builds, starts, asks and scans both: size, packages, findings, start-up
#   ./compare_hardened.sh hardened/mine.Dockerfile   compares with a Dockerfile of yours instead of the hardened one
#   ./compare_hardened.sh --explain  says each difference between the two Dockerfiles in words, and builds nothing
#   ./compare_hardened.sh --plain    linear text, as in a pipe
#
# Needs Docker, and for the scan what ./scan.sh needs. Both apps run without network. The hardened one also gets
# --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges. Exit codes: 0 fine, 2 error.
# Environment: WORKSHOP_BUILD_ARGS is added to each `docker build`; all that scan.sh reads.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=/dev/null
. "$HERE/container.sh"

BEFORE=conventional-app AFTER=hardened-app
SIDE=hardened FILE=hardened/hardened.Dockerfile  # what the conventional one is compared with
STARTS=3  # the table has the middle one
RESULTS=$HERE/results/hardened
APP=''    # the container that runs now
FAILED='' # what could not be done, in words

fail() { say "error: $1"; exit 2; }

show() {  # COMMAND...: says a command, then runs it
    printf '$ %s\n' "$*"
    "$@"
}

# --- the differences in words: the numbered comments of both Dockerfiles ---

numbered() {  # FILE NUMBER comment|lines: the comment with that number, or the instructions under it
    awk -v number="$2" -v want="$3" '
        /^# [0-9]+\. / { here = ($2 == number "."); if (here && want == "comment") { sub(/^# [0-9]+\. /, ""); print } next }
        /^#/ || /^$/ { next }
        here && want == "lines" { print "    " $0 }
    ' "$1"
}

explain() {
    local number side
    for number in 1 2 3 4 5 6; do
        printf '\nDifference %s of 6\n' "$number"
        for side in conventional hardened; do
            printf '%s: %s\n' "$side" "$(numbered "$HERE/hardened/$side.Dockerfile" "$number" comment)"
            numbered "$HERE/hardened/$side.Dockerfile" "$number" lines
        done
    done
    printf '\nAnd when they run: here both without network. The hardened one also gets:\n    %s\n' "${HARDENED[*]}"
}

# --- measure ---

build() {  # DOCKERFILE IMAGE
    # shellcheck disable=SC2086  # several arguments in one variable, split on purpose
    DOCKER_BUILDKIT=${DOCKER_BUILDKIT:-1} show docker build -q -f "$1" -t "$2" ${WORKSHOP_BUILD_ARGS:-} hardened ||
        fail "$1 could not be built: the lines above say why (is there internet?)."
}

stop_app() { [ -z "$APP" ] || docker rm -f "$APP" >/dev/null 2>&1 || true; APP=''; }

flags_of() {  # IMAGE: how it is run; one flag a line
    printf '%s\n' --network none
    [ "$1" != "$AFTER" ] || printf '%s\n' ${HARDENED[@]+"${HARDENED[@]}"}
}

milliseconds() {  # of the clock; where `date` has none smaller than seconds, from Docker's own record
    date +%s%N | awk '/^[0-9]+$/ { printf "%.0f\n", $1 / 1000000; next } { print substr($0, 1, 10) "000" }'
}

start_app() {  # IMAGE: starts it, and sets TOOK to the milliseconds until it says that it is ready
    local started flag flags=(--detach) tries=0
    while IFS= read -r flag; do flags+=("$flag"); done < <(flags_of "$1")
    started=$(milliseconds)
    APP=$(docker run "${flags[@]}" "$1") || fail "$1 does not start: the line above says why."
    until docker logs "$APP" 2>/dev/null | grep '^Ready' >/dev/null; do
        tries=$((tries + 1))
        [ "$tries" -lt 1200 ] || fail "$1 was not ready after a minute: \`docker run $1\` shows what it says."
        sleep 0.05
    done
    TOOK=$(($(milliseconds) - started))
}

measure() {  # IMAGE: sets ANSWER, MILLISECONDS, SHELL_INSIDE, RUNS_AS and SIZE
    local times='' number
    for number in $(seq "$STARTS"); do
        stop_app
        start_app "$1"
        times="$times$TOOK
"
    done
    MILLISECONDS=$(printf '%s' "$times" | sort -n | sed -n "$(((STARTS + 1) / 2))p")
    printf '$ docker exec %s python app.py ask\n' "$1"
    ANSWER=$(docker exec "$APP" python app.py ask) || fail "$1 does not answer."
    printf '%s\n' "$ANSWER"
    if docker exec "$APP" /bin/sh -c true >/dev/null 2>&1; then SHELL_INSIDE=yes; else SHELL_INSIDE=no; fi
    RUNS_AS=$(docker exec "$APP" python -c 'import os; print("root" if os.getuid() == 0 else "user %d" % os.getuid())')
    SIZE=$(docker image inspect --format '{{.Size}}' "$1" | awk '{ printf "%.0f", $1 / 1000000 }')
    stop_app
}

scan() {  # scans both; fills $TABLE with the plain rows
    local code=0
    printf '$ ./scan.sh docker:%s:latest docker:%s:latest --results results/hardened\n' "$BEFORE" "$AFTER"
    # one line per image: --plain would break long lines for people who listen
    WORKSHOP_PLAIN='' "$HERE/scan.sh" "docker:$BEFORE:latest" "docker:$AFTER:latest" --results "$RESULTS" >"$TABLE" || code=$?
    sed 's/^/    /' "$TABLE"
    [ "$code" -eq 0 ] || FAILED="the scan: the error above says why"
}

figure() {  # NUMBER COLUMN: from the row of the first or second image; "not scanned" where there is none
    grep '^- image: ' "$TABLE" | sed -n "$1p" | awk -F '; ' -v name="$2: " '
        { for (i = 1; i <= NF; i++) if (index($i, name) == 1) { print substr($i, length(name) + 1); found = 1; exit } }
        END { if (!found) print "not scanned" }'
}

change() {  # BEFORE AFTER: by how much it went down
    awk -v a="$1" -v b="$2" 'BEGIN {
        if (a !~ /^[0-9]/ || b !~ /^[0-9]/) exit
        if (a + 0 == 0) exit
        percent = (b - a) / a * 100
        printf "%.0f %% %s", (percent < 0 ? -percent : percent), (percent > 0 ? "more" : "less")
    }'
}

line() {  # WHAT BEFORE AFTER [DIFFERENCE]
    if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
        printf '%-26s  %-24s  %-24s  %s\n' "$1" "$2" "$3" "${4:-}"
    else
        printf -- '- %s: conventional %s; %s %s%s\n' "$1" "$2" "$SIDE" "$3" "${4:+; $4}"
    fi
}

packages_of() { figure "$1" packages | sed 's/ (.*//'; }

print_table() {
    local name
    printf '\nThe same app, before and after\n'
    if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then line '' conventional "$SIDE" difference; fi
    line size "$SIZE_1 MB" "$SIZE MB" "$(change "$SIZE_1" "$SIZE")"
    line packages "$(packages_of 1)" "$(packages_of 2)" "$(change "$(packages_of 1)" "$(packages_of 2)")"
    for name in all Critical High fixable 'known exploited'; do
        line "findings: $name" "$(figure 1 "$name")" "$(figure 2 "$name")" "$(change "$(figure 1 "$name")" "$(figure 2 "$name")")"
    done
    line 'start to ready' "$TOOK_1 ms" "$MILLISECONDS ms" "$(change "$TOOK_1" "$MILLISECONDS")"
    line 'runs as' "$RUNS_AS_1" "$RUNS_AS"
    line 'shell inside' "$SHELL_1" "$SHELL_INSIDE"
    line answer "$ANSWER_1" "$ANSWER"
    printf 'Start to ready is the middle one of %s starts. The findings count each vulnerability once; their database: %s.\n' \
        "$STARTS" "$(figure 1 database)"
}

main() {
    local argument
    for argument in "$@"; do
        case $argument in
            --plain) export NO_COLOR=1 ;;
            --explain) explain; return ;;
            --help | -h) sed -n '2,12s/^# \{0,1\}//p' "$0"; return ;;
            -*) fail "$argument is not known: ./compare_hardened.sh --help shows what is." ;;
            *)
                [ -f "$argument" ] || fail "$argument does not exist: name a Dockerfile, like hardened/mine.Dockerfile."
                FILE=$(cd "$(dirname "$argument")" && pwd)/$(basename "$argument") SIDE=yours AFTER=your-app ;;
        esac
    done
    has_docker || fail "No Docker engine answers: start Docker. ./compare_hardened.sh --explain works without."
    cd "$HERE"
    TABLE=$(mktemp)
    trap 'stop_app; rm -f "$TABLE"' EXIT
    trap 'exit 130' INT TERM
    build hardened/conventional.Dockerfile "$BEFORE"
    build "$FILE" "$AFTER"
    measure "$BEFORE"
    ANSWER_1=$ANSWER TOOK_1=$MILLISECONDS SHELL_1=$SHELL_INSIDE RUNS_AS_1=$RUNS_AS SIZE_1=$SIZE
    measure "$AFTER"
    [ "$ANSWER" = "$ANSWER_1" ] || FAILED="the comparison: the two apps answer differently"
    scan
    print_table
    [ -z "$FAILED" ] || fail "Not all of it worked: $FAILED."
}

main "$@"
