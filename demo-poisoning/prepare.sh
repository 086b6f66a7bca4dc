#!/bin/sh
# Make what the demo needs and does not have yet: pictures, poisoned pictures, both models.
# The image runs this while it is built; without Docker, run it once. About 4 minutes on 2 cores.
set -eu
cd "$(dirname "$0")"
case ${1:-} in
    "") ;;
    -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' prepare.sh && exit 0 ;;
    *) echo "error: prepare.sh takes no argument $1: type ./prepare.sh --help." >&2 && exit 2 ;;
esac
PYTHON=${PYTHON:-python}

if [ ! -d data/traffic-signs ]; then
    "$PYTHON" make_dataset.py
fi
if [ ! -d data/traffic-signs-poisoned ]; then
    "$PYTHON" poison_data.py --clean-dir data/traffic-signs --poisoned-dir data/traffic-signs-poisoned \
        --victim stop --target yield --rate 0.15
fi
if [ ! -f models/clean_model.safetensors ]; then
    "$PYTHON" train.py
fi
if [ ! -f models/poisoned_model.safetensors ]; then
    "$PYTHON" train.py --poisoned
fi
echo "Ready: data/ and models/ are there."
