/* What the emulated device tells of a program beside what CUDA tells. A test that also runs without it says
 * `#pragma weak`, and looks whether they are there. stream: a cudaStream_t. */
#ifndef DC_TESTS_EMULATOR_COUNTS_H
#define DC_TESTS_EMULATOR_COUNTS_H

struct CUstream_st;

#ifdef __cplusplus
extern "C" {
#endif

/* How often the host has waited for work of a stream that was not done: in cudaStreamSynchronize, cudaEventSynchronize,
 * cudaDeviceSynchronize, in copies that wait, and in calls that free memory. */
unsigned long emulator_waits(struct CUstream_st *stream);

/* How many pieces of work the host has put on a stream: kernels, copies, collectives; a graph, whatever is in it, is
 * one, and what is recorded into one is none. */
unsigned long emulator_enqueued(struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif

#endif
