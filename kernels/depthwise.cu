/* Depthwise convolution of any kernel, stride, dilation and padding.
 *
 * A thread computes a run of outputs below one another, as far apart as lets them share rows of x: of a 3x3 kernel it
 * loads 4.5 pixels of x for each of y, of a 5x5 one 10 (for the gradient of x at stride 2: 1.5 and 1.5 pixels of dy for
 * each of dx), nearly all of them from the level-1 cache, since neighbouring threads load the same. Kernels other than
 * 3 and 5 and unusual strides have a thread for each pixel and loops over the taps.
 *
 * Bytes moved: forward x and y once; gradient of x dy and dx once, and x where there is a relu, dx twice to add;
 * gradient of w x and dy once. The bound is memory for 3x3 in float: for each pixel of four images 32 bytes pass
 * through memory, which is 2.1 cycles of an H100's multiprocessor, and some 175 instructions are 1.3. 5x5 is bound by
 * instructions, some 350 for each pixel of four images, 2.7 cycles (140 of them multiply-adds, 40 for a batch norm that
 * x is seen through; in bfloat16 some 500), while 160 bytes through the level-1 cache are 1.25. Registers (ptxas, sm_80
 * to sm_100): forward 32 to 56, gradient of x 40 to 80, of w 48 to 96. */
#include "spatial.cuh"

namespace
{

/* Rows of x that outputs share are `step` apart, and outputs of a run `apart` of their own rows. */
struct geometry {
    int stride, pad, step; /* of the convolution; step: its dilation */
    int apart, groups;     /* of runs */
    int cell; /* gradient of x: pixels of x, along an axis, that are a thread's for each element of a run */
    int first_row, first_column, columns; /* gradient of x: of cells */
    float floor;                          /* of x on load */
    bool relu, accumulate;
};

int common_divisor(int a, int b)
{
    return b == 0 ? a : common_divisor(b, a % b);
}

geometry geometry_of(const dck_conv *k)
{
    geometry g = {};
    g.stride = k->stride;
    g.pad = k->pad_begin;
    g.step = k->dilation;
    g.apart = k->dilation / common_divisor(k->stride, k->dilation);
    g.relu = k->relu;
    g.floor = floor_of(k->relu);
    return g;
}

/* The strides in units of what both strides and dilations are multiples of: outputs of a run are so many shared rows
 * apart. */
int rows_apart(const dck_conv *k)
{
    return k->stride / common_divisor(k->stride, k->dilation);
}

template <int APART> constexpr int RUN_OF = APART == 1 ? 4 : 2;

/* Runs interleave: `apart` of them, side by side, cover run * apart rows. */
int groups_of(int rows, int run, int apart)
{
    return (int)ceil_div((size_t)rows, (size_t)run * (size_t)apart) * apart;
}

__device__ inline int first_of_run(int group, int run, int apart)
{
    return group / apart * run * apart + group % apart;
}

template <int TAPS> __device__ inline void load_weights(const float *w, unsigned channel, float *weight)
{
    UNROLL
    for (int i = 0; i < TAPS; i++)
        weight[i] = w[channel * TAPS + i];
}

/* ---- forward ---- */

/* M: rows of x between outputs of a run, in steps. */
template <class T, int K, int M>
__global__ void __launch_bounds__(SPATIAL_THREADS)
    forward_runs(geometry g, dck_elements<T> x, const float *w, dck_elements<T> y)
{
    constexpr int RUN = RUN_OF<M>;
    const spatial_place at = spatial_place_of(y.w);
    if (at.row >= g.groups)
        return;
    const int first = first_of_run(at.row, RUN, g.apart), top = first * g.stride - g.pad;
    const int left = at.column * g.stride - g.pad;
    float weight[K * K];
    load_weights<K * K>(w, blockIdx.y, weight);
    const T *from = plane_at(x, blockIdx.y, blockIdx.z, at.quad);
    const dck_affine f = affine_of(x.affine, blockIdx.y);
    dck_four sum[RUN] = {};
    UNROLL
    for (int row = 0; row < (RUN - 1) * M + K; row++)
        UNROLL
    for (int i = 0; i < K; i++) {
        const dck_four v = load_raised(from, top + row * g.step, left + i * g.step, x.h, x.w, f, g.floor);
        UNROLL
        for (int o = 0; o < RUN; o++) {
            const int j = row - o * M;
            if (j >= 0 && j < K)
                add_product(&sum[o], weight[j * K + i], v);
        }
    }
    T *to = plane_at(y, blockIdx.y, blockIdx.z, at.quad) + at.column * DCK_LANES;
    UNROLL
    for (int o = 0; o < RUN; o++)
        if (first + o * g.apart < y.h)
            store_four(to + (first + o * g.apart) * y.w * DCK_LANES, sum[o]);
}

template <class T>
__global__ void __launch_bounds__(SPATIAL_THREADS)
    forward_any(geometry g, int kernel, dck_elements<T> x, const float *w, dck_elements<T> y)
{
    const spatial_place at = spatial_place_of(y.w);
    if (at.row >= y.h)
        return;
    const float *weight = w + blockIdx.y * kernel * kernel;
    const T *from = plane_at(x, blockIdx.y, blockIdx.z, at.quad);
    const dck_affine f = affine_of(x.affine, blockIdx.y);
    dck_four sum = {};
    for (int j = 0; j < kernel; j++)
        for (int i = 0; i < kernel; i++)
            add_product(&sum, weight[j * kernel + i],
                        load_raised(from, at.row * g.stride - g.pad + j * g.step,
                                    at.column * g.stride - g.pad + i * g.step, x.h, x.w, f, g.floor));
    store_four(plane_at(y, blockIdx.y, blockIdx.z, at.quad) + (at.row * y.w + at.column) * DCK_LANES, sum);
}

template <class T, int K, int M>
cudaError_t launch_forward(const dck_queue *queue, geometry g, dck_view x, const float *w, dck_view y, int n)
{
    g.groups = groups_of(y.h, RUN_OF<M>, g.apart);
    return launch(forward_runs<T, K, M>, spatial_grid(g.groups * y.w, y.c, n), SPATIAL_THREADS, 0, queue->stream, g,
                  elements<T>(x), w, elements<T>(y));
}

template <class T>
cudaError_t forward(const dck_queue *queue, const dck_conv *k, dck_view x, const float *w, dck_view y, int n)
{
    const geometry g = geometry_of(k);
    switch (k->kernel * 10 + rows_apart(k)) {
    case 31:
        return launch_forward<T, 3, 1>(queue, g, x, w, y, n);
    case 32:
        return launch_forward<T, 3, 2>(queue, g, x, w, y, n);
    case 51:
        return launch_forward<T, 5, 1>(queue, g, x, w, y, n);
    case 52:
        return launch_forward<T, 5, 2>(queue, g, x, w, y, n);
    default:
        return launch(forward_any<T>, spatial_grid(y.h * y.w, y.c, n), SPATIAL_THREADS, 0, queue->stream, g, k->kernel,
                      elements<T>(x), w, elements<T>(y));
    }
}

/* ---- the gradient of x ---- */

/* One pixel of dx, where there is such a pixel. */
template <class T>
__device__ inline void put_gradient(const geometry &g, const dck_elements<T> &dx, int row, int column, const T *x,
                                    dck_affine f, T *plane, dck_four gradient)
{
    if ((unsigned)row >= (unsigned)dx.h || (unsigned)column >= (unsigned)dx.w)
        return;
    const int at = (row * dx.w + column) * DCK_LANES;
    put_four(plane + at, g.relu ? pass_above_zero(x + at, f, gradient) : gradient, g.accumulate);
}

/* Cells of cell * cell pixels of dx, counted from where the padding begins. Taps reach P * P pixels of each, in the
 * corner, and tap (j, i) reaches pixel (j % P, i % P) of cell Y from row Y - j / P * apart of dy. Others get nothing.
 */
template <class T, int K, int P>
__global__ void __launch_bounds__(SPATIAL_THREADS)
    data_runs(geometry g, dck_elements<T> x, const float *w, dck_elements<T> dy, dck_elements<T> dx)
{
    constexpr int RUN = RUN_OF<P>, BEFORE = (K - 1) / P;
    const spatial_place at = spatial_place_of(g.columns);
    if (at.row >= g.groups)
        return;
    const int first = g.first_row + first_of_run(at.row, RUN, g.apart), column = g.first_column + at.column;
    float weight[K * K];
    load_weights<K * K>(w, blockIdx.y, weight);
    const T *from = plane_at(dy, blockIdx.y, blockIdx.z, at.quad);
    dck_four sum[RUN][P][P] = {};
    UNROLL
    for (int row = -BEFORE; row < RUN; row++)
        UNROLL
    for (int s = 0; s <= BEFORE; s++) {
        const dck_four v = load_inside(from, first + row * g.apart, column - s * g.apart, dy.h, dy.w);
        UNROLL
        for (int tap = 0; tap < K * K; tap++) {
            const int j = tap / K, i = tap % K, o = row + j / P;
            if (o >= 0 && o < RUN && i / P == s)
                add_product(&sum[o][j % P][i % P], weight[tap], v);
        }
    }
    const T *mask = g.relu ? plane_at(x, blockIdx.y, blockIdx.z, at.quad) : nullptr;
    const dck_affine f = affine_of(x.affine, blockIdx.y);
    T *to = plane_at(dx, blockIdx.y, blockIdx.z, at.quad);
    UNROLL
    for (int o = 0; o < RUN; o++) {
        const int top = (first + o * g.apart) * g.cell - g.pad, left = column * g.cell - g.pad;
        UNROLL
        for (int p = 0; p < P * P; p++)
            put_gradient(g, dx, top + p / P, left + p % P, mask, f, to, sum[o][p / P][p % P]);
        if (P == 1 && !g.accumulate)
            for (int p = 1; p < g.cell * g.cell; p++)
                put_gradient(g, dx, top + p / g.cell, left + p % g.cell, mask, f, to, dck_four());
    }
}

template <class T>
__global__ void __launch_bounds__(SPATIAL_THREADS)
    data_any(geometry g, int kernel, dck_elements<T> x, const float *w, dck_elements<T> dy, dck_elements<T> dx)
{
    const spatial_place at = spatial_place_of(dx.w);
    if (at.row >= dx.h)
        return;
    const float *weight = w + blockIdx.y * kernel * kernel;
    const T *from = plane_at(dy, blockIdx.y, blockIdx.z, at.quad);
    dck_four sum = {};
    for (int j = 0; j < kernel; j++)
        for (int i = 0; i < kernel; i++) {
            const int row = at.row + g.pad - j * g.step, column = at.column + g.pad - i * g.step;
            if (row >= 0 && column >= 0 && row % g.stride == 0 && column % g.stride == 0)
                add_product(&sum, weight[j * kernel + i],
                            load_inside(from, row / g.stride, column / g.stride, dy.h, dy.w));
        }
    put_gradient(g, dx, at.row, at.column, g.relu ? plane_at(x, blockIdx.y, blockIdx.z, at.quad) : nullptr,
                 affine_of(x.affine, blockIdx.y), plane_at(dx, blockIdx.y, blockIdx.z, at.quad), sum);
}

template <class T, int K, int P>
cudaError_t launch_data(const dck_queue *queue, geometry g, dck_view x, const float *w, dck_view dy, dck_view dx, int n)
{
    g.cell = g.stride;
    g.first_row = g.first_column = g.pad / g.cell;
    g.columns = (dx.w - 1 + g.pad) / g.cell - g.first_column + 1;
    g.groups = groups_of((dx.h - 1 + g.pad) / g.cell - g.first_row + 1, RUN_OF<P>, g.apart);
    return launch(data_runs<T, K, P>, spatial_grid(g.groups * g.columns, dx.c, n), SPATIAL_THREADS, 0, queue->stream, g,
                  elements<T>(x), w, elements<T>(dy), elements<T>(dx));
}

template <class T>
cudaError_t backward_data(const dck_queue *queue, const dck_conv *k, dck_view x, const float *w, dck_view dy,
                          dck_view dx, bool accumulate, int n)
{
    geometry g = geometry_of(k);
    g.accumulate = accumulate;
    const bool alike = rows_apart(k) == 1, halves = k->stride == 2 && k->dilation == 1; /* P is 1, 2 */
    if (k->kernel == 3 && alike)
        return launch_data<T, 3, 1>(queue, g, x, w, dy, dx, n);
    if (k->kernel == 3 && halves)
        return launch_data<T, 3, 2>(queue, g, x, w, dy, dx, n);
    if (k->kernel == 5 && alike)
        return launch_data<T, 5, 1>(queue, g, x, w, dy, dx, n);
    if (k->kernel == 5 && halves)
        return launch_data<T, 5, 2>(queue, g, x, w, dy, dx, n);
    return launch(data_any<T>, spatial_grid(dx.h * dx.w, dx.c, n), SPATIAL_THREADS, 0, queue->stream, g, k->kernel,
                  elements<T>(x), w, elements<T>(dy), elements<T>(dx));
}

/* ---- the gradient of the weights ---- */

/* The work of a channel, a run of outputs of a quad of images in each item, is cut into parts by its size alone. Each
 * is a thread block's, and its sums lie in partial[channel][tap][part]. */
struct parts {
    unsigned items, per_part, count;
};

constexpr unsigned MOST_PARTS = 64, ITEMS_OF_THREAD = 2;

bool has_runs(const dck_conv *k)
{
    return (k->kernel == 3 || k->kernel == 5) && rows_apart(k) <= 2;
}

int groups_of_weights(const dck_conv *k, dck_view y)
{
    return has_runs(k) ? groups_of(y.h, rows_apart(k) == 1 ? RUN_OF<1> : RUN_OF<2>, geometry_of(k).apart) : y.h;
}

parts parts_of(const dck_conv *k, dck_view y, unsigned blocks)
{
    const unsigned items = blocks * (unsigned)(groups_of_weights(k, y) * y.w) * QUADS;
    unsigned count = ceil_div(items, SPATIAL_THREADS * ITEMS_OF_THREAD);
    count = count > MOST_PARTS ? MOST_PARTS : count;
    const unsigned per_part = ceil_div(ceil_div(items, count), SPATIAL_THREADS) * SPATIAL_THREADS;
    return {items, per_part, count};
}

__device__ inline float dot(dck_four a, dck_four b)
{
    return (a.v[0] * b.v[0] + a.v[1] * b.v[1]) + (a.v[2] * b.v[2] + a.v[3] * b.v[3]);
}

/* What the threads of a block have of each tap, added up: to[tap * step]. */
template <int TAPS> __device__ inline void put_sums(const float *sum, float *to, unsigned step)
{
    constexpr int WARPS = SPATIAL_THREADS / WARP;
    SHARED_ARRAY(float, of_warp, WARPS *TAPS);
    UNROLL
    for (int tap = 0; tap < TAPS; tap++) {
        const float whole = warp_sum(sum[tap]);
        if (threadIdx.x % WARP == 0)
            of_warp[threadIdx.x / WARP * TAPS + tap] = whole;
    }
    __syncthreads();
    for (unsigned tap = threadIdx.x; tap < TAPS; tap += SPATIAL_THREADS) {
        float whole = 0;
        UNROLL
        for (int warp = 0; warp < WARPS; warp++)
            whole += of_warp[warp * TAPS + tap];
        to[tap * step] = whole;
    }
}

struct item_place {
    int quad, column, group;
    unsigned block;
};

__device__ inline item_place item_place_of(unsigned item, int columns, int groups)
{
    const unsigned pixel = item / QUADS, row = pixel / columns;
    return {(int)(item % QUADS), (int)(pixel % columns), (int)(row % groups), row / groups};
}

template <class T, int K, int M>
__global__ void __launch_bounds__(SPATIAL_THREADS)
    weight_runs(geometry g, parts p, dck_elements<T> x, dck_elements<T> dy, float *partial)
{
    constexpr int RUN = RUN_OF<M>;
    const unsigned begin = blockIdx.x * p.per_part, end = begin + p.per_part < p.items ? begin + p.per_part : p.items;
    float sum[K * K] = {};
    for (unsigned item = begin + threadIdx.x; item < end; item += SPATIAL_THREADS) {
        const item_place at = item_place_of(item, dy.w, g.groups);
        const int first = first_of_run(at.group, RUN, g.apart), top = first * g.stride - g.pad;
        const int left = at.column * g.stride - g.pad;
        const T *from = plane_at(x, blockIdx.y, at.block, at.quad), *dys = plane_at(dy, blockIdx.y, at.block, at.quad);
        const dck_affine f = affine_of(x.affine, blockIdx.y);
        dck_four gradient[RUN];
        UNROLL
        for (int o = 0; o < RUN; o++)
            gradient[o] = load_inside(dys, first + o * g.apart, at.column, dy.h, dy.w);
        UNROLL
        for (int row = 0; row < (RUN - 1) * M + K; row++)
            UNROLL
        for (int i = 0; i < K; i++) {
            const dck_four v = load_raised(from, top + row * g.step, left + i * g.step, x.h, x.w, f, g.floor);
            UNROLL
            for (int o = 0; o < RUN; o++) {
                const int j = row - o * M;
                if (j >= 0 && j < K)
                    sum[j * K + i] += dot(gradient[o], v);
            }
        }
    }
    put_sums<K * K>(sum, partial + blockIdx.y * K * K * p.count + blockIdx.x, p.count);
}

/* One tap a thread block. */
template <class T>
__global__ void __launch_bounds__(SPATIAL_THREADS)
    weight_any(geometry g, int kernel, parts p, dck_elements<T> x, dck_elements<T> dy, float *partial)
{
    const unsigned begin = blockIdx.x * p.per_part, end = begin + p.per_part < p.items ? begin + p.per_part : p.items;
    const int down = (int)blockIdx.z / kernel * g.step - g.pad, across = (int)blockIdx.z % kernel * g.step - g.pad;
    const dck_affine f = affine_of(x.affine, blockIdx.y);
    float sum = 0;
    for (unsigned item = begin + threadIdx.x; item < end; item += SPATIAL_THREADS) {
        const item_place at = item_place_of(item, dy.w, dy.h);
        const T *from = plane_at(x, blockIdx.y, at.block, at.quad), *dys = plane_at(dy, blockIdx.y, at.block, at.quad);
        sum += dot(load_inside(dys, at.group, at.column, dy.h, dy.w),
                   load_raised(from, at.group * g.stride + down, at.column * g.stride + across, x.h, x.w, f, g.floor));
    }
    put_sums<1>(&sum, partial + (blockIdx.y * gridDim.z + blockIdx.z) * p.count + blockIdx.x, 0);
}

/* A warp for each weight. */
__global__ void __launch_bounds__(SPATIAL_THREADS)
    add_parts(unsigned weights, unsigned count, const float *partial, float *dw)
{
    const unsigned weight = (blockIdx.x * SPATIAL_THREADS + threadIdx.x) / WARP;
    if (weight >= weights)
        return;
    float sum = 0;
    for (unsigned part = threadIdx.x % WARP; part < count; part += WARP)
        sum += partial[weight * count + part];
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0)
        dw[weight] = sum;
}

template <class T, int K, int M>
cudaError_t launch_weights(const dck_queue *queue, const geometry &g, parts p, dck_view x, dck_view dy, float *partial)
{
    return launch(weight_runs<T, K, M>, dim3(p.count, (unsigned)dy.c), SPATIAL_THREADS, 0, queue->stream, g, p,
                  elements<T>(x), elements<T>(dy), partial);
}

template <class T>
cudaError_t weight_parts(const dck_queue *queue, const dck_conv *k, parts p, dck_view x, dck_view dy, float *partial)
{
    geometry g = geometry_of(k);
    g.groups = groups_of_weights(k, dy);
    switch (k->kernel * 10 + rows_apart(k)) {
    case 31:
        return launch_weights<T, 3, 1>(queue, g, p, x, dy, partial);
    case 32:
        return launch_weights<T, 3, 2>(queue, g, p, x, dy, partial);
    case 51:
        return launch_weights<T, 5, 1>(queue, g, p, x, dy, partial);
    case 52:
        return launch_weights<T, 5, 2>(queue, g, p, x, dy, partial);
    default:
        return launch(weight_any<T>, dim3(p.count, (unsigned)dy.c, (unsigned)(k->kernel * k->kernel)), SPATIAL_THREADS,
                      0, queue->stream, g, k->kernel, p, elements<T>(x), elements<T>(dy), partial);
    }
}

} // namespace

cudaError_t dck_cuda_depthwise_forward(const dck_queue *queue, const dck_conv *k, dck_view x, const float *w,
                                       dck_view y, int n)
{
    return DISPATCH_TYPE(queue, T, forward<T>(queue, k, x, w, y, n));
}

cudaError_t dck_cuda_depthwise_backward_data(const dck_queue *queue, const dck_conv *k, dck_view x, const float *w,
                                             dck_view dy, dck_view dx, bool accumulate, int n)
{
    return DISPATCH_TYPE(queue, T, backward_data<T>(queue, k, x, w, dy, dx, accumulate, n));
}

size_t dck_cuda_depthwise_scratch_bytes(const dck_conv *k, dck_view x, dck_view y, int blocks)
{
    (void)x;
    return (size_t)y.c * k->kernel * k->kernel * parts_of(k, y, (unsigned)blocks).count * sizeof(float);
}

cudaError_t dck_cuda_depthwise_backward_weights(const dck_queue *queue, const dck_conv *k, dck_view x, dck_view dy,
                                                float *dw, int n, void *scratch)
{
    const parts p = parts_of(k, dy, blocks_of(n));
    const unsigned weights = (unsigned)(dy.c * k->kernel * k->kernel);
    float *partial = static_cast<float *>(scratch);
    const cudaError_t error = DISPATCH_TYPE(queue, T, weight_parts<T>(queue, k, p, x, dy, partial));
    if (error != cudaSuccess)
        return error;
    return launch(add_parts, dim3(ceil_div((size_t)weights * WARP, SPATIAL_THREADS)), SPATIAL_THREADS, 0, queue->stream,
                  weights, p.count, partial, dw);
}
