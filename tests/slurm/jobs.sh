#!/bin/bash
# The batch scripts on a real Slurm cluster: jobs come to their end, one by one, as a chain and past a time limit, with
# the results of a run that nothing disturbed. tests/slurm/faults.sh has what befalls them.
# shellcheck disable=SC2317 # functions that `check` calls
# shellcheck source=tests/slurm/common.sh
. "$(dirname "$0")/common.sh"
need h5dump

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
check 'run.sbatch: the job completes' ends "$id" COMPLETED 120
check 'run.sbatch: the result is that of the run without Slurm' same_end whole/tiny plain/tiny

# ---- the chain, there too ----

chain 'idx idx chain.h5 --classes 4' "$ini" --set run.output=chained --set data.file=chain.h5
check 'pipeline.sh: five jobs' [ ${#ids[@]} = 5 ]
check 'pipeline.sh: the last one completes' ends "${ids[4]}" COMPLETED 180
check '... and so did the others' all_ended COMPLETED "${ids[@]}"
check '... import.sbatch: the data set is the same' cmp tiny.h5 chain.h5
check '... lug-array.sbatch, lug.sbatch: the lookup graph is the same bits' equal_bits whole/tiny/lug.h5 chained/tiny/lug.h5
check '... every search made once, by the array' array_made chained 4
check '... search.sbatch, train.sbatch: the result is that of one run' same_end whole/tiny chained/tiny

# A chain whose first job fails is not left in the queue.
chain 'idx nowhere none.h5' "$ini" --set run.output=broken --set data.file=none.h5
check 'pipeline.sh: when the import fails' ends "${ids[0]}" FAILED 30
check '... nothing that follows is run' all_ended CANCELLED "${ids[@]:1}"

# What is wrong in site.sh is told once, and not tried again.
for wrong in DCANAS_LAUNCHER=lamboot DCANAS_DEVICE=abacus DCANAS=/nowhere; do
    submit --ntasks=1 --export="ALL,$wrong" "$jobs/run.sbatch" "$ini" --set run.output=plain
    check "$wrong: the job fails" ends "$id" FAILED 60
    check '... at once, and says why' [ "$(restarts "$id"):$(count "^jobs/site.sh: $wrong should be" "dcanas-$id.out")" = 0:1 ]
done

# ---- the time limit goes on ----

in_time 60 lines 1 'SIGUSR1: the state is being saved' "dcanas-$limited.out"
check 'a job is told before its time is up' [ $? = 0 ]
signal_ranks CONT n1 n2
check '... it queues itself again, and completes' ends "$limited" COMPLETED 120
check '... after a restart' has_restarted "$limited" # or two, on a busy machine
run 0 status limited/tiny
check '... which dcanas status tells' grep -q "started [2-9] times; last by .dcanas run. with 2 ranks, .* ago in job $limited, queued again [1-9] times*\$" "$out"
check '... and its result is that of the undisturbed run' same_end whole/tiny limited/tiny
check '... with every finished epoch trained once' [ "$(count '"event":"epoch"' limited/tiny/events.jsonl)" = 3 ]
finish
