/* The CUDA backend: kernels/NAME.cu, cuDNN's dense convolutions and cuBLASLt behind the backend interface, in the same
 * layout as the CPU's (argued in kernels/cuda.h). One stream computes, another copies batches in. */
#ifndef DC_BACKEND_CUDA_CUDA_BACKEND_H
#define DC_BACKEND_CUDA_CUDA_BACKEND_H

#include "backend/backend.h"

/* As dc_backend_create. DC_ERR_INPUT where there is no GPU. */
dc_status dc_cuda_backend_create(const dc_backend_options *options, dc_backend **backend);

/* The number of GPUs that the driver shows; 0: `why` says why. */
int dc_cuda_devices(char *why, size_t size);

/* The libraries' versions: "CUDA 13.0, cuDNN 9.19.0, cuBLASLt 13.1.0, NCCL 2.28.9". */
void dc_cuda_versions(char *text, size_t size);

#endif
