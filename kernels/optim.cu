/* The optimizers, as torch.optim.SGD and torch.optim.Adam, each one launch for all runs of floats, and the sum of
 * squares that clipping needs. Bound by memory: sgd reads three floats and writes two, adam reads four and writes
 * three, a sum of squares reads one, blend (of whole arrays) reads two and writes one.
 *
 * All runs together are a row of fours, each run's last one filled up; blocks of threads walk along it. Which run a
 * four belongs to is looked up in the shared memory of the block, RUNS of them at a time. */
#include "plane.cuh"

#include <algorithm>
#include <cmath>

enum {
    RUNS = THREADS,       /* looked up at a time, one a thread */
    OPTIM_BLOCKS = 1024,  /* of threads, at most: a part of the sum of squares each */
    BLOCK_FOURS = THREADS /* of a block's step */
};

/* What a thread is given: up to four floats of one run. */
struct run_piece {
    dck_run run;
    size_t first;
    int count;
    bool whole; /* four floats, aligned as one vector */
};

static __device__ inline dck_four load_run(const float *p, const run_piece &piece)
{
    if (piece.whole)
        return load_four(p + piece.first);
    dck_four v = {};
    for (int j = 0; j < 4; j++)
        v.v[j] = j < piece.count ? p[piece.first + (size_t)j] : 0;
    return v;
}

static __device__ inline void store_run(float *p, const run_piece &piece, dck_four v)
{
    if (piece.whole)
        store_four(p + piece.first, v);
    else
        for (int j = 0; j < 4; j++)
            if (j < piece.count)
                p[piece.first + (size_t)j] = v.v[j];
}

static __device__ inline run_piece piece_in(const dck_run &run, unsigned four)
{
    const size_t first = 4 * (size_t)four, left = run.count - first;
    const uintptr_t addresses = (uintptr_t)run.value | (uintptr_t)run.grad | (uintptr_t)run.first |
                                (uintptr_t)run.second; /* those not in use are NULL */
    return {run, first, left < 4 ? (int)left : 4, left >= 4 && addresses % 16 == 0};
}

/* ends[i] = fours of this batch's runs up to the i-th, which are summed over warps and then over the block. */
static __device__ inline void find_ends(int n_runs, const dck_run *runs, int batch, unsigned *ends, unsigned *warps)
{
    const int mine = batch + (int)threadIdx.x;
    unsigned end = mine < n_runs ? (unsigned)((runs[mine].count + 3) / 4) : 0;
    for (unsigned step = 1; step < 32; step *= 2) {
        const unsigned before = __shfl_up_sync(0xffffffffu, end, step);
        end += threadIdx.x % 32 >= step ? before : 0;
    }
    if (threadIdx.x % 32 == 31)
        warps[threadIdx.x / 32] = end;
    __syncthreads();
    for (unsigned w = 0; w < threadIdx.x / 32; w++)
        end += warps[w];
    ends[threadIdx.x] = end;
    __syncthreads();
}

/* The first of RUNS ends that lies beyond `four`. */
static __device__ inline int find_run(const unsigned *ends, unsigned four)
{
    int low = 0;
    for (int step = RUNS / 2; step > 0; step /= 2)
        low += ends[low + step - 1] <= four ? step : 0;
    return low;
}

/* Calls visit(piece) for each of this thread's pieces. ends: RUNS, warps: WARPS numbers of shared memory. */
template <class F>
static __device__ inline void walk(int n_runs, const dck_run *runs, unsigned *ends, unsigned *warps, F visit)
{
    unsigned four = blockIdx.x * BLOCK_FOURS + threadIdx.x, before = 0;
    for (int batch = 0; batch < n_runs; batch += RUNS) {
        find_ends(n_runs, runs, batch, ends, warps);
        const unsigned fours = ends[RUNS - 1];
        for (; four < before + fours; four += gridDim.x * BLOCK_FOURS) {
            const int i = find_run(ends, four - before);
            visit(piece_in(runs[batch + i], four - before - (i > 0 ? ends[i - 1] : 0)));
        }
        before += fours;
    }
}

static dim3 walk_grid(int n_runs, size_t total)
{
    const unsigned steps = ceil_div(total / 4 + (size_t)n_runs, BLOCK_FOURS); /* a run may end with a broken four */
    return dim3(steps < OPTIM_BLOCKS ? steps : (unsigned)OPTIM_BLOCKS);
}

struct sgd_factors {
    float learning_rate, momentum, weight_decay;
    bool nesterov;
};

static __global__ void __launch_bounds__(THREADS)
    sgd_kernel(int n_runs, const dck_run *runs, sgd_factors f, const float *scale)
{
    SHARED_ARRAY(unsigned, ends, RUNS);
    SHARED_ARRAY(unsigned, warps, WARPS);
    const float factor = scale ? *scale : 1;
    if (!(fabsf(factor) <= 3.402823466e38f)) /* the gradients are not numbers: the step is left out */
        return;
    walk(n_runs, runs, ends, warps, [&](const run_piece &piece) {
        dck_four value = load_run(piece.run.value, piece), velocity = load_run(piece.run.first, piece);
        const dck_four grad = load_run(piece.run.grad, piece);
        for (int j = 0; j < 4; j++) {
            const float g = grad.v[j] * factor + f.weight_decay * value.v[j];
            const float v = f.momentum * velocity.v[j] + g;
            velocity.v[j] = v;
            value.v[j] -= f.learning_rate * (f.nesterov ? g + f.momentum * v : v);
        }
        store_run(piece.run.first, piece, velocity);
        store_run(piece.run.value, piece, value);
    });
}

struct adam_factors {
    float step_size, root_scale, beta1, beta2, epsilon, weight_decay;
};

static __global__ void __launch_bounds__(THREADS) adam_kernel(int n_runs, const dck_run *runs, adam_factors f)
{
    SHARED_ARRAY(unsigned, ends, RUNS);
    SHARED_ARRAY(unsigned, warps, WARPS);
    walk(n_runs, runs, ends, warps, [&](const run_piece &piece) {
        dck_four value = load_run(piece.run.value, piece), first = load_run(piece.run.first, piece);
        dck_four second = load_run(piece.run.second, piece);
        const dck_four grad = load_run(piece.run.grad, piece);
        for (int j = 0; j < 4; j++) {
            const float g = grad.v[j] + f.weight_decay * value.v[j];
            first.v[j] = f.beta1 * first.v[j] + (1 - f.beta1) * g;
            second.v[j] = f.beta2 * second.v[j] + (1 - f.beta2) * g * g;
            value.v[j] -= f.step_size * first.v[j] / (sqrtf(second.v[j]) * f.root_scale + f.epsilon);
        }
        store_run(piece.run.first, piece, first);
        store_run(piece.run.second, piece, second);
        store_run(piece.run.value, piece, value);
    });
}

/* partial[block] = sum of squares of the gradients that the block walks past */
static __global__ void __launch_bounds__(THREADS) squares_kernel(int n_runs, const dck_run *runs, float *partial)
{
    SHARED_ARRAY(unsigned, ends, RUNS);
    SHARED_ARRAY(unsigned, warps, WARPS);
    SHARED_ARRAY(float, sums, WARPS);
    float sum = 0;
    walk(n_runs, runs, ends, warps, [&](const run_piece &piece) {
        const dck_four g = load_run(piece.run.grad, piece);
        sum += (g.v[0] * g.v[0] + g.v[1] * g.v[1]) + (g.v[2] * g.v[2] + g.v[3] * g.v[3]);
    });
    sum = block_sum(sum, sums);
    if (threadIdx.x == 0)
        partial[blockIdx.x] = sum;
}

/* In double, as the norm is on the CPU: a few operations a block. */
static __global__ void __launch_bounds__(THREADS)
    finish_squares_kernel(const float *partial, unsigned parts, float clip, double *sum, float *scale)
{
    SHARED_ARRAY(double, sums, WARPS);
    double total = 0;
    for (unsigned i = threadIdx.x; i < parts; i += THREADS)
        total += (double)partial[i];
    total = block_sum(total, sums);
    if (threadIdx.x > 0)
        return;
    const double norm = sqrt(total);
    const bool finite = norm <= 1.7976931348623157e308;
    *sum = total;
    *scale = !finite ? nanf("") : clip > 0 && norm > (double)clip ? (float)((double)clip / (norm + 1e-6)) : 1;
}

cudaError_t dck_cuda_sgd(const dck_queue *queue, int n_runs, const dck_run *runs, size_t total, float learning_rate,
                         float momentum, float weight_decay, bool nesterov, const float *scale)
{
    const sgd_factors factors = {learning_rate, momentum, weight_decay, nesterov};
    if (n_runs == 0)
        return cudaSuccess;
    return launch(sgd_kernel, walk_grid(n_runs, total), dim3(THREADS), 0, queue->stream, n_runs, runs, factors, scale);
}

cudaError_t dck_cuda_adam(const dck_queue *queue, int n_runs, const dck_run *runs, size_t total, float learning_rate,
                          float beta1, float beta2, float epsilon, float weight_decay, uint32_t step)
{
    const double t = (double)step;
    const adam_factors factors = {(float)((double)learning_rate / (1 - std::pow((double)beta1, t))),
                                  (float)(1 / std::sqrt(1 - std::pow((double)beta2, t))),
                                  beta1,
                                  beta2,
                                  epsilon,
                                  weight_decay};
    if (n_runs == 0)
        return cudaSuccess;
    return launch(adam_kernel, walk_grid(n_runs, total), dim3(THREADS), 0, queue->stream, n_runs, runs, factors);
}

size_t dck_cuda_sum_squares_scratch_bytes(void)
{
    return OPTIM_BLOCKS * sizeof(float);
}

cudaError_t dck_cuda_sum_squares(const dck_queue *queue, int n_runs, const dck_run *runs, size_t total, float clip,
                                 double *sum, float *scale, void *scratch)
{
    const dim3 grid = walk_grid(n_runs, total);
    float *partial = static_cast<float *>(scratch);
    const unsigned parts = n_runs > 0 ? grid.x : 0;
    const cudaError_t error =
        n_runs == 0 ? cudaSuccess
                    : launch(squares_kernel, grid, dim3(THREADS), 0, queue->stream, n_runs, runs, partial);
    if (error != cudaSuccess)
        return error;
    return launch(finish_squares_kernel, dim3(1), dim3(THREADS), 0, queue->stream, partial, parts, clip, sum, scale);
}

static __global__ void __launch_bounds__(THREADS) blend_kernel(float *y, const float *x, size_t count, float a, float b)
{
    const size_t first = blockIdx.x * (size_t)THREADS + threadIdx.x, fours = count / 4;
    for (size_t i = first; i < fours; i += gridDim.x * (size_t)THREADS) {
        const dck_four from = load_four(x + 4 * i);
        dck_four to = load_four(y + 4 * i);
        for (int j = 0; j < 4; j++)
            to.v[j] = a * from.v[j] + b * to.v[j];
        store_four(y + 4 * i, to);
    }
    if (first < count % 4) {
        const size_t i = 4 * fours + first;
        y[i] = a * x[i] + b * y[i];
    }
}

cudaError_t dck_cuda_blend(const dck_queue *queue, float *y, const float *x, size_t count, float a, float b)
{
    if (count == 0)
        return cudaSuccess;
    return launch(blend_kernel, walk_grid(1, count), dim3(THREADS), 0, queue->stream, y, x, count, a, b);
}

struct few {
    float v[THREADS];
};

static __global__ void __launch_bounds__(THREADS) add_kernel(float *y, few values, unsigned count)
{
    if (threadIdx.x < count)
        y[threadIdx.x] += values.v[threadIdx.x];
}

cudaError_t dck_cuda_add(const dck_queue *queue, float *y, const float *values, size_t count)
{
    cudaError_t error = cudaSuccess;
    for (size_t first = 0; first < count && error == cudaSuccess; first += THREADS) {
        const size_t n = std::min<size_t>(count - first, THREADS);
        few part = {};
        std::copy(values + first, values + first + n, part.v);
        error = launch(add_kernel, dim3(1), dim3(THREADS), 0, queue->stream, y + first, part, (unsigned)n);
    }
    return error;
}
