#!/bin/bash
# A lookup graph that several jobs build at the same time in one folder (dcanas lug --part I/N), gathered by another.
# shellcheck disable=SC2317 # functions that `check` calls
# shellcheck source=tests/program/common.sh
. "$(dirname "$0")/common.sh"

lug_bytes() {
    h5dump -A 0 -d /target -d /alpha -d /genotype -d /derived_cost -d /validation_accuracy -d /seed "$1/tiny/lug.h5" |
        sed 1d # its own name
}

same_lug() {
    cmp <(lug_bytes "$1") <(lug_bytes "$2") >&2
}

need h5dump
run 0 lug "$ini" --set run.output=whole
check 'a lookup graph by one job' [ $status = 0 ]

# ---- three parts of four searches, at the same time ----

pids=()
for part in 1 2 3; do
    "$program" lug "$ini" --set run.output=parts --part $part/3 >"part-$part.out" 2>&1 &
    pids+=($!)
done
failed=0
for pid in "${pids[@]}"; do
    wait "$pid" || failed=$?
done
check 'three jobs at once on one folder' [ $failed = 0 ]
check '... make every search once' all_made 1 1 parts 4
check '... and no lookup graph yet' [ ! -e parts/tiny/lug.h5 ]
run 0 lug "$ini" --set run.output=parts
check 'a job without --part gathers them' [ $status = 0 ]
check '... and makes none again' all_made 1 1 parts 4
check '... into the same graph' same_lug whole parts
check '... and clears their checkpoints away' [ -z "$(find parts/tiny/searches -name 'point*' ! -name '*.csv')" ]
run 0 lug "$ini" --set run.output=parts --part 2/3
check 'a part that comes late has nothing to do' grep -q 'part 2 of 3 has 0 left to do' "$out"

# ---- a part that never came, and one that was killed ----

run 0 lug "$ini" --set run.output=lost --part 1/2
check 'part 1 of 2' [ $status = 0 ]
start 0 lug "$ini" --set run.output=lost --part 2/2
reached '"event":"finished"' lost/tiny/parts/2-of-2/events.jsonl 1 30
kill_job
run 2 run "$ini" --set run.output=lost
check 'a run with lost parts completes' [ $status = 0 ]
check '... with the same graph' same_lug whole lost
# one that ended in the moment of the kill may be in no job's events
check '... without repeating a finished search' all_made 0 1 lost 4

# ---- who may not ----

endless=(--set run.output=held --set search.epochs=400)
start 0 lug "$ini" "${endless[@]}" --part 1/4
reached generation held/tiny/searches/point-000-seed-0.lock 1 30
mkdir tmp/second
err=$work/tmp/second/stderr # of those beside it

# beside ARGUMENTS...: a second job.
beside() {
    "$program" lug "$ini" "$@" >/dev/null 2>"$err"
    status=$?
}

beside "${endless[@]}"
check 'a job that would gather while a part works is refused' [ $status = 2 ]
check '... naming the search' grep -q 'point-000-seed-0 is in use by another job' "$err"
beside "${endless[@]}" --part 1/4
check 'the same part twice is refused' grep -q 'parts/1-of-4 is in use by another job' "$err"
beside "${endless[@]}" --set search.epochs=399 --part 2/4
check 'a part of another configuration is refused' grep -q 'holds a run of another configuration' "$err"
kill_job
err=$work/tmp/stderr
for bad in 0/4 5/4 x 1/ 1/4x -1/4; do
    run 0 lug "$ini" --part $bad
    check "--part $bad is refused" grep -q -- "--part $bad: should be I/N" "$err"
done
finish
