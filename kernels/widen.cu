/* y = x from bfloat16 to float: gradients of weights, of which there are few.
 *
 * 6 bytes moved an element; the bound is memory, or a launch's latency at the sizes there are (below a megabyte). */
#include "launch.cuh"

enum { WIDEN_THREADS = 256 };

static __global__ void __launch_bounds__(WIDEN_THREADS) widen_kernel(const __nv_bfloat16 *x, float *y, size_t count)
{
    const size_t i = (size_t)blockIdx.x * WIDEN_THREADS + threadIdx.x;
    if (4 * i + 4 <= count)
        store_four(y + 4 * i, load_four(x + 4 * i));
    else
        for (size_t k = 4 * i; k < count; k++)
            y[k] = __bfloat162float(x[k]);
}

extern "C" cudaError_t dck_cuda_widen(const dck_queue *queue, const void *x, float *y, size_t count)
{
    return launch(widen_kernel, dim3(ceil_div(count, (size_t)4 * WIDEN_THREADS)), dim3(WIDEN_THREADS), 0, queue->stream,
                  static_cast<const __nv_bfloat16 *>(x), y, count);
}
