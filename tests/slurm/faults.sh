#!/bin/bash
# What befalls jobs on a real Slurm cluster: requeues, preemption, time limits, lost nodes, ranks and tasks of arrays, under
# srun and mpirun. Each job ends with the result of a run that nothing disturbed, and no finished search is made again.
# DCANAS_LONG=1: all of it, in place of one lost node.
# shellcheck disable=SC2317 # functions that `check` calls
# shellcheck source=tests/slurm/common.sh
. "$(dirname "$0")/common.sh"
need h5dump

limit=300 # of the undisturbed run, on a machine that is busy
searches=6 epochs=12 epoch='"event":"epoch".*"training"'
options=(--set lug.points="$searches" --set search.epochs=30 --set target.epochs="$epochs"
    --set run.lock_timeout=5)
run 2 run "$ini" --device cpu --set run.output=whole "${options[@]}"
check 'undisturbed run, without Slurm' [ $status = 0 ]

# begin FOLDER SBATCH'S...: run.sbatch with two tasks.
begin() {
    local folder=$1
    shift
    submit --ntasks=2 "$@" "$jobs/run.sbatch" "$ini" --set run.output="$folder" "${options[@]}"
}

# in_lug FOLDER, in_training FOLDER: waits until the run is in the midst of it, with some of it done.
in_lug() {
    in_time 60 lines 2 '"event":"finished".*"lookup graph"' "$1/tiny/events.jsonl"
    check "$1: in the lookup graph" [ "$(count '"phase":"search"}' "$1/tiny/events.jsonl")" = 0 ]
}

in_training() {
    in_time 60 lines 3 "$epoch" "$1/tiny/events.jsonl"
    check "$1: in the training" [ "$(count "$epoch" "$1/tiny/events.jsonl")" -lt $epochs ]
}

# went_on FOLDER JOB KIND: it completes after a restart as if nothing had been. KIND of the fault: `saved` (the state was
# saved first, nothing is done twice) or `lost` (an end in the moment of a kill may be in no events, an epoch in two).
went_on() {
    local least=1 most=$epochs
    check "$1: the job completes" ends "$2" COMPLETED 200
    check '... after a restart' [ "$(restarts "$2")" -ge 1 ]
    [ "$3" = saved ] || least=0 most=$((epochs + $(restarts "$2")))
    check '... with the result and weights of the undisturbed run' same_end whole/tiny "$1/tiny"
    check '... and the bits of its lookup graph' equal_bits whole/tiny/lug.h5 "$1/tiny/lug.h5"
    check '... no finished search was made again' all_made $least 1 "$1" $searches
    check '... nor epochs' [ "$(count "$epoch" "$1/tiny/events.jsonl")" -le $most ]
    check '... and nothing is left half done' [ -z "$(find "$1" -name '*.tmp')" ]
}

# ---- a node that dies in the training: one without the batch script, and the one with it ----

# Slurm requeues a node's jobs when it has not answered for SlurmdTimeout.
# lose_node FOLDER JOB NODE
lose_node() {
    kill_node "$3"
    in_time 60 has_restarted "$2"
    went_on "$1" "$2" lost
    start_node "$3"
    in_time 30 all_idle
}

begin lost-node --nodes=2 --nodelist=n1
in_training lost-node
lose_node lost-node "$id" n2

if [ -z "$long" ]; then
    finish
fi

begin lost-batch-node --nodes=2
in_training lost-batch-node
lose_node lost-batch-node "$id" "$(field BatchHost "$id")"
for launcher in srun mpirun; do
    DCANAS_LAUNCHER=$launcher begin lost-node-$launcher --nodes=2 --nodelist=n1
    in_lug lost-node-$launcher
    lose_node lost-node-$launcher "$id" n2
done

# ---- a node that only seems to be lost: its ranks, which slept, wake up beside those of the next start ----

# Its srun may even end the next start's step, which has the same number: then that start is lost, too.

no_ranks() {
    [ -z "$(ranks_on "$1")" ]
}

begin zombies --nodes=1
in_training zombies
host=$(field BatchHost "$id")
signal_ranks STOP "$host"
end KILL "slurmd-$host"
in_time 60 has_restarted "$id"
in_time 60 lines 1 'training: resumed' zombies/tiny/log.txt
check 'ranks of the earlier start live on' [ -n "$(ranks_on "$host")" ]
signal_ranks CONT "$host"
went_on zombies "$id" lost
check '... and those ranks have ended' in_time 30 no_ranks "$host"
kill_node "$host"
start_node "$host"
in_time 30 all_idle

# ---- scontrol requeue, in the lookup graph, in the training, and under mpirun ----

begin requeued-lug --nodes=2
in_lug requeued-lug
scontrol requeue "$id"
went_on requeued-lug "$id" lost # it has KillWait, 5 s, to save its state
begin requeued-training --nodes=1
in_training requeued-training
scontrol requeue "$id"
went_on requeued-training "$id" lost
DCANAS_LAUNCHER=mpirun begin requeued-mpirun --nodes=2
in_training requeued-mpirun
scontrol requeue "$id"
went_on requeued-mpirun "$id" lost

# ---- ranks that die ----

for launcher in srun mpirun; do
    for nodes in 1 2; do
        DCANAS_LAUNCHER=$launcher begin killed-$launcher-$nodes --nodes=$nodes
        in_lug killed-$launcher-$nodes
        kill -KILL "$(ranks_on n1 n2 n3 | shuf -n 1)"
        went_on killed-$launcher-$nodes "$id" lost
    done
done

# ---- preemption: urgent jobs take all nodes ----

for launcher in srun mpirun; do
    for phase in lug training; do
        folder=preempted-$phase-$launcher
        DCANAS_LAUNCHER=$launcher begin $folder --nodes=2
        preempted=$id
        in_$phase $folder
        submit --job-name=urgent --output=%x-%j.out --partition=urgent --nodes=3 --ntasks=6 --wrap 'sleep 2'
        check "$folder: the urgent job completes" ends "$id" COMPLETED 120
        kind=lost # mpirun's daemons take Slurm's notice for their own end: what goes on is the last checkpoint
        if [ $launcher = srun ]; then
            kind=saved
            check '... the other was told, and saved its state' lines 1 '^dcanas: .* saved$' "dcanas-$preempted.out"
        fi
        went_on $folder "$preempted" $kind
    done
done

# ---- time limits in the lookup graph, by srun, and in the training, by mpirun ----

# See jobs.sh: ranks are held until the job is told.
begin limited-lug --nodes=1 --nodelist=n1 --time=1 --signal=B:USR1@50
limited=$id
in_lug limited-lug
signal_ranks STOP n1
DCANAS_LAUNCHER=mpirun begin limited-training --nodes=2 --nodelist=n[2-3] --time=1 --signal=B:USR1@50
in_training limited-training
signal_ranks STOP n2 n3
in_time 90 lines 1 'SIGUSR1: the state is being saved' "dcanas-$limited.out"
signal_ranks CONT n1
in_time 90 lines 1 'SIGUSR1: the state is being saved' "dcanas-$id.out"
signal_ranks CONT n2 n3
went_on limited-lug "$limited" saved
went_on limited-training "$id" saved

# ---- an array with lost tasks ----

submit --array=1-3 "$jobs/lug-array.sbatch" "$ini" --set run.output=array "${options[@]}"
array=$id
in_time 60 lines 1 '"event":"finished"' array/tiny/parts/1-of-3/events.jsonl
scancel "${array}_1"                                                      # somebody gives up on it
in_time 60 lines 1 '"event":"finished"' array/tiny/parts/2-of-3/events.jsonl
kill -KILL "$(process_of array/tiny/parts/2-of-3/lock)"                    # it is queued again
submit --dependency=afterany:"$array" --ntasks=2 "$jobs/lug.sbatch" "$ini" --set run.output=array "${options[@]}"
check 'lug.sbatch after an array that lost a task: it completes' ends "$id" COMPLETED 120
check '... one task was cancelled' [ "$(field JobState "${array}_1")" = CANCELLED ]
check '... one was queued again' [ "$(restarts "${array}_2")" = 1 ]
check '... the same lookup graph' equal_bits whole/tiny/lug.h5 array/tiny/lug.h5
check '... no finished search was made again' all_made 0 1 array $searches
submit --nodes=2 --ntasks=2 "$jobs/search.sbatch" "$ini" --set run.output=array "${options[@]}"
check 'search.sbatch: it completes' ends "$id" COMPLETED 120

# ---- train.sbatch, requeued ----

submit --nodes=2 --ntasks-per-node=1 --cpus-per-task=1 "$jobs/train.sbatch" "$ini" --set run.output=array "${options[@]}"
in_training array
scontrol requeue "$id"
check 'train.sbatch, requeued: it completes' ends "$id" COMPLETED 120
check '... with the result of the undisturbed run' same_end whole/tiny array/tiny

# ---- the chain over two nodes, disturbed ----

train_nodes=2 chain 'idx idx chain.h5 --classes 4' "$ini" --set run.output=chained --set data.file=chain.h5 "${options[@]}"
in_time 60 lines 1 '"event":"finished"' chained/tiny/parts/1-of-2/events.jsonl
scontrol requeue "${ids[1]}_1"
in_training chained
scontrol requeue "${ids[4]}"
check 'the chain, requeued twice: it completes' ends "${ids[4]}" COMPLETED 200
check '... and all its jobs' all_ended COMPLETED "${ids[@]}"
check '... the same data set' cmp tiny.h5 chain.h5
check '... the same lookup graph' equal_bits whole/tiny/lug.h5 chained/tiny/lug.h5
check '... every search made once, by the array' array_made chained $searches
check '... the same result' same_end whole/tiny chained/tiny
finish
