/* What the emulated device tells of a program beside what CUDA tells. */
#ifndef DC_TESTS_EMULATOR_WAITS_H
#define DC_TESTS_EMULATOR_WAITS_H

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How often the host has waited for work of a stream that was not done: in cudaStreamSynchronize, cudaEventSynchronize,
 * cudaDeviceSynchronize, in copies that wait, and in calls that free memory. */
unsigned long emulator_waits(cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
