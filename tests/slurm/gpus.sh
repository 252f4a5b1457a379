#!/bin/bash
# GPUs through Slurm: with DCANAS_DEVICE=gpu jobs ask for as many as tasks, each task sees its node's and takes one of its
# own. DCANAS_LONG=1: also under mpirun. Slurm's are none (links to /dev/null); dcanas computes on emulated ones, as many as it is shown.
# shellcheck disable=SC2317 # functions that `check` calls
# shellcheck source=tests/slurm/common.sh
. "$(dirname "$0")/common.sh"
export DCANAS=${program%/*}/emulated/dcanas
if [ ! -x "$DCANAS" ]; then
    echo '1..0 # SKIP no emulated device: built without CUDA'
    exit 0
fi
export DCANAS_NCCL_TIMEOUT_S=60

options=(--set data.file=few.h5 --set lug.points=1 --set search.runs=1 --set search.epochs=1 --set search.batch=16
    --set search.alpha_warmup_epochs=0 --set select.candidates=0 --set target.epochs=1 --set target.batch=16)
./make_data idx 32 32 && run 0 data import idx idx few.h5 --classes 4
check 'data' [ $status = 0 ]
program=$DCANAS
EMULATED_DEVICES=2 run 2 run "$ini" --device cuda --set run.output=whole "${options[@]}"
check 'a run on two GPUs, without Slurm' [ $status = 0 ]

# Stands for a container: notes what a rank is shown.
cat >see <<'END'
#!/bin/sh
echo "${SLURMD_NODENAME:-batch} $CUDA_VISIBLE_DEVICES" >>seen
export EMULATED_DEVICES=$(echo "$CUDA_VISIBLE_DEVICES" | tr ',' '\n' | grep -c .)
exec "$@"
END
chmod +x see
export DCANAS_CONTAINER=$work/see DCANAS_DEVICE=gpu
# shellcheck source=jobs/site.sh
. "$jobs/site.sh"

# gpus NAME SEEN SBATCH'S...: a job of two tasks, of which each sees GPUs like this, by node.
gpus() {
    local name=$1 seen=$2
    shift 2
    rm -f seen
    submit --ntasks=2 "$@" "$ini" --set run.output="$name" "${options[@]}"
    check "$name: the job completes" ends "$id" COMPLETED 240
    check '... it had a GPU for each task' grep -qx ' *JOB_GRES=gpu:2' <(scontrol show job -d "$id")
    check '... and its tasks were shown those of their nodes' [ "$(sort seen | tr '\n' ' ')" = "$seen " ]
    note "$(sort seen | tr '\n' ';')"
}

for DCANAS_LAUNCHER in srun ${long:+mpirun}; do
    gpus one-node-$DCANAS_LAUNCHER 'n1 0,1 n1 0,1' --nodes=1 "$jobs/run.sbatch"
    check '... with the result of the run without Slurm' same_end whole/tiny one-node-$DCANAS_LAUNCHER/tiny
    # These nodes are one machine, on which two ranks cannot train together on GPU 0.
    gpus two-nodes-$DCANAS_LAUNCHER 'n1 0 n2 0' --nodes=2 "$jobs/lug.sbatch"
    check '... with the lookup graph of the run without Slurm' equal_bits whole/tiny/lug.h5 two-nodes-$DCANAS_LAUNCHER/tiny/lug.h5
done
finish
