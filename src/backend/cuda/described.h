/* GPUs that need not be here: cuDNN plans for a description. */
#ifndef DC_BACKEND_CUDA_DESCRIBED_H
#define DC_BACKEND_CUDA_DESCRIBED_H

#include "base/status.h"

#include <stddef.h>

typedef struct dc_described_gpu {
    const char *name; /* "h100" */
    int version;      /* compute capability times 100 */
    int multiprocessors, shared_memory;
    long long memory_bytes, cache_bytes;
} dc_described_gpu;

enum { DC_DESCRIBED_GPUS = 3, DC_DESCRIPTION_CHARS = 1024 };
extern const dc_described_gpu dc_described_gpus[DC_DESCRIBED_GPUS];

/* DC_ERR_INPUT, with the names there are, for another. */
dc_status dc_described_gpu_find(const char *name, const dc_described_gpu **gpu);

/* As cuDNN reads it (JSON of its device properties, from version 9.8 on). */
void dc_described_gpu_json(const dc_described_gpu *gpu, char json[DC_DESCRIPTION_CHARS]);

#endif
