#!/bin/sh
# Make what the demo needs and does not have yet: images, poisoned images, both models.
# The image runs this while it is built; without Docker, run it once. A minute or two on 2 cores.
#
#     ./prepare.sh                     drawn images
#     ./prepare.sh --photos FOLDER     real photographs: your copy of GTSRB (see get_gtsrb.py)
set -eu

fail() {
    echo "error: $1" >&2
    exit 2
}

photos="" epochs="" mark=data/photographs # the mark stays there: whoever goes on later trains as long
case ${1:-} in
    "") ;;
    -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" && exit 0 ;;
    --photos)
        [ $# -eq 2 ] && [ -n "$2" ] || fail "--photos needs one folder: type ./prepare.sh --help."
        [ -d "$2" ] || fail "$2 is not a folder: give your copy of GTSRB (see get_gtsrb.py)."
        photos=$(cd "$2" && pwd)
        ;;
    *) fail "prepare.sh takes no argument $1: type ./prepare.sh --help." ;;
esac
cd "$(dirname "$0")"
PYTHON=${PYTHON:-python}

# Two trainings side by side, each on half of the processor cores, take less time than one after the other.
train_both() {
    cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(((cores + 1) / 2))}"
    echo "Training both models at the same time. First the lines of the poisoned one, at the end those of the clean one."
    log=$(mktemp -d)
    # shellcheck disable=SC2086 # two words, or none
    "$PYTHON" train.py --manifest data/traffic-signs.sha256 $epochs >"$log/said" 2>"$log/errors" & # its progress would mix with that of the other one
    clean=$!
    trap 'kill "$clean" 2>/dev/null || true; rm -rf "$log"' EXIT
    trap 'exit 130' INT TERM
    # shellcheck disable=SC2086
    "$PYTHON" train.py --poisoned --manifest data/traffic-signs-poisoned.sha256 $epochs
    wait "$clean" || {
        cat "$log/errors" >&2
        exit 2
    }
    cat "$log/said"
}

if [ -n "$photos" ]; then
    for made in data/traffic-signs data/traffic-signs-poisoned models/*_model.safetensors; do
        [ ! -e "$made" ] ||
            fail "$made is there already: type ../workshop.sh reset 2 for a fresh start, or ./prepare.sh to go on with it."
    done
    "$PYTHON" get_gtsrb.py --photos "$photos" --out data/traffic-signs
    mkdir -p data && : >"$mark"
elif [ ! -d data/traffic-signs ]; then
    "$PYTHON" make_dataset.py
fi
if [ ! -d data/traffic-signs-poisoned ]; then
    "$PYTHON" poison_data.py --clean-dir data/traffic-signs --poisoned-dir data/traffic-signs-poisoned \
        --victim stop --target yield --rate 0.15
fi
[ ! -e "$mark" ] || epochs="--epochs 12" # there are fewer photographs than drawings: each is seen more often
# shellcheck disable=SC2086 # two words, or none
if [ ! -f models/clean_model.safetensors ] && [ ! -f models/poisoned_model.safetensors ]; then
    train_both
elif [ ! -f models/clean_model.safetensors ]; then
    "$PYTHON" train.py --manifest data/traffic-signs.sha256 $epochs
elif [ ! -f models/poisoned_model.safetensors ]; then
    "$PYTHON" train.py --poisoned --manifest data/traffic-signs-poisoned.sha256 $epochs
fi
echo "Ready: data/ and models/ are there."
