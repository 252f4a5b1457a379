#!/bin/sh
# The tests that need several ranks, as TAP for prove: how each job ends (exit status, message, time) is part of them.
# With DCANAS_GPUS=N only those of NCCL, on the N real GPUs of this machine, where else they are emulated.
# usage: BUILD=build tests/mpi/run.sh
build=${BUILD:-build}
programs=$build/mpi-tests
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT

if [ "$(id -u)" = 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
export OMP_NUM_THREADS=1
n=0

# report NAME PASSED(0 is yes): one TAP line, and the job's output when it did not pass.
report() {
    n=$((n + 1))
    if [ "$2" = 0 ]; then
        echo "ok $n - $1"
    else
        echo "not ok $n - $1"
        sed 's/^/# /' "$log"
    fi
}

# job RANKS SECONDS PROGRAM ARGUMENTS...: runs it; status 124 when it hangs.
job() {
    ranks=$1 seconds=$2 program=$3
    shift 3
    timeout -k 5 "$seconds" mpirun -np "$ranks" --oversubscribe --bind-to none "$programs/$program" "$@" >"$log" 2>&1
}

# passes RANKS PROGRAM SCENARIO
passes() {
    job "$1" 60 "$2" "$3"
    report "$2 $3, $1 ranks" $?
}

# refuses RANKS PROGRAM SCENARIO MESSAGE: the emulated device ends the job and says why.
refuses() {
    job "$1" 20 "$2" "$3"
    status=$?
    passed=1
    [ $status -eq 99 ] && grep -q "^emulated device: $4" "$log" && passed=0
    [ $passed = 0 ] || echo "exit status $status" >>"$log"
    report "$2 $3, $1 ranks: the emulated device ends it" $passed
}

# ends RANKS PROGRAM SCENARIO STATUS SECONDS MESSAGE: with this exit status (any: not 0, and not by hanging), in time,
# and with the message in exactly one line.
ends() {
    job "$1" "$5" "$2" "$3"
    status=$?
    passed=0
    if [ "$4" = any ]; then
        [ $status -ne 0 ] && [ $status -ne 124 ] || passed=1
    else
        [ $status -eq "$4" ] || passed=1
    fi
    [ -z "$6" ] || [ "$(grep -c "^dcanas: $6" "$log")" = 1 ] || passed=1
    [ $passed = 0 ] || echo "exit status $status" >>"$log"
    report "$2 $3, $1 ranks: ends with status $4 within $5 s" $passed
}

on_cpus() {
    for ranks in 1 2 3 4; do
        passes $ranks test_comm collectives
        passes $ranks test_buckets all
        passes $ranks test_farm all
        passes $ranks test_train_parallel all
    done

    missing='\[data\] file = x.h5 is missing'
    ends 3 test_comm together 2 10 "rank 2: $missing"
    ends 3 test_comm late 2 10 "rank 2: $missing"
    ends 3 test_comm interrupted 75 10 "rank 2: $missing"
    ends 3 test_comm abort 2 10 "rank 2: $missing"
    ends 3 test_comm alone 2 15 "rank 2: $missing"
    ends 3 test_comm kill any 10
    watched='rank 0: no progress for 1.0s (\[run\] watchdog): '
    ends 3 test_comm stuck 1 10 "${watched}does not move: rank 2 in a place, step 17\. What was saved stands"
    ends 3 test_comm deadlock 1 10 "${watched}all wait for each other: rank 0 in a place, step 17, MPI_Allreduce; .* rank 2 in a place, step 17, MPI_Ibarrier\."
    passes 3 test_comm slow
    OMPI_MCA_orte_enable_recovery=1 job 3 25 test_comm unlaunched # mpirun lets the others live
    [ $? -ne 124 ] && [ "$(grep -c "^dcanas: rank 2: $missing" "$log")" = 1 ]
    report 'test_comm unlaunched, 3 ranks: those that mpirun does not end end by themselves' $?
    OMPI_MCA_orte_enable_recovery=1 job 3 25 test_comm forgotten
    [ "$(grep -c '^rank [01] has gone on' "$log")" = 2 ]
    report 'test_comm forgotten, 3 ranks: one that was taken for dead does not end the others' $?
    ends 4 test_farm fail 1 10 '\(rank [0-9]: \)\{0,1\}search 3: cannot write'
    ends 4 test_farm abort 1 10 '\(rank [0-9]: \)\{0,1\}search 3: cannot write'
    ends 4 test_farm kill any 10

    # Without mpirun: one rank, at once.
    timeout 10 "$programs/test_comm" collectives >"$log" 2>&1
    report 'test_comm without mpirun' $?
    timeout 10 "$programs/test_farm" all >"$log" 2>&1
    report 'test_farm without mpirun' $?
}

# Sums on GPUs, one a rank, for up to so many ranks.
on_gpus() {
    export DCANAS_NCCL_TIMEOUT_S=20
    for ranks in 1 2 3 4; do
        [ "$ranks" -le "$1" ] || continue
        for streams in lazy eager random; do # of the emulator
            EMULATOR_STREAMS=$streams passes $ranks test_nccl all
        done
        DCANAS_TEST_DEVICE=cuda passes $ranks test_train_parallel all
    done
    [ "$1" -ge 4 ] || return
    export DCANAS_NCCL_TIMEOUT_S=4 # a busy machine may need one for what goes well
    ends 2 test_nccl stop 1 20 'rank 0: stopped: NCCL: waited 4 s for collective .* over 2 ranks'
    ends 4 test_nccl stop 1 20
    ends 3 test_nccl kill any 10
    ends 3 test_nccl mixed 2 10 'of ranks that train together rank 1 has no GPU, and rank 0 has one: '
}

# Mistakes of ours, which only the emulator is sure to catch.
mistakes() {
    export DCANAS_NCCL_TIMEOUT_S=20
    ends 3 test_nccl share 2 10 'ranks 0 and 1 both use GPU 0 (emulated device 0) of their node: NCCL needs one GPU a rank'
    refuses 2 test_nccl mismatch 'ncclAllReduce: on rank [01] it is an all-reduce of'
    refuses 2 test_nccl order 'nccl.*: on rank [01] it is .*50 elements'
    refuses 2 test_nccl captured 'ncclAllReduce: the stream is being captured'
    refuses 2 test_nccl host_memory 'ncclAllReduce: the buffer is not 400 bytes of device memory'
}

if [ -n "${DCANAS_GPUS:-}" ]; then
    on_gpus "$DCANAS_GPUS"
else
    on_cpus
    if [ -x "$build/emulated/mpi-tests/test_nccl" ]; then
        programs=$build/emulated/mpi-tests
        export EMULATED_DEVICES=4
        on_gpus 4
        mistakes
    fi
fi

echo "1..$n"
