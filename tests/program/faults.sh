#!/bin/bash
# Calls that fail: every call site of write, fsync, rename, open, allocations, threads and MPI calls that a small run
# reaches is made to fail once, in a run of its own. Each must end in time, either with the right result all the same, or
# with one clear line and a state from which the next start gets to the right result.
# DCANAS_LONG=1: all sites in place of some. DCANAS_SEED: which ones.
# shellcheck disable=SC2317 # functions that `check` calls
# shellcheck source=tests/program/common.sh
. "$(dirname "$0")/common.sh"

library=$work/libfaults.so
"${MPICC:-mpicc}" -O1 -fPIC -shared -o "$library" "$here/../faults/faults.c" -ldl || bail_out 'faults.c does not compile'
RANDOM=${DCANAS_SEED:-1}
options=(--set lug.points=2 --set search.runs=1 --set select.candidates=1 --set search.epochs=2 --set target.epochs=2
    --set run.watchdog=5 --set checkpoint.max_starts_without_progress=0)

# faulty RANKS FOLDER [NAME=VALUE...]: a run with the library and these variables.
faulty() {
    local n_ranks=$1 folder=$2
    shift 2
    start_faulty() {
        # shellcheck disable=SC2163
        export LD_PRELOAD=$library "$@"
        start "$n_ranks" run "$ini" --set run.output="$folder" "${options[@]}"
        unset LD_PRELOAD "${@%%=*}"
    }
    start_faulty "$@"
    finished
}

n=0 n_right=0 n_resumed=0 n_hung=0 n_unclear=0 n_wrong=0 n_several=0

# inject RANKS RANK CALL SITE
inject() {
    local lines
    rm -rf now
    n=$((n + 1))
    faulty "$1" now FAULTS_RANK="$2" FAULTS_CALL="$3" FAULTS_SITE="$4"
    lines=$(own_lines | wc -l)
    if [ "$status" = 124 ] || [ "$status" = 137 ]; then
        n_hung=$((n_hung + 1))
        note "HANGS: $1 ranks, rank $2, $3 at $4"
        return
    fi
    if [ "$status" = 0 ]; then
        if same_end "whole-$1/tiny" now/tiny 2>/dev/null; then
            n_right=$((n_right + 1))
        else
            n_wrong=$((n_wrong + 1))
            note "WRONG: $1 ranks, rank $2, $3 at $4"
        fi
        return
    fi
    if [ "$lines" = 0 ]; then
        n_unclear=$((n_unclear + 1))
        note "UNCLEAR: $1 ranks, rank $2, $3 at $4: status $status: $(head -n 3 "$err")"
    fi
    [ "$lines" -le 1 ] || n_several=$((n_several + 1))
    [ -z "$long" ] || note "$3 at $4: $status: $(own_lines | head -n 1 | cut -c 1-150)"
    run "$1" run "$ini" --set run.output=now "${options[@]}"
    if [ "$status" = 0 ] && same_end "whole-$1/tiny" now/tiny 2>/dev/null; then
        n_resumed=$((n_resumed + 1))
    else
        n_wrong=$((n_wrong + 1))
        note "LOST: $1 ranks, rank $2, $3 at $4: $(own_lines)"
    fi
}

# sites RANKS RANK: what a whole run reaches on this rank, in a file of that name.
sites() {
    rm -rf "whole-$1"
    faulty "$1" "whole-$1" FAULTS_RANK="$2" FAULTS_LIST="$work/sites-$1-$2"
    check "a run of $1 ranks under mpirun whose calls are listed on rank $2" [ "$status" = 0 ]
    note "$(wc -l <"sites-$1-$2") call sites"
}
sites 0 0
sites 2 0
sites 2 1
check 'the list has all kinds' [ "$(cut -d' ' -f1 sites-0-0 sites-2-0 | sort -u |
    grep -cxE 'write|fsync|rename|open|malloc|calloc|realloc|ftruncate|MPI_Allreduce|MPI_Send|MPI_Ibarrier')" = 11 ]

# Alone every site; with another rank the MPI calls, and what writes and allocates there.
sed 's/^/0 0 /' sites-0-0 >all
grep '^MPI' sites-2-0 | sed 's/^/2 0 /' >>all
grep -E '^(MPI|write|fsync|rename|open)' sites-2-1 | sed 's/^/2 1 /' >>all
if [ "$long" ]; then
    cp all chosen
else
    shuf -n 7 --random-source=<(yes "$RANDOM") all >chosen
fi
note "$(wc -l <chosen) of $(wc -l <all) call sites"
while read -r n_ranks rank call site; do
    inject "$n_ranks" "$rank" "$call" "$site"
done <chosen

note "$n calls failed: $n_right runs ended right all the same, $n_resumed ended with an error and went on to the right end;"
note "hangs $n_hung, without a clear line $n_unclear, lost or wrong results $n_wrong (with more than one line $n_several)"
check 'no hang' [ $n_hung = 0 ]
check 'no lost or wrong result' [ $n_wrong = 0 ]
check 'each error is told' [ $n_unclear = 0 ]
check 'all were counted' [ $((n_right + n_resumed)) = $n ]
finish
