/* What of the classifier is not a matrix product: the bias. forward reads and writes y, 8 bytes an output and image of
 * fp32; backward reads dy, 4 bytes. Both take the time of a launch. */
#include "plane.cuh"

template <class T> static __global__ void __launch_bounds__(THREADS) bias_kernel(const float *b, dck_elements<T> y)
{
    const dck_piece piece = piece_of(y);
    const unsigned plane = plane_fours(y);
    dck_four v[EACH];
    load_piece(y, piece, v);
    for (unsigned k = 0; k < EACH; k++) {
        const unsigned i = piece.first + k * THREADS;
        const float bias = i < piece.end ? b[i / plane] : 0;
        for (int j = 0; j < 4; j++)
            v[k].v[j] += bias;
    }
    store_piece(y, piece, v, false);
}

/* A warp for each output; dy is zero in lanes without an image. */
template <class T>
static __global__ void __launch_bounds__(THREADS) bias_gradient_kernel(dck_elements<T> dy, unsigned fours, float *db)
{
    const unsigned output = (blockIdx.x * THREADS + threadIdx.x) / 32;
    if (output >= (unsigned)dy.c)
        return;
    float sum = 0;
    for (unsigned i = threadIdx.x % 32; i < fours; i += 32) {
        const T *block = dy.data + i / PIXEL_FOURS * dy.stride + (size_t)output * DCK_LANES;
        const dck_four v = load_four(block + i % PIXEL_FOURS * 4);
        sum += (v.v[0] + v.v[1]) + (v.v[2] + v.v[3]);
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0)
        db[output] = sum;
}

cudaError_t dck_cuda_linear_bias(const dck_queue *queue, const float *b, dck_view y, int n)
{
    return DISPATCH_TYPE(queue, T,
                         launch(bias_kernel<T>, piece_grid(y, n), dim3(THREADS), 0, queue->stream, b, elements<T>(y)));
}

cudaError_t dck_cuda_linear_backward_bias(const dck_queue *queue, dck_view dy, float *db, int n)
{
    return DISPATCH_TYPE(queue, T,
                         launch(bias_gradient_kernel<T>, dim3(ceil_div((size_t)dy.c * 32, THREADS)), dim3(THREADS), 0,
                                queue->stream, elements<T>(dy), blocks_of(n) * PIXEL_FOURS, db));
}
