/* From and to plain images, and between element types.
 *
 * from_nchw reads 4 bytes an element and writes 4 (2 of bfloat16), to_nchw the reverse, cast likewise: bound by memory.
 * The features of an image are one row of NCHW and one column of a block of 16 images, so this is a transposition of
 * 16 rows, by way of a tile in shared memory: both sides are read and written in whole sectors. */
#include "tile.cuh"

template <class T>
static __global__ void __launch_bounds__(THREADS) from_nchw_kernel(const float *nchw, int n, dck_elements<T> y)
{
    SHARED_ARRAY(float, tile, TILE_FLOATS);
    const size_t features = (size_t)y.c * (size_t)y.h * (size_t)y.w;
    const size_t first = (size_t)blockIdx.x * TILE_FEATURES, feature = first + threadIdx.x % TILE_FEATURES;
    for (unsigned lane = threadIdx.x / TILE_FEATURES; lane < DCK_LANES; lane += THREADS / TILE_FEATURES) {
        const size_t image = (size_t)blockIdx.y * DCK_LANES + lane;
        const bool present = image < (size_t)n && feature < features;
        tile_at(tile, lane, threadIdx.x % TILE_FEATURES) = present ? nchw[image * features + feature] : 0;
    }
    __syncthreads();
    store_tile(tile, y.data + blockIdx.y * y.stride, first, features);
}

template <class T>
static __global__ void __launch_bounds__(THREADS) to_nchw_kernel(dck_elements<T> x, int n, float *nchw)
{
    SHARED_ARRAY(float, tile, TILE_FLOATS);
    const size_t features = (size_t)x.c * (size_t)x.h * (size_t)x.w;
    const size_t first = (size_t)blockIdx.x * TILE_FEATURES, feature = first + threadIdx.x % TILE_FEATURES;
    load_tile(tile, x.data + blockIdx.y * x.stride, first, features);
    const dck_affine f =
        affine_of(x.affine, feature < features ? (unsigned)(feature / ((size_t)x.h * (size_t)x.w)) : 0);
    __syncthreads();
    for (unsigned lane = threadIdx.x / TILE_FEATURES; lane < DCK_LANES; lane += THREADS / TILE_FEATURES) {
        const size_t image = (size_t)blockIdx.y * DCK_LANES + lane;
        if (image < (size_t)n && feature < features)
            nchw[image * features + feature] = f.scale * tile_at(tile, lane, threadIdx.x % TILE_FEATURES) + f.shift;
    }
}

static __device__ inline void store_one(float *p, float x)
{
    *p = x;
}

static __device__ inline void store_one(__nv_bfloat16 *p, float x)
{
    *reinterpret_cast<unsigned short *>(p) = (unsigned short)bf16_bits(x);
}

/* vectors: both pointers allow fours. */
template <class T>
static __global__ void __launch_bounds__(THREADS) cast_kernel(const float *x, T *y, size_t count, bool vectors)
{
    const size_t i = ((size_t)blockIdx.x * THREADS + threadIdx.x) * 4;
    if (vectors && i + 4 <= count)
        store_four(y + i, load_four(x + i));
    else
        for (size_t j = i; j < count && j < i + 4; j++)
            store_one(y + j, x[j]);
}

cudaError_t dck_cuda_from_nchw(const dck_queue *queue, const float *nchw, int n, dck_view y)
{
    return DISPATCH_TYPE(
        queue, T,
        launch(from_nchw_kernel<T>, tile_grid(y, n), dim3(THREADS), 0, queue->stream, nchw, n, elements<T>(y)));
}

cudaError_t dck_cuda_to_nchw(const dck_queue *queue, dck_view x, int n, float *nchw)
{
    return DISPATCH_TYPE(
        queue, T, launch(to_nchw_kernel<T>, tile_grid(x, n), dim3(THREADS), 0, queue->stream, elements<T>(x), n, nchw));
}

cudaError_t dck_cuda_cast(const dck_queue *queue, const float *x, void *y, size_t count)
{
    const bool vectors = ((uintptr_t)x | (uintptr_t)y) % 16 == 0;
    if (count == 0)
        return cudaSuccess;
    return DISPATCH_TYPE(queue, T,
                         launch(cast_kernel<T>, dim3(ceil_div(count, THREADS * 4)), dim3(THREADS), 0, queue->stream, x,
                                static_cast<T *>(y), count, vectors));
}
