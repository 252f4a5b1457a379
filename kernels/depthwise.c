/* Depthwise convolution of any kernel, stride, dilation and padding.
 *
 * Work is one plane (block, channel). Rows of the input pass once, rectified, into a ring of rows that lie between
 * zeros and stay in the level-1 cache; an output row is then a sum over taps, each an offset into the ring and a
 * weight. The gradient of x is the same over rows of dy: the pixels of x in a phase of the stride share their taps.
 * The gradient of w holds its sums in registers along each row, ten taps at a time.
 *
 * An image: 2 k^2 operations for each pixel of y; 4 bytes for each pixel read and written. 3x3 is bound by memory (18
 * operations to 8 bytes: it moves data as fast as a copy does), 5x5 by loads from the level-1 cache, nine to eight
 * multiply-adds. AVX2, Zen 3, planes in the level-2 cache: 5x5 on 32x32 forward 60 % of the peak of 111 GFLOP/s a core,
 * gradient of x 50 % (the mask is read as well), of w 46 %; 8x8 planes 45, 35 and 31 %. */
#include "conv.h"

#include <omp.h>
#include <string.h>

enum {
    TILE_PIXELS = DCK_VECTOR / 2 < 8 ? DCK_VECTOR / 2 : 8, /* eight accumulators: two chains' latency of four */
    GROUP = 10,                                            /* taps of the weight gradient held at once */
};

/* Rows of one plane between zeros; column c of a row is the plane's column c + left. The last row is all zeros and
 * stands for every row outside of the plane. */
typedef struct ring {
    float *rows;
    int count, width, left;
    const float *plane;
    int h, w;
    bool relu;
    dck_on_load on_load;
    int filled; /* rows below this one are in the ring */
} ring;

static size_t ring_bytes(ring r)
{
    return (size_t)(r.count + 1) * r.width * DCK_PIXEL_BYTES;
}

static const float *ring_row(const ring *r, int y)
{
    int slot = y < 0 || y >= r->h ? r->count : y % r->count;
    return r->rows + (size_t)slot * r->width * DCK_LANES;
}

/* What is beside the plane's columns was set to zero once and stays so. */
static void fill_row(const ring *r, int y)
{
    int begin = r->left < 0 ? -r->left : 0, end = r->w - r->left < r->width ? r->w - r->left : r->width;
    const dck_vec *restrict from = (const dck_vec *)(r->plane + ((ptrdiff_t)y * r->w + begin + r->left) * DCK_LANES);
    dck_vec *restrict to = (dck_vec *)(r->rows + ((size_t)(y % r->count) * r->width + begin) * DCK_LANES);
    int n = (end - begin) * DCK_PER_PIXEL;
    if (r->relu)
        for (int i = 0; i < n; i++)
            to[i] = dck_relu(dck_read(r->on_load, from[i]));
    else
        for (int i = 0; i < n; i++)
            to[i] = dck_read(r->on_load, from[i]);
}

/* Makes rows first..last present, those of them that the plane has; first never falls. */
static void ring_advance(ring *r, int first, int last)
{
    int y = r->filled > first ? r->filled : first;
    for (; y <= last && y < r->h; y++)
        fill_row(r, y);
    r->filled = y;
}

/* ---- one row: out[p] (+)= sum_ji weight[j][i] * at[j][p + i * step] ---- */

typedef struct taps {
    int rows, columns;
    ptrdiff_t step;   /* floats from column to column */
    const float **at; /* [rows]: pixel 0 of the first column */
    float *weight;    /* [rows][columns] */
} taps;

typedef struct row_output {
    float *out;
    const float *mask; /* NULL: none; only where it is read as above zero there is something to write */
    dck_on_load on_load;
    bool add;
} row_output;

DCK_INLINE void row_tile(int pixels, int columns, int in_step, int out_step, const taps *t, int first, row_output o)
{
    dck_vec sum[TILE_PIXELS * DCK_PER_PIXEL];
    DCK_UNROLL
    for (int i = 0; i < pixels * DCK_PER_PIXEL; i++)
        sum[i] = (dck_vec){0};
    const float *weight = t->weight;
    for (int j = 0; j < t->rows; j++) {
        const float *at = t->at[j] + (size_t)first * in_step * DCK_LANES;
#pragma GCC unroll 5
        for (int i = 0; i < columns; i++, at += t->step) {
            const dck_vec *x = (const dck_vec *)at;
            dck_vec w = dck_set(*weight++);
            DCK_UNROLL
            for (int p = 0; p < pixels; p++)
                DCK_UNROLL
            for (int v = 0; v < DCK_PER_PIXEL; v++)
                sum[p * DCK_PER_PIXEL + v] += w * x[p * in_step * DCK_PER_PIXEL + v];
        }
    }
    DCK_UNROLL
    for (int p = 0; p < pixels; p++) {
        size_t at = (size_t)(first + p) * out_step * DCK_LANES;
        dck_vec *to = (dck_vec *)(o.out + at);
        DCK_UNROLL
        for (int v = 0; v < DCK_PER_PIXEL; v++) {
            dck_vec value = sum[p * DCK_PER_PIXEL + v];
            if (o.mask)
                value = dck_where(dck_read(o.on_load, ((const dck_vec *)(o.mask + at))[v]) > (dck_vec){0}, value);
            if (o.add)
                value += to[v];
            to[v] = value;
        }
    }
}

DCK_INLINE void row_steps(int columns, int in_step, int out_step, const taps *t, int pixels, row_output o)
{
    int p = 0;
    for (; p + TILE_PIXELS <= pixels; p += TILE_PIXELS)
        row_tile(TILE_PIXELS, columns, in_step, out_step, t, p, o);
    if (TILE_PIXELS > 4 && p + 4 <= pixels) {
        row_tile(TILE_PIXELS > 4 ? 4 : 1, columns, in_step, out_step, t, p, o);
        p += 4;
    }
    if (TILE_PIXELS > 2 && p + 2 <= pixels) {
        row_tile(TILE_PIXELS > 2 ? 2 : 1, columns, in_step, out_step, t, p, o);
        p += 2;
    }
    if (p < pixels)
        row_tile(1, columns, in_step, out_step, t, p, o);
}

static void row(int in_step, int out_step, const taps *t, int pixels, row_output o)
{
    if (in_step == 1 && out_step == 1 && t->columns == 3)
        row_steps(3, 1, 1, t, pixels, o);
    else if (in_step == 1 && out_step == 1 && t->columns == 5)
        row_steps(5, 1, 1, t, pixels, o);
    else if (in_step == 2 && out_step == 1)
        row_steps(t->columns, 2, 1, t, pixels, o);
    else if (in_step == 1 && out_step == 2)
        row_steps(t->columns, 1, 2, t, pixels, o);
    else
        row_steps(t->columns, in_step, out_step, t, pixels, o);
}

/* ---- scratch ---- */

static int floor_divide(int a, int b)
{
    return a >= 0 ? a / b : -((-a + b - 1) / b);
}

static int reach(const dck_conv *k)
{
    return (k->kernel - 1) * k->dilation;
}

static ring x_ring(const dck_conv *k, dck_view x, dck_view y)
{
    return (ring){.count = reach(k) + 1,
                  .width = (y.w - 1) * k->stride + reach(k) + 1,
                  .left = -k->pad_begin,
                  .h = x.h,
                  .w = x.w,
                  .relu = k->relu};
}

static ring dy_ring(const dck_conv *k, dck_view x, dck_view dy)
{
    int left = floor_divide(k->pad_begin - reach(k), k->stride);
    return (ring){.count = reach(k) / k->stride + 2,
                  .width = floor_divide(x.w - 1 + k->pad_begin, k->stride) - left + 1,
                  .left = left,
                  .h = dy.h,
                  .w = dy.w,
                  .on_load = {1, 0}};
}

/* One thread's: its rings, the taps of a row and the sums of the weight gradient. */
typedef struct thread_scratch {
    float *x_rows, *dy_rows;
    taps taps;
    dck_vec *sum;
    size_t bytes;
} thread_scratch;

static thread_scratch lay_out(const dck_conv *k, size_t x_rows, size_t dy_rows, char *memory)
{
    size_t size = (size_t)k->kernel * k->kernel, rings = x_rows + dy_rows;
    size_t sums = dck_lines(size * sizeof(dck_vec)), ats = dck_lines(k->kernel * sizeof(float *));
    return (thread_scratch){
        (float *)memory,
        (float *)(memory + x_rows),
        {.at = (const float **)(memory + rings + sums), .weight = (float *)(memory + rings + sums + ats)},
        (dck_vec *)(memory + rings),
        rings + sums + ats + dck_lines(size * sizeof(float))};
}

static thread_scratch lay_out_forward(const dck_conv *k, dck_view x, dck_view y, char *memory)
{
    return lay_out(k, ring_bytes(x_ring(k, x, y)), 0, memory);
}

static thread_scratch lay_out_backward(const dck_conv *k, dck_view x, dck_view y, char *memory)
{
    return lay_out(k, ring_bytes(x_ring(k, x, y)), ring_bytes(dy_ring(k, x, y)), memory);
}

/* ---- forward ---- */

/* The taps of output row y, in the order of the weights. */
static void x_taps(const dck_conv *k, ring *r, int y, taps *t)
{
    int top = y * k->stride - k->pad_begin;
    ring_advance(r, top > 0 ? top : 0, top + reach(k));
    t->rows = t->columns = k->kernel;
    t->step = (ptrdiff_t)k->dilation * DCK_LANES;
    for (int j = 0; j < k->kernel; j++)
        t->at[j] = ring_row(r, top + j * k->dilation);
}

size_t DCK(depthwise_forward_scratch_bytes)(const dck_conv *k, dck_view x, dck_view y, int threads)
{
    return threads * lay_out_forward(k, x, y, NULL).bytes;
}

void DCK(depthwise_forward)(const dck_conv *k, dck_view x, const float *w, dck_view y, int blocks, void *scratch,
                            int threads)
{
    const size_t size = (size_t)k->kernel * k->kernel, bytes = lay_out_forward(k, x, y, NULL).bytes;
#pragma omp parallel num_threads(threads)
    {
        thread_scratch mine = lay_out_forward(k, x, y, (char *)scratch + omp_get_thread_num() * bytes);
        memset(mine.x_rows, 0, ring_bytes(x_ring(k, x, y)));
#pragma omp for collapse(2) schedule(static)
        for (int block = 0; block < blocks; block++)
            for (int c = 0; c < y.c; c++) {
                ring r = x_ring(k, x, y);
                r.rows = mine.x_rows;
                r.plane = x.data + block * x.stride + c * dck_plane_floats(x);
                r.on_load = dck_on_load_of(x, c);
                memcpy(mine.taps.weight, w + c * size, size * sizeof(float));
                float *out = y.data + block * y.stride + c * dck_plane_floats(y);
                for (int i = 0; i < y.h; i++, out += (size_t)y.w * DCK_LANES) {
                    x_taps(k, &r, i, &mine.taps);
                    row(k->stride, 1, &mine.taps, y.w, (row_output){.out = out});
                }
            }
    }
}

/* ---- backward ---- */

/* Of the taps along one axis only every stride / gcd(stride, dilation)-th reaches a given position of x: the first of
 * them (kernel: none). */
static int first_tap(const dck_conv *k, int position)
{
    int i = 0;
    while (i < k->kernel && (position + k->pad_begin - i * k->dilation) % k->stride != 0)
        i++;
    return i;
}

static int tap_step(const dck_conv *k)
{
    int step = 1;
    while (step * k->dilation % k->stride != 0)
        step++;
    return step;
}

/* The taps of x's pixels (y, phase), (y, phase + stride), ...: pixel 0 is dy's for the first of them. */
static void dy_taps(const dck_conv *k, ring *r, int y, int phase, const float *w, taps *t)
{
    const int last = floor_divide(y + k->pad_begin, k->stride);
    ring_advance(r, last - r->count + 1 > 0 ? last - r->count + 1 : 0, last);
    const int step = tap_step(k), first_j = first_tap(k, y), first_i = first_tap(k, phase);
    const int column = (phase + k->pad_begin - first_i * k->dilation) / k->stride - r->left;
    t->step = -(ptrdiff_t)(step * k->dilation / k->stride) * DCK_LANES;
    t->columns = (k->kernel - first_i + step - 1) / step;
    t->rows = 0;
    float *weight = t->weight;
    for (int j = first_j; j < k->kernel; j += step) {
        int dy = (y + k->pad_begin - j * k->dilation) / k->stride;
        t->at[t->rows++] = ring_row(r, dy) + (ptrdiff_t)column * DCK_LANES;
        for (int i = first_i; i < k->kernel; i += step)
            *weight++ = w[j * k->kernel + i];
    }
}

/* to: the plane of dx, and of x where it masks. */
static void backward_data(const dck_conv *k, dck_view x, const float *w, ring *r, taps *t, row_output to)
{
    for (int y = 0; y < x.h; y++)
        for (int phase = 0; phase < k->stride && phase < x.w; phase++) {
            size_t at = ((size_t)y * x.w + phase) * DCK_LANES;
            dy_taps(k, r, y, phase, w, t);
            row(1, k->stride, t, (x.w - phase + k->stride - 1) / k->stride,
                (row_output){to.out + at, to.mask ? to.mask + at : NULL, to.on_load, to.add});
        }
}

/* n sums along one row of dy; x[t]: the pixels under tap t. */
DCK_INLINE void weight_row(int n, const dck_vec *const *taps_at, int step, const dck_vec *restrict dy, int pixels,
                           dck_vec *restrict sums)
{
    dck_vec sum[GROUP];
    const dck_vec *x[GROUP];
    DCK_UNROLL
    for (int t = 0; t < n; t++) {
        sum[t] = sums[t];
        x[t] = taps_at[t];
    }
    for (int p = 0; p < pixels; p++)
        DCK_UNROLL
    for (int v = 0; v < DCK_PER_PIXEL; v++) {
        dck_vec g = dy[p * DCK_PER_PIXEL + v];
        DCK_UNROLL
        for (int t = 0; t < n; t++)
            sum[t] += g * x[t][(size_t)p * step * DCK_PER_PIXEL + v];
    }
    DCK_UNROLL
    for (int t = 0; t < n; t++)
        sums[t] = sum[t];
}

static void weight_rows(const taps *t, int step, const dck_vec *dy, int pixels, dck_vec *sums)
{
    const dck_vec *at[GROUP];
    int j = 0, i = 0; /* the next tap */
    for (int left = t->rows * t->columns, n; left > 0; left -= n, sums += n) {
        n = left == 9 ? 9 : left >= GROUP ? GROUP : left >= 5 ? 5 : 1;
        for (int m = 0; m < n; m++) {
            at[m] = (const dck_vec *)(t->at[j] + i * t->step);
            i = i + 1 < t->columns ? i + 1 : 0;
            j += i == 0;
        }
        if (n == GROUP)
            weight_row(GROUP, at, step, dy, pixels, sums);
        else if (n == 9)
            weight_row(9, at, step, dy, pixels, sums);
        else if (n == 5)
            weight_row(5, at, step, dy, pixels, sums);
        else
            weight_row(1, at, step, dy, pixels, sums);
    }
}

/* One plane's share of the weight gradient: kernel^2 floats. */
static void backward_weights(const dck_conv *k, dck_view dy, const float *plane, ring *r, thread_scratch *mine,
                             float *dw)
{
    const int size = k->kernel * k->kernel;
    memset(mine->sum, 0, size * sizeof(dck_vec));
    for (int y = 0; y < dy.h; y++, plane += (size_t)dy.w * DCK_LANES) {
        x_taps(k, r, y, &mine->taps);
        weight_rows(&mine->taps, k->stride, (const dck_vec *)plane, dy.w, mine->sum);
    }
    for (int t = 0; t < size; t++)
        dw[t] = dck_sum_lanes(mine->sum[t]);
}

size_t DCK(depthwise_backward_scratch_bytes)(const dck_conv *k, dck_view x, dck_view y, int blocks, int threads)
{
    size_t partials = (size_t)blocks * y.c * k->kernel * k->kernel * sizeof(float);
    return dck_lines(partials) + threads * lay_out_backward(k, x, y, NULL).bytes;
}

void DCK(depthwise_backward)(const dck_conv *k, dck_view x, const float *w, dck_view dy, dck_view dx, bool accumulate,
                             float *dw, int blocks, void *scratch, int threads)
{
    const size_t size = (size_t)k->kernel * k->kernel, weights = size * dy.c;
    const size_t bytes = lay_out_backward(k, x, dy, NULL).bytes;
    float *partial = scratch;
    char *rest = (char *)scratch + dck_lines(blocks * weights * sizeof(float));
#pragma omp parallel num_threads(threads)
    {
        thread_scratch mine = lay_out_backward(k, x, dy, rest + omp_get_thread_num() * bytes);
        memset(mine.x_rows, 0, ring_bytes(x_ring(k, x, dy)));
        memset(mine.dy_rows, 0, ring_bytes(dy_ring(k, x, dy)));
#pragma omp for collapse(2) schedule(static)
        for (int block = 0; block < blocks; block++)
            for (int c = 0; c < x.c; c++) {
                const float *x_plane = x.data + block * x.stride + c * dck_plane_floats(x);
                const float *dy_plane = dy.data + block * dy.stride + c * dck_plane_floats(dy);
                if (dw) {
                    ring r = x_ring(k, x, dy);
                    r.rows = mine.x_rows;
                    r.plane = x_plane;
                    r.on_load = dck_on_load_of(x, c);
                    backward_weights(k, dy, dy_plane, &r, &mine, partial + block * weights + c * size);
                }
                if (dx.data) {
                    ring r = dy_ring(k, x, dy);
                    r.rows = mine.dy_rows;
                    r.plane = dy_plane;
                    backward_data(k, x, w + c * size, &r, &mine.taps,
                                  (row_output){dx.data + block * dx.stride + c * dck_plane_floats(dx),
                                               k->relu ? x_plane : NULL, dck_on_load_of(x, c), accumulate});
                }
            }
        if (dw)
            DCK(sum_partials)(partial, blocks, weights, dw);
    }
}
