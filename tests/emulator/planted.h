/* Kernels with a mistake planted in them, for the emulator to find. planted: with the mistake. */
#ifndef EMULATOR_PLANTED_H
#define EMULATOR_PLANTED_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { PLANTED_THREADS = 128 }; /* of a block */

/* y[block] = sum of the block's part of x, by shared memory; planted: no barrier. */
cudaError_t planted_sum(cudaStream_t stream, const float *x, float *y, int blocks, bool planted);
/* The same by shuffles, and shared memory between lanes of a warp; planted: no __syncwarp. */
cudaError_t planted_warp_sum(cudaStream_t stream, const float *x, float *y, int blocks, bool planted);
/* y[i] = x[i] + add for first <= i < n, on so many threads. */
cudaError_t planted_add(cudaStream_t stream, const float *x, float *y, int first, int n, float add);
/* y[i] = x[127 - i] by a shared array, of which `beyond` elements more on are written; by so much dynamic memory. */
cudaError_t planted_reverse(cudaStream_t stream, const float *x, float *y, int beyond);
cudaError_t planted_dynamic_reverse(cudaStream_t stream, const float *x, float *y, int shared_floats);

enum planted_mistake {
    PLANTED_NOTHING,
    EXITED_BEFORE_BARRIER,
    TWO_BARRIERS,
    READS_OUTSIDE_MASK,
    CALLS_OUTSIDE_MASK,
    EXITED_LANE,
    NO_SUCH_LANE,
    TWO_SHUFFLES,
    UNSET_SHARED,
    TOO_MUCH_SHARED,
    DEEP_STACK,
};
/* y[i] = i; one block of so many threads. */
cudaError_t planted_count(cudaStream_t stream, float *y, int threads, enum planted_mistake mistake);
/* The same with that grid and block, and that much dynamic shared memory. */
cudaError_t planted_launch(cudaStream_t stream, float *y, unsigned grid_y, unsigned block, size_t shared_bytes);
/* y[0 ... n) by all kinds of shuffles and votes of a warp, in the order of the file. */
cudaError_t planted_lanes(cudaStream_t stream, int *y);

/* Work that waits for something else than the device, as a collective does for other ranks: until it is opened. */
cudaError_t planted_gate(cudaStream_t stream);
void planted_open_gate(void);

#ifdef __cplusplus
}
#endif

#endif
