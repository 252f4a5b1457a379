/* The mean of each plane, and its gradient: a warp for each plane, whose lanes' sums are added in a fixed order.
 *
 * Bytes moved: x once, or dx once (twice to add); bound by memory, in small networks by the launch. 25 to 38 registers.
 */
#include "spatial.cuh"

namespace
{

enum { WARPS = SPATIAL_THREADS / WARP, AT_ONCE = WARP / QUADS /* pixels of a warp */ };

/* Which plane a warp has, and which pixels of it a thread. */
struct planes_place {
    unsigned channel;
    int quad, pixel;
};

__device__ inline planes_place planes_place_of()
{
    const unsigned lane = threadIdx.x % WARP;
    return {blockIdx.x * WARPS + threadIdx.x / WARP, (int)(lane % QUADS), (int)(lane / QUADS)};
}

dim3 planes_grid(int channels, int n)
{
    return dim3(ceil_div((size_t)channels, WARPS), 1, blocks_of(n));
}

template <class T> __global__ void __launch_bounds__(SPATIAL_THREADS) forward(dck_elements<T> x, dck_elements<T> y)
{
    const planes_place at = planes_place_of();
    if (at.channel >= (unsigned)x.c)
        return;
    const T *from = plane_at(x, at.channel, blockIdx.z, at.quad);
    const int pixels = x.h * x.w;
    dck_four sum = {};
    for (int pixel = at.pixel; pixel < pixels; pixel += AT_ONCE)
        add_product(&sum, 1, load_four(from + pixel * DCK_LANES));
    UNROLL
    for (int i = 0; i < 4; i++) {
        UNROLL
        for (int offset = QUADS; offset < WARP; offset *= 2)
            sum.v[i] += __shfl_xor_sync(0xffffffffu, sum.v[i], offset);
        sum.v[i] *= 1 / (float)pixels;
    }
    if (at.pixel == 0)
        store_four(plane_at(y, at.channel, blockIdx.z, at.quad), seen_through(affine_of(x.affine, at.channel), sum));
}

template <class T>
__global__ void __launch_bounds__(SPATIAL_THREADS) backward(bool accumulate, dck_elements<T> dy, dck_elements<T> dx)
{
    const planes_place at = planes_place_of();
    if (at.channel >= (unsigned)dx.c)
        return;
    T *to = plane_at(dx, at.channel, blockIdx.z, at.quad);
    const int pixels = dx.h * dx.w;
    dck_four share = {};
    add_product(&share, 1 / (float)pixels, load_four(plane_at(dy, at.channel, blockIdx.z, at.quad)));
    for (int pixel = at.pixel; pixel < pixels; pixel += AT_ONCE)
        put_four(to + pixel * DCK_LANES, share, accumulate);
}

} // namespace

cudaError_t dck_cuda_global_avg_pool_forward(const dck_queue *queue, dck_view x, dck_view y, int n)
{
    return DISPATCH_TYPE(
        queue, T,
        launch(forward<T>, planes_grid(x.c, n), SPATIAL_THREADS, 0, queue->stream, elements<T>(x), elements<T>(y)));
}

cudaError_t dck_cuda_global_avg_pool_backward(const dck_queue *queue, dck_view dy, dck_view dx, bool accumulate, int n)
{
    return DISPATCH_TYPE(queue, T,
                         launch(backward<T>, planes_grid(dx.c, n), SPATIAL_THREADS, 0, queue->stream, accumulate,
                                elements<T>(dy), elements<T>(dx)));
}
