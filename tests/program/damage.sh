#!/bin/bash
# Damaged files: the predecessor is taken with a warning and the end is the same; when both are damaged one line says so
# and nothing is overwritten. An output folder of another configuration or data set is refused.
# shellcheck disable=SC2317 # functions that `check` calls
# shellcheck source=tests/program/common.sh
. "$(dirname "$0")/common.sh"

# flip FILE: one byte in its middle.
flip() {
    local at byte
    at=$(($(stat -c %s "$1") / 2))
    byte=$(od -An -tu1 -j $at -N 1 "$1")
    # shellcheck disable=SC2059
    printf "\\x$(printf %x $((byte ^ 255)))" | dd of="$1" bs=1 seek=$at conv=notrunc status=none
}

halve() {
    truncate -s $(($(stat -c %s "$1") / 2)) "$1"
}

empty() {
    : >"$1"
}

remove() {
    rm "$1"
}

# sums: of everything that a run may not overwrite when it is refused.
sums() {
    find now -type f ! -name log.txt ! -name events.jsonl ! -name '*lock' ! -name '*lock.beat' \
        ! -name starts.json ! -name "${spared:-}" -exec md5sum {} + |
        sort -k 2
}

# take FOLDER: a fresh copy of it is `now`, where all runs are made.
take() {
    rm -rf now
    cp -a "$1" now
}

again() {
    run 2 run "$ini" --set run.output=now "$@"
}

# goes_on WHAT: the run in `now` warns of this file and ends as the uninterrupted one.
goes_on() {
    again
    check "$1: goes on" [ "$status" = 0 ]
    check "$1: a warning names the file" grep -q "warning.*$2" now/tiny/log.txt
    check "$1: ends as uninterrupted" same_end whole/tiny now/tiny
}

# refused WHAT PATTERN...: the run in `now` ends with 2 and one line that has all patterns, and nothing is changed.
refused() {
    local what=$1 before pattern
    shift
    before=$(sums)
    again "${options[@]}"
    check "$what: refused with status 2" [ "$status" = 2 ]
    check "$what: one line" [ "$(own_lines | wc -l)" = 1 ]
    for pattern in "$@"; do
        check "$what: it says $pattern" grep -q -- "$pattern" "$err"
    done
    check "$what: nothing is overwritten" [ "$before" = "$(sums)" ]
    diff <(echo "$before") <(sums) | sed 's/^/# /'
}
options=()

# interrupt FOLDER PHASE FILE: a run that was stopped in this phase, with this file and its predecessor.
interrupt() {
    rm -rf now
    start 2 run "$ini" --set run.output=now
    reached "\"phase\":\"$2\"}" now/tiny/events.jsonl 1 30
    while [ ! -e "now/tiny/$3.previous" ] && ! ended; do
        sleep 0.02
    done
    mapfile -t targets <"$ranks"
    kill -USR1 "${targets[@]}" 2>/dev/null
    finished
    check "a run is interrupted in $2" [ "$status" = 75 ]
    check "... and has $3 and its predecessor" [ -e "now/tiny/$3" -a -e "now/tiny/$3.previous" ]
    cp -a now "$1"
}

again
check 'uninterrupted run' [ "$status" = 0 ]
cp -a now whole

# ---- checkpoints ----

spared='run.h5*' # the seconds of what was complete before
checkpoint=training/checkpoint.h5
interrupt in-training training $checkpoint
for damage in flip halve empty remove; do
    take in-training
    $damage now/tiny/$checkpoint
    goes_on "$checkpoint, $damage" "$checkpoint"
done
take in-training
flip now/tiny/$checkpoint.previous
again
check "$checkpoint.previous damaged: nobody needs it" same_end whole/tiny now/tiny
for damage in flip halve; do
    take in-training
    $damage now/tiny/$checkpoint
    $damage now/tiny/$checkpoint.previous
    refused "$checkpoint and its predecessor, $damage" "$checkpoint is damaged" "$checkpoint.previous is damaged"
done

checkpoint=searches/run-0.h5
interrupt in-search search $checkpoint
take in-search
flip now/tiny/$checkpoint
again
check "$checkpoint, flip: ends as uninterrupted" same_end whole/tiny now/tiny
take in-search
flip now/tiny/$checkpoint
flip now/tiny/$checkpoint.previous
spared='run[.-][1h]*' # the other search goes on until it hears of it
refused "$checkpoint and its predecessor, flip" "$checkpoint is damaged" "$checkpoint.previous is damaged"

# ---- the lookup graph, the run's progress ----

spared=
take whole
flip now/tiny/lug.h5
refused 'lug.h5, flip, without predecessor' 'lug.h5 is damaged'
take whole
run 2 lug "$ini" --set run.output=now --set lug.points=5
check 'a lookup graph is extended' [ "$status" = 0 -a -e now/tiny/lug.h5.previous ]
rm -rf extended
cp -a now extended
again --set lug.points=24
check 'a finished run whose lookup graph was extended keeps its end' [ "$status" = 0 ]
check 'a finished run whose lookup graph was extended: the same end' same_end whole/tiny now/tiny
take extended
flip now/tiny/lug.h5
goes_on 'lug.h5, flip' 'lug.h5'
take extended
halve now/tiny/lug.h5
halve now/tiny/lug.h5.previous
options=(--set lug.points=5)
refused 'lug.h5 and its predecessor, halve' 'lug.h5 is damaged' 'lug.h5.previous is damaged'
options=()

take whole
flip now/tiny/run.h5
goes_on 'run.h5, flip' 'run.h5'
take whole
flip now/tiny/run.h5
halve now/tiny/run.h5.previous
refused 'run.h5 and its predecessor' 'run.h5 is damaged' 'run.h5.previous is damaged'

# ---- a folder of something else ----

take in-training
options=(--set target.epochs=4)
refused 'another configuration' '\[target\] epochs is 4, but was 3' 'now/tiny'
options=(--set run.seed=8)
refused 'another seed' '\[run\] seed'
options=(--set budget.params=7000)
refused 'another budget' '\[budget\] params'
mkdir other
./make_data other 324 100
run 0 data import idx other other.h5 --classes 4
take in-training
options=(--set data.file=other.h5)
refused 'another data set' 'another data set' 'other.h5'
take whole
refused 'another data set, after the end' 'another data set' 'other.h5'
options=()
take in-training
echo 'nonsense' >now/tiny/config.ini
refused 'a damaged config.ini' 'config.ini'
take in-training
again --set run.threads=2 --set run.log_interval=1 --set checkpoint.interval=1
check 'what decides no result may change' [ "$status" = 0 ]
check '... and the result is the same' cmp whole/tiny/training/best.h5 now/tiny/training/best.h5
finish
