#!/bin/sh
# Where the Makefile looks for CUDA, cuDNN and NCCL, as TAP: in trees as clusters have them, made of empty files.
# shellcheck source=tests/tap.sh
. tests/tap.sh
folder=$(mktemp -d) || exit 1
folder=$(readlink -f "$folder")
trap 'rm -rf "$folder"' EXIT

# has FILE...: below the folder.
has() {
    for file in "$@"; do
        mkdir -p "$folder/$(dirname "$file")"
        echo 'exit 0' >"$folder/$file"
        chmod +x "$folder/$file"
    done
}
has whole/bin/nvcc whole/include/cuda_runtime_api.h whole/include/cublasLt.h whole/include/cudnn.h \
    whole/include/nccl.h whole/lib64/libcudnn.so
has cuda/bin/nvcc cuda/include/cuda_runtime_api.h cuda/include/cublasLt.h cuda/lib64/libcudart.so
has cudnn/include/cudnn.h cudnn/lib/libcudnn.so nccl/include/nccl.h nccl/lib/libnccl.so
has conda/bin/nvcc conda/include/cudnn.h conda/include/nccl.h conda/lib/libcudnn.so \
    conda/targets/x86_64-linux/include/cuda_runtime_api.h conda/targets/x86_64-linux/include/cublasLt.h \
    conda/targets/x86_64-linux/lib/libcudart.so
mkdir "$folder/path"
ln -s ../whole/bin/nvcc "$folder/path/nvcc"

# asks [VARIABLE=VALUE...]: make, in an environment of these alone; `lacking`, or folders of headers and libraries.
asks() {
    env -i PATH=/usr/bin:/bin HOME="$folder" "$@" make -s BUILD="$folder/build" --no-print-directory \
        --eval 'asked: ; @echo "$(or $(CUDA_LACKS),$(patsubst -L%,%,$(filter-out -isystem -l% -Wl%,$(CUDA_INCLUDES) $(CUDA_LIBS))))"' \
        asked 2>&1 | sed "s|$folder/||g"
}

# finds NAME ANSWER [VARIABLE=VALUE...]
finds() {
    name=$1 wanted=$2
    shift 2
    got=$(asks "$@")
    report "$name" "$([ "$got" = "$wanted" ] || echo "found: $got")"
}

finds 'all in one tree' 'whole/include whole/lib64' CUDA_HOME="$folder/whole"
finds 'nvcc on the PATH, by a link' 'whole/include whole/lib64' PATH="$folder/path:/usr/bin:/bin"
finds 'each in a home of its own' 'cuda/include cudnn/include nccl/include cuda/lib64 cudnn/lib nccl/lib' \
    CUDA_HOME="$folder/cuda" CUDNN_HOME="$folder/cudnn" NCCL_HOME="$folder/nccl"
finds "as Spack's and others' modules name them" 'cuda/include cudnn/include nccl/include cuda/lib64 cudnn/lib nccl/lib' \
    CUDA_PATH="$folder/cuda" CUDNN_ROOT="$folder/cudnn" NCCL_ROOT="$folder/nccl"
finds "as EasyBuild's modules name them" 'cuda/include cudnn/include nccl/include cuda/lib64 cudnn/lib nccl/lib' \
    EBROOTCUDA="$folder/cuda" EBROOTCUDNN="$folder/cudnn" EBROOTNCCL="$folder/nccl"
finds "conda's, below targets/" 'conda/include conda/targets/x86_64-linux/include conda/lib conda/targets/x86_64-linux/lib' \
    CUDA_HOME="$folder/conda"
finds 'nothing: what lacks is named' 'not found: nvcc cuBLASLt cuDNN NCCL' CUDA_HOME="$folder/none"
finds 'no NCCL' 'not found: NCCL' CUDA_HOME="$folder/cuda" CUDNN_HOME="$folder/cudnn"
finds 'left out' 'CUDA=0 was given' CUDA_HOME="$folder/whole" CUDA=0
plan
