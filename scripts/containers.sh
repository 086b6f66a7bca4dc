# shellcheck shell=bash
# Containers: is there an engine, build an image once, and type commands in a container that is locked up.

CONTAINER="" # the container that runs now; removed at the end, also after an error
IMAGE_LINES=() # size and build time of each image, for the summary

# What our READMEs give for a container that can reach and change nothing
HARDENED="--network none --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges"

engine_answers() {
    command -v docker >/dev/null 2>&1 && within 30 docker info
}

# BuildKit runs the builds; newer Docker clients have it in a component of its own, which can be missing
can_build() { within 30 docker build --help; }

# An image carries the checksum of what it was built from: the same sources need no second build,
# also where nothing can be downloaded.
source_checksum() { # source_checksum FOLDER
    (
        cd "$ROOT/$1" || exit
        {
            copied_files | while IFS= read -r file; do
                if [ -x "$file" ]; then say "$file, executable"; else say "$file"; fi
                cat "$file"
            done
            cat Dockerfile .dockerignore 2>/dev/null
            say "$WORKSHOP_BUILD_ARGS"
        } | cksum | tr ' ' '-'
    )
}

copied_files() { # the files of this folder that its Dockerfile copies into the image, one a line
    local pattern
    copied_patterns | while IFS= read -r pattern; do
        expand_pattern "$pattern"
    done | LC_ALL=C sort -u | without_ignored
}

copied_patterns() { # the sources of COPY and ADD; what is not a plain list of names here counts as the whole folder
    awk '
        /\\$/ { sub(/\\$/, ""); line = line $0 " "; next }
        { line = line $0 }
        toupper(line) ~ /^[ \t]*(COPY|ADD)[ \t]/ && line !~ /--from=/ {
            if (line ~ /[$"<]/) print "."
            else {
                words = split(line, word)
                for (i = 2; i < words; i++) if (word[i] !~ /^--/) print word[i]
            }
        }
        { line = "" }
    ' Dockerfile
}

expand_pattern() { # expand_pattern PATTERN: the files that it stands for, and those in folders that it stands for
    local path IFS=""
    shopt -s dotglob # as in a Dockerfile, * also stands for names that begin with a dot
    # shellcheck disable=SC2086 # a pattern; with the empty IFS it stays one word
    for path in ./${1#/}; do
        path=${path%/}
        [ ! -e "$path" ] || find "$path" -type f
    done | sed -e 's|/\./|/|g' -e 's|^\(\./\)*||'
}

without_ignored() { # of the paths on stdin, those that .dockerignore leaves in: the last pattern that matches decides
    [ -f .dockerignore ] || { cat && return; }
    awk '
        function expression(pattern,   i, c, end, made) { # a pattern also stands for what is in a folder of that name
            for (i = 1; i <= length(pattern); i++) {
                c = substr(pattern, i, 1)
                if (substr(pattern, i, 3) == "**/") { made = made "(.*/)?"; i += 2 }
                else if (substr(pattern, i, 2) == "**") { made = made ".*"; i++ }
                else if (c == "*") made = made "[^/]*"
                else if (c == "?") made = made "[^/]"
                else if (c == "[" && (end = index(substr(pattern, i), "]"))) {
                    made = made substr(pattern, i, end)
                    i += end - 1
                }
                else if (c ~ /[.+(){}|^$[]/) made = made "\\" c
                else made = made c
            }
            return "^" made "(/.*)?$"
        }
        FILENAME == ".dockerignore" {
            gsub(/^[ \t]+|[ \t\r]+$/, "")
            if ($0 == "" || /^#/) next
            keeps[++count] = sub(/^![ \t]*/, "")
            gsub(/^(\.?\/)+|\/+$/, "")
            rule[count] = expression($0)
            next
        }
        {
            kept = 1
            for (i = 1; i <= count; i++) if ($0 ~ rule[i]) kept = keeps[i]
            if (kept) print
        }
    ' .dockerignore -
}

image_is_current() { # image_is_current IMAGE FOLDER
    [ "$(image_field "$1" '{{index .Config.Labels "workshop.sources"}}')" = "$(source_checksum "$2")" ]
}

image_field() { docker image inspect -f "$2" "$1" 2>/dev/null; }

image_size() { # in MB
    say "$(($(image_field "$1" '{{.Size}}') / 1000000)) MB"
}

build_image() { # build_image IMAGE FOLDER: with the demo's own build.sh if it has one
    local image=$1 folder=$2 started=$SECONDS label
    if image_is_current "$image" "$folder"; then
        IMAGE_LINES+=("image $image: $(image_size "$image"), built earlier from the same files")
        say "The image $image is there already, built from the same files."
        return 0
    fi
    label="--label workshop.sources=$(source_checksum "$folder")"
    if [ -x "$ROOT/$folder/build.sh" ]; then
        (cd "$ROOT/$folder" && WORKSHOP_BUILD_ARGS="$WORKSHOP_BUILD_ARGS $label" logged ./build.sh) || return
    else
        # shellcheck disable=SC2086 # a list of words, as documented
        (cd "$ROOT/$folder" && logged docker build -t "$image" $WORKSHOP_BUILD_ARGS $label .) || return
    fi
    IMAGE_LINES+=("image $image: $(image_size "$image"), built in $((SECONDS - started)) s")
    say "Image $image: $(image_size "$image"), built in $((SECONDS - started)) s"
}

start_container() { # start_container IMAGE: it only waits; the steps type their commands into it
    # shellcheck disable=SC2086 # a list of flags
    CONTAINER=$(docker run --detach --rm $HARDENED --entrypoint python "$1" -c 'import time; time.sleep(7200)')
}

type_in_container() { # type_in_container COMMAND...
    local terminal=()
    [ ! -t 1 ] || terminal=(--tty)
    docker exec ${terminal[@]+"${terminal[@]}"} --env "WORKSHOP_PLAIN=${WORKSHOP_PLAIN:-}" --env "NO_COLOR=${NO_COLOR:-}" \
        "$CONTAINER" "$@"
}

copy_from_container() { # copy_from_container PATH...: into the folder of demo 2's results
    local path
    mkdir -p "$DEMO_2_RESULTS" || return
    for path in "$@"; do docker cp "$CONTAINER:/app/$path" "$DEMO_2_RESULTS/" || return; done
}

remove_container() {
    [ -n "$CONTAINER" ] || return 0
    docker rm --force --volumes "$CONTAINER" >/dev/null 2>&1
    CONTAINER=""
}
