# shellcheck shell=bash
# ./workshop.sh pipeline: the three demos joined. From the data to a served model, to a refusal for the poisoned
# one, and what happens when one link of the chain of evidence is broken.

ATTACKS="data audit training scan list age role" # those of demo-supply-chain/break_link.py
MEET=../results/pipeline                         # where the demos meet, seen from the folder of each
VOLUME=workshop-pipeline                         # the same, on the way with Docker
MODELS="clean poisoned"
PIPELINE_CONTAINERS=(- "" "" "") # of demo 1, 2 and 3
VOLUME_MADE=no
SERVER=""                        # the process of the model server

# Python, because an image may have no other tools
COPY='import pathlib, shutil, sys
place = pathlib.Path(sys.argv[1])
place.mkdir(parents=True, exist_ok=True)
for name in sys.argv[2:]: shutil.copy(name, place)'
FITS='import hashlib, json, pathlib, sys
result, field, file = sys.argv[1:]
try: found = json.loads(pathlib.Path(result).read_bytes()).get(field)
except (OSError, ValueError): sys.exit(1)
sys.exit(found != hashlib.sha256(pathlib.Path(file).read_bytes()).hexdigest())'

pipeline_command() {
    local asked="" attack=""
    while [ $# -gt 0 ]; do
        case $1 in
            --break)
                attack=${2:-}
                case " $ATTACKS " in
                    *" ${attack:-none} "*) shift ;;
                    *) wrong_usage "--break takes one of ${ATTACKS// /, }" ;;
                esac
                ;;
            --docker | --native)
                [ -z "$asked" ] || [ "$asked" = "${1#--}" ] || wrong_usage "choose one of --docker and --native"
                asked=${1#--}
                ;;
            --plain) use_plain_text ;;
            *) wrong_usage "pipeline does not know $1" ;;
        esac
        shift
    done
    choose_way "$asked"
    [ "$WAY" = docker ] || need_models
    [ -n "$attack" ] || attack=$(choose_attack)
    if enter_demos && gather_results; then
        local started=$SECONDS
        if pipeline_steps "$attack"; then
            note shown pipeline
            say
            say "From the data to the server in $((SECONDS - started)) s."
        fi
    fi
    leave_demos
    heading "Summary"
    list_steps
    say
    finish pipeline
}

need_models() {
    local name
    for name in $MODELS; do
        [ -f "$ROOT/demo-poisoning/models/${name}_model.safetensors" ] ||
            fail "there is no demo-poisoning/models/${name}_model.safetensors yet: ./workshop.sh run 2 makes it, in minutes."
    done
}

choose_attack() { # asks, where somebody is there to answer; prints the answer
    local answer
    [ -t 0 ] && [ -t 2 ] || return 0
    printf 'Which link shall break at the end? One of %s; Enter for none: ' "${ATTACKS// /, }" >&2
    read -r answer || return 0
    case " $ATTACKS " in *" ${answer:-none} "*) say "$answer" ;; esac
}

# --- the demos: folders, or containers that share a volume ---

enter_demos() {
    rm -rf "$ROOT/results/pipeline"
    if [ "$WAY" = native ]; then
        prepare_python "1 2 3"
        return
    fi
    local demo HARDENED="$HARDENED --volume $VOLUME:/results"
    for demo in 1 2 3; do
        step "Build the image ${DEMO_IMAGES[demo]}" 0 build_image "${DEMO_IMAGES[demo]}" "${DEMO_FOLDERS[demo]}" || return
    done
    docker volume rm "$VOLUME" >/dev/null 2>&1
    VOLUME_MADE=yes
    step "Make a volume that the three containers share" 0 make_volume || return
    for demo in 1 2 3; do
        start_container "${DEMO_IMAGES[demo]}" || fail "a container of ${DEMO_IMAGES[demo]} could not be started."
        PIPELINE_CONTAINERS[demo]=$CONTAINER
        CONTAINER=""
    done
}

make_volume() { # its folder belongs to root, and the containers work as another user
    docker run --rm --network none --user 0 --volume "$VOLUME:/results" --entrypoint python "${DEMO_IMAGES[3]}" \
        -c 'import os; os.mkdir("/results/pipeline"); os.chmod("/results/pipeline", 0o777)'
}

leave_demos() { # also when it was stopped
    local demo
    [ -z "$SERVER" ] || kill "$SERVER" 2>/dev/null
    SERVER=""
    for demo in 1 2 3; do
        [ -z "${PIPELINE_CONTAINERS[demo]}" ] || docker rm --force --volumes "${PIPELINE_CONTAINERS[demo]}" >/dev/null 2>&1
        PIPELINE_CONTAINERS[demo]=""
    done
    [ "$VOLUME_MADE" = no ] || docker volume rm "$VOLUME" >/dev/null 2>&1
    VOLUME_MADE=no
}

in_demo() { # in_demo NUMBER COMMAND...: as typed in its folder, or in its container
    local demo=$1 code CONTAINER=${PIPELINE_CONTAINERS[$1]}
    shift
    type_command "${DEMO_FOLDERS[demo]}" "$@"
    code=$?
    return "$code"
}

quietly() { in_demo "$@" >/dev/null 2>&1; }

# --- what is there already: models, and what scan and audit found ---

gather_results() {
    local name
    step "What demo 2 has made: data, models, an image" 0 hand_over || return
    for name in $MODELS; do
        have_result "$name" scan_results sha256 "$MEET/${name}_model.safetensors" scan.json ||
            step "Scan the $name model: there is no scan of this file yet" "0 1" \
                make_result "$name" scan_results scan.json detect.py --model "models/${name}_model.safetensors" || return
        have_result "$name" audit_results manifest_sha256 "$MEET/$(data_of "$name").sha256" suspects.json ||
            step "Audit the data of the $name model: there is no audit of them yet" "0 1" \
                make_result "$name" audit_results suspects.json audit_data.py "data/$(data_of "$name")" --top 3 \
                --manifest "data/$(data_of "$name").sha256" --model "models/${name}_model.safetensors" || return
    done
}

data_of() { # data_of clean|poisoned
    case $1 in clean) say traffic-signs ;; *) say traffic-signs-poisoned ;; esac
}

hand_over() {
    in_demo 2 python -c 'from pathlib import Path; from dataset import manifest; manifest.write(Path("data/traffic-signs-poisoned"))' >/dev/null &&
        quietly 2 python -c "$COPY" "$MEET" models/clean_model.safetensors models/poisoned_model.safetensors \
            data/traffic-signs.sha256 data/traffic-signs-poisoned.sha256 inference-images/stop.jpg &&
        quietly 1 python -c "$COPY" "$MEET" evidence.toml || return
    say "In results/pipeline: both models as SafeTensors, the manifests of their data, an image, and the server's rules."
}

have_result() { # have_result NAME FOLDER FIELD FILE RESULT: is there one of this very file? Then it is handed over.
    local place=$2/pipeline-$1 outside
    [ "$2" = audit_results ] || place=$2/$1
    if [ "$WAY" = docker ]; then # kept outside: the container is new
        outside=$ROOT/results/docker/demo-poisoning/$place
        [ -f "$outside/$5" ] && quietly 2 python -c 'import os, sys; os.makedirs(sys.argv[1], exist_ok=True)' "$place" &&
            docker cp "$outside/$5" "${PIPELINE_CONTAINERS[2]}:/app/$place/$5" >/dev/null 2>&1 || return
    fi
    quietly 2 python -c "$FITS" "$place/$5" "$3" "$4" &&
        quietly 2 python -c "$COPY" "$MEET/$2/$1" "$place/$5"
}

make_result() { # make_result NAME FOLDER RESULT COMMAND...: make it and hand it over
    local name=$1 place=$2/pipeline-$1 folder=$2 result=$3 code
    [ "$folder" = audit_results ] || place=$folder/$name
    shift 3
    in_demo 2 python "$@" --output "$place"
    code=$?
    [ "$code" -le 1 ] && quietly 2 python -c "$COPY" "$MEET/$folder/$name" "$place/$result" || return 2
    if [ "$WAY" = docker ]; then
        mkdir -p "$ROOT/results/docker/demo-poisoning/$place" &&
            docker cp "${PIPELINE_CONTAINERS[2]}:/app/$place/$result" "$ROOT/results/docker/demo-poisoning/$place/" >/dev/null || return 2
    fi
    return "$code"
}

# --- the five minutes ---

pipeline_steps() { # pipeline_steps ATTACK: which link to break at the end, or nothing
    step "Keys: one for each role, so that nobody can speak for another" 0 make_keys &&
        step "Data: the data team signs both manifests, because nobody looked inside" 0 sign_data &&
        step "Audit: the auditor signs what was found in both" 0 sign_audits &&
        step "Training: the trainer says which data each model came from" 0 sign_training &&
        step "Scan: the scanner signs what it found in each model" 0 sign_scans &&
        step "List: the release team lists, signs and allows both models, as every other check lets them pass" 0 release &&
        step "The clean model: every link holds" 0 in_demo 3 python verify_chain.py "$MEET/clean_model.safetensors" \
            --keys "$MEET/keys" --evidence "$MEET/evidence" &&
        step "The clean model: the server loads it, and it answers" 0 serve_clean &&
        step "The poisoned model: signed, allowed, no code in it, and refused" 1 ask_server poisoned || return
    if [ -z "$1" ]; then
        say
        say "Now break a link yourself: ./workshop.sh pipeline --break scan. There are ${ATTACKS// /, }."
        return
    fi
    step "Break one link: $1" 0 in_demo 3 python break_link.py "$1" "$MEET/clean_model.safetensors" \
        --keys "$MEET/keys" --evidence "$MEET/evidence" &&
        step "Who notices? The chain names the link" 1 in_demo 3 python verify_chain.py "$MEET/clean_model.safetensors" \
            --keys "$MEET/keys" --evidence "$MEET/evidence" &&
        step "And the server refuses the clean model, with the same reason" 1 ask_server clean
}

make_keys() { in_demo 3 python attest.py keys "$MEET/keys"; }

attest() { # attest ARGUMENTS...: a signed statement
    in_demo 3 python attest.py "$@" --keys "$MEET/keys" --evidence "$MEET/evidence"
}

sign_data() {
    local name
    for name in $MODELS; do attest data "$MEET/$(data_of "$name").sha256" || return; done
}

sign_audits() {
    local name
    for name in $MODELS; do
        attest audit "$MEET/$(data_of "$name").sha256" --result "$MEET/audit_results/$name/suspects.json" || return
    done
}

sign_training() {
    local name
    for name in $MODELS; do
        attest training "$MEET/${name}_model.safetensors" --manifest "$MEET/$(data_of "$name").sha256" || return
    done
}

sign_scans() {
    local name
    for name in $MODELS; do
        attest scan "$MEET/${name}_model.safetensors" --result "$MEET/scan_results/$name/scan.json" || return
    done
}

release() {
    local name
    in_demo 3 python make_mlbom.py "$MEET/clean_model.safetensors" "$MEET/poisoned_model.safetensors" \
        --card cards/traffic-signs.json --evidence "$MEET/evidence" --keys "$MEET/keys" --output "$MEET/mlbom.cdx.json" &&
        attest list "$MEET/mlbom.cdx.json" || return
    for name in $MODELS; do
        in_demo 1 python sign_model.py sign "$MEET/${name}_model.safetensors" --key "$MEET/keys/release.key" &&
            in_demo 1 python policy.py allow "$MEET/${name}_model.safetensors" --policy "$MEET/evidence.toml" || return
    done
}

ask_server() { # ask_server clean|poisoned: it starts only if its policy allows the model
    in_demo 1 python serve.py --models "$MEET" --model "$1_model.safetensors" --policy "$MEET/evidence.toml" --port 0
}

serve_clean() { # start the server, ask it, and stop it
    local said url code
    said=$(mktemp) || return
    ask_server_in_background clean >"$said" 2>&1 &
    SERVER=$!
    while ! grep -q '^Ready' "$said" && kill -0 "$SERVER" 2>/dev/null; do sleep 0.1; done
    cat "$said"
    url=$(sed -n 's/^Listening on //p' "$said")
    rm -f "$said"
    [ -n "$url" ] || return 2
    in_demo 1 python client.py predict "$MEET/stop.jpg" --url "$url"
    code=$?
    kill "$SERVER" 2>/dev/null
    wait "$SERVER" 2>/dev/null
    SERVER=""
    return "$code"
}

ask_server_in_background() { # replaces this process by the server, or by docker's, so that it can be stopped
    local line="python serve.py --models $MEET --model $1_model.safetensors --policy $MEET/evidence.toml --port 0"
    say "\$ $line"
    # shellcheck disable=SC2086 # a list of words
    if [ "$WAY" = docker ]; then
        exec docker exec --env NO_COLOR=1 "${PIPELINE_CONTAINERS[1]}" $line
    fi
    cd "$ROOT/${DEMO_FOLDERS[1]}" || return 2
    export NO_COLOR=1 PATH=$VENV/bin:$PATH
    # shellcheck disable=SC2086 # a list of words
    exec $line
}
