# shellcheck shell=bash
# ./workshop.sh pack and unpack: a folder with all that the demos need where there is no internet.
#
# MANIFEST says what the kit is and holds the SHA-256, the size and the path of every file in it:
#   images/IMAGE.tar          Docker's images (the way with Docker), or
#   python/*.whl              the Python packages, and demo-2.tar, its data and models (the way without)
#   grype/database.tar.gz     Grype's vulnerability database; grype/grype, the program (the way without Docker)
#   sboms/                    the package lists of the images that demo 3 compares, and what was found in them
# unpack looks at everything before it loads anything.

KIT_FORMAT="workshop-kit 1"
KIT_NOTE=$ROOT/.workshop-kit # what unpack leaves: how the kit's images were built
KIT=""                       # the folder
PACKING=""                   # the unfinished kit; removed if packing stops

refuse() { # refuse SENTENCE: the kit is at fault
    printf 'error: %s\n' "$*" >&2
    exit 2
}

image_of() { # image_of DEMO; SCAN_IMAGE is what scan.sh calls its image, too
    case $1 in 1) say pickle-demo ;; 2) say poisoning-demo ;; 3) say "${SCAN_IMAGE:-grype-demo}" ;; esac
}

folder_of() { # folder_of DEMO
    case $1 in 1) say demo-malicious ;; 2) say demo-poisoning ;; 3) say demo-supply-chain ;; esac
}

sha256_of() { # sha256_of FILE
    if command -v sha256sum >/dev/null 2>&1; then sha256sum <"$1"; else shasum -a 256 <"$1"; fi | cut -d ' ' -f 1
}

bytes_of() { wc -c <"$1" | tr -d ' '; }

megabytes() { say "$((($1 + 999999) / 1000000)) MB"; }

free_bytes() { # free_bytes FOLDER
    df -Pk "$1" | awk 'NR == 2 {printf "%.0f\n", $4 * 1024}'
}

platform_of() { # platform_of WAY: what a kit fits to
    case $1 in
        docker) docker version --format '{{.Server.Os}}/{{.Server.Arch}}' 2>/dev/null ;;
        *) say "$(uname -s) $(uname -m)" ;;
    esac
}

grype_here() { # grype_here WAY ARGUMENT...: Grype of this machine, or that in the image, on its volume
    local way=$1
    shift
    if [ "$way" = docker ]; then
        docker run --rm --network "${GRYPE_NETWORK:-none}" --volume "$(image_of 3)-db:/db" --entrypoint grype "$(image_of 3)" "$@"
    else
        PATH=$VENV/bin:$PATH grype "$@"
    fi
}

database_date() { # database_date WAY: when the database here was built; nothing if there is none
    grype_here "$1" db status --output json 2>/dev/null |
        sed -n 's/.*"built": *"\([^"]*\)".*/\1/p' | head -n 1
}

days_since() { # days_since 2026-11-26T...: 0 if it cannot be told
    local then
    then=$(date -u -d "$1" +%s 2>/dev/null || date -u -j -f %Y-%m-%dT%H:%M:%SZ "$1" +%s 2>/dev/null) || then=""
    if [ -n "$then" ]; then say "$((($(date -u +%s) - then) / 86400))"; else say 0; fi
}

read_kit_arguments() { # read_kit_arguments COMMAND ARGUMENT...: sets KIT, DEMOS, ASKED and EXPECTED
    local command=$1
    shift
    DEMOS="" ASKED="" EXPECTED=""
    while [ $# -gt 0 ]; do
        case $command-$1 in
            pack-[123]) DEMOS="$DEMOS $1" ;;
            pack---docker | pack---native) ASKED=${1#--} ;;
            unpack---expect)
                EXPECTED=${2:-}
                [ -n "$EXPECTED" ] || wrong_usage "--expect takes the SHA-256 of the kit's MANIFEST"
                shift
                ;;
            *---plain) use_plain_text ;;
            *--*) wrong_usage "$command does not know $1" ;;
            *)
                [ -z "$KIT" ] || wrong_usage "$command takes one folder"
                KIT=${1%/}
                ;;
        esac
        shift
    done
    [ -n "$KIT" ] || wrong_usage "$command needs a folder: ./workshop.sh $command DIR"
    DEMOS=${DEMOS:- 1 2 3}
}

# --- pack ---

pack_command() {
    local demo
    read_kit_arguments pack "$@"
    [ ! -e "$KIT" ] || refuse "$KIT is there already: name a new folder for the kit."
    choose_way "$ASKED"
    PACKING=$KIT.unfinished
    rm -rf "$PACKING"
    mkdir -p "$PACKING" 2>/dev/null || refuse "$KIT cannot be made: choose a folder that you may write to."
    PACKING=$(cd "$PACKING" && pwd)
    case $WAY in docker) step "Images" 0 pack_images ;; *) step "Python packages, data and models" 0 pack_python ;; esac || fail_pack
    case $DEMOS in *3*) step "Grype, its database, and package lists" 0 pack_grype || fail_pack ;; esac
    step "Checksums of everything" 0 write_manifest || fail_pack
    mv "$PACKING" "$KIT" || fail_pack
    PACKING=""
    say
    say "The kit is in $KIT: $(megabytes "$(kit_bytes "$KIT")"), for $(platform_of "$WAY")."
    say "SHA-256 of its MANIFEST: $(sha256_of "$KIT/MANIFEST")"
    say "Tell people this number by another way than the kit: then ./workshop.sh unpack DIR --expect NUMBER tells them that it is yours."
}

fail_pack() { fail "the kit was not packed: the output above says why."; }

kit_bytes() { # kit_bytes FOLDER: of the files listed in its MANIFEST
    listed "$1/MANIFEST" | awk '{total += $2} END {printf "%.0f\n", total}'
}

need_space() { # need_space BYTES FOLDER WHAT
    local free
    free=$(free_bytes "$2") || return 0
    [ -n "$free" ] && [ "$free" -lt "$1" ] || return 0
    refuse "$3 needs about $(megabytes "$1"), and $2 has $(megabytes "$free") free: free some space or choose another place."
}

pack_images() {
    local demo image total=0
    for demo in $DEMOS; do
        image=$(image_of "$demo")
        build_image "$image" "$(folder_of "$demo")" || return
        total=$((total + $(image_field "$image" '{{.Size}}')))
    done
    need_space "$total" "$PACKING" "The kit"
    mkdir -p "$PACKING/images"
    for demo in $DEMOS; do
        image=$(image_of "$demo")
        say "Saving $image, $(image_size "$image")."
        docker save --output "$PACKING/images/$image.tar" "$image" || return
    done
}

pack_python() {
    local file parts
    parts=$(parts_for "$DEMOS")
    # shellcheck disable=SC2086 # a list of words
    venv_has $parts || make_venv $parts || return
    need_space 1000000000 "$PACKING" "The kit"
    mkdir -p "$PACKING/python"
    while IFS= read -r file; do
        download --no-deps --require-hashes -r "$file" || return
    done < <(requirements_of packages)
    case $parts in *torch*) download_torch || return ;; esac
    case $DEMOS in *2*) pack_demo_2 ;; esac
}

download() { # download PIP-ARGUMENT...
    "$VENV/bin/python" -m pip download --disable-pip-version-check --progress-bar off --only-binary :all: \
        --dest "$PACKING/python" "$@" </dev/null
}

download_torch() {
    local file files=()
    find_torch_source
    describe_torch_source
    while IFS= read -r file; do files+=(-r "$file"); done < <(requirements_of torch)
    [ "$TORCH_SOURCE" != cpu ] || files+=(--index-url "$TORCH_INDEX")
    download ${files[@]+"${files[@]}"}
}

pack_demo_2() {
    local folder=$ROOT/demo-poisoning
    if [ ! -d "$folder/models" ] || [ ! -d "$folder/data" ]; then
        say "error: demo 2 has no models here yet: ./workshop.sh run 2 --native makes them." >&2
        return 1
    fi
    tar -C "$folder" -cf "$PACKING/demo-2.tar" data models
}

pack_grype() {
    local list
    mkdir -p "$PACKING/grype" "$PACKING/sboms"
    if [ -z "$(package_lists)" ]; then
        say "No scan is here yet, so the images are scanned now: that also fetches Grype's database."
        type_command demo-supply-chain ./scan.sh || say "WARNING: not all of it worked: the lines above say what is missing."
    fi
    package_lists | while IFS= read -r list; do cp "$list" "$PACKING/sboms/" || exit; done || return
    [ -n "$(package_lists)" ] || say "WARNING: the kit has no package lists: demo 3 can then only show recorded scans."
    pack_database || say "WARNING: the kit has no Grype database: demo 3 can then only show recorded scans."
    if [ "$WAY" = native ] && PATH=$VENV/bin:$PATH command -v grype >/dev/null 2>&1; then
        cp "$(PATH=$VENV/bin:$PATH command -v grype)" "$PACKING/grype/grype"
    fi
    rmdir "$PACKING/grype" "$PACKING/sboms" 2>/dev/null
    return 0
}

package_lists() { # the SBOMs that ./scan.sh has left, one a line
    local list
    for list in "$ROOT"/demo-supply-chain/results/*.syft.json "$ROOT"/demo-supply-chain/results/*.cdx.json; do
        case $list in *'*'* | */mlbom.cdx.json) ;; *) say "$list" ;; esac
    done
}

pack_database() {
    local place
    [ -n "$(database_date "$WAY")" ] || GRYPE_NETWORK=bridge grype_here "$WAY" db update || return
    say "Packing Grype's database, built $(database_date "$WAY")."
    if [ "$WAY" = docker ]; then
        docker run --rm --network none --volume "$(image_of 3)-db:/db" --entrypoint python "$(image_of 3)" -c \
            'import sys, tarfile; tarfile.open(fileobj=sys.stdout.buffer, mode="w|gz").add("/db/6/vulnerability.db", "vulnerability.db")' \
            >"$PACKING/grype/database.tar.gz"
    else
        place=$(grype_here "$WAY" db status --output json 2>/dev/null | sed -n 's/.*"path": *"\([^"]*\)".*/\1/p' | head -n 1)
        tar -C "${place%/*}" -czf "$PACKING/grype/database.tar.gz" "${place##*/}"
    fi || { rm -f "$PACKING/grype/database.tar.gz"; return 1; }
}

write_manifest() {
    local file demo
    (
        cd "$PACKING" || exit
        say "$KIT_FORMAT"
        say "made: $(date -u +%Y-%m-%dT%H:%M:%SZ)"
        say "way: $WAY"
        say "platform: $(platform_of "$WAY")"
        say "demos:$DEMOS"
        [ "$WAY" != native ] || say "python: $("$VENV/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
        [ "$WAY" != docker ] || say "build-args: $WORKSHOP_BUILD_ARGS"
        for demo in $DEMOS; do say "sources-$demo: $(kit_sources "$demo")"; done
        [ ! -f grype/database.tar.gz ] || say "database: $(database_date "$WAY")"
        say
        find . -type f ! -name MANIFEST | LC_ALL=C sort | while IFS= read -r file; do
            say "$(sha256_of "$file") $(bytes_of "$file") ${file#./}"
        done
    ) >"$PACKING/MANIFEST"
}

kit_sources() { # kit_sources DEMO: what its part of the kit was made from
    if [ "$WAY" = docker ]; then
        source_checksum "$(folder_of "$1")"
    else
        case $1 in 3) wanted packages ;; *) say "$(wanted packages) $(wanted torch)" ;; esac | tr -s ' ' -
    fi
}

# --- unpack ---

unpack_command() {
    read_kit_arguments unpack "$@"
    local named=$KIT
    KIT=$(cd "$named" 2>/dev/null && pwd) || refuse "$named is not a folder that can be opened: name the kit's folder."
    check_manifest
    check_fit
    check_names
    check_room
    check_content
    say "The kit is whole: $(listed "$KIT/MANIFEST" | wc -l | tr -d ' ') files, packed $(kit_field made)."
    say "SHA-256 of its MANIFEST: $(sha256_of "$KIT/MANIFEST"). It says who packed it only if they told you the same number."
    case $WAY in docker) step "Load the images" 0 load_images ;; *) step "Install the Python packages, data and models" 0 load_python ;; esac ||
        fail "the kit was not unpacked: the output above says why."
    case $DEMOS in *3*) step "Grype's database and the package lists" 0 load_grype || fail "demo 3 is not complete: the output above says why." ;; esac
    say
    say "Ready, without internet: ./workshop.sh run --$WAY$(case $DEMOS in " 1 2 3") ;; *) printf '%s' "$DEMOS" ;; esac)"
}

listed() { # listed MANIFEST: its lines about files
    sed '1,/^$/d' "$1"
}

kit_field() { # kit_field NAME
    sed -n -e '/^$/q' -e "s/^$1: *//p" "$KIT/MANIFEST"
}

check_manifest() { # is this a kit, and whole lines to the end?
    local file=$KIT/MANIFEST bad
    [ -f "$file" ] || refuse "$file is missing: $KIT is not a kit, or not all of it was copied."
    [ "$(head -n 1 "$file")" = "$KIT_FORMAT" ] || refuse "$file does not begin with \"$KIT_FORMAT\": it is not the list of a kit that this version can read."
    [ -z "$EXPECTED" ] || [ "$(sha256_of "$file")" = "$EXPECTED" ] ||
        refuse "$file is not the one that you expect: its SHA-256 is $(sha256_of "$file"). Get the kit again, from those who gave you the number."
    bad=$(listed "$file" | grep -v -E '^[0-9a-f]{64} [0-9]+ [A-Za-z0-9_][A-Za-z0-9._+@-]*(/[A-Za-z0-9_][A-Za-z0-9._+@-]*)*$' | head -n 1)
    [ -z "$bad" ] && [ -n "$(listed "$file")" ] && [ -z "$(tail -c 1 "$file" | tr -d '\n')" ] ||
        refuse "$file is damaged or incomplete${bad:+ (it has a line that is none: $bad)}: copy the kit again."
}

check_fit() { # does it belong to this machine and to this version of the workshop? Sets WAY and DEMOS
    local demo platform
    WAY=$(kit_field way) DEMOS=$(kit_field demos)
    case $WAY in docker | native) ;; *) refuse "$KIT/MANIFEST names no way that this version knows: get a kit of this version." ;; esac
    DEMOS=" $DEMOS"
    case $DEMOS in *[!\ 123]* | " ") refuse "$KIT/MANIFEST names no demos that this version knows: get a kit of this version." ;; esac
    if [ "$WAY" = docker ]; then
        engine_answers || refuse "$KIT/MANIFEST: this kit holds Docker images, and no Docker engine answers: start Docker, or get the kit without Docker."
        WORKSHOP_BUILD_ARGS=$(kit_field build-args)
        say "$WORKSHOP_BUILD_ARGS" | grep -E '^( *--build-arg [A-Z_]+=[A-Za-z0-9._:/@+-]*)*$' >/dev/null ||
            refuse "$KIT/MANIFEST names build arguments that are none: get the kit again."
    fi
    platform=$(platform_of "$WAY")
    [ "$(kit_field platform)" = "$platform" ] ||
        refuse "$KIT/MANIFEST: this kit is for $(kit_field platform), and this machine is $platform: get the kit for it."
    for demo in $DEMOS; do
        [ "$(kit_field "sources-$demo")" = "$(kit_sources "$demo")" ] ||
            refuse "$KIT/MANIFEST: this kit was packed from other files of demo $demo than those here: get the kit and the workshop of one version."
    done
    [ "$WAY" = docker ] || find_kit_python
}

find_kit_python() { # a Python of the minor version that the packages are for
    local name wanted_version
    wanted_version=$(kit_field python)
    for name in ${WORKSHOP_PYTHON:-python$wanted_version $PYTHON_NAMES}; do
        WORKSHOP_PYTHON=$name
        if find_python; then
            case $PYTHON_VERSION in "$wanted_version".*) return 0 ;; esac
        fi
    done
    refuse "$KIT/python holds packages for Python $wanted_version, which is not here: install it, or get another kit."
}

check_names() { # nothing missing, nothing else, and every size right
    local sum bytes path found
    found=$(find "$KIT" -type l | head -n 1)
    [ -z "$found" ] || refuse "$found is a link, which a kit never holds: copy the kit again."
    while read -r sum bytes path; do
        [ -f "$KIT/$path" ] || refuse "$KIT/$path is missing: the kit is incomplete; copy it again."
        [ "$(bytes_of "$KIT/$path")" = "$bytes" ] ||
            refuse "$KIT/$path has $(bytes_of "$KIT/$path") bytes instead of $bytes: it is damaged or incomplete; copy it again."
    done < <(listed "$KIT/MANIFEST")
    found=$( (cd "$KIT" && find . -type f ! -path ./MANIFEST | sed 's|^\./||' | LC_ALL=C sort) |
        LC_ALL=C comm -23 - <(listed "$KIT/MANIFEST" | cut -d ' ' -f 3 | LC_ALL=C sort) | head -n 1)
    [ -z "$found" ] || refuse "$KIT/$found is not on the kit's list: somebody added it; remove it or get the kit again."
}

check_room() { # before anything is loaded
    local total place=$ROOT
    total=$(kit_bytes "$KIT")
    if [ "$WAY" = docker ]; then
        place=$(docker info --format '{{.DockerRootDir}}' 2>/dev/null)
        [ -d "$place" ] || return 0 # the engine has a disk of its own, which we cannot look at
        need_space "$((total * 5 / 4))" "$place" "Docker"
    else
        need_space "$((total * 3))" "$place" "Unpacking" # packages grow when they are installed
    fi
}

check_content() { # every byte, then what the files say about themselves
    local sum bytes path number=0 count
    count=$(listed "$KIT/MANIFEST" | wc -l | tr -d ' ')
    while read -r sum bytes path; do
        number=$((number + 1))
        [ "$bytes" -lt 50000000 ] || say "Checking $number of $count: $path, $(megabytes "$bytes")"
        [ "$(sha256_of "$KIT/$path")" = "$sum" ] || refuse "$KIT/$path is damaged: its SHA-256 is another one; copy the kit again."
        case $path in
            images/*.tar) check_image "$path" ;;
            python/*.whl) check_wheel "$path" ;;
            demo-2.tar) check_archive "$path" ;;
            grype/database.tar.gz | grype/grype | sboms/*.json) ;;
            *) refuse "$KIT/$path does not belong in a kit: get the kit again." ;;
        esac
    done < <(listed "$KIT/MANIFEST")
}

check_image() { # check_image PATH: its own word about its name and architecture
    local config name made
    name=${1#images/}
    name=${name%.tar}
    case $name in "$(image_of 1)" | "$(image_of 2)" | "$(image_of 3)") ;; *) refuse "$KIT/$1 is not an image of this workshop: get the kit again." ;; esac
    config=$(tar -xOf "$KIT/$1" manifest.json 2>/dev/null) || refuse "$KIT/$1 is not a saved Docker image: get the kit again."
    case $config in *"\"$name:latest\""*) ;; *) refuse "$KIT/$1 does not hold the image $name: get the kit again." ;; esac
    config=$(say "$config" | sed -n 's/.*"Config": *"\([^"]*\)".*/\1/p')
    made=$(tar -xOf "$KIT/$1" "$config" 2>/dev/null | sed -n 's/.*"architecture": *"\([^"]*\)".*/\1/p' | head -n 1)
    [ "linux/$made" = "$(kit_field platform)" ] ||
        refuse "$KIT/$1 holds an image for linux/$made, not for $(kit_field platform): get the kit for this machine."
}

check_wheel() { # check_wheel PATH: the platform in its name
    local machine tags
    tags=${1%.whl}
    tags=${tags##*-}
    machine=$(uname -m)
    case $tags in
        any) return 0 ;;
        *universal2*) [ "$(uname -s)" != Darwin ] || return 0 ;;
        *"$machine"*) return 0 ;;
        *aarch64*) [ "$machine" != arm64 ] || return 0 ;;
    esac
    refuse "$KIT/$1 is for another kind of machine than $machine: get the kit for this one."
}

check_archive() { # check_archive PATH: files and folders in data/ and models/, nothing else
    local odd
    odd=$(tar -tvf "$KIT/$1" 2>/dev/null | grep -v '^[-d]' | head -n 1)
    [ -z "$odd" ] || refuse "$KIT/$1 holds something else than files: get the kit again."
    odd=$(tar -tf "$KIT/$1" 2>/dev/null | grep -E -v '^(data|models)(/|$)|^$' | head -n 1)
    [ -z "$odd" ] || refuse "$KIT/$1 holds $odd, which is not data or a model: get the kit again."
    ! tar -tf "$KIT/$1" 2>/dev/null | grep -E '(^|/)\.\.(/|$)' >/dev/null || refuse "$KIT/$1 leads out of its folder: get the kit again."
}

load_images() {
    local demo image
    for demo in $DEMOS; do
        image=$(image_of "$demo")
        say "Loading $image."
        docker load --quiet --input "$KIT/images/$image.tar" || return
    done
    say "build-args: $WORKSHOP_BUILD_ARGS" >"$KIT_NOTE" # so that `run` knows these images as built from these files
}

load_python() {
    local parts
    parts=$(parts_for "$DEMOS")
    TORCH_SOURCE=kit
    # shellcheck disable=SC2086 # a list of words
    if venv_has $parts; then
        say "$VENV is ready: nothing to install."
    else
        PIP_NO_INDEX=1 PIP_FIND_LINKS=$KIT/python make_venv $parts || return
    fi
    [ -f "$KIT/demo-2.tar" ] || return 0
    if [ -e "$ROOT/demo-poisoning/models" ] || [ -e "$ROOT/demo-poisoning/data" ]; then
        say "demo-poisoning has data or models already: they are kept, and the kit's are not taken."
    else
        tar -C "$ROOT/demo-poisoning" -xf "$KIT/demo-2.tar"
    fi
}

load_grype() {
    local results=$ROOT/demo-supply-chain/results list here
    if [ -f "$KIT/grype/grype" ]; then
        mkdir -p "$VENV/bin" && cp "$KIT/grype/grype" "$VENV/bin/grype" && chmod 755 "$VENV/bin/grype" || return
        say "Grype is now $VENV/bin/grype; to type ./scan.sh yourself: export PATH=$VENV/bin:\$PATH"
    fi
    if [ -f "$KIT/grype/database.tar.gz" ]; then
        here=$(database_date "$WAY")
        if [ -n "$here" ] && [[ ! "$here" < "$(kit_field database)" ]]; then
            say "Grype's database here is as new as the kit's ($here): kept."
        else
            import_database || return
        fi
        warn_about_age
    else
        say "The kit has no Grype database: demo 3 shows recorded scans."
    fi
    for list in "$KIT"/sboms/*.json; do
        [ -f "$list" ] || continue
        mkdir -p "$results" && cp "$list" "$results/" || return
    done
}

import_database() {
    local container code=0
    if [ "$WAY" = native ]; then
        GRYPE_DB_VALIDATE_AGE=false grype_here native db import "$KIT/grype/database.tar.gz"
        return
    fi
    container=$(docker create --network none --env GRYPE_DB_VALIDATE_AGE=false --volume "$(image_of 3)-db:/db" --entrypoint grype \
        "$(image_of 3)" db import /app/tmp/database.tar.gz) || return
    docker cp "$KIT/grype/database.tar.gz" "$container:/app/tmp/" >/dev/null && docker start --attach "$container" || code=1
    docker rm --volumes "$container" >/dev/null
    return "$code"
}

warn_about_age() {
    local days
    days=$(days_since "$(kit_field database)")
    say "Grype's database was built $(kit_field database), $days days ago."
    [ "$days" -lt 5 ] || say "Grype refuses one older than five days: GRYPE_DB_VALIDATE_AGE=false accepts it, and the table says how old it was."
}
