#!/bin/bash
# A rank that hangs: the job ends within the watchdog's time with one line that names the rank and where it was, and goes
# on when it is started again. A job that is suspended as a whole is left alone.
# shellcheck disable=SC2317 # functions that `check` calls
# shellcheck source=tests/program/common.sh
. "$(dirname "$0")/common.sh"

# process RANK: of the job that runs.
process() {
    local pid
    while read -r pid; do
        tr '\0' '\n' <"/proc/$pid/environ" | grep -qx "OMPI_COMM_WORLD_RANK=$1" && echo "$pid" && return
    done <"$ranks"
}

run 3 run "$ini" --set run.output=whole --set target.epochs=6
check 'an uninterrupted run' [ "$status" = 0 ]

# hangs EVENT RANK LINE: this rank is stopped after this event.
hangs() {
    local began
    start 3 run "$ini" --set run.output=now --set run.watchdog=2 --set target.epochs=6
    reached "$1" now/tiny/events.jsonl 1 30
    sleep 0.1
    kill -STOP "$(process "$2")"
    began=$SECONDS
    finished
    note "$(own_lines)"
    check "rank $2 is stopped after $1: the job ends, not well" grep -qvwE '0|75|124|137' <<<"$status"
    check '... in time' [ $((SECONDS - began)) -le 12 ]
    check '... with one line that names it' [ "$(own_lines | grep -c "$3")" = 1 ]
    check '... and no other' [ "$(own_lines | wc -l)" = 1 ]
    check '... and no rank is left' none_left
    run 3 run "$ini" --set run.output=now --set target.epochs=6
    check '... and goes on when it is started again' [ "$status" = 0 ]
    check '... to the same end' same_end whole/tiny now/tiny
    rm -rf now
}
hangs '"event":"epoch"' 1 'rank 0: no progress for 2.0s (\[run\] watchdog): silent (.*): rank 1 in training, step [0-9]'
hangs '"event":"epoch"' 0 'rank 1: no progress for 2.0s (\[run\] watchdog): silent (.*): rank 0\. '
hangs 'lookup graph' 2 'rank 0: no progress for 2.0s (\[run\] watchdog): silent (.*): rank 2 in .*\. '

# A rank that is stopped before anybody watches: at its very start, and a little later.
for ms in 0 150 400; do
    export DCANAS_START_TIMEOUT=3
    start 3 run "$ini" --set run.output=now --set run.watchdog=3 --set target.epochs=6
    unset DCANAS_START_TIMEOUT
    while [ "$(wc -l 2>/dev/null <"$ranks")" != 3 ]; do
        sleep 0.01
    done
    sleep "0.$(printf '%03d' "$ms")"
    kill -STOP "$(tail -n 1 "$ranks")"
    finished
    note "$(own_lines | head -n 1)"
    check "a rank is stopped $ms ms after its start: the job ends, not well" grep -qvwE '0|75|124|137' <<<"$status"
    check '... and says why' grep -q '^dcanas: .*no \(start within\|progress for\) 3.0s' "$err"
done
run 3 run "$ini" --set run.output=now --set target.epochs=6
check '... and goes on when it is started again' [ "$status" = 0 ]
rm -rf now

start 3 run "$ini" --set run.output=now --set run.watchdog=1 --set target.epochs=6
reached '"event":"epoch"' now/tiny/events.jsonl 1 30
mapfile -t all <"$ranks"
kill -STOP "${all[@]}"
sleep 3
kill -CONT "${all[@]}"
finished
check 'a job that is suspended for longer goes on' [ "$status" = 0 ]
check '... to the same end' same_end whole/tiny now/tiny
rm -rf now

DCANAS_START_TIMEOUT=soon run 2 limits
check 'a start timeout that is no time is refused' [ "$status" = 2 ]
check '... in one line' [ "$(cat "$out" "$err" | grep -c '^dcanas: DCANAS_START_TIMEOUT=soon: must be a duration')" = 1 ]

# A data set whose copying to the node takes longer than a start may, and longer than the watchdog's time, but goes on.
cat >slow.c <<'END'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>
ssize_t read(int fd, void *to, size_t size)
{
    if (size == 8 << 20)
        sleep(3);
    return ((ssize_t(*)(int, void *, size_t))dlsym(RTLD_NEXT, "read"))(fd, to, size);
}
END
"${CC:-cc}" -O1 -shared -fPIC -o slow.so slow.c -ldl || bail_out 'slow.c does not compile'
export LD_PRELOAD=$work/slow.so DCANAS_START_TIMEOUT=4
run 2 run "$ini" --set run.output=now --set run.watchdog=4 --set data.stage="$work"
unset LD_PRELOAD DCANAS_START_TIMEOUT
check 'slow copying is no hang' [ "$status" = 0 ]

finish
