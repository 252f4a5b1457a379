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

# manager_ticks PROCESS: processor time of its thread of that name, in clock ticks; nothing when there is none (yet).
manager_ticks() {
    local task
    for task in "/proc/$1/task"/*; do
        [ "$(cat "$task/comm" 2>/dev/null)" = manager ] || continue
        sed 's/.*) //' "$task/stat" 2>/dev/null | awk '{ print $12 + $13 }'
    done
}

start 64 lug "$ini" --set run.output=many "${options[@]}"
first='' ticks=0
while ! ended; do
    if [ -z "$first" ]; then
        for pid in $(cat "$ranks" 2>/dev/null); do
            [ -n "$(manager_ticks "$pid")" ] && first=$pid
        done
    else
        now=$(manager_ticks "$first")
        ticks=${now:-$ticks}
    fi
    sleep 0.3
done
finished
check '64 ranks make them too' [ "$status" = 0 ]
check 'the same bits' equal_bits one/tiny/lug.h5 many/tiny/lug.h5
check 'each search is made once' [ "$(sed -n 's/.*"event":"finished".*"item":"\([^"]*\)".*/\1/p' many/tiny/events.jsonl |
    sort -u | wc -l)" = 200 -a "$(count '"event":"finished"' many/tiny/events.jsonl)" = 200 ]
check 'nothing is left of them' [ -z "$(find many/tiny/searches -name '*.h5*' -o -name '*.lock*')" ]
seconds=$(sed -n 's/.*"lookup graph":[[:space:]]*\([0-9.]*\).*/\1/p' many/tiny/result.json 2>/dev/null)
seconds=${seconds:-$(awk -F'"time":' '/"event"/ { split($2, t, /[,}]/); if (!first) first = t[1]; last = t[1] } END { print last - first }' \
    many/tiny/events.jsonl)}
share=$(awk -v t="$ticks" -v hz="$(getconf CLK_TCK)" -v s="$seconds" 'BEGIN { printf "%.3f", 100 * t / hz / s }')
note "the manager took $ticks ticks of $seconds s: $share % of one core"
check 'the manager takes less than 3 % of one core' awk -v s="$share" 'BEGIN { exit !(s < 3) }'
finish
