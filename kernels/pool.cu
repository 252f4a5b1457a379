/* Max and average pooling, any kernel, stride and padding; average counts only positions inside the image. 3x3 at
 * strides 1 and 2 is unrolled: a thread has a run of outputs (or of pixels of dx) below one another, so that it loads
 * 4.5 pixels of x for each output at stride 1 and 7.5 at stride 2, nearly all of them from the level-1 cache. The
 * gradients gather: whoever has a pixel of dx looks for it in the windows over it, whose maxima he finds himself (14.5
 * pixels loaded for each of dx at stride 1, y not read). So nothing is added atomically and dx is written once.
 *
 * Bytes moved: forward x and y once; gradient of averages dy and dx once, of maxima x as well; dx twice to add. The
 * bound is memory, but for the gradient of maxima, which is bound by instructions: some 560 for each pixel of four
 * images at stride 1 are 4.4 cycles of an H100's multiprocessor, where 48 bytes in float take 3.2 of its share of
 * memory (720, 5.6 and 1.6 in bfloat16). Registers (ptxas, sm_80 to sm_100): forward 31 to 56, gradient of averages 42
 * to 55, of maxima 137 to 150 - left to itself: bounds make the compiler spill, while a dozen warps with twenty loads
 * each in flight are enough. */
#include "spatial.cuh"

#include <math.h>

namespace
{

template <int STRIDE> constexpr int RUN_OF = STRIDE == 1 ? 4 : 2;

struct range {
    int begin, end;
};

/* The positions inside [0, size) of the window of output `at`. */
__device__ inline range window(const dck_pool &k, int at, int size)
{
    const int begin = at * k.stride - k.pad, end = begin + k.kernel;
    return {begin < 0 ? 0 : begin, end > size ? size : end};
}

/* The outputs in [0, size) whose windows hold input `at`. */
__device__ inline range windows_over(const dck_pool &k, int at, int size)
{
    const int last = (at + k.pad) / k.stride, before = at + k.pad - k.kernel;
    return {before < 0 ? 0 : before / k.stride + 1, last + 1 > size ? size : last + 1};
}

/* 1 / the positions of a window along an axis; a window that is not there has some, too. */
__device__ inline float share(const dck_pool &k, int at, int size)
{
    const range r = window(k, at, size);
    return 1 / (float)(r.end > r.begin ? r.end - r.begin : 1);
}

__device__ inline bool inside(int row, int column, int h, int w)
{
    return (unsigned)row < (unsigned)h && (unsigned)column < (unsigned)w;
}

template <bool MAX> __device__ inline dck_four nothing()
{
    const float v = MAX ? -INFINITY : 0;
    return {{v, v, v, v}};
}

template <bool MAX> __device__ inline dck_four join(dck_four a, dck_four b)
{
    UNROLL
    for (int i = 0; i < 4; i++)
        a.v[i] = MAX ? larger(a.v[i], b.v[i]) : a.v[i] + b.v[i];
    return a;
}

__device__ inline dck_four scaled(dck_four a, float factor)
{
    UNROLL
    for (int i = 0; i < 4; i++)
        a.v[i] *= factor;
    return a;
}

/* A batch norm that maxima are seen through is applied to each pixel, averages are seen through as a whole. */
template <bool MAX, class T>
__device__ inline dck_four load(const T *plane, int row, int column, int h, int w, dck_affine f)
{
    if (!inside(row, column, h, w))
        return nothing<MAX>();
    const dck_four x = load_four(plane + (row * w + column) * DCK_LANES);
    return MAX ? seen_through(f, x) : x;
}

/* ---- forward ---- */

template <bool MAX, class T, int STRIDE>
__global__ void __launch_bounds__(SPATIAL_THREADS) forward3(dck_pool k, dck_elements<T> x, dck_elements<T> y)
{
    constexpr int RUN = RUN_OF<STRIDE>;
    const spatial_place at = spatial_place_of(y.w);
    const int first = at.row * RUN, top = first * STRIDE - k.pad, left = at.column * STRIDE - k.pad;
    const T *from = plane_at(x, blockIdx.y, blockIdx.z, at.quad);
    const dck_affine f = MAX ? affine_of(x.affine, blockIdx.y) : dck_affine();
    T *to = plane_at(y, blockIdx.y, blockIdx.z, at.quad) + at.column * DCK_LANES;
    dck_four sum[RUN];
    UNROLL
    for (int o = 0; o < RUN; o++)
        sum[o] = nothing<MAX>();
    UNROLL
    for (int row = 0; row < (RUN - 1) * STRIDE + 3; row++) {
        dck_four v = load<MAX>(from, top + row, left, x.h, x.w, f);
        UNROLL
        for (int i = 1; i < 3; i++)
            v = join<MAX>(v, load<MAX>(from, top + row, left + i, x.h, x.w, f));
        UNROLL
        for (int o = 0; o < RUN; o++)
            if (row >= o * STRIDE && row < o * STRIDE + 3)
                sum[o] = join<MAX>(sum[o], v);
    }
    const float across = MAX ? 1 : share(k, at.column, x.w);
    UNROLL
    for (int o = 0; o < RUN; o++)
        if (first + o < y.h)
            store_four(
                to + (first + o) * y.w * DCK_LANES,
                MAX ? sum[o]
                    : seen_through(affine_of(x.affine, blockIdx.y), scaled(sum[o], across * share(k, first + o, x.h))));
}

template <bool MAX, class T>
__global__ void __launch_bounds__(SPATIAL_THREADS) forward_any(dck_pool k, dck_elements<T> x, dck_elements<T> y)
{
    const spatial_place at = spatial_place_of(y.w);
    if (at.row >= y.h)
        return;
    const range down = window(k, at.row, x.h), across = window(k, at.column, x.w);
    const T *from = plane_at(x, blockIdx.y, blockIdx.z, at.quad);
    const dck_affine f = affine_of(x.affine, blockIdx.y);
    dck_four sum = nothing<MAX>();
    for (int row = down.begin; row < down.end; row++)
        for (int column = across.begin; column < across.end; column++)
            sum = join<MAX>(sum, load<MAX>(from, row, column, x.h, x.w, f));
    if (!MAX)
        sum = seen_through(f, scaled(sum, share(k, at.row, x.h) * share(k, at.column, x.w)));
    store_four(plane_at(y, blockIdx.y, blockIdx.z, at.quad) + (at.row * y.w + at.column) * DCK_LANES, sum);
}

dim3 run_grid(int run, int rows, int columns, int channels, int n)
{
    return spatial_grid((int)ceil_div((size_t)rows, (size_t)run) * columns, channels, n);
}

template <bool MAX, class T>
cudaError_t forward(const dck_queue *queue, const dck_pool *k, dck_view x, dck_view y, int n)
{
    if (k->kernel == 3 && k->stride == 1)
        return launch(forward3<MAX, T, 1>, run_grid(RUN_OF<1>, y.h, y.w, y.c, n), SPATIAL_THREADS, 0, queue->stream, *k,
                      elements<T>(x), elements<T>(y));
    if (k->kernel == 3 && k->stride == 2)
        return launch(forward3<MAX, T, 2>, run_grid(RUN_OF<2>, y.h, y.w, y.c, n), SPATIAL_THREADS, 0, queue->stream, *k,
                      elements<T>(x), elements<T>(y));
    return launch(forward_any<MAX, T>, run_grid(1, y.h, y.w, y.c, n), SPATIAL_THREADS, 0, queue->stream, *k,
                  elements<T>(x), elements<T>(y));
}

/* ---- gradients of 3x3 ---- */

/* A thread's pixels of dx are cells of STRIDE * STRIDE below one another, counted from where the padding begins. The
 * windows over them begin at multiples of the stride from two pixels before on. */
template <int STRIDE> struct owned {
    enum {
        ROWS = RUN_OF<STRIDE> * STRIDE,
        BACK = 2 / STRIDE, /* windows before that of the first pixel */
        WINDOW_ROWS = RUN_OF<STRIDE> + BACK,
        WINDOW_COLUMNS = 1 + BACK,
        X_ROWS = (WINDOW_ROWS - 1) * STRIDE + 3,
        X_COLUMNS = 5
    };
    int window_row, window_column; /* the first windows */
    int row, column;               /* in the plane; of dx */
};

/* first: the first cell of STRIDE * STRIDE pixels that has any inside. */
template <int STRIDE> __device__ inline owned<STRIDE> owned_at(const spatial_place &at, int pad)
{
    const int first = pad / STRIDE, row = first + at.row * RUN_OF<STRIDE>, column = first + at.column;
    return {row - owned<STRIDE>::BACK, column - owned<STRIDE>::BACK, row * STRIDE - pad, column * STRIDE - pad};
}

template <class T, int STRIDE>
__device__ inline void put_owned(const owned<STRIDE> &mine, const dck_elements<T> &dx, T *plane,
                                 const dck_four (&sum)[owned<STRIDE>::ROWS][STRIDE], bool accumulate)
{
    UNROLL
    for (int r = 0; r < owned<STRIDE>::ROWS; r++)
        UNROLL
    for (int c = 0; c < STRIDE; c++) {
        const int row = mine.row + r, column = mine.column + c;
        if (inside(row, column, dx.h, dx.w))
            put_four(plane + (row * dx.w + column) * DCK_LANES, sum[r][c], accumulate);
    }
}

/* One row of x as the windows see it: the maxima of their three columns of it; and the pixels that are owned, each
 * where it is above all before it, else not a number, which equals nothing. */
template <int STRIDE> struct seen {
    dck_four most[owned<STRIDE>::WINDOW_COLUMNS], own[owned<STRIDE>::WINDOW_COLUMNS][STRIDE];
};

template <class T, int STRIDE>
__device__ inline void see(seen<STRIDE> *s, const T *plane, int row, int column, int h, int w, dck_affine f)
{
    typedef owned<STRIDE> O;
    dck_four v[O::X_COLUMNS];
    UNROLL
    for (int i = 0; i < O::X_COLUMNS; i++)
        v[i] = load<true>(plane, row, column + i, h, w, f);
    UNROLL
    for (int window = 0; window < O::WINDOW_COLUMNS; window++) {
        const int left = window * STRIDE;
        s->most[window] = v[left];
        UNROLL
        for (int pixel = 0; pixel < STRIDE; pixel++) /* of stride 2 the second is in one window only */
            s->own[window][pixel] = {{NAN, NAN, NAN, NAN}};
        UNROLL
        for (int i = left; i < left + 3; i++) {
            UNROLL
            for (int lane = 0; lane < 4; lane++)
                if (i >= 2 && i < 2 + STRIDE)
                    s->own[window][i - 2].v[lane] =
                        i == left || v[i].v[lane] > s->most[window].v[lane] ? v[i].v[lane] : NAN;
            s->most[window] = join<true>(s->most[window], v[i]);
        }
    }
}

/* What a window has to give goes to the first of its rows that has its maximum, if there is an owned pixel. */
template <int STRIDE>
__device__ inline void give(const seen<STRIDE> *rows, int window, int column, dck_four dy,
                            dck_four (&sum)[owned<STRIDE>::ROWS][STRIDE])
{
    UNROLL
    for (int lane = 0; lane < 4; lane++) {
        const float one = rows[0].most[column].v[lane], two = larger(one, rows[1].most[column].v[lane]);
        const float most = larger(two, rows[2].most[column].v[lane]);
        const bool later[3] = {true, one < most, two < most}; /* no row before has it */
        UNROLL
        for (int r = 0; r < 3; r++) {
            const int own = window * STRIDE + r - 2; /* among the rows that are owned */
            if (own >= 0 && own < owned<STRIDE>::ROWS)
                UNROLL
            for (int pixel = 0; pixel < STRIDE; pixel++)
                sum[own][pixel].v[lane] += later[r] && rows[r].own[column][pixel].v[lane] == most ? dy.v[lane] : 0;
        }
    }
}

template <class T, int STRIDE>
__global__ void __launch_bounds__(SPATIAL_THREADS)
    max_backward3(int pad, int columns, bool accumulate, dck_elements<T> x, dck_elements<T> dy, dck_elements<T> dx)
{
    typedef owned<STRIDE> O;
    const spatial_place at = spatial_place_of(columns);
    const O mine = owned_at<STRIDE>(at, pad);
    const T *xs = plane_at(x, blockIdx.y, blockIdx.z, at.quad), *dys = plane_at(dy, blockIdx.y, blockIdx.z, at.quad);
    const dck_affine f = affine_of(x.affine, blockIdx.y);
    dck_four sum[O::ROWS][STRIDE] = {};
    seen<STRIDE> rows[O::X_ROWS];
    UNROLL
    for (int r = 0; r < O::X_ROWS; r++) {
        see<T, STRIDE>(&rows[r], xs, mine.row - 2 + r, mine.column - 2, x.h, x.w, f);
        const int window = (r - 2) / STRIDE; /* this row is its last */
        UNROLL
        for (int c = 0; c < O::WINDOW_COLUMNS; c++)
            if (r >= 2 && r == window * STRIDE + 2)
                give<STRIDE>(rows + r - 2, window, c,
                             load_inside(dys, mine.window_row + window, mine.window_column + c, dy.h, dy.w), sum);
    }
    put_owned(mine, dx, plane_at(dx, blockIdx.y, blockIdx.z, at.quad), sum, accumulate);
}

template <class T, int STRIDE>
__global__ void __launch_bounds__(SPATIAL_THREADS)
    avg_backward3(dck_pool k, int columns, bool accumulate, dck_elements<T> dy, dck_elements<T> dx)
{
    typedef owned<STRIDE> O;
    const spatial_place at = spatial_place_of(columns);
    const O mine = owned_at<STRIDE>(at, k.pad);
    const T *from = plane_at(dy, blockIdx.y, blockIdx.z, at.quad);
    float across[O::WINDOW_COLUMNS];
    UNROLL
    for (int c = 0; c < O::WINDOW_COLUMNS; c++)
        across[c] = share(k, mine.window_column + c, dx.w);
    dck_four sum[O::ROWS][STRIDE] = {};
    UNROLL
    for (int window = 0; window < O::WINDOW_ROWS; window++) {
        const float down = share(k, mine.window_row + window, dx.h);
        UNROLL
        for (int c = 0; c < O::WINDOW_COLUMNS; c++) {
            const dck_four v = load_inside(from, mine.window_row + window, mine.window_column + c, dy.h, dy.w);
            UNROLL
            for (int r = 0; r < O::ROWS; r++)
                UNROLL
            for (int pixel = 0; pixel < STRIDE; pixel++) {
                const int row = r + 2 - window * STRIDE, column = pixel + 2 - c * STRIDE; /* in the window */
                if (row >= 0 && row < 3 && column >= 0 && column < 3)
                    add_product(&sum[r][pixel], across[c] * down, v);
            }
        }
    }
    put_owned(mine, dx, plane_at(dx, blockIdx.y, blockIdx.z, at.quad), sum, accumulate);
}

/* Cells of stride * stride pixels that cover a side of dx. */
int cells(const dck_pool *k, int size)
{
    return (size - 1 + k->pad) / k->stride - k->pad / k->stride + 1;
}

template <class T, int STRIDE>
cudaError_t launch_max3(const dck_queue *queue, const dck_pool *k, dck_view x, dck_view dy, dck_view dx,
                        bool accumulate, int n)
{
    const int columns = cells(k, dx.w);
    return launch(max_backward3<T, STRIDE>, run_grid(RUN_OF<STRIDE>, cells(k, dx.h), columns, dx.c, n), SPATIAL_THREADS,
                  0, queue->stream, k->pad, columns, accumulate, elements<T>(x), elements<T>(dy), elements<T>(dx));
}

template <class T, int STRIDE>
cudaError_t launch_avg3(const dck_queue *queue, const dck_pool *k, dck_view dy, dck_view dx, bool accumulate, int n)
{
    const int columns = cells(k, dx.w);
    return launch(avg_backward3<T, STRIDE>, run_grid(RUN_OF<STRIDE>, cells(k, dx.h), columns, dx.c, n), SPATIAL_THREADS,
                  0, queue->stream, *k, columns, accumulate, elements<T>(dy), elements<T>(dx));
}

/* ---- gradients of any ---- */

/* As it would be stored: y is, which is compared with it. */
__device__ inline float stored(float x, float)
{
    return x;
}

__device__ inline float stored(float x, __nv_bfloat16)
{
    return __uint_as_float(bf16_bits(x) << 16);
}

/* A window's gradient, in those images whose maximum is at (row, column) and at no position of it before. */
template <class T>
__device__ inline dck_four given_to(const dck_elements<T> &x, const T *xs, dck_affine f, range down, range across,
                                    int row, int column, dck_four most, dck_four dy)
{
    for (int r = down.begin; r <= row; r++)
        for (int c = across.begin; c < across.end; c++) {
            if (r == row && c > column)
                break;
            const dck_four v = seen_through(f, load_four(xs + (r * x.w + c) * DCK_LANES));
            const bool own = r == row && c == column;
            UNROLL
            for (int i = 0; i < 4; i++)
                dy.v[i] = (stored(v.v[i], T()) == most.v[i]) == own ? dy.v[i] : 0;
        }
    return dy;
}

template <class T>
__global__ void __launch_bounds__(SPATIAL_THREADS)
    max_backward_any(dck_pool k, bool accumulate, dck_elements<T> x, dck_elements<T> y, dck_elements<T> dy,
                     dck_elements<T> dx)
{
    const spatial_place at = spatial_place_of(dx.w);
    if (at.row >= dx.h)
        return;
    const T *xs = plane_at(x, blockIdx.y, blockIdx.z, at.quad), *ys = plane_at(y, blockIdx.y, blockIdx.z, at.quad);
    const T *dys = plane_at(dy, blockIdx.y, blockIdx.z, at.quad);
    const dck_affine f = affine_of(x.affine, blockIdx.y);
    const range down = windows_over(k, at.row, dy.h), across = windows_over(k, at.column, dy.w);
    dck_four sum = {};
    for (int i = down.begin; i < down.end; i++)
        for (int j = across.begin; j < across.end; j++) {
            const int out = (i * dy.w + j) * DCK_LANES;
            add_product(&sum, 1,
                        given_to(x, xs, f, window(k, i, x.h), window(k, j, x.w), at.row, at.column, load_four(ys + out),
                                 load_four(dys + out)));
        }
    put_four(plane_at(dx, blockIdx.y, blockIdx.z, at.quad) + (at.row * dx.w + at.column) * DCK_LANES, sum, accumulate);
}

template <class T>
__global__ void __launch_bounds__(SPATIAL_THREADS)
    avg_backward_any(dck_pool k, bool accumulate, dck_elements<T> dy, dck_elements<T> dx)
{
    const spatial_place at = spatial_place_of(dx.w);
    if (at.row >= dx.h)
        return;
    const T *from = plane_at(dy, blockIdx.y, blockIdx.z, at.quad);
    const range down = windows_over(k, at.row, dy.h), across = windows_over(k, at.column, dy.w);
    dck_four sum = {};
    for (int i = down.begin; i < down.end; i++)
        for (int j = across.begin; j < across.end; j++)
            add_product(&sum, share(k, i, dx.h) * share(k, j, dx.w), load_four(from + (i * dy.w + j) * DCK_LANES));
    put_four(plane_at(dx, blockIdx.y, blockIdx.z, at.quad) + (at.row * dx.w + at.column) * DCK_LANES, sum, accumulate);
}

template <class T>
cudaError_t max_backward(const dck_queue *queue, const dck_pool *k, dck_view x, dck_view y, dck_view dy, dck_view dx,
                         bool accumulate, int n)
{
    if (k->kernel == 3 && k->stride == 1)
        return launch_max3<T, 1>(queue, k, x, dy, dx, accumulate, n);
    if (k->kernel == 3 && k->stride == 2)
        return launch_max3<T, 2>(queue, k, x, dy, dx, accumulate, n);
    return launch(max_backward_any<T>, run_grid(1, dx.h, dx.w, dx.c, n), SPATIAL_THREADS, 0, queue->stream, *k,
                  accumulate, elements<T>(x), elements<T>(y), elements<T>(dy), elements<T>(dx));
}

template <class T>
cudaError_t avg_backward(const dck_queue *queue, const dck_pool *k, dck_view dy, dck_view dx, bool accumulate, int n)
{
    if (k->kernel == 3 && k->stride == 1)
        return launch_avg3<T, 1>(queue, k, dy, dx, accumulate, n);
    if (k->kernel == 3 && k->stride == 2)
        return launch_avg3<T, 2>(queue, k, dy, dx, accumulate, n);
    return launch(avg_backward_any<T>, run_grid(1, dx.h, dx.w, dx.c, n), SPATIAL_THREADS, 0, queue->stream, *k,
                  accumulate, elements<T>(dy), elements<T>(dx));
}

} // namespace

cudaError_t dck_cuda_max_pool_forward(const dck_queue *queue, const dck_pool *k, dck_view x, dck_view y, int n)
{
    return DISPATCH_TYPE(queue, T, forward<true, T>(queue, k, x, y, n));
}

cudaError_t dck_cuda_max_pool_backward(const dck_queue *queue, const dck_pool *k, dck_view x, dck_view y, dck_view dy,
                                       dck_view dx, bool accumulate, int n)
{
    return DISPATCH_TYPE(queue, T, max_backward<T>(queue, k, x, y, dy, dx, accumulate, n));
}

cudaError_t dck_cuda_avg_pool_forward(const dck_queue *queue, const dck_pool *k, dck_view x, dck_view y, int n)
{
    return DISPATCH_TYPE(queue, T, forward<false, T>(queue, k, x, y, n));
}

cudaError_t dck_cuda_avg_pool_backward(const dck_queue *queue, const dck_pool *k, dck_view dy, dck_view dx,
                                       bool accumulate, int n)
{
    return DISPATCH_TYPE(queue, T, avg_backward<T>(queue, k, dy, dx, accumulate, n));
}
