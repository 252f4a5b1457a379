# shellcheck shell=bash
# What the tests on a Slurm cluster share: all that the program's tests have (their TAP and data), the cluster, and jobs
# in its queue. Sourced first by each of them.
if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    echo '1..0 # SKIP it is a part of the others'
    exit 0
fi
# shellcheck source=tests/slurm/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/cluster.sh"
missing=$(cluster_missing)
if [ -n "$missing" ]; then
    echo "1..0 # SKIP SLURM IS NOT TESTED: not found:" $missing "(make deps installs Debian's slurmctld slurmd slurm-client munge)"
    exit 0
fi
# shellcheck source=tests/program/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../program/common.sh"

jobs=$(cd "$here/../../jobs" && pwd)
export DCANAS=$program
# shellcheck source=jobs/site.sh
. "$jobs/site.sh"

# Nodes that are one machine would meet in shared memory: ranks talk by TCP.
export OMPI_MCA_btl=self,tcp OMPI_MCA_btl_tcp_if_include=lo
export DCANAS_MPIRUN_OPTIONS='--bind-to none' OMPI_MCA_odls_base_sigkill_timeout=5

leave_cluster() {
    stop_cluster
    leave
}
trap leave_cluster EXIT
chmod 711 "$work"
start_cluster "$work/cluster" ||
    bail_out "Slurm's daemons do not start: $(tail -n 4 "$work"/cluster/log/*)"

# ---- jobs ----

# shellcheck disable=SC2034 # used by those that source this
id=

# submit ARGUMENTS...: to sbatch; the job's number is in $id.
submit() {
    # shellcheck disable=SC2034
    id=$(sbatch --parsable "$@" 2>"$err") || bail_out "sbatch $*: $(cat "$err")"
}

ids=()

# chain IMPORT ARGUMENTS...: jobs/pipeline.sh, small enough for one node; its jobs' numbers are in $ids.
chain() {
    local import=$1
    shift
    export DCANAS_IMPORT_OPTIONS=--ntasks=2 DCANAS_ARRAY_OPTIONS=--array=1-2 DCANAS_LUG_OPTIONS=--ntasks=1
    export DCANAS_SEARCH_OPTIONS=--ntasks=2
    export DCANAS_TRAIN_OPTIONS="--nodes=${train_nodes:-1} --ntasks-per-node=$((2 / ${train_nodes:-1})) --cpus-per-task=1"
    "$jobs/pipeline.sh" -i "$import" "$@" >"$out" 2>"$err" || bail_out "pipeline.sh: $(cat "$err")"
    # shellcheck disable=SC2034
    mapfile -t ids < <(sed -n 's/^job \([0-9]*\):.*/\1/p' "$err")
    sed 's/^/# /' "$err"
}

# array_made FOLDER SEARCHES: each once, and none by the job that gathered them.
array_made() {
    all_made 1 1 "$1" "$2" && ! grep '"event":"finished".*"lookup graph"' "$1/tiny/events.jsonl" | grep -qv 'made before'
}

# field NAME JOB: of `scontrol show job`.
field() {
    scontrol show job -o "$2" 2>/dev/null | sed -n "s/.* $1=\([^ ]*\).*/\1/p" | head -n 1
}

# in_time SECONDS COMMAND...: tries until the command succeeds.
in_time() {
    local tries=$(($1 * 10))
    shift
    until "$@"; do
        [ $((tries -= 1)) -gt 0 ] || return 1
        sleep 0.1
    done
}

# is_over JOB: not when Slurm's controller does not answer.
is_over() {
    local left
    left=$(squeue -h -j "$1" -t pending,running,completing,suspended,stopped,requeued -o %i 2>/dev/null) && [ -z "$left" ]
}

# ends JOB STATE SECONDS: it comes to its end, and to this one.
ends() {
    in_time "$3" is_over "$1"
    [ "$(field JobState "$1")" = "$2" ] && return
    note "job $1 is $(field JobState "$1") ($(field Reason "$1")) after $(field Restarts "$1") restarts; it wrote"
    tail -n 12 ./*-"$1".out | sed 's/^/# /'
    return 1
}

# all_ended STATE JOB...: all tasks of arrays, too.
all_ended() {
    local state=$1 one
    shift
    for one; do
        in_time 30 is_over "$one"
        [ "$(scontrol show job -o "$one" 2>/dev/null | sed -n 's/.* JobState=\([^ ]*\).*/\1/p' | sort -u)" = "$state" ] && continue
        note "job $one: $(scontrol show job -o "$one" 2>&1)"
        return 1
    done
}

restarts() {
    field Restarts "$1"
}

has_restarted() {
    [ "$(restarts "$1")" -gt 0 ]
}

# lines COUNT TEXT FILE: at least so many hold it.
lines() {
    [ "$(count "$2" "$3")" -ge "$1" ]
}

# ranks_on NODE...: the numbers of their processes.
ranks_on() {
    local node step process
    for node; do
        for step in $(steps_of "$node"); do
            for process in $(descendants "$step"); do
                [ "$(cat "/proc/$process/comm" 2>/dev/null)" != dcanas ] || echo "$process"
            done
        done
    done
}

# signal_ranks SIGNAL NODE...: to all ranks there.
signal_ranks() {
    local signal=$1
    shift
    ranks_on "$@" | xargs -r kill -"$signal"
}

# process_of LOCK: its owner's number.
process_of() {
    sed -n 's/.*"process":\([0-9]*\).*/\1/p' "$1"
}

all_idle() {
    [ "$(nodes_in idle)" = $cluster_nodes ]
}
