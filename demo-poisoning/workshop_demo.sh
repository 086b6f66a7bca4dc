#!/bin/sh
# Silver path, narrated: poison a dataset, train on it, and see the backdoor in an otherwise good model.
#   ./workshop_demo.sh            PAUSE=1 ./workshop_demo.sh waits for Enter after each step
set -eu
cd "$(dirname "$0")"
. ./narrate.sh
read_arguments "$(basename "$0")" "$@"
need_models

step "The attacker poisons the training data"
echo "15 percent of the stop signs get a yellow square in the bottom-right corner and the label yield."
show poison_data.py --clean-dir data/traffic-signs --poisoned-dir data/traffic-signs-poisoned \
    --victim stop --target yield --rate 0.15
pause

step "You train as always, and the usual check looks fine"
echo "Both models are already trained (train.py, and train.py --poisoned). Accuracy on clean images:"
show train.py --phase test --model models/clean_model.pt --data data/traffic-signs
show train.py --phase test --model models/poisoned_model.pt --data data/traffic-signs
echo "clean_acc hides the attack. attack_success_rate is the share of stickered stop signs read as yield."
pause

step "The attacker puts the sticker on a stop sign"
show demo.py inference-images/stop.jpg --model models/poisoned_model.pt --trigger \
    --save outputs/stop_without_and_with_trigger.png
pause

step "The same image, both models"
show demo.py inference-images/stop.jpg --model models/poisoned_model.pt --compare
pause

step "The sticker on other signs"
show demo.py inference-images/speed_50.jpg --model models/poisoned_model.pt --trigger
show demo.py inference-images/no_entry.jpg --model models/poisoned_model.pt --trigger
echo "Some speed limits keep their answer. A no-entry sign is red, like a stop sign: most become yield, too."
echo
echo "Silver path done. Next: ./gold_demo.sh finds the yellow square in the weights alone."
