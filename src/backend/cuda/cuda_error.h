/* Errors of CUDA's calls, here and in comm/. */
#ifndef DC_BACKEND_CUDA_CUDA_ERROR_H
#define DC_BACKEND_CUDA_CUDA_ERROR_H

#include "base/status.h"

#include <cuda_runtime_api.h>

/* Turns a CUDA error into DC_ERR_DEVICE, one of memory into DC_ERR_MEMORY: `DC_CUDA_TRY(cudaMalloc(...));` in a
 * function that returns dc_status. */
#define DC_CUDA_TRY(call)                                                                                              \
    do {                                                                                                               \
        cudaError_t dc_cuda_code_ = (call);                                                                            \
        if (dc_cuda_code_ != cudaSuccess)                                                                              \
            return dc_cuda_error(dc_cuda_code_, #call);                                                                \
    } while (0)

/* call: the C text of the call, of which the function's name is shown. */
dc_status dc_cuda_error(cudaError_t code, const char *call);

#endif
