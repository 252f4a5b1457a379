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
export DCANAS_MPIRUN_OPTIONS='--bind-to none'

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

is_over() {
    [ -z "$(squeue -h -j "$1" -t pending,running,completing,suspended,stopped,requeued -o %i 2>/dev/null)" ]
}

# ends JOB STATE SECONDS: it comes to its end, and to this one.
ends() {
    in_time "$3" is_over "$1"
    [ "$(field JobState "$1")" = "$2" ] && return
    note "job $1 is $(field JobState "$1") ($(field Reason "$1")) after $(field Restarts "$1") restarts; it wrote"
    tail -n 12 ./*-"$1".out | sed 's/^/# /'
    return 1
}

restarts() {
    field Restarts "$1"
}

# lines COUNT TEXT FILE: at least so many hold it.
lines() {
    [ "$(count "$2" "$3")" -ge "$1" ]
}

# signal_ranks SIGNAL NODE...: to all ranks there.
signal_ranks() {
    local signal=$1 node step process
    shift
    for node; do
        for step in $(steps_of "$node"); do
            for process in $(descendants "$step"); do
                if [ "$(cat "/proc/$process/comm" 2>/dev/null)" = dcanas ]; then
                    kill -"$signal" "$process"
                fi
            done
        done
    done
}
