/* The weighted sum of features (DARTS's mixed node; with sharing, every feature of a source at once) and plain add.
 *
 * forward reads every feature once and writes y: 4 * (n_x + 1) bytes an element of fp32 (bfloat16: half). backward
 * reads dy once, and for each feature reads x and writes dx: 4 + 8 * n_x bytes. Bound by memory. Weights stay on the
 * device. The dot products of a chunk are added up within a warp, over a block's warps, and over at most PARTS blocks
 * of threads; which chunks a part has depends on the shape alone. */
#include "plane.cuh"

enum {
    DEPTH = 4, /* fours of a thread in a chunk of dy */
    CHUNK = THREADS * DEPTH,
    PARTS = 1024
};

struct mix_inputs {
    const void *x[DCK_MIX_INPUTS];
    const dck_affine *affine[DCK_MIX_INPUTS];
    size_t stride[DCK_MIX_INPUTS];
    int index[DCK_MIX_INPUTS];
};

struct mix_gradients {
    void *dx[DCK_MIX_INPUTS]; /* NULL: not wanted */
    size_t stride[DCK_MIX_INPUTS];
    bool accumulate[DCK_MIX_INPUTS];
};

static mix_inputs inputs_of(int n_x, const dck_view *x, const int *index)
{
    mix_inputs inputs = {};
    for (int i = 0; i < n_x; i++) {
        inputs.x[i] = x[i].data;
        inputs.affine[i] = reinterpret_cast<const dck_affine *>(x[i].affine);
        inputs.stride[i] = x[i].stride;
        inputs.index[i] = index ? index[i] : 0;
    }
    return inputs;
}

static mix_gradients gradients_of(int n_x, const dck_view *dx, const bool *accumulate)
{
    mix_gradients gradients = {};
    for (int i = 0; i < n_x; i++) {
        gradients.dx[i] = dx[i].data;
        gradients.stride[i] = dx[i].stride;
        gradients.accumulate[i] = accumulate[i];
    }
    return gradients;
}

template <class T>
static __device__ inline dck_elements<const T> input_of(const mix_inputs &inputs, int i, const dck_elements<T> &y)
{
    return {static_cast<const T *>(inputs.x[i]), y.c, y.h, y.w, inputs.stride[i], inputs.affine[i]};
}

template <class T>
static __global__ void __launch_bounds__(THREADS)
    mix_forward_kernel(int n_x, mix_inputs inputs, const float *weight, dck_elements<T> y, bool accumulate)
{
    const dck_piece piece = piece_of(y);
    dck_four sum[EACH] = {};

    for (int i = 0; i < n_x; i++) {
        const float w = weight ? weight[inputs.index[i]] : 1;
        dck_four v[EACH];
        load_seen(input_of(inputs, i, y), piece, v);
        for (int k = 0; k < EACH; k++)
            for (int j = 0; j < 4; j++)
                sum[k].v[j] += w * v[k].v[j];
    }
    store_piece(y, piece, sum, accumulate);
}

/* A thread's fours of a chunk of the plane; per_block: chunks of a block of images. */
template <class T> static __device__ inline dck_piece chunk_of(dck_elements<T> y, unsigned chunk, unsigned per_block)
{
    return {chunk / per_block, chunk % per_block * CHUNK + threadIdx.x, block_fours(y)};
}

static __device__ inline float dot(const dck_four (&a)[DEPTH], const dck_four (&b)[DEPTH])
{
    float sum = 0;
    for (int k = 0; k < DEPTH; k++)
        for (int j = 0; j < 4; j++)
            sum += a[k].v[j] * b[k].v[j];
    return sum;
}

static __device__ inline void scale(dck_four (&v)[DEPTH], const dck_four (&x)[DEPTH], float factor)
{
    for (int k = 0; k < DEPTH; k++)
        for (int j = 0; j < 4; j++)
            v[k].v[j] = factor * x[k].v[j];
}

/* partial[i][part] = sum of dy * x[i] over the part's chunks; NULL: not wanted. */
template <class T>
static __global__ void __launch_bounds__(THREADS)
    mix_backward_kernel(int n_x, mix_inputs inputs, const float *weight, dck_elements<T> dy, mix_gradients gradients,
                        unsigned chunks, unsigned per_block, float *partial)
{
    SHARED_ARRAY(float, dots, DCK_MIX_INPUTS *WARPS);
    const unsigned warp = threadIdx.x / 32;
    if (threadIdx.x % 32 == 0)
        for (int i = 0; i < n_x; i++)
            dots[i * WARPS + warp] = 0;
    for (unsigned chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x) {
        const dck_piece piece = chunk_of(dy, chunk, per_block);
        dck_four d[DEPTH];
        load_piece(dy, piece, d);
        for (int i = 0; i < n_x; i++) {
            dck_four v[DEPTH];
            if (partial) {
                load_seen(input_of(inputs, i, dy), piece, v);
                const float sum = warp_sum(dot(d, v));
                if (threadIdx.x % 32 == 0)
                    dots[i * WARPS + warp] += sum;
            }
            if (gradients.dx[i]) {
                scale(v, d, weight ? weight[inputs.index[i]] : 1);
                store_piece(dck_elements<T>{static_cast<T *>(gradients.dx[i]), dy.c, dy.h, dy.w, gradients.stride[i]},
                            piece, v, gradients.accumulate[i]);
            }
        }
    }
    __syncthreads();
    for (unsigned i = threadIdx.x; partial && i < (unsigned)n_x; i += THREADS) {
        float sum = 0;
        for (int w = 0; w < WARPS; w++)
            sum += dots[i * WARPS + w];
        partial[i * gridDim.x + blockIdx.x] = sum;
    }
}

/* A block of threads for each feature; the first of those that have one weight adds up all of them. In double: few
 * operations, whose terms nearly cancel in a trained network. */
static __global__ void __launch_bounds__(THREADS)
    finish_mix_kernel(int n_x, mix_inputs inputs, const float *partial, unsigned parts, float *dweight)
{
    SHARED_ARRAY(double, sums, WARPS);
    const int own = inputs.index[blockIdx.x];
    double sum = 0;
    for (int i = 0; i < (int)blockIdx.x; i++)
        if (inputs.index[i] == own)
            return;
    for (int i = (int)blockIdx.x; i < n_x; i++)
        for (unsigned part = threadIdx.x; inputs.index[i] == own && part < parts; part += THREADS)
            sum += (double)partial[(unsigned)i * parts + part];
    sum = block_sum(sum, sums);
    if (threadIdx.x == 0)
        dweight[own] += (float)sum;
}

cudaError_t dck_cuda_mix_forward(const dck_queue *queue, int n_x, const dck_view *x, const float *weight,
                                 const int *index, dck_view y, bool accumulate, int n)
{
    if (n_x < 1 || n_x > DCK_MIX_INPUTS)
        return cudaErrorInvalidValue;
    const mix_inputs inputs = inputs_of(n_x, x, index);
    return DISPATCH_TYPE(queue, T,
                         launch(mix_forward_kernel<T>, piece_grid(y, n), dim3(THREADS), 0, queue->stream, n_x, inputs,
                                weight, elements<T>(y), accumulate));
}

static unsigned chunks_per_block(dck_view y)
{
    return ceil_div((size_t)y.c * (size_t)y.h * (size_t)y.w * PIXEL_FOURS, CHUNK);
}

static unsigned parts_of(dck_view y, unsigned blocks)
{
    const unsigned chunks = blocks * chunks_per_block(y);
    return chunks < PARTS ? chunks : (unsigned)PARTS;
}

size_t dck_cuda_mix_backward_scratch_bytes(int n_x, dck_view y, int blocks)
{
    return (size_t)n_x * parts_of(y, (unsigned)blocks) * sizeof(float);
}

cudaError_t dck_cuda_mix_backward(const dck_queue *queue, int n_x, const dck_view *x, const float *weight,
                                  const int *index, dck_view dy, const dck_view *dx, const bool *accumulate,
                                  float *dweight, int n, void *scratch)
{
    if (n_x < 1 || n_x > DCK_MIX_INPUTS)
        return cudaErrorInvalidValue;
    const mix_inputs inputs = inputs_of(n_x, x, index);
    const mix_gradients gradients = gradients_of(n_x, dx, accumulate);
    const unsigned per_block = chunks_per_block(dy), chunks = blocks_of(n) * per_block;
    const unsigned parts = parts_of(dy, blocks_of(n));
    float *partial = dweight ? static_cast<float *>(scratch) : NULL;
    const cudaError_t error =
        DISPATCH_TYPE(queue, T,
                      launch(mix_backward_kernel<T>, dim3(parts), dim3(THREADS), 0, queue->stream, n_x, inputs, weight,
                             elements<T>(dy), gradients, chunks, per_block, partial));
    if (error != cudaSuccess || !dweight)
        return error;
    return launch(finish_mix_kernel, dim3((unsigned)n_x), dim3(THREADS), 0, queue->stream, n_x, inputs, partial, parts,
                  dweight);
}
