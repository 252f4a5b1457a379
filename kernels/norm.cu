/* Batch norm (Ioffe and Szegedy 2015).
 *
 * measure, for readers that normalise on load: in training x is read for its moments, 4 bytes an element of fp32
 * (bfloat16: half); evaluating no element is touched. forward, for others: x is read again and y written, 12 bytes, 8
 * where x is still in the L2 cache; evaluating 8. backward: x and dy are read for two sums, read again, dx written: 20
 * bytes, 12 out of L2. Bound by memory; two or three launches, the second of which reads a few bytes a chunk.
 *
 * A channel's pixels, of all blocks of images, are cut into chunks that one block of threads holds in registers: a
 * chunk's mean is formed first and then the squares of what differs from it, so that nothing cancels whatever the mean
 * is. Chunks depend on the shape alone; a warp adds up a channel's in a fixed order. */
#include "plane.cuh"

enum {
    DEPTH = 8, /* fours of a thread in a chunk */
    CHUNK_PIXELS = THREADS * DEPTH / PIXEL_FOURS,
    FINISH_THREADS = 128 /* a warp for each channel */
};

/* The pixels of a channel over all blocks, and the images in the last. */
struct channel_extent {
    unsigned pixels, plane, last_lanes;
};

static __host__ __device__ inline unsigned chunks_of(channel_extent e)
{
    return (e.pixels + CHUNK_PIXELS - 1) / CHUNK_PIXELS;
}

/* Elements of a chunk that belong to images. */
static __device__ inline unsigned chunk_count(channel_extent e, unsigned chunk)
{
    const unsigned begin = chunk * CHUNK_PIXELS, last = e.pixels - e.plane;
    const unsigned end = begin + CHUNK_PIXELS < e.pixels ? begin + CHUNK_PIXELS : e.pixels;
    const unsigned full = begin < last ? (end < last ? end : last) - begin : 0;
    return full * DCK_LANES + (end - begin - full) * e.last_lanes;
}

static channel_extent extent_of(dck_view x, int n)
{
    const unsigned plane = (unsigned)(x.h * x.w), blocks = blocks_of(n);
    return {blocks * plane, plane, (unsigned)n - (blocks - 1) * DCK_LANES};
}

/* This thread's part of a chunk; zeros where there is no image. present: how many of each four's lanes are images. */
template <class T>
static __device__ inline void load_chunk(dck_elements<T> x, channel_extent e, dck_four (&v)[DEPTH],
                                         int (&present)[DEPTH])
{
    const unsigned first = blockIdx.x * CHUNK_PIXELS + threadIdx.x / PIXEL_FOURS, lane = threadIdx.x % PIXEL_FOURS * 4;
    const T *channel = x.data + (size_t)blockIdx.y * e.plane * DCK_LANES + lane;
    UNROLL
    for (int k = 0; k < DEPTH; k++) {
        const unsigned pixel = first + (unsigned)k * (THREADS / PIXEL_FOURS), block = pixel / e.plane;
        const bool last = pixel >= e.pixels - e.plane;
        present[k] = pixel >= e.pixels ? 0 : (int)(last ? e.last_lanes : (unsigned)DCK_LANES) - (int)lane;
        v[k] = {{0, 0, 0, 0}};
        if (present[k] > 0)
            v[k] = load_four(channel + block * x.stride + (size_t)(pixel - block * e.plane) * DCK_LANES);
        for (int j = 0; j < 4; j++)
            v[k].v[j] = j < present[k] ? v[k].v[j] : 0;
    }
}

/* partial[channel][chunk] = its mean, and the sum of squares of what differs from it */
template <class T>
static __global__ void __launch_bounds__(THREADS) moments_kernel(dck_elements<T> x, channel_extent e, float2 *partial)
{
    SHARED_ARRAY(float, sums, WARPS);
    SHARED_ARRAY(float, squares, WARPS);
    dck_four v[DEPTH];
    int present[DEPTH];
    load_chunk(x, e, v, present);
    float sum = 0, square = 0;
    for (int k = 0; k < DEPTH; k++)
        sum += (v[k].v[0] + v[k].v[1]) + (v[k].v[2] + v[k].v[3]);
    const float mean = block_sum(sum, sums) / (float)chunk_count(e, blockIdx.x);
    for (int k = 0; k < DEPTH; k++)
        for (int j = 0; j < 4; j++) {
            const float d = j < present[k] ? v[k].v[j] - mean : 0;
            square += d * d;
        }
    square = block_sum(square, squares);
    if (threadIdx.x == 0)
        partial[blockIdx.y * chunks_of(e) + blockIdx.x] = make_float2(mean, square);
}

/* y = (x - mean) * scale + shift */
struct __align__(16) norm_factors
{
    float mean, scale, shift, unused;
};

static __device__ inline norm_factors factors_of(const dck_norm &k, unsigned channel, float mean, float inverse)
{
    return {mean, k.gamma ? k.gamma[channel] * inverse : inverse, k.beta ? k.beta[channel] : 0, 0};
}

/* For apply_kernel, or for readers that do it on load. */
static __device__ inline void put_factors(norm_factors f, unsigned channel, norm_factors *factors, dck_affine *affine)
{
    if (affine)
        affine[channel] = {f.scale, f.shift - f.mean * f.scale};
    else
        factors[channel] = f;
}

/* A warp for each channel. In double: the sums of a channel are as many as its images have pixels, and from the
 * difference of two of them comes the variance; these are a few operations a chunk. */
static __global__ void __launch_bounds__(FINISH_THREADS)
    finish_moments_kernel(dck_norm k, unsigned channels, channel_extent e, const float2 *partial, norm_factors *factors,
                          dck_affine *affine)
{
    const unsigned channel = (blockIdx.x * FINISH_THREADS + threadIdx.x) / 32, chunks = chunks_of(e);
    if (channel >= channels)
        return;
    double sum = 0, square = 0, count = 0;
    for (unsigned i = threadIdx.x % 32; i < chunks; i += 32) {
        const float2 p = partial[channel * chunks + i];
        const double mean = (double)p.x, here = (double)chunk_count(e, i);
        count += here;
        sum += here * mean;
        square += (double)p.y + here * mean * mean;
    }
    count = warp_sum(count);
    const double mean = warp_sum(sum) / count, raw = warp_sum(square) / count - mean * mean;
    const double variance = raw < 0 ? 0 : raw, unbiased = count > 1 ? variance * count / (count - 1) : variance;
    const float inverse = (float)(1 / sqrt(variance + (double)k.epsilon));
    if (threadIdx.x % 32 != 0)
        return;
    k.mean[channel] += k.momentum * ((float)mean - k.mean[channel]);
    k.variance[channel] += k.momentum * ((float)unbiased - k.variance[channel]);
    k.saved[channel] = (float)mean;
    k.saved[channels + channel] = inverse;
    put_factors(factors_of(k, channel, (float)mean, inverse), channel, factors, affine);
}

static __global__ void __launch_bounds__(FINISH_THREADS)
    running_factors_kernel(dck_norm k, unsigned channels, norm_factors *factors, dck_affine *affine)
{
    const unsigned channel = blockIdx.x * FINISH_THREADS + threadIdx.x;
    if (channel < channels)
        put_factors(factors_of(k, channel, k.mean[channel], 1 / sqrtf(k.variance[channel] + k.epsilon)), channel,
                    factors, affine);
}

template <class T>
static __global__ void __launch_bounds__(THREADS)
    apply_kernel(dck_elements<T> x, dck_elements<T> y, const norm_factors *factors)
{
    const dck_piece piece = piece_of(y);
    const unsigned plane = plane_fours(y);
    dck_four v[EACH];
    load_piece(x, piece, v);
    for (unsigned k = 0; k < EACH; k++) {
        const unsigned i = piece.first + k * THREADS;
        const norm_factors f = i < piece.end ? factors[i / plane] : norm_factors{};
        for (int j = 0; j < 4; j++)
            v[k].v[j] = (v[k].v[j] - f.mean) * f.scale + f.shift;
    }
    store_piece(y, piece, v, false);
}

/* partial[channel][chunk] = sums of dy and of dy * (x - mean) */
template <class T>
static __global__ void __launch_bounds__(THREADS)
    products_kernel(dck_elements<T> x, dck_elements<T> dy, channel_extent e, const float *means, float2 *partial)
{
    SHARED_ARRAY(float, sums, WARPS);
    SHARED_ARRAY(float, products, WARPS);
    const float mean = means[blockIdx.y];
    dck_four v[DEPTH], d[DEPTH];
    int present[DEPTH];
    load_chunk(x, e, v, present);
    load_chunk(dy, e, d, present);
    float sum = 0, product = 0;
    for (int k = 0; k < DEPTH; k++)
        for (int j = 0; j < 4; j++) {
            sum += d[k].v[j];
            product += d[k].v[j] * (v[k].v[j] - mean);
        }
    sum = block_sum(sum, sums);
    product = block_sum(product, products);
    if (threadIdx.x == 0)
        partial[blockIdx.y * chunks_of(e) + blockIdx.x] = make_float2(sum, product);
}

/* dx = a * dy + b + c * (x - mean): the gradient through the batch's mean and variance. */
struct __align__(16) norm_gradient
{
    float mean, a, b, c;
};

/* A warp for each channel. In double as above: both sums nearly cancel in a trained network. */
static __global__ void __launch_bounds__(FINISH_THREADS)
    finish_products_kernel(dck_norm k, unsigned channels, channel_extent e, const float2 *partial, float *dgamma,
                           float *dbeta, norm_gradient *gradients)
{
    const unsigned channel = (blockIdx.x * FINISH_THREADS + threadIdx.x) / 32, chunks = chunks_of(e);
    if (channel >= channels)
        return;
    double sum = 0, product = 0, count = 0;
    for (unsigned i = threadIdx.x % 32; i < chunks; i += 32) {
        const float2 p = partial[channel * chunks + i];
        count += (double)chunk_count(e, i);
        sum += (double)p.x;
        product += (double)p.y;
    }
    count = warp_sum(count);
    sum = warp_sum(sum);
    product = warp_sum(product);
    if (threadIdx.x % 32 != 0)
        return;
    const double inverse = (double)k.saved[channels + channel];
    const double a = k.gamma ? (double)k.gamma[channel] * inverse : inverse;
    if (dgamma)
        dgamma[channel] = (float)(product * inverse);
    if (dbeta)
        dbeta[channel] = (float)sum;
    gradients[channel] = {k.saved[channel], (float)a, (float)(-a * sum / count),
                          (float)(-a * inverse * inverse * product / count)};
}

template <class T>
static __global__ void __launch_bounds__(THREADS)
    differentiate_kernel(dck_elements<T> x, dck_elements<T> dy, dck_elements<T> dx, bool accumulate, int n,
                         const norm_gradient *gradients)
{
    const dck_piece piece = piece_of(dx);
    const unsigned plane = plane_fours(dx);
    const int present = lanes_of(piece.block, n) - (int)(threadIdx.x % PIXEL_FOURS * 4);
    dck_four v[EACH], d[EACH];
    load_piece(x, piece, v);
    load_piece(dy, piece, d);
    for (unsigned k = 0; k < EACH; k++) {
        const unsigned i = piece.first + k * THREADS;
        const norm_gradient g = i < piece.end ? gradients[i / plane] : norm_gradient{};
        for (int j = 0; j < 4; j++)
            d[k].v[j] = j < present ? g.a * d[k].v[j] + (g.b + g.c * (v[k].v[j] - g.mean)) : 0;
    }
    store_piece(dx, piece, d, accumulate);
}

/* Scratch: four floats of each channel, then the chunks of all. */
static size_t factors_bytes(dck_view x)
{
    return (size_t)x.c * sizeof(norm_factors);
}

static float2 *partial_in(void *scratch, dck_view x)
{
    return reinterpret_cast<float2 *>(static_cast<char *>(scratch) + factors_bytes(x));
}

size_t dck_cuda_norm_scratch_bytes(dck_view x, int blocks)
{
    return factors_bytes(x) + (size_t)x.c * chunks_of(extent_of(x, blocks * DCK_LANES)) * sizeof(float2);
}

static dim3 finish_grid(dck_view x)
{
    return dim3(ceil_div((size_t)x.c * 32, FINISH_THREADS));
}

static cudaError_t measure(const dck_queue *queue, const dck_norm *k, dck_view x, int n, bool training, void *scratch,
                           dck_affine *affine)
{
    const channel_extent e = extent_of(x, n);
    const unsigned channels = (unsigned)x.c;
    norm_factors *factors = static_cast<norm_factors *>(scratch);
    float2 *partial = partial_in(scratch, x);
    if (!training)
        return launch(running_factors_kernel, dim3(ceil_div(channels, FINISH_THREADS)), dim3(FINISH_THREADS), 0,
                      queue->stream, *k, channels, factors, affine);
    const cudaError_t error = DISPATCH_TYPE(queue, T,
                                            launch(moments_kernel<T>, dim3(chunks_of(e), channels), dim3(THREADS), 0,
                                                   queue->stream, elements<T>(x), e, partial));
    if (error != cudaSuccess)
        return error;
    return launch(finish_moments_kernel, finish_grid(x), dim3(FINISH_THREADS), 0, queue->stream, *k, channels, e,
                  partial, factors, affine);
}

cudaError_t dck_cuda_norm_measure(const dck_queue *queue, const dck_norm *k, dck_view x, float *affine, int n,
                                  bool training, void *scratch)
{
    return measure(queue, k, x, n, training, scratch, reinterpret_cast<dck_affine *>(affine));
}

cudaError_t dck_cuda_norm_forward(const dck_queue *queue, const dck_norm *k, dck_view x, dck_view y, int n,
                                  bool training, void *scratch)
{
    const norm_factors *factors = static_cast<const norm_factors *>(scratch);
    const cudaError_t error = measure(queue, k, x, n, training, scratch, nullptr);
    if (error != cudaSuccess)
        return error;
    return DISPATCH_TYPE(queue, T,
                         launch(apply_kernel<T>, piece_grid(y, n), dim3(THREADS), 0, queue->stream, elements<T>(x),
                                elements<T>(y), factors));
}

cudaError_t dck_cuda_norm_backward(const dck_queue *queue, const dck_norm *k, dck_view x, dck_view dy, dck_view dx,
                                   bool accumulate, float *dgamma, float *dbeta, int n, void *scratch)
{
    const channel_extent e = extent_of(x, n);
    const unsigned channels = (unsigned)x.c;
    norm_gradient *gradients = static_cast<norm_gradient *>(scratch);
    float2 *partial = partial_in(scratch, x);
    cudaError_t error = DISPATCH_TYPE(queue, T,
                                      launch(products_kernel<T>, dim3(chunks_of(e), channels), dim3(THREADS), 0,
                                             queue->stream, elements<T>(x), elements<T>(dy), e, k->saved, partial));
    if (error == cudaSuccess)
        error = launch(finish_products_kernel, finish_grid(x), dim3(FINISH_THREADS), 0, queue->stream, *k, channels, e,
                       partial, dgamma, dbeta, gradients);
    if (error != cudaSuccess || !dx.data)
        return error;
    return DISPATCH_TYPE(queue, T,
                         launch(differentiate_kernel<T>, piece_grid(dx, n), dim3(THREADS), 0, queue->stream,
                                elements<T>(x), elements<T>(dy), elements<T>(dx), accumulate, n, gradients));
}
