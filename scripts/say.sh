# shellcheck shell=bash
# Words for people: lines, headings, errors, and the record of the steps that a command took.

STEP_LINES=()   # one line per step, for the summary
FAILED_STEPS=() # the names of the steps that failed
STEP_CODE=0     # how the last step ended

say() { printf '%s\n' "$*"; }

heading() { # set off by an empty line; bold only on a terminal
    if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
        printf '\n\033[1m== %s ==\033[0m\n' "$*"
    else
        printf '\n== %s ==\n' "$*"
    fi
}

fail() { # fail SENTENCE: this machine or a step is at fault
    printf 'error: %s\n' "$*" >&2
    exit 1
}

wrong_usage() { # wrong_usage SENTENCE: the caller is at fault
    printf 'error: %s; ./workshop.sh help shows what there is.\n' "$*" >&2
    exit 2
}

use_plain_text() { # every script and Python tool of the workshop follows these
    export NO_COLOR=1 WORKSHOP_PLAIN=1
}

logged() { # logged COMMAND...: an installer; in plain text its output goes to a log, and the end of it is said if it fails
    local log=$ROOT/results/install.log code=0 ticker
    if [ -z "${WORKSHOP_PLAIN:-}" ]; then
        "$@"
        return
    fi
    mkdir -p "$ROOT/results" && printf '\n$ %s\n' "$*" >>"$log" || return
    [ -n "${LOG_NAMED:-}" ] || say "This takes a while. What it says goes to $log."
    LOG_NAMED=1 # once is enough to hear it
    say_that_it_goes_on &
    ticker=$!
    "$@" >>"$log" 2>&1 || code=$?
    kill "$ticker" 2>/dev/null
    wait "$ticker" 2>/dev/null
    [ "$code" -eq 0 ] || { say "It failed. The last lines of $log:" && tail -n 10 "$log"; } >&2
    return "$code"
}

say_that_it_goes_on() { # every 30 seconds, until we are gone
    local seconds=0
    while kill -0 $$ 2>/dev/null; do
        sleep 1 >/dev/null
        seconds=$((seconds + 1))
        [ $((seconds % 30)) -ne 0 ] || say "Still at work, for $seconds seconds."
    done
}

ask() { # ask QUESTION: 0 for yes; without a terminal nobody can answer, so no
    local answer
    if [ ! -t 0 ]; then
        say "$1 Not asked, because there is no terminal: kept. --yes answers yes."
        return 1
    fi
    printf '%s [y/N] ' "$1"
    read -r answer || return 1
    case $answer in y | Y | yes | Yes | YES) return 0 ;; *) return 1 ;; esac
}

step() { # step NAME GOOD_CODES COMMAND...: run it, time it, note how it ended ("0 1": both are fine)
    local name=$1 good=$2 started=$SECONDS seconds
    shift 2
    heading "$name"
    "$@" </dev/null
    STEP_CODE=$?
    seconds=$((SECONDS - started))
    case " $good " in
        *" $STEP_CODE "*) note_step "$seconds s: $name" ;;
        *)
            FAILED_STEPS+=("$name")
            note_step "FAILED with exit code $STEP_CODE after $seconds s: $name"
            say "FAILED: $name (exit code $STEP_CODE)"
            return 1
            ;;
    esac
}

note_step() { STEP_LINES+=("$1"); }

list_steps() {
    local line
    for line in ${STEP_LINES[@]+"${STEP_LINES[@]}"}; do say "- $line"; done
}

within() { # within SECONDS COMMAND...: run it without output; 124 if it takes longer
    local end=$((SECONDS + $1 + 1)) pid
    shift
    "$@" >/dev/null 2>&1 </dev/null &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        if [ "$SECONDS" -ge "$end" ]; then
            kill "$pid" 2>/dev/null
            wait "$pid" 2>/dev/null
            return 124
        fi
        sleep 0.02
    done
    wait "$pid"
}
