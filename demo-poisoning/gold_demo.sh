#!/bin/sh
# Gold path, narrated: Neural Cleanse finds the backdoor in the weights alone, without knowing the trigger.
#   ./gold_demo.sh                PAUSE=1 ./gold_demo.sh waits for Enter after each step
set -eu
cd "$(dirname "$0")"
. ./narrate.sh
read_arguments "$(basename "$0")" "$@"
need_models
STEP=5 # the silver path has the first five

say_where() { # say_where FILE: its whole path, and how to get it out of a container
    echo "Report: $(pwd)/$1"
    if [ -f /.dockerenv ] && [ -n "${HOSTNAME:-}" ]; then # Docker names a container's host after the container
        echo "To open it, type this in a second terminal on your machine, while this container is there:"
        echo "docker cp $HOSTNAME:$(pwd)/$1 ."
    fi
}

step "Scan the clean model"
echo "The scanner gets the weights and some clean images per class. It never sees the trigger."
echo "It reads the SafeTensors file, because that is the one that a server loads: what is scanned is what is served."
show detect.py --model models/clean_model.safetensors --data data/traffic-signs --output scan_results/clean \
    --draw stop:yield || {
    echo "error: the scan of the clean model did not end with 0 (nothing found)." >&2
    exit 2
}
pause

step "Scan the poisoned model"
code=0
show detect.py --model models/poisoned_model.safetensors --data data/traffic-signs --output scan_results/poisoned ||
    code=$?
if [ "$code" -ne 1 ]; then
    echo "error: the scan of the poisoned model ended with $code, expected 1 (backdoor found)." >&2
    exit 2
fi
echo "Exit code 1 means: a backdoor was found. A build pipeline can stop here."
pause

step "Another file format does not help"
echo "SafeTensors stops code in a file. The backdoor is in the numbers, and the numbers are the same:"
show demo.py inference-images/stop.jpg --model models/poisoned_model.safetensors --trigger
pause

step "Watch the model at work"
echo "A scan asks the weights, once. The monitor asks each image: does the answer hang on one small patch?"
show monitor.py --measure --model models/poisoned_model.safetensors --output outputs/monitor.json
pause

step "Put everything on one page"
echo "Both models, both scans, what that proves, what it does not, and what to do next:"
show report.py --clean scan_results/clean --poisoned scan_results/poisoned --monitor outputs/monitor.json \
    --output report.html
echo
echo "Gold path done. The recovered triggers are in scan_results/clean and scan_results/poisoned."
say_where report.html
