#include "backend/cuda/cuda_error.h"

#include <string.h>

dc_status dc_cuda_error(cudaError_t code, const char *call)
{
    return dc_fail(DC_ERR_DEVICE, "the GPU failed: %s (%s, in %.*s)", cudaGetErrorString(code), cudaGetErrorName(code),
                   (int)strcspn(call, "("), call);
}
