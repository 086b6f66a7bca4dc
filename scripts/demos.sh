# shellcheck shell=bash
# What each demo's silver path (attack) and gold path (defence) type, natively and in containers.

SHOWN=()           # what was shown, in words, for the summary
DEMO_2_RESULTS=""  # the folder that holds what demo 2 shows
RESULT_LINES=()    # one line for each image and page in it, for the summary

type_command() { # type_command FOLDER COMMAND...: in the demo's folder, or in the container that runs
    local folder=$1
    shift
    say "\$ $*"
    if [ -n "$CONTAINER" ]; then
        type_in_container "$@"
    else
        (cd "$ROOT/$folder" && PATH=$VENV/bin:$PATH PYTHON=python "$@")
    fi
}

enter_image() { # enter_image IMAGE FOLDER: on the way with Docker, build it and start its container
    [ "$WAY" = docker ] || return 0
    step "Build the image $1" 0 build_image "$1" "$2" &&
        step "Start a container without network and rights" 0 start_container "$1"
}

run_demo_1() {
    local folder=demo-malicious
    enter_image pickle-demo "$folder" || return
    step "Demo 1, attack: write a model file with a payload" 0 \
        type_command "$folder" python create_malicious_model.py || return
    step "Demo 1, attack: load it, and the payload runs" 0 \
        type_command "$folder" python create_malicious_model.py attack || return
    SHOWN+=("Demo 1, attack: a model file ran a program of its author's when it was loaded without weights_only. The payload only writes $MARKER.")
    step "Demo 1, defence: read the file without loading it" 1 \
        type_command "$folder" python inspect_model.py malicious_model.pt || return
    step "Demo 1, defence: convert a model to SafeTensors" 0 \
        type_command "$folder" python safe_demo.py || return
    step "Demo 1, defence: load it safely" 0 \
        type_command "$folder" python safe_demo.py load || return
    step "Demo 1, defence: a converter that does not run what it converts" 1 \
        type_command "$folder" python safe_demo.py convert malicious_model.pt || return
    step "Demo 1, defence: write another variant" 0 \
        type_command "$folder" python create_malicious_model.py --variant collect-env || return
    step "Demo 1, defence: scanners disagree" 1 \
        type_command "$folder" python inspect_model.py malicious_model.pt malicious_collect_env.pt safe_model.pt || return
    SHOWN+=("Demo 1, defence: the inspection named the payload without running it, scanners disagreed about it, and a model went from a pickle to SafeTensors with the same outputs.")
    if [ -n "$CONTAINER" ] || [ ! -f "$ROOT/$folder/signer.key" ]; then
        step "Demo 1, defence: make keys" 0 type_command "$folder" python sign_model.py keygen || return
    fi
    step "Demo 1, defence: sign a model" 0 \
        type_command "$folder" python sign_model.py sign safe_model.safetensors || return
    step "Demo 1, defence: change one bit in a copy" 0 \
        type_command "$folder" python sign_model.py tamper safe_model.safetensors || return
    step "Demo 1, defence: the signature notices it" 1 \
        type_command "$folder" python sign_model.py verify safe_model_tampered.safetensors || return
    step "Demo 1, defence: allow the good model by its digest" 0 \
        type_command "$folder" python policy.py allow safe_model.safetensors || return
    step "Demo 1, defence: the policy lets it in" 0 \
        type_command "$folder" python policy.py check safe_model.safetensors || return
    step "Demo 1, defence: a server refuses the malicious file" 1 \
        type_command "$folder" python serve.py --model malicious_model.pt || return
    SHOWN+=("Demo 1, defence: a signature noticed one changed bit, and a policy let the signed model in and kept the malicious file out of the server.")
    if [ "$WAY" = docker ]; then
        step "Demo 1, defence: run the payload in a sandbox" 1 \
            "$ROOT/$folder/run_sandboxed.sh" --demo || return
        SHOWN+=("Demo 1, defence: in a sandbox the payload ran and reached nothing.")
    fi
}

run_demo_2() {
    local folder=demo-poisoning
    DEMO_2_RESULTS=$ROOT/$folder
    if [ "$WAY" = docker ]; then
        DEMO_2_RESULTS=$ROOT/results/docker/$folder
        enter_image poisoning-demo "$folder" || return
    else
        step "Demo 2: make the images of traffic signs, poison them, train two models" 0 \
            type_command "$folder" ./prepare.sh || return
    fi
    step "Demo 2, attack: the backdoor at work" 0 type_command "$folder" ./workshop_demo.sh || return
    SHOWN+=("Demo 2, attack: a model trained on poisoned images classifies stop signs correctly, and calls them yield as soon as a yellow square is on them.")
    step "Demo 2, defence: find the backdoor" 0 type_command "$folder" ./gold_demo.sh || return
    SHOWN+=("Demo 2, defence: the scan found a backdoor in the poisoned model and none in the clean one, and drew the trigger that it recovered.")
    if [ "$WAY" = docker ]; then
        rm -rf "$DEMO_2_RESULTS"
        step "Demo 2: copy the results out of the container" 0 \
            copy_from_container scan_results outputs report.html || return
    fi
    step "Demo 2: images and report are there" 0 list_results
}

list_results() {
    local model image report=$DEMO_2_RESULTS/report.html
    for model in poisoned clean; do
        image=$DEMO_2_RESULTS/scan_results/$model/trigger_0_to_1.png
        is_there "$image" || return
        RESULT_LINES+=("$image: what the scan recovered for stop → yield in the $model model")
    done
    RESULT_LINES+=("$DEMO_2_RESULTS/outputs: the signs as the models saw them, with and without the trigger")
    is_there "$report" || return
    RESULT_LINES+=("$report: both models and both scans on one page; open it in a browser")
}

is_there() { # is_there FILE: names it, or says what is missing
    [ -s "$1" ] || { say "error: $1 was not made." >&2; return 1; }
    say "$1"
}

run_demo_3() {
    local folder=demo-supply-chain good=0 compared="" offline=no
    if [ "$WAY" = docker ]; then
        step "Build the image grype-demo" "0 1" build_image grype-demo "$folder" || return
        if [ "$STEP_CODE" -ne 0 ]; then # no network, most likely: what can be shown without it is shown
            IMAGE_LINES+=("image grype-demo: not built, its output above says why")
            ! find_python || prepare_python 3
            good="0 2"
        fi
    fi
    step "Demo 3, the risk: scan three base images for known vulnerabilities" "0 2" \
        type_command "$folder" ./scan.sh || return
    if [ "$STEP_CODE" -ne 0 ] && [ -n "$(package_lists)" ]; then # an earlier scan's, or a kit's
        step "Demo 3, the risk: scan the package lists that are here, without network" "0 2" \
            type_command "$folder" ./scan.sh --offline || return
        [ "$STEP_CODE" -ne 0 ] || offline=yes
    fi
    if [ "$offline" = yes ]; then
        SHOWN+=("Demo 3, the risk: no registry was reached, so the package lists of an earlier scan or of a kit were scanned just now, with the database that is here.")
    elif [ "$STEP_CODE" -eq 0 ]; then
        SHOWN+=("Demo 3, the risk: three base images, scanned just now for known vulnerabilities and compared in one table.")
        compared="before and after hardening compared, "
    else
        SHOWN+=("Demo 3, the risk: NO live scan, because Grype, Docker or the network is missing here. The recorded summary was shown instead, with its date and source.")
    fi
    step "Demo 3, defence: harden, list the models, notice a changed one" "$good" \
        type_command "$folder" ./gold_demo.sh || return
    if [ "$STEP_CODE" -eq 0 ]; then
        SHOWN+=("Demo 3, defence: ${compared}a bill of materials that lists the models, and a changed model file noticed.")
    else
        SHOWN+=("Demo 3, defence: NOT shown, because neither its image nor its Python packages could be had here.")
    fi
}
