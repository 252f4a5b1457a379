#!/bin/bash
# A run that is killed or asked to stop, at any moment, goes on when it is started again and ends as if nothing had been.
# DCANAS_LONG=1 kills 200 times in place of 20. DCANAS_SEED: of the moments.
# shellcheck disable=SC2317 # functions that `check` calls
# shellcheck source=tests/program/common.sh
. "$(dirname "$0")/common.sh"

phases=('lookup graph' search selection training)
RANDOM=${DCANAS_SEED:-1}
note "DCANAS_SEED=${DCANAS_SEED:-1}"

# ---- what is compared with: uninterrupted runs of 1 and 2 ranks ----

for n_ranks in 0 2; do
    run $n_ranks run "$ini" --set run.output=whole-$n_ranks
    check "uninterrupted run ($n_ranks ranks under mpirun)" [ $status = 0 ]
done

# duration PHASE RANKS: milliseconds that it took without interruption.
duration() {
    sed -n "s/^[[:space:]]*\"$1\":[[:space:]]*\([0-9.]*\),\{0,1\}\$/\1/p" "whole-$2/tiny/result.json" |
        awk '{ printf "%d", 1000 * $1 }'
}

# begin RANKS FOLDER PHASE: starts the run and waits until it has begun this phase. Fails when it ends first.
begin() {
    local seen
    seen=$(count "\"phase\":\"$3\"}" "$2/tiny/events.jsonl")
    start "$1" run "$ini" --set run.output="$2"
    reached "\"phase\":\"$3\"}" "$2/tiny/events.jsonl" $((seen + 1)) 30
}

# The phase that the run in this folder was in.
phase_of() {
    sed -n 's/.*"event":"phase".*"phase":"\([^"]*\)".*/\1/p' "$1/tiny/events.jsonl" | tail -n 1
}

pause_ms() {
    sleep "$(printf '%d.%03d' $(($1 / 1000)) $(($1 % 1000)))"
}

# ends_as RANKS FOLDER: started once more it ends well, as the uninterrupted one, and leaves nothing half done.
ends_as() {
    run "$1" run "$ini" --set run.output="$2"
    [ "$status" = 0 ] && same_end "whole-$1/tiny" "$2/tiny" && [ -z "$(find "$2" -name '*.tmp')" ]
}

# ---- kill -9 of everything ----

# Four kills, one in each phase (or later: phases are short), at a random moment of it.
kill_four_times() {
    local n_ranks=$1 folder=$2 phase at
    for phase in "${phases[@]}"; do
        at=$((RANDOM % ($(duration "$phase" "$n_ranks") + 100)))
        if begin "$n_ranks" "$folder" "$phase"; then
            pause_ms $at
            if ! ended; then
                kill_job
                n_kills=$((n_kills + 1))
                note "kill $n_kills: $at ms after the beginning of $phase, in $(phase_of "$folder")"
                continue
            fi
        fi
        finished # it was done, or had passed that phase before
    done
}

n_kills=0
chain=0
while [ $n_kills -lt $((long ? 200 : 20)) ]; do
    chain=$((chain + 1))
    n_ranks=$((chain % 2 ? 2 : 0))
    kill_four_times $n_ranks killed-$chain
    check "after $n_kills kills in all: as uninterrupted ($n_ranks ranks under mpirun)" ends_as $n_ranks killed-$chain
    rm -rf killed-$chain
done

# ---- requests to stop ----

now_ms() {
    echo $(($(date +%s%N) / 1000000))
}

# stop SIGNAL SECONDS PROCESS...: sends it and waits for the end, which must come within the time.
stop() {
    local signal=$1 most_ms=$(($2 * 1000)) began
    shift 2
    began=$(now_ms)
    kill -"$signal" "$@" 2>/dev/null
    finished
    [ $(($(now_ms) - began)) -le $most_ms ]
}

# stop_in_phases RANKS FOLDER TO WANTED SIGNAL PHASE [SIGNAL PHASE]...: each signal in a phase, to `launcher`, `ranks`
# (all of them) or `one` of the ranks; WANTED: exit statuses that are right.
stop_in_phases() {
    local n_ranks=$1 folder=$2 to=$3 wanted=$4 in_time targets
    shift 4
    while [ $# -gt 0 ]; do
        if begin "$n_ranks" "$folder" "$2"; then
            pause_ms $((RANDOM % 200))
            case $to in
            one) mapfile -t targets < <(tail -n 1 "$ranks") ;;
            *) mapfile -t targets <"tmp/$to" ;;
            esac
            stop "$1" 10 "${targets[@]}"
            in_time=$?
            note "SIG$1 to $to in $(phase_of "$folder"): exit status $status; $(own_lines | head -n 1)"
            if [ $status = 0 ]; then
                note 'it had finished already'
            else
                check "SIG$1 to $to: ends in time" [ $in_time = 0 ]
                check "SIG$1 to $to: exit status is one of $wanted" grep -qw $status <<<"$wanted"
                [ "$wanted" != 75 ] ||
                    check "SIG$1 to $to: says that its state is saved, once" [ "$(own_lines | grep -c saved)" = 1 ]
            fi
        else
            finished
        fi
        shift 2
    done
    check "after these signals to $to: as uninterrupted" ends_as "$n_ranks" "$folder"
    rm -rf "$folder"
}

stop_in_phases 0 alone launcher 75 TERM 'lookup graph' INT search USR1 selection USR2 training
stop_in_phases 2 forwarded launcher 75 USR1 'lookup graph' USR2 selection USR1 training
stop_in_phases 2 direct ranks 75 TERM 'lookup graph' INT search TERM selection INT training
stop_in_phases 2 single one 75 TERM search INT training
# Open MPI's mpirun takes these two as the end of the job: it has a status of its own, and kills after a second, in
# which the state is saved or not.
stop_in_phases 2 ended launcher '75 1 130 143' TERM 'lookup graph' INT training

# ---- the death of one rank ----

for phase in 'lookup graph' training; do
    begin 3 dead "$phase"
    kill -9 "$(tail -n 1 "$ranks")"
    began=$(now_ms)
    finished
    check "one of 3 ranks killed in $phase: the job ends with a status not 0 (nor by hanging)" \
        grep -qvwE '0|124' <<<"$status"
    check '... within 10 seconds' [ $(($(now_ms) - began)) -le 10000 ]
done
run 3 run "$ini" --set run.output=dead
check 'and goes on when it is started again' [ $status = 0 ]
finish
