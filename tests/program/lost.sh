#!/bin/bash
# Where the launcher lets the others go on when a rank dies (Open MPI's mpirun --enable-recovery), the lookup graph is
# made all the same: the dead rank's search goes on with another rank, and the next start has nothing left to search.
# shellcheck disable=SC2317 # functions that `check` calls
# shellcheck source=tests/program/common.sh
. "$(dirname "$0")/common.sh"
need h5dump
if ! mpirun --version 2>/dev/null | grep -q '(Open MPI) 4\.'; then
    echo '1..0 # SKIP --enable-recovery is known of Open MPI 4'
    exit 0
fi

options=(--set search.epochs=12)
run 3 lug "$ini" --set run.output=whole "${options[@]}"
check 'an undisturbed lookup graph' [ "$status" = 0 ]

# A search that is made writes its trace.
traces() {
    find now/tiny/searches -name '*.csv' -printf '%p %T@ %s\n' | sort
}

export OMPI_MCA_orte_enable_recovery=1
for killed in 1 2; do
    rm -rf now
    start 3 lug "$ini" --set run.output=now "${options[@]}"
    # a rank that has begun: it owns a search
    victim=
    for _ in $(seq 1500); do
        for pid in $(cat "$ranks" 2>/dev/null); do
            tr '\0' '\n' <"/proc/$pid/environ" 2>/dev/null | grep -qx "OMPI_COMM_WORLD_RANK=$killed" &&
                grep -q "\"process\":$pid," now/tiny/searches/*.lock 2>/dev/null && victim=$pid
        done
        [ "$victim" ] && break
        sleep 0.02
    done
    sleep 0.1
    kill -9 "$victim"
    finished
    check "rank $killed dies over a search: the job ends, and not by hanging" [ "$status" != 124 -a "$status" != 137 ]
    check '... one line tells it' [ "$(own_lines | grep -c '1 rank died; the others did what was left and saved it')" = 1 ]
    check '... the search went to another rank' grep -q "warning: lookup graph: rank $killed died over point" now/tiny/log.txt
    check '... and all were finished' [ "$(count '"event":"finished"' now/tiny/events.jsonl)" = 4 ]
    before=$(traces)
    OMPI_MCA_orte_enable_recovery=0 run 3 lug "$ini" --set run.output=now "${options[@]}"
    check 'the next start ends well' [ "$status" = 0 ]
    check '... with the same bits' equal_bits whole/tiny/lug.h5 now/tiny/lug.h5
    check '... and nothing searched again' [ -n "$before" -a "$before" = "$(traces)" ]
done
finish
