#include "backend/cuda/cuda_error.h"

#include <string.h>

/* What follows is not to meet the error again. */
static dc_status out_of_memory(int name, const char *call)
{
    size_t free_bytes = 0, total = 0;
    cudaGetLastError();
    cudaMemGetInfo(&free_bytes, &total);
    return dc_fail(DC_ERR_MEMORY,
                   "out of memory on the GPU (in %.*s): %zu MiB of its %zu MiB are free; lower batch (or channels, "
                   "cells), or use a GPU that nobody else uses (dcanas plan tells what a job needs)",
                   name, call, free_bytes >> 20, total >> 20);
}

dc_status dc_cuda_error(cudaError_t code, const char *call)
{
    const int name = (int)strcspn(call, "(");
    if (code == cudaErrorMemoryAllocation)
        return out_of_memory(name, call);
    return dc_fail(DC_ERR_DEVICE, "the GPU failed: %s (%s, in %.*s)", cudaGetErrorString(code), cudaGetErrorName(code),
                   name, call);
}
