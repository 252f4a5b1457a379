/* Element by element. Bytes an element of fp32 (bfloat16: half), more by one reading of y with accumulate: relu 8, its
 * gradient 12, copy 8, zero 4, drop-path 8, all bound by memory; dropout 8, bound by its random numbers, of which four
 * elements share one block of Philox (about 100 integer operations). */
#include "philox.h"
#include "plane.cuh"

template <class T>
static __global__ void __launch_bounds__(THREADS) relu_forward_kernel(dck_elements<T> x, dck_elements<T> y)
{
    const dck_piece piece = piece_of(y);
    dck_four v[EACH];
    load_seen(x, piece, v);
    for (int k = 0; k < EACH; k++)
        for (int j = 0; j < 4; j++)
            v[k].v[j] = v[k].v[j] <= 0 ? 0 : v[k].v[j]; /* not a number stays so */
    store_piece(y, piece, v, false);
}

template <class T>
static __global__ void __launch_bounds__(THREADS)
    relu_backward_kernel(dck_elements<T> y, dck_elements<T> dy, dck_elements<T> dx, bool accumulate)
{
    const dck_piece piece = piece_of(dx);
    dck_four value[EACH], v[EACH];
    load_piece(y, piece, value);
    load_piece(dy, piece, v);
    for (int k = 0; k < EACH; k++)
        for (int j = 0; j < 4; j++)
            v[k].v[j] = value[k].v[j] > 0 ? v[k].v[j] : 0;
    store_piece(dx, piece, v, accumulate);
}

template <class T>
static __global__ void __launch_bounds__(THREADS) copy_kernel(dck_elements<T> x, dck_elements<T> y, bool accumulate)
{
    const dck_piece piece = piece_of(y);
    dck_four v[EACH];
    load_seen(x, piece, v);
    store_piece(y, piece, v, accumulate);
}

template <class T> static __global__ void __launch_bounds__(THREADS) zero_kernel(dck_elements<T> y)
{
    dck_four v[EACH] = {};
    store_piece(y, piece_of(y), v, false);
}

/* What random masks are made of; the step and its first image come from the device. */
struct mask_key {
    const dck_moment *moment;
    uint64_t seed, stream;
};

static __device__ inline void draw(mask_key key, uint64_t element, uint32_t word[4])
{
    dck_philox(key.seed, key.stream, key.moment->step, element, word);
}

template <class T>
static __global__ void __launch_bounds__(THREADS)
    drop_path_kernel(dck_elements<T> x, dck_elements<T> y, bool accumulate, mask_key key)
{
    SHARED_ARRAY(float, factor, DCK_LANES);
    if (threadIdx.x < DCK_LANES) {
        const float keep = 1 - key.moment->drop_path_rate;
        uint32_t word[4];
        draw(key, (uint64_t)key.moment->first_image + blockIdx.y * DCK_LANES + threadIdx.x, word);
        factor[threadIdx.x] = dck_philox_unit(word[0]) < keep ? 1 / keep : 0;
    }
    __syncthreads();
    const dck_piece piece = piece_of(y);
    dck_four v[EACH];
    load_seen(x, piece, v);
    for (int k = 0; k < EACH; k++)
        for (unsigned j = 0; j < 4; j++)
            v[k].v[j] *= factor[threadIdx.x % PIXEL_FOURS * 4 + j];
    store_piece(y, piece, v, accumulate);
}

/* A thread has four images of four neighbouring elements: word e % 4 of counter image * ceil(elements / 4) + e / 4
 * decides element e. */
template <class T>
static __global__ void __launch_bounds__(THREADS)
    dropout_kernel(dck_elements<T> x, dck_elements<T> y, bool accumulate, float rate, mask_key key)
{
    const unsigned elements = block_fours(y) / PIXEL_FOURS, groups = (elements + 3) / 4;
    const unsigned at = blockIdx.x * THREADS + threadIdx.x, group = at / PIXEL_FOURS, lane = at % PIXEL_FOURS * 4;
    const float scale = 1 / (1 - rate);
    dck_four factor[4];
    if (group >= groups)
        return;
    for (unsigned j = 0; j < 4; j++) {
        const uint64_t image = (uint64_t)key.moment->first_image + blockIdx.y * DCK_LANES + lane + j;
        uint32_t word[4];
        draw(key, image * groups + group, word);
        for (int e = 0; e < 4; e++)
            factor[e].v[j] = dck_philox_unit(word[e]) < rate ? 0 : scale;
    }
    for (unsigned e = 0; e < 4 && group * 4 + e < elements; e++) {
        const size_t offset = (size_t)(group * 4 + e) * DCK_LANES + lane;
        T *to = y.data + blockIdx.y * y.stride + offset;
        dck_four v = load_four(x.data + blockIdx.y * x.stride + offset), before = {};
        if (accumulate)
            before = load_four(to);
        for (int j = 0; j < 4; j++)
            v.v[j] = before.v[j] + v.v[j] * factor[e].v[j];
        store_four(to, v);
    }
}

cudaError_t dck_cuda_relu_forward(const dck_queue *queue, dck_view x, dck_view y, int n)
{
    return DISPATCH_TYPE(queue, T,
                         launch(relu_forward_kernel<T>, piece_grid(y, n), dim3(THREADS), 0, queue->stream,
                                elements<T>(x), elements<T>(y)));
}

cudaError_t dck_cuda_relu_backward(const dck_queue *queue, dck_view y, dck_view dy, dck_view dx, bool accumulate, int n)
{
    return DISPATCH_TYPE(queue, T,
                         launch(relu_backward_kernel<T>, piece_grid(dx, n), dim3(THREADS), 0, queue->stream,
                                elements<T>(y), elements<T>(dy), elements<T>(dx), accumulate));
}

cudaError_t dck_cuda_copy(const dck_queue *queue, dck_view x, dck_view y, bool accumulate, int n)
{
    return DISPATCH_TYPE(queue, T,
                         launch(copy_kernel<T>, piece_grid(y, n), dim3(THREADS), 0, queue->stream, elements<T>(x),
                                elements<T>(y), accumulate));
}

cudaError_t dck_cuda_zero(const dck_queue *queue, dck_view y, int n)
{
    return DISPATCH_TYPE(queue, T,
                         launch(zero_kernel<T>, piece_grid(y, n), dim3(THREADS), 0, queue->stream, elements<T>(y)));
}

cudaError_t dck_cuda_drop_path(const dck_queue *queue, dck_view x, dck_view y, bool accumulate,
                               const dck_moment *moment, uint64_t seed, uint64_t stream, int n)
{
    const mask_key key = {moment, seed, stream};
    return DISPATCH_TYPE(queue, T,
                         launch(drop_path_kernel<T>, piece_grid(y, n), dim3(THREADS), 0, queue->stream, elements<T>(x),
                                elements<T>(y), accumulate, key));
}

cudaError_t dck_cuda_dropout(const dck_queue *queue, dck_view x, dck_view y, bool accumulate, float rate,
                             const dck_moment *moment, uint64_t seed, uint64_t stream, int n)
{
    const mask_key key = {moment, seed, stream};
    const size_t groups = ((size_t)y.c * (size_t)y.h * (size_t)y.w + 3) / 4;
    const dim3 grid(ceil_div(groups * PIXEL_FOURS, THREADS), blocks_of(n));
    return DISPATCH_TYPE(queue, T,
                         launch(dropout_kernel<T>, grid, dim3(THREADS), 0, queue->stream, elements<T>(x),
                                elements<T>(y), accumulate, rate, key));
}
