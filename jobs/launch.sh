# shellcheck shell=bash
# What all jobs share; sourced by the batch scripts. Nothing to edit here: see site.sh.
#
# A job that is preempted, or has used up its time, ends with status 75: its state is saved, and it queues itself again. So
# does one that was lost: a rank was killed, hung or could not be started. It goes on from its last checkpoint; dcanas
# itself ends a job that gets no further by that (checkpoint.max_starts_without_progress). Any other error is left to you.
# A node that fails is Slurm's reason to requeue (--requeue).
# shellcheck source=jobs/site.sh
. "${DCANAS_JOBS:-jobs}/site.sh"

# One task of an array must not requeue the whole of it.
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-$SLURM_JOB_ID}
cpus=${SLURM_CPUS_PER_TASK:-1}

say() {
    echo "$(date '+%F %T')  $*"
}

# What is wrong in every start is told before the first.
wrong() {
    echo "jobs/site.sh: $*" >&2
    exit 2
}
case $DCANAS_LAUNCHER in srun | mpirun) ;; *) wrong "DCANAS_LAUNCHER=$DCANAS_LAUNCHER should be srun or mpirun" ;; esac
case $DCANAS_DEVICE in cpu | gpu) ;; *) wrong "DCANAS_DEVICE=$DCANAS_DEVICE should be cpu or gpu" ;; esac
[ -x "$DCANAS" ] || [ "${DCANAS_CONTAINER:-}" ] || wrong "DCANAS=$DCANAS should be the program: has it been built?"

# start ARGUMENTS...: dcanas on all tasks of the job.
start() {
    local command=() step
    # Every task is to see the GPUs that the job has on its node, and takes that of its own place among the tasks there:
    # asked for as so many for each task, srun would show it only one, and mpirun's daemon on a node likewise.
    if [ "${SLURM_GPUS_PER_TASK:-}" ]; then
        export SLURM_GPUS=$((SLURM_GPUS_PER_TASK * SLURM_NTASKS))
        unset SLURM_GPUS_PER_TASK SLURM_TRES_PER_TASK
    fi
    if [ "$DCANAS_LAUNCHER" = srun ]; then
        # Steps of a job are numbered, and a node that crashed may refuse a step of which it still has the PMIx socket: this
        # start's is another one than that of the seven before it.
        for ((step = 0; step < ${SLURM_RESTART_COUNT:-0} % 8; step++)); do
            srun --mpi=none --nodes=1 --ntasks=1 true 2>/dev/null
        done
        # One that fails ends all.
        command=(srun --mpi=pmix --kill-on-bad-exit=1 --cpus-per-task="$cpus" --cpu-bind=cores)
    else
        # It kills what has not ended so many seconds after a signal: saving takes longer than the usual one.
        export OMPI_MCA_odls_base_sigkill_timeout=${OMPI_MCA_odls_base_sigkill_timeout:-30}
        # shellcheck disable=SC2206 # several words
        command=(mpirun ${DCANAS_MPIRUN_OPTIONS:---map-by slot:PE=$cpus --bind-to core})
    fi
    # shellcheck disable=SC2206
    command+=(${DCANAS_CONTAINER:-} "$DCANAS" "$@")
    say "job $job, start $((${SLURM_RESTART_COUNT:-0} + 1)): ${command[*]}"
    exec "${command[@]}"
}

# The launcher passes USR1 on to the ranks; TERM it would take for the end.
pass_on() {
    say "SIG$1: the state is being saved"
    kill -USR1 "$launcher" 2>/dev/null
}

# patiently COMMAND...: tries again where Slurm's controller does not answer.
patiently() {
    "$@" || { sleep 5 && "$@"; } || { sleep 20 && "$@"; }
}

# told: the status that dcanas has left. On a network file system that takes its time.
told() {
    local tries=$((status == 0 ? 60 : 5))
    until [ -s "$DCANAS_STATUS_FILE" ]; do
        [ $((tries -= 1)) -gt 0 ] || return 1
        sleep 1
    done
    cat "$DCANAS_STATUS_FILE"
    rm "$DCANAS_STATUS_FILE"
}

# goes_on: whether the job is to be queued again. Not when somebody has cancelled it, nor when a later start runs already,
# of a job whose node was taken for dead.
goes_on() {
    [ $status = 75 ] || { [ $status = lost ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 20 ]; } || return 1
    [ "$(patiently squeue -h -j "$job" -O State,RestartCnt | xargs)" = "RUNNING ${SLURM_RESTART_COUNT:-0}" ]
}

# run_ranks ARGUMENTS...: dcanas on all tasks; ends the script where that does not end well.
run_ranks() {
    local status told
    export DCANAS_STATUS_FILE=$PWD/.dcanas-$job-${SLURM_RESTART_COUNT:-0}
    rm -f "$DCANAS_STATUS_FILE"
    start "$@" &
    launcher=$!
    trap 'pass_on USR1' USR1
    trap 'pass_on TERM' TERM
    while :; do # a signal ends `wait`, not the launcher
        wait "$launcher"
        status=$?
        kill -0 "$launcher" 2>/dev/null || break
    done
    if ! told=$(told); then
        say "no status in $DCANAS_STATUS_FILE (the launcher's is $status): dcanas was killed, or not started"
        told=lost
    fi
    status=$told
    [ "$status" = 0 ] && return
    if goes_on; then
        say "job $job (status $status) is queued again"
        patiently scontrol requeue "$job"
    fi
    exit ${status/lost/1}
}

# dcanas COMMAND...: what computes does so on the site's device, in as many threads a task as it has processors.
dcanas() {
    run_ranks "$@" --device "${DCANAS_DEVICE/gpu/cuda}" --set run.threads="$cpus"
}
