# shellcheck shell=bash
# What all jobs share; sourced by the batch scripts. Nothing to edit here: see site.sh.
#
# A job that is preempted, or has used up its time, ends with status 75: its state is saved, and it queues itself again.
# What ends otherwise does not; a node that fails is Slurm's own reason to requeue (--requeue).
# shellcheck source=jobs/site.sh
. "${DCANAS_JOBS:-jobs}/site.sh"

# One task of an array must not requeue the whole of it.
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-$SLURM_JOB_ID}

# start ARGUMENTS...: dcanas on all tasks of the job, as many threads each as the task has processors.
start() {
    local cpus=${SLURM_CPUS_PER_TASK:-1} device=auto command=()
    case $DCANAS_DEVICE in
    gpu) device=cuda ;;
    cpu) device=cpu ;;
    *)
        echo "jobs/site.sh: DCANAS_DEVICE=$DCANAS_DEVICE should be cpu or gpu" >&2
        exit 2
        ;;
    esac
    case $DCANAS_LAUNCHER in
    srun)
        # One that fails ends all. Every task sees its node's GPUs, and takes that of its own place among the tasks.
        command=(srun --mpi=pmix --kill-on-bad-exit=1 --cpus-per-task="$cpus" --cpu-bind=cores --gpu-bind=none)
        ;;
    mpirun)
        # It kills what does not end soon after a signal: saving takes longer than its usual second.
        export OMPI_MCA_odls_base_sigkill_timeout=${OMPI_MCA_odls_base_sigkill_timeout:-60}
        # shellcheck disable=SC2206 # several words
        command=(mpirun ${DCANAS_MPIRUN_OPTIONS:---map-by slot:PE=$cpus --bind-to core})
        ;;
    *)
        echo "jobs/site.sh: DCANAS_LAUNCHER=$DCANAS_LAUNCHER should be srun or mpirun" >&2
        exit 2
        ;;
    esac
    # shellcheck disable=SC2206
    command+=(${DCANAS_CONTAINER:-} "$DCANAS" "$@" --device "$device" --set run.threads="$cpus")
    echo "$(date '+%F %T')  job $job, start $((${SLURM_RESTART_COUNT:-0} + 1)): ${command[*]}"
    exec "${command[@]}"
}

# The launcher passes USR1 on to the ranks; TERM it would take for the end.
pass_on() {
    echo "$(date '+%F %T')  SIG$1: the state is being saved"
    kill -USR1 "$launcher" 2>/dev/null
}

# dcanas ARGUMENTS...: runs it, and ends the script with its status.
dcanas() {
    local status
    start "$@" &
    launcher=$!
    trap 'pass_on USR1' USR1
    trap 'pass_on TERM' TERM
    while :; do # a signal ends `wait`, not the launcher
        wait "$launcher"
        status=$?
        kill -0 "$launcher" 2>/dev/null || break
    done
    # Not what somebody has cancelled.
    if [ $status = 75 ] && [ "$(squeue -h -j "$job" -o %T)" = RUNNING ]; then
        echo "$(date '+%F %T')  job $job is queued again"
        scontrol requeue "$job"
    fi
    exit $status
}
