# shellcheck shell=bash
# ./workshop.sh reset: back to a fresh clone. Removes what the demos made, puts back what the exercises changed,
# and touches nothing else that git tracks.

# what each demo makes, as patterns from the repository's root
MADE_BY_1="demo-malicious/*.pt demo-malicious/*.safetensors demo-malicious/*.joblib demo-malicious/*.sig demo-malicious/signer.* demo-malicious/allowed.sha256"
MADE_BY_2="demo-poisoning/data demo-poisoning/models demo-poisoning/scan_results demo-poisoning/audit_results demo-poisoning/outputs demo-poisoning/report.html demo-poisoning/exercise3.txt demo-poisoning/keys demo-poisoning/evidence results/docker/demo-poisoning"
MADE_BY_3="demo-supply-chain/exercise1.txt demo-supply-chain/exercise2.openvex.json demo-supply-chain/exercise3 demo-supply-chain/exercise4 demo-supply-chain/exercise4_broken demo-supply-chain/hardened/mine.Dockerfile demo-supply-chain/results results/pipeline"

# the files that the exercises of each demo change, mostly with `sed -i.bak`, which keeps the original as FILE.bak
CHANGED_BY_1="demo-malicious/exercise3.toml"
CHANGED_BY_2="demo-poisoning/trigger.py"

MARKER=/tmp/pwned_by_pickle.txt # what demo 1's payload writes

reset_command() {
    local demo="" yes=no argument
    for argument in "$@"; do
        case $argument in
            [123]) demo=$argument ;;
            --yes) yes=yes ;;
            --plain) use_plain_text ;;
            *) wrong_usage "reset does not know $argument" ;;
        esac
    done
    case $demo in
        1) reset_demo_1 "$yes" ;;
        2) reset_demo_2 "$yes" ;;
        3) reset_demo_3 "$yes" ;;
        *) reset_demo_1 "$yes" && reset_demo_2 "$yes" && reset_demo_3 "$yes" && reset_shared "$yes" ;;
    esac
}

reset_demo_1() {
    remove_made "$MADE_BY_1"
    restore_originals demo-malicious "$CHANGED_BY_1" "$1"
    rm -f "$MARKER"
    remove_work 1 "$1"
    remove_image pickle-demo "$1"
    forget 1 "$1"
    say "Demo 1 is reset."
}

reset_demo_2() {
    remove_made "$MADE_BY_2"
    restore_originals demo-poisoning "$CHANGED_BY_2" "$1"
    remove_work 2 "$1"
    remove_image poisoning-demo "$1"
    forget 2 "$1"
    say "Demo 2 is reset."
}

reset_demo_3() {
    remove_made "$MADE_BY_3"
    local image
    for image in conventional-app hardened-app your-app; do remove_image "$image" "$1"; done
    remove_work 3 "$1"
    remove_image grype-demo "$1" && docker volume rm grype-demo-db >/dev/null 2>&1 # Grype's database
    forget 3 "$1"
    say "Demo 3 is reset."
}

reset_shared() { # what belongs to no single demo
    local cache
    forget pipeline "$1"
    for cache in .pytest_cache .mypy_cache .ruff_cache .venv-site site projector; do rm -rf "${ROOT:?}/$cache"; done
    rm -f "$KIT_NOTE"
    rm -f "$ROOT/results/install.log" "$ROOT/results/rehearsal.md" "$ROOT"/results/transcript-[123].txt
    rmdir "$ROOT/results/docker" "$ROOT/results" 2>/dev/null
    [ -d "$VENV" ] || return 0
    if [ "$1" = yes ] || ask "Remove .venv, the Python packages ($(du -sm "$VENV" | cut -f1) MB)?"; then
        rm -rf "$VENV" && say "Removed .venv."
    fi
    return 0
}

remove_made() { # remove_made PATTERNS
    local path
    for path in $(cd "$ROOT" && expand "$1"); do
        if [ -n "$(git -C "$ROOT" ls-files -- "$path" 2>/dev/null)" ]; then
            git -C "$ROOT" clean -fdxq -- "$path" # leaves the tracked files in it alone
        else
            rm -rf "${ROOT:?}/$path"
        fi
        say "Removed $path."
    done
}

restore_originals() { # restore_originals FOLDER FILES YES: these, and every other file that has a copy FILE.bak
    local copy file names=$2
    for copy in $(cd "$ROOT" && expand "$1/*.bak"); do
        file=${copy%.bak}
        case " $names " in *" $file "*) ;; *) names="$names $file" ;; esac
    done
    for file in $names; do
        restore_original "$file" "$3" && [ -e "$ROOT/$file.bak" ] || continue
        rm -f "${ROOT:?}/$file.bak"
        say "Removed $file.bak."
    done
}

restore_original() { # restore_original FILE YES: 1 if a person's change to it is kept
    is_changed "$1" || return 0
    if [ -e "$ROOT/$1" ] && [ "$2" != yes ]; then
        ask "Discard the change to $1 and put the original back?" || return 1
    fi
    if is_tracked "$1"; then
        git -C "$ROOT" checkout --quiet HEAD -- "$1" || return 1
        say "Put back $1, as git has it."
    else
        mv "$ROOT/$1.bak" "$ROOT/$1" || return 1
        say "Put back $1, from $1.bak."
    fi
}

is_changed() { # is_changed FILE: it is not what git has at HEAD; without git, not what FILE.bak holds
    if is_tracked "$1"; then
        ! git -C "$ROOT" diff --quiet HEAD -- "$1"
    else
        [ -e "$ROOT/$1.bak" ] && ! cmp -s "$ROOT/$1" "$ROOT/$1.bak"
    fi
}

is_tracked() { git -C "$ROOT" cat-file -e "HEAD:./$1" 2>/dev/null; }

expand() { # expand PATTERNS: those that exist, one a line (their names have no spaces)
    local path
    for path in $1; do [ ! -e "$path" ] || say "$path"; done
}

remove_image() { # remove_image IMAGE YES: 0 if it was removed
    engine_answers && docker image inspect "$1" >/dev/null 2>&1 || return 1
    [ "$2" = yes ] || ask "Remove the image $1 ($(image_size "$1"))?" || return 1
    docker image rm --force "$1" >/dev/null && say "Removed the image $1."
}
