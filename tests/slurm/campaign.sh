#!/bin/bash
# DCANAS_LONG=1: random faults of jobs on a Slurm cluster, several in each, at random moments of all phases: SIGKILL of a
# rank, of all ranks and of a node (all its processes), SIGTERM, scontrol requeue, preemption; under srun and mpirun. Every
# job must go on by itself, and end in time with the result of an undisturbed run. DCANAS_SEED: of the moments.
# shellcheck disable=SC2317 # functions that `check` calls
# shellcheck source=tests/slurm/common.sh
. "$(dirname "$0")/common.sh"
if [ -z "$long" ]; then
    echo '1..0 # SKIP takes a quarter of an hour: DCANAS_LONG=1'
    exit 0
fi

RANDOM=${DCANAS_SEED:-1}
wanted=60
patience=150 # seconds that a start, or an end, may take: more is a hang
declare -A n_of=([rank]=0 [all]=0 [node]=0 [term]=0 [requeue]=0 [preempt]=0)
methods=("${!n_of[@]}")
n_faults=0 n_jobs=0 n_again=0 n_hung=0 n_wrong=0
nodes=()
for ((node = 1; node <= cluster_nodes; node++)); do
    nodes+=("n$node")
done

for n_ranks in 1 2 3; do
    run $n_ranks run "$ini" --device cpu --set run.output=whole-$n_ranks
    check "an undisturbed run of $n_ranks ranks" [ "$status" = 0 ]
done

# strike METHOD: at the one job that runs; fails when it has no ranks yet, or any more.
strike() {
    local ranks host
    mapfile -t ranks < <(ranks_on "${nodes[@]}")
    [ ${#ranks[@]} -gt 0 ] || return 1
    case $1 in
    rank) kill -KILL "${ranks[RANDOM % ${#ranks[@]}]}" ;;
    all) kill -KILL "${ranks[@]}" ;;
    term) kill -TERM "${ranks[@]}" ;;
    requeue) scontrol requeue "$id" ;;
    preempt) sbatch -Q --partition=urgent --nodes=3 --ntasks=6 --output=/dev/null --wrap 'sleep 0.2' ;;
    node) # which Slurm finds out by itself, later
        mapfile -t hosts < <(scontrol show hostnames "$(field NodeList "$id")")
        host=${hosts[RANDOM % ${#hosts[@]}]}
        kill_node "$host"
        scontrol update NodeName="$host" State=DOWN Reason=lost
        start_node "$host"
        ;;
    esac 2>/dev/null
}

is_running() {
    [ "$(field JobState "$id")" = RUNNING ] || is_over "$id"
}

went_further() {
    [ "$(restarts "$id")" -gt "$1" ] || is_over "$id"
}

hung() {
    n_hung=$((n_hung + 1))
    note "HANGS after $n_faults faults: $(field JobState "$id") $(field Reason "$id"): $(tail -n 3 dcanas-"$id".out)"
    scancel "$id"
}

# disturb: one fault of the job, at a random moment of its present start; fails when it is over.
disturb() {
    local before at method
    in_time $patience is_running || hung
    before=$(restarts "$id")
    at=$((RANDOM % 4000))
    sleep "$(printf '%d.%03d' $((at / 1000)) $((at % 1000)))"
    is_over "$id" && return 1
    method=${methods[RANDOM % ${#methods[@]}]}
    strike "$method" || return 0
    n_faults=$((n_faults + 1))
    n_of[$method]=$((${n_of[$method]} + 1))
    note "fault $n_faults: $method, $at ms into start $((before + 1)) of job $id ($n_ranks ranks, $DCANAS_LAUNCHER)"
    in_time $patience went_further "$before" || hung
}

# attempt: submits the run in `now`, disturbs it up to four times, and waits for its end.
attempt() {
    local i
    submit --ntasks="$n_ranks" --nodes=$((n_ranks - RANDOM % 2 * (n_ranks > 1))) "$jobs/run.sbatch" "$ini" --set run.output=now \
        --set checkpoint.max_starts_without_progress=0
    for i in 1 2 3 4; do
        [ $n_faults -lt $wanted ] && disturb || break
    done
    in_time $patience is_over "$id" || hung
    in_time 60 all_idle
}

while [ $n_faults -lt $wanted ]; do
    n_ranks=$((RANDOM % 3 + 1))
    launchers=(srun mpirun)
    export DCANAS_LAUNCHER=${launchers[RANDOM % 2]}
    rm -rf now
    n_jobs=$((n_jobs + 1))
    attempt
    if [ "$(field JobState "$id")" = FAILED ]; then # an error that is told: to be submitted again
        n_again=$((n_again + 1))
        note "job $id failed; it wrote" && grep -v '^ ' dcanas-"$id".out | tail -n 12 | sed 's/^/# /'
        attempt
    fi
    if [ "$(field JobState "$id")" != COMPLETED ] || ! same_end whole-$n_ranks/tiny now/tiny ||
        [ -n "$(find now -name '*.tmp')" ]; then
        n_wrong=$((n_wrong + 1))
        note "WRONG or lost after $n_faults faults: job $id is $(field JobState "$id"): $(tail -n 3 dcanas-"$id".out)"
    fi
done

note "$n_faults faults (SIGKILL of one rank ${n_of[rank]}, of all ${n_of[all]}, of a node ${n_of[node]}, SIGTERM" \
    "${n_of[term]}, scontrol requeue ${n_of[requeue]}, preemption ${n_of[preempt]}) of $n_jobs jobs, of which $n_again had" \
    "to be submitted again; hangs $n_hung; lost or wrong results $n_wrong"
check 'no hang' [ $n_hung = 0 ]
check 'no lost or wrong result' [ $n_wrong = 0 ]
check 'no job that had to be submitted again' [ $n_again = 0 ]
finish
