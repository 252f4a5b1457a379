#!/bin/bash
# The batch scripts on a real Slurm cluster: jobs come to their end, also past a time limit, with the results of a run
# that nothing disturbed. tests/slurm/faults.sh (DCANAS_LONG=1) has the rest.
# shellcheck disable=SC2317 # functions that `check` calls
# shellcheck source=tests/slurm/common.sh
. "$(dirname "$0")/common.sh"

run 2 run "$ini" --device cpu --set run.output=whole
check 'undisturbed run, without Slurm' [ $status = 0 ]

# ---- the time limit, while a network is trained ----

# Slurm looks at limits every 30 s, and tells a job at the first look at which no more than the notice and 30 s are left.
# Its ranks are held in the second epoch until then.
submit --ntasks=2 --nodes=2 --nodelist=n[1-2] --time=1 --signal=B:USR1@50 "$jobs/run.sbatch" "$ini" --set run.output=limited
limited=$id
in_time 30 lines 1 '"event":"epoch"' limited/tiny/events.jsonl
check 'a job of two nodes trains' [ $? = 0 ]
signal_ranks STOP n1 n2

# ---- everything in one job, on the node that is left ----

submit --ntasks=2 --nodes=1 "$jobs/run.sbatch" "$ini" --set run.output=plain
check 'run.sbatch: the job completes' ends "$id" COMPLETED 60
check 'run.sbatch: the result is that of the run without Slurm' same_end whole/tiny plain/tiny

# ---- the time limit goes on ----

in_time 60 lines 1 'SIGUSR1: the state is being saved' "dcanas-$limited.out"
check 'a job is told before its time is up' [ $? = 0 ]
signal_ranks CONT n1 n2
check '... it queues itself again, and completes' ends "$limited" COMPLETED 60
check '... after one restart' [ "$(restarts "$limited")" = 1 ]
check '... and its result is that of the undisturbed run' same_end whole/tiny limited/tiny
check '... with every finished epoch trained once' [ "$(count '"event":"epoch"' limited/tiny/events.jsonl)" = 3 ]
finish
