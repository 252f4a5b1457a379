/* Every stride-th pixel of every stride-th row, shifted, and rectified on the way: what cuDNN's convolutions read in
 * place of x, and the gradient's way back.
 *
 * Bytes moved: forward y once and of x what is sampled; backward dx once (twice to add, and then only where something
 * was sampled), dy once, and x where there is a relu, as far as sampled. The bound is memory: there is next to nothing
 * to compute. A thread has four pixels below one another, whose loads are in flight together, and 29 to 52 registers.
 */
#include "spatial.cuh"

namespace
{

enum { RUN = 4 };

struct sampling {
    int stride, pad;
    float floor; /* of x on load */
    bool relu, accumulate;
};

template <class T>
__global__ void __launch_bounds__(SPATIAL_THREADS) forward(sampling k, dck_elements<T> x, dck_elements<T> y)
{
    const spatial_place at = spatial_place_of(y.w);
    const T *from = plane_at(x, blockIdx.y, blockIdx.z, at.quad);
    const dck_affine f = affine_of(x.affine, blockIdx.y);
    T *to = plane_at(y, blockIdx.y, blockIdx.z, at.quad) + at.column * DCK_LANES;
    dck_four v[RUN];
    UNROLL
    for (int r = 0; r < RUN; r++)
        v[r] = load_raised(from, (at.row * RUN + r) * k.stride - k.pad, at.column * k.stride - k.pad, x.h, x.w, f,
                           k.floor);
    UNROLL
    for (int r = 0; r < RUN; r++)
        if (at.row * RUN + r < y.h)
            store_four(to + (at.row * RUN + r) * y.w * DCK_LANES, v[r]);
}

/* Where a pixel of x went; below zero: nowhere. */
__device__ inline int sampled_at(const sampling &k, int at, int size)
{
    const int shifted = at + k.pad;
    return shifted % k.stride == 0 && shifted / k.stride < size ? shifted / k.stride : -1;
}

template <class T>
__global__ void __launch_bounds__(SPATIAL_THREADS)
    backward(sampling k, dck_elements<T> x, dck_elements<T> dy, dck_elements<T> dx)
{
    const spatial_place at = spatial_place_of(dx.w);
    const T *from = plane_at(dy, blockIdx.y, blockIdx.z, at.quad);
    const T *mask = k.relu ? plane_at(x, blockIdx.y, blockIdx.z, at.quad) : nullptr;
    const dck_affine f = affine_of(x.affine, blockIdx.y);
    T *to = plane_at(dx, blockIdx.y, blockIdx.z, at.quad);
    const int column = sampled_at(k, at.column, dy.w);
    dck_four v[RUN];
    UNROLL
    for (int r = 0; r < RUN; r++)
        v[r] = load_inside(from, sampled_at(k, at.row * RUN + r, dy.h), column, dy.h, dy.w);
    UNROLL
    for (int r = 0; r < RUN; r++) {
        const int pixel = ((at.row * RUN + r) * dx.w + at.column) * DCK_LANES;
        const bool sampled = column >= 0 && sampled_at(k, at.row * RUN + r, dy.h) >= 0;
        if (at.row * RUN + r < dx.h && (sampled || !k.accumulate))
            put_four(to + pixel, k.relu && sampled ? pass_above_zero(mask + pixel, f, v[r]) : v[r], k.accumulate);
    }
}

dim3 grid_of(dck_view v, int n)
{
    return spatial_grid((int)ceil_div((size_t)v.h, RUN) * v.w, v.c, n);
}

} // namespace

cudaError_t dck_cuda_sample_forward(const dck_queue *queue, int stride, int pad, bool relu, dck_view x, dck_view y,
                                    int n)
{
    const sampling k = {stride, pad, floor_of(relu), relu, false};
    return DISPATCH_TYPE(
        queue, T,
        launch(forward<T>, grid_of(y, n), SPATIAL_THREADS, 0, queue->stream, k, elements<T>(x), elements<T>(y)));
}

cudaError_t dck_cuda_sample_backward(const dck_queue *queue, int stride, int pad, bool relu, dck_view x, dck_view dy,
                                     dck_view dx, bool accumulate, int n)
{
    const sampling k = {stride, pad, floor_of(relu), relu, accumulate};
    return DISPATCH_TYPE(queue, T,
                         launch(backward<T>, grid_of(dx, n), SPATIAL_THREADS, 0, queue->stream, k, elements<T>(x),
                                elements<T>(dy), elements<T>(dx)));
}
