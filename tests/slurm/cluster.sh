# shellcheck shell=bash
# A Slurm cluster of our own on this machine, with Debian's daemons: munged, slurmctld and a slurmd for each of the nodes
# n1, n2, n3, all run by whoever calls, without systemd and cgroups. Sourced. Configuration, key, sockets, state and logs
# lie in one folder; nothing outside of it is written, and TCP ports are taken where some are free.
#
# Two partitions: `main`, whose jobs are preempted (requeued after a time of grace) by those of `urgent`. Each node has
# two processors and two GPUs that are none (links to /dev/null).
if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    echo '1..0 # SKIP it is a part of the others'
    exit 0
fi
PATH=$PATH:/usr/sbin:/sbin # where Debian has daemons, and users no path

cluster=
cluster_nodes=3
cluster_grace=10 # seconds between the notice of a preemption and its end

# cluster_missing: the programs that a cluster needs and that are not here.
cluster_missing() {
    local tool
    for tool in munged munge slurmctld slurmd sbatch srun scontrol; do
        command -v "$tool" >/dev/null || echo "$tool"
    done
}

# ---- processes ----

# born PROCESS: when it started, in clock ticks: a number that was given again is another process. Nothing for one that
# is gone or only waits to be reaped.
born() {
    sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" { print $20 }'
}

# running NAME: whether the daemon of that name that was started last still runs.
running() {
    local process at
    read -r process at 2>/dev/null <"$cluster/pids/$1" && [ -n "$at" ] && [ "$(born "$process")" = "$at" ]
}

# daemon NAME COMMAND...: in a session of its own; its number and time of birth are kept.
daemon() {
    local name=$1 process
    shift
    setsid "$@" </dev/null >>"$cluster/log/$name.out" 2>&1 &
    process=$!
    disown "$process"
    echo "$process $(born "$process")" >"$cluster/pids/$name"
}

# end SIGNAL NAME...: signals these daemons, all at once, and waits until they are gone: killed, where 10 s are not enough.
end() {
    local signal=$1 name process tries
    shift
    for name; do
        if running "$name"; then
            read -r process _ <"$cluster/pids/$name"
            kill -"$signal" "$process" 2>/dev/null
        fi
    done
    for name; do
        tries=200
        while running "$name" && [ $((tries -= 1)) -gt 0 ]; do
            sleep 0.05
        done
        if running "$name"; then
            read -r process _ <"$cluster/pids/$name"
            kill -KILL "$process" 2>/dev/null
        fi
        rm -f "$cluster/pids/$name"
    done
}

# descendants PROCESS: it and all below it.
descendants() {
    local child
    echo "$1"
    for child in $(pgrep -P "$1"); do
        descendants "$child"
    done
}

# ---- configuration ----

# A first port with as many free ones after it as there are daemons, below those that the system gives away itself.
free_ports() {
    local base port tries=50 taken
    while [ $((tries -= 1)) -gt 0 ]; do
        base=$((10000 + RANDOM % 20000))
        taken=
        for ((port = base; port <= base + cluster_nodes; port++)); do
            if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
                taken=yes
            fi
        done
        if [ -z "$taken" ]; then
            echo $base
            return
        fi
    done
    return 1
}

configure() {
    local host user base
    host=$(hostname -s)
    user=$(id -un)
    base=$(free_ports) || return 1
    cat >"$cluster/slurm.conf" <<END
ClusterName=tests
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$base
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$cluster/munge/socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0,sched_min_interval=100000
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
StateSaveLocation=$cluster/state
SlurmdSpoolDir=$cluster/spool.%n
TmpFS=$cluster/tmp.%n
SlurmctldPidFile=$cluster/slurmctld.pid
SlurmdPidFile=$cluster/slurmd.%n.pid
SlurmctldLogFile=$cluster/log/slurmctld.log
SlurmdLogFile=$cluster/log/slurmd.%n.log
AccountingStorageType=accounting_storage/none
ReturnToService=2
SlurmdTimeout=6
InactiveLimit=0
MinJobAge=3600
KillWait=5
MessageTimeout=10
TCPTimeout=2
BatchStartTimeout=10
PropagateResourceLimitsExcept=MEMLOCK
NodeName=n[1-$cluster_nodes] NodeHostname=$host NodeAddr=127.0.0.1 Port=[$((base + 1))-$((base + cluster_nodes))] CPUs=2 Gres=gpu:2
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 GraceTime=$cluster_grace
PartitionName=urgent Nodes=ALL MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
END
    ln -sf /dev/null "$cluster/gpu0" # Slurm wants devices of characters
    ln -sf /dev/null "$cluster/gpu1"
    echo "NodeName=n[1-$cluster_nodes] Name=gpu File=$cluster/gpu[0-1]" >"$cluster/gres.conf"
}

# ---- the cluster ----

start_munge() {
    local tries=100
    [ -s "$cluster/munge/key" ] || (umask 077 && head -c 1024 /dev/urandom >"$cluster/munge/key")
    daemon munged munged --foreground --num-threads=2 --key-file="$cluster/munge/key" \
        --socket="$cluster/munge/socket" --pid-file="$cluster/munge/pid" --log-file="$cluster/log/munged.log" \
        --seed-file="$cluster/munge/seed"
    until munge -S "$cluster/munge/socket" -n >/dev/null 2>&1; do
        [ $((tries -= 1)) -gt 0 ] && running munged || return 1
        sleep 0.05
    done
}

start_node() {
    mkdir -p "$cluster/spool.$1" "$cluster/tmp.$1" # of its own: PMIx's folders would meet
    daemon "slurmd-$1" slurmd -D -N "$1" -f "$SLURM_CONF"
}

# nodes_in STATE: how many.
nodes_in() {
    timeout 10 sinfo -h -p main -t "$1" -o %D 2>/dev/null | awk '{ n += $1 } END { print n + 0 }'
}

start_slurm() {
    local node tries=300
    configure || return 1
    daemon slurmctld slurmctld -D -i -f "$SLURM_CONF"
    for ((node = 1; node <= cluster_nodes; node++)); do
        start_node "n$node"
    done
    until [ "$(nodes_in idle)" = $cluster_nodes ]; do
        [ $((tries -= 1)) -gt 0 ] && running slurmctld || return 1
        sleep 0.1
    done
}

# start_cluster FOLDER (absolute and short: sockets' paths end at 107 bytes; all that it lies in open to be passed, which
# munged insists on): exports SLURM_CONF, by which all of Slurm's commands find the cluster. Fails with $cluster/log telling why.
start_cluster() {
    local tries=3
    cluster=$1
    export SLURM_CONF=$cluster/slurm.conf
    mkdir -p "$cluster/log" "$cluster/pids" "$cluster/state" "$cluster/munge"
    chmod 755 "$cluster" "$cluster/log" "$cluster/munge"
    start_munge || return 1
    until start_slurm; do # somebody else may have taken a port meanwhile
        end TERM "${cluster_daemons[@]}"
        [ $((tries -= 1)) -gt 0 ] || return 1
    done
}
cluster_daemons=(slurmctld)
for ((node = 1; node <= cluster_nodes; node++)); do
    cluster_daemons+=("slurmd-n$node")
done

# steps_of NODE: the processes with which that node's slurmd (or one before it) watches over its jobs.
steps_of() {
    local process
    for process in $(pgrep -x slurmstepd); do
        if find "/proc/$process/fd" -lname "$cluster/log/slurmd.$1.log" 2>/dev/null | grep -q .; then
            echo "$process"
        fi
    done
}

# kill_node NODE: as if its power went: slurmd, and all that runs under it, by SIGKILL.
kill_node() {
    local process all=()
    end KILL "slurmd-$1"
    for process in $(steps_of "$1"); do
        mapfile -t -O ${#all[@]} all < <(descendants "$process")
    done
    [ ${#all[@]} = 0 ] || kill -KILL "${all[@]}" 2>/dev/null
}

# Ends exactly what was started. Legal at any time.
stop_cluster() {
    local node
    [ -n "$cluster" ] && [ -d "$cluster/pids" ] || return 0
    end KILL slurmctld # so that no job is requeued meanwhile
    for ((node = 1; node <= cluster_nodes; node++)); do
        kill_node "n$node"
    done
    end TERM munged
}
