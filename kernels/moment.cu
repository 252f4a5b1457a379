/* The step's counter and rate in device memory, set by a launch of one thread: their values travel as arguments, so
 * that no host memory needs to be kept for a copy. 8 bytes; nothing but the launch itself costs time. */
#include "launch.cuh"

static __global__ void set_moment(dck_moment *moment, dck_moment value)
{
    *moment = value;
}

cudaError_t dck_cuda_set_moment(const dck_queue *queue, dck_moment *moment, dck_moment value)
{
    return launch(set_moment, dim3(1), dim3(1), 0, queue->stream, moment, value);
}
