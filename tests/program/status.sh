#!/bin/bash
# `dcanas status`: says how far a run is without touching it, whatever has become of the run and its files. Starts that
# bring nothing are counted and end. One writer: a folder that was taken over is left alone, a dead owner's is taken.
# shellcheck disable=SC2317 # functions that `check` calls
# shellcheck source=tests/program/common.sh
. "$(dirname "$0")/common.sh"

# look ARGUMENTS...: status beside a job that runs.
said=$work/tmp/said
look() {
    timeout -k 5 10 "$program" status "$@" >"$said" 2>"$said.errors" </dev/null
}

# tells PATTERN FOLDER: status ends well and one of its lines has the pattern.
tells() {
    look "$2/tiny" && [ ! -s "$said.errors" ] && grep -q -- "$1" "$said" && return
    sed 's/^/# /' "$said" "$said.errors"
    return 1
}

# says KEY VALUE FOLDER: of the JSON, the first of that name.
says() {
    look "$3/tiny" --json && [ "$(number "$1" "$said")" = "$2" ]
}

run 0 status nowhere
check 'no run: status 2, one line' [ "$status" = 2 -a "$(own_lines | wc -l)" = 1 ]

# ---- while it runs, and after it was killed ----

start 2 run "$ini" --set run.output=now --set target.epochs=1000
check 'a run is under way' reached '"event":"epoch"' now/tiny/events.jsonl 2 30
check 'it runs, and where' tells "running on $(hostname), process [0-9]" now
check 'searches done, begun and left' tells 'lookup graph *done *4 of 4 done, 0 begun, 0 left' now
check 'epochs and accuracies' tells \
    'training *running *[0-9]* of 1000 epochs, step [0-9]* of 10 .*test accuracy .*best .* in epoch' now
check 'the time left' tells 'time left, estimated: [0-9]' now
check 'the last checkpoint' tells 'last checkpoint .* ago' now
check 'starts' tells 'started 1 time; last by `dcanas run` with 2 ranks' now
check 'JSON: it runs' says state running now
check 'JSON: whose it is' says owner lives now
kill_job
check 'killed: stopped' tells 'stopped; its last job ended without a word' now
check 'killed: JSON' says owner dead now

everything() {
    find now -printf '%p %T@ %C@ %s\n' | sort
}
before=$(everything)
check 'status again' says state stopped now
check 'it touches nothing' [ "$before" = "$(everything)" ]

# Every file in turn, torn and emptied and gone.
passed=0 n_torn=0
while read -r file; do
    for damage in torn empty gone; do
        cp -a now/tiny copy
        case $damage in
        torn) truncate -s $(($(stat -c %s "copy/$file") / 2)) "copy/$file" ;;
        empty) : >"copy/$file" ;;
        gone) rm "copy/$file" ;;
        esac
        look copy
        status=$?
        n_torn=$((n_torn + 1))
        case $file:$status in
        ./config.ini:2 | *:0) ;;
        *) passed=1 && note "$file, $damage: $status $(cat "$said.errors")" ;;
        esac
        rm -rf copy
    done
done < <(cd now/tiny && find . -type f ! -name '*.tmp')
check "$n_torn torn, empty and missing files: it still tells the rest" [ $passed = 0 ]

run 2 run "$ini" --set run.output=whole
check 'a whole run' [ "$status" = 0 ]
check 'finished' says state finished whole
check 'finished: all is done' [ "$(grep -c '"state":.*"done"' "$said")" = 4 ]

# ---- starts that bring nothing ----

# Files are limited in size: the first checkpoint cannot be written.
fruitless() {
    (
        ulimit -f 60
        timeout -k 5 "$limit" "$program" run "$ini" --set run.output=idle --set search.channels=32 "$@" >"$out" 2>"$err"
    )
    status=$?
}
for i in 1 2 3; do
    fruitless --set checkpoint.max_starts_without_progress=3
    check "fruitless start $i: its own error" [ "$status" = 1 -a "$(own_lines | grep -c 'cannot write')" = 1 ]
done
fruitless --set checkpoint.max_starts_without_progress=3
check 'the next is refused with status 1 and one line' grep -q \
    '^dcanas: idle/tiny: the last 3 starts brought nothing further (the last one: .*cannot write.*max_starts_without_progress=0' "$err"
check 'and status 1' [ "$status" = 1 ]
check 'status tells it' tells 'the last 2 brought nothing further' idle
run 0 run "$ini" --set run.output=idle --set search.channels=32 --set checkpoint.max_starts_without_progress=0
check 'it goes on when asked to, and ends' [ "$status" = 0 ]
check 'and is no longer idle' says starts_without_progress 0 idle

# ---- one writer ----

# owner GENERATION HOST: what a job of another machine leaves in the folder.
owner() {
    printf '{"generation":%d,"host":"%s","process":1,"job":"","restarts":0}\n' "$1" "$2" >now/tiny/lock
}
rm -rf now
run 0 lug "$ini" --set run.output=now --set target.epochs=1000
check 'a lookup graph' [ "$status" = 0 ]
owner 7 elsewhere
printf '{"generation":7,"beat":3,"ended":false}\n' >now/tiny/lock.beat
touch -d '+1 hour' now/tiny/lock.beat
check 'an owner elsewhere, of a clock that is ahead' tells 'running on elsewhere.*(last sign of life 0' now
touch -d '-1 hour' now/tiny/lock.beat
check 'an owner elsewhere, silent for long' says state silent now
run 0 lug "$ini" --set run.output=now --set target.epochs=1000 --set run.lock_timeout=1
check 'a silent owner is replaced' [ "$status" = 0 ]
check '... by the next generation' says generation 8 now

# A job elsewhere that makes one search: it counts.
mkdir -p beside/tiny/searches
point=beside/tiny/searches/point-002-seed-0
printf '{"generation":3,"host":"elsewhere","process":1,"job":"55","restarts":0}\n' >$point.lock
for beat in $(seq 1000); do
    printf '{"generation":3,"beat":%d,"ended":false}\n' "$beat" >$point.beat && mv $point.beat $point.lock.beat
    sleep 0.1
done &
beating=$!
run 2 lug "$ini" --set run.output=beside --set run.lock_timeout=1
kill $beating
check 'a search that another job makes: status 2' [ "$status" = 2 ]
check '... and one line' [ "$(own_lines | grep -c "$point is in use by another job (host elsewhere, process 1, job 55)")" = 1 ]
run 2 lug "$ini" --set run.output=beside --set run.lock_timeout=1
check 'once that job is silent the search is made' [ "$status" = 0 ]
check '... and no lock of it is left' [ ! -e $point.lock ]

run 2 train "$ini" --genotype DARTS_V2 --set run.output=given
check 'a training of a given genotype' [ "$status" = 0 ]
run 0 status given/tiny
check '... waits for no search' [ "$(grep -c waiting "$out")" = 0 ]
check '... which was not needed' [ "$(grep -c 'not needed' "$out")" = 3 ]

start 2 run "$ini" --set run.output=now --set target.epochs=1000 --set run.lock_timeout=1
check 'a run is under way' reached '"event":"epoch"' now/tiny/events.jsonl 2 30
owner 99 elsewhere
finished
check 'a run whose folder is taken over ends with status 1' [ "$status" = 1 ]
check '... and one line' [ "$(own_lines | grep -c 'now/tiny was taken over by a later start (generation 99)')" = 1 ]
check "... and leaves the successor's lock" grep -q '"generation":99' now/tiny/lock
finish
