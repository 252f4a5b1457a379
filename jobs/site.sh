# shellcheck shell=bash
# The site's settings: edit this one file, once. It is read twice: by you, before you submit (`. jobs/site.sh`), for what
# sbatch should ask for; and by every job, for what it needs where it runs. A value that is set already stays.

# ---- what to ask for: sbatch's options, as it takes them from the environment -----------------------------------------
#export SBATCH_ACCOUNT=project
#export SBATCH_PARTITION=main
#export SBATCH_QOS=normal
#export SBATCH_HINT=nomultithread # one thread a core, where processors have two

# ---- what computes: cpu, or gpu with one GPU for each task ------------------------------------------------------------
export DCANAS_DEVICE=${DCANAS_DEVICE:-cpu}

# ---- where: this folder, and the program ------------------------------------------------------------------------------
DCANAS_JOBS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export DCANAS_JOBS
export DCANAS=${DCANAS:-${DCANAS_JOBS%/jobs}/build/dcanas}

# ---- how tasks start: srun, or Open MPI's mpirun where Slurm was built without PMIx (`srun --mpi=list`) ---------------
export DCANAS_LAUNCHER=${DCANAS_LAUNCHER:-srun}
# Put before the program; has to pass on the environment and the present folder:
#export DCANAS_CONTAINER="apptainer exec --nv dcanas.sif"

# ---- pipeline.sh: what its jobs ask for in place of what is in their scripts --------------------------------------------
#export DCANAS_IMPORT_OPTIONS="--ntasks=16"
#export DCANAS_ARRAY_OPTIONS="--array=1-16 --time=02:00:00" # lug-array.sbatch
#export DCANAS_LUG_OPTIONS="--ntasks=1 --time=02:00:00"     # lug.sbatch
#export DCANAS_SEARCH_OPTIONS="--ntasks=3"
#export DCANAS_TRAIN_OPTIONS="--nodes=4 --mem=64G"

# ---- in a job only ----------------------------------------------------------------------------------------------------
if [ -n "${SLURM_JOB_ID:-}" ]; then
    : # module load gcc openmpi hdf5 cuda
    #export UCX_NET_DEVICES=mlx5_0:1 NCCL_SOCKET_IFNAME=ib0 # the network, where the libraries choose the wrong one
fi

# The GPU variant of every script: as many GPUs as tasks.
if [ "$DCANAS_DEVICE" = gpu ]; then
    export SBATCH_GPUS_PER_TASK=${SBATCH_GPUS_PER_TASK:-1}
fi
