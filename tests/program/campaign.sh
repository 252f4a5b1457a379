#!/bin/bash
# Kills at random: of one rank, of all, requests to stop, a rank that is stopped for ever; at random moments of all phases,
# several times in each run. Every start must end in time, and the last one with the result of an undisturbed run.
# DCANAS_LONG=1: 150 in place of 6; tests/slurm/campaign.sh has those of jobs. DCANAS_SEED: of the moments.
# shellcheck disable=SC2317 # functions that `check` calls
# shellcheck source=tests/program/common.sh
. "$(dirname "$0")/common.sh"

RANDOM=${DCANAS_SEED:-1}
wanted=$((long ? 150 : 6))
limit=300 # what takes longer hangs, however busy the machine
export DCANAS_START_TIMEOUT=30
options=(--set checkpoint.max_starts_without_progress=0 --set run.watchdog=3 --set run.lock_timeout=5)
declare -A n_of=([one]=0 [all]=0 [term]=0 [usr1]=0 [stop]=0)
methods=("${!n_of[@]}")
n_kills=0 n_runs=0 n_saved=0 n_told=0 n_bare=0 n_hung=0 n_wrong=0

now_ms() {
    echo $(($(date +%s%N) / 1000000))
}

# How long an undisturbed run takes.
declare -A took
for n_ranks in 1 2 3; do
    began=$(now_ms)
    run $n_ranks run "$ini" --set run.output=whole-$n_ranks
    check "an undisturbed run of $n_ranks ranks" [ "$status" = 0 ]
    took[$n_ranks]=$(($(now_ms) - began))
done

# strike METHOD: at the job that runs.
strike() {
    local all one
    mapfile -t all <"$ranks"
    one=${all[$((RANDOM % ${#all[@]}))]}
    case $1 in
    one) kill -9 "$one" ;;
    all) kill -9 "${all[@]}" "$(cat "$launcher")" ;;
    term) kill -TERM "${all[@]}" ;;
    usr1) kill -USR1 "$(cat "$launcher")" ;;
    stop) kill -STOP "$one" ;;
    esac 2>/dev/null
}

# Waits for a job with a stopped rank. Where that happened in the rank's last milliseconds, behind MPI's end and with the
# result there, only mpirun is left to notice, which does not: the rank goes on.
await_stopped() {
    local left
    until ended; do
        sleep 0.2
        mapfile -t left < <(living)
        if [ ${#left[@]} = 1 ] && [ -e now/tiny/result.json ]; then
            kill -CONT "${left[0]}" 2>/dev/null
        fi
    done
}

# disturb RANKS METHOD: starts the run in `now` and strikes at a random moment; fails when it was done before.
disturb() {
    local at=$((RANDOM % ${took[$1]})) began=$SECONDS
    start "$1" run "$ini" --set run.output=now "${options[@]}"
    sleep "$(printf '%d.%03d' $((at / 1000)) $((at % 1000)))"
    if ended || [ ! -s "$ranks" ]; then
        finished
        return 1
    fi
    strike "$2"
    [ "$2" != stop ] || await_stopped
    finished
    n_kills=$((n_kills + 1))
    n_of[$2]=$((${n_of[$2]} + 1))
    # 137 is what `timeout` makes of a job that hangs, and mpirun of one with a killed rank.
    case $((SECONDS - began < limit ? status : 124)) in
    124) n_hung=$((n_hung + 1)) ;;
    0) return 1 ;; # it was faster
    75) n_saved=$((n_saved + 1)) ;;
    *)
        if [ -n "$(own_lines)" ]; then
            n_told=$((n_told + 1))
        else
            n_bare=$((n_bare + 1))
        fi
        ;;
    esac
    [ -z "$long" ] || note "kill $n_kills: $2 of $1 ranks after $at ms: status $status; $(own_lines | head -n 1 | cut -c 1-140)"
    return 0
}

while [ $n_kills -lt $wanted ]; do
    n_ranks=$((RANDOM % 3 + 1))
    rm -rf now
    for _ in 1 2 3 4; do
        method=${methods[$((RANDOM % ${#methods[@]}))]}
        [ "$n_ranks$method" != 1stop ] || method=all # nobody would notice
        disturb $n_ranks "$method" || break
    done
    n_runs=$((n_runs + 1))
    run $n_ranks run "$ini" --set run.output=now "${options[@]}"
    if [ "$status" != 0 ] || ! same_end whole-$n_ranks/tiny now/tiny || [ -n "$(find now -name '*.tmp')" ]; then
        n_wrong=$((n_wrong + 1))
        note "WRONG or lost after $n_kills kills: status $status; $(own_lines)"
    fi
done

note "$n_kills kills (one rank ${n_of[one]}, all ranks ${n_of[all]}, SIGTERM ${n_of[term]}, SIGUSR1 ${n_of[usr1]}, a rank" \
    "stopped for ever ${n_of[stop]}) in $n_runs runs:"
note "$n_saved starts ended with 75 and their state saved, $n_told with an error and a line of dcanas," \
    "$n_bare by the launcher; hangs $n_hung; lost or wrong results $n_wrong"
check 'no hang' [ $n_hung = 0 ]
check 'no lost or wrong result' [ $n_wrong = 0 ]
finish
