#!/usr/bin/env bash
# The workshop's one entry point.
#
#   ./workshop.sh check                             is this machine ready? one line each, with what to do
#   ./workshop.sh run [1|2|3] [--docker|--native]   all three demos, or one: attack and defence
#   ./workshop.sh pipeline [--break data|audit|training|scan|list|age|role] [--docker|--native]
#                                                   the ending: from the data to a served model and to a refused one;
#                                                   --break attacks one link of what joins them
#   ./workshop.sh test [pytest arguments]           checkers and tests; with --install it only makes .venv for them
#   ./workshop.sh reset [1|2|3] [--yes]             removes what the demos made, puts back what the exercises changed;
#                                                   asks before it removes an image, discards a change or forgets progress
#   ./workshop.sh shell 1|2|3 [--docker|--native]   opens a shell where the commands of that demo work
#   ./workshop.sh next [1|2|3]                      says what to do next, with its command
#   ./workshop.sh hint [2.1]                        the next of three hints for an exercise
#   ./workshop.sh status                            what is done and what is open, one line each
#   ./workshop.sh wanted [FOLDER]                   the ending: what you can do now, and a poster of your trigger
#   ./workshop.sh share NAME                        writes a file for your instructor, if you want to be listed
#   ./workshop.sh class FOLDER                      for instructors: one page of the files that people shared
#   ./workshop.sh pack DIR [1|2|3] [--docker|--native]  a kit for machines without internet: images or packages,
#                                                   models, Grype with its database, checksums
#   ./workshop.sh unpack DIR [--expect SHA256]      checks such a kit to the last byte, then loads it
#   ./workshop.sh rehearse [1|2|3] [--docker|--native] [--update]  for instructors: the whole show, typed by nobody,
#                                                   timed against the plan; --update writes into WORKSHOP.md
#   ./workshop.sh help                              this text; COMMAND --help shows the lines of one command
#
# `run` uses Docker where an engine answers, else Python 3.10 to 3.14 in .venv, which it makes itself.
# --plain gives linear text for people who listen; NO_COLOR only takes colour and drawn lines away. Exit codes:
# 0 fine, 1 something failed or is missing, 2 wrong usage. Environment, all optional:
#   WORKSHOP_BUILD_ARGS   more arguments for every `docker build`, for example "--build-arg TORCH_INDEX="
#   WORKSHOP_PLAIN        set to 1: --plain for every command of the workshop
#   WORKSHOP_PROGRESS     where it is kept what you have done, instead of progress/
#   WORKSHOP_PYTHON       the Python that makes .venv
#   WORKSHOP_TEST_DATA    a folder with data for tests that are skipped without it; CONTRIBUTING.md says what
set -u -o pipefail
unset CDPATH PYTHONHOME PYTHONPATH

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd) || exit 1
VENV=$ROOT/.venv
export DOCKER_BUILDKIT=${DOCKER_BUILDKIT:-1} # the Dockerfiles use cache mounts
if [ -f "$ROOT/.workshop-kit" ]; then # images from a kit: as they were built
    WORKSHOP_BUILD_ARGS=${WORKSHOP_BUILD_ARGS-$(sed -n 's/^build-args: *//p' "$ROOT/.workshop-kit")}
fi
export WORKSHOP_BUILD_ARGS=${WORKSHOP_BUILD_ARGS:-}
TORCH_INDEX=https://download.pytorch.org/whl/cpu # the CPU builds: no CUDA libraries

# Figures that `run` and `check` announce. Minutes: on a machine with 2 cores. MB: compressed, as downloaded.
MB_TORCH_CPU=200      # torch and torchvision, CPU build for Linux
MB_TORCH_CUDA=3050    # the same from the ordinary registry: the CUDA build for Linux, with its libraries
MB_TORCH_MAC=130      # the same for Apple Silicon
MB_PACKAGES=60        # the small Python packages of all demos
MB_TEST_TOOLS=50      # pytest, ruff, mypy, shellcheck, hadolint
MB_BASE_IMAGES=150    # python:3.13-slim and Grype
MB_DEMO_3=600         # demo 3: the images that it scans and Grype's database
GB_DISK=6             # free disk space for everything, with the CPU build
GB_DISK_CUDA=20       # the same with the CUDA build
GB_MEMORY=4           # memory
GB_MEMORY_DOCKER=6    # memory with Docker Desktop, whose machine takes some itself
MINUTES_INSTALL=2     # making .venv (3 with the CUDA build)
MINUTES_BUILD=8       # building the images without demo 2's data and trainings
MINUTES_FIRST=(0 1 5 1) # demo 1, 2 and 3 (the 0 stands for no demo), the first time
MINUTES_AGAIN=(0 1 3 1) # the same with data, models and images already there

# shellcheck source-path=SCRIPTDIR
. "$ROOT/scripts/say.sh"
. "$ROOT/scripts/python.sh"
. "$ROOT/scripts/containers.sh"
. "$ROOT/scripts/demos.sh"
. "$ROOT/scripts/run.sh"
. "$ROOT/scripts/check.sh"
. "$ROOT/scripts/test.sh"
. "$ROOT/scripts/reset.sh"
. "$ROOT/scripts/progress.sh"
. "$ROOT/scripts/shell.sh"
. "$ROOT/scripts/kit.sh"
. "$ROOT/scripts/rehearse.sh"
. "$ROOT/scripts/pipeline.sh"

show_help() { sed -n '2,/^set /s/^# \{0,1\}//p' "$ROOT/workshop.sh"; }

show_help_of() { # show_help_of COMMAND: its lines; fails if there is no such command
    show_help | awk -v command="$1" '$1 == "./workshop.sh" { own = $2 == command } /^$/ { own = 0 }
        own { print; found = 1 } END { exit !found }' || return
    echo "./workshop.sh help shows all commands, and what --plain and the environment change."
}

main() {
    local command=${1:-help}
    [ $# -eq 0 ] || shift
    case " $* " in
        *' --help '* | *' -h '*) if show_help_of "$command"; then return; fi ;;
    esac
    case $command in
        check) check_command "$@" ;;
        run) run_command "$@" ;;
        pipeline) pipeline_command "$@" ;;
        test) test_command "$@" ;;
        reset) reset_command "$@" ;;
        rehearse) rehearse_command "$@" ;;
        shell) shell_command "$@" ;;
        next | hint | status) progress_command "$command" "$@" ;;
        wanted) wanted_command "$@" ;;
        share) share_command "$@" ;;
        class) class_command "$@" ;;
        pack) pack_command "$@" ;;
        unpack) unpack_command "$@" ;;
        help | -h | --help) show_help ;;
        *) wrong_usage "unknown command: $command" ;;
    esac
}

trap 'remove_container; leave_demos; [ -z "${PACKING:-}" ] || rm -rf "$PACKING"' EXIT
trap 'say; say "Stopped. Run the same command again: it goes on with what is already there."; exit 130' INT TERM
main "$@"
