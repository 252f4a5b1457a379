#!/bin/bash
# DCANAS_LONG=1: 64 ranks on one machine make a lookup graph of 200 searches: the same bits as one rank makes, every search
# made once, and the manager of the searches takes next to none of the time.
# shellcheck disable=SC2317 # functions that `check` calls
# shellcheck source=tests/program/common.sh
. "$(dirname "$0")/common.sh"
if [ -z "$long" ]; then
    echo '1..0 # SKIP takes minutes: DCANAS_LONG=1'
    exit 0
fi
need h5dump
limit=1500
options=(--set lug.points=100 --set lug.seeds=2 --set search.epochs=2 --set checkpoint.interval=1h)

run 1 lug "$ini" --set run.output=one "${options[@]}"
check 'one rank makes 200 searches' [ "$status" = 0 ]

# Processor time of the manager's thread, in nanoseconds; nothing when there is none (yet, or any more).
manager_time() {
    local process task
    process=$(sed -n 's/.*"process":\([0-9]*\).*/\1/p' many/tiny/lock 2>/dev/null) # rank 0 owns the folder
    for task in "/proc/$process/task"/*; do
        [ "$(cat "$task/comm" 2>/dev/null)" != manager ] || cut -d' ' -f1 "$task/schedstat" 2>/dev/null
    done
}

start 64 lug "$ini" --set run.output=many "${options[@]}"
spent=0
while ! ended; do
    now=$(manager_time)
    spent=${now:-$spent}
    sleep 0.2
done
finished
check '64 ranks make them too' [ "$status" = 0 ]
check 'the same bits' equal_bits one/tiny/lug.h5 many/tiny/lug.h5
check 'each search is made once' [ "$(sed -n 's/.*"event":"finished".*"item":"\([^"]*\)".*/\1/p' many/tiny/events.jsonl |
    sort -u | wc -l)" = 200 -a "$(count '"event":"finished"' many/tiny/events.jsonl)" = 200 ]
check 'nothing is left of them' [ -z "$(find many/tiny/searches -name '*.h5*' -o -name '*.lock*')" ]
seconds=$(awk -F'"time":' '/"event"/ { split($2, t, /[,}]/); if (!first) first = t[1]; last = t[1] }
    END { print last - first }' many/tiny/events.jsonl)
share=$(awk -v t="$spent" -v s="$seconds" 'BEGIN { printf "%.3f", 100 * t / 1e9 / s }')
note "the manager took $spent ns of $seconds s: $share % of one core"
check 'the manager takes something, and less than 3 % of one core' awk -v s="$share" 'BEGIN { exit !(s > 0 && s < 3) }'
finish
