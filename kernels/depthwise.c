/* Depthwise convolution of any kernel, stride, dilation and padding.
 *
 * Work is one plane (block, channel). Rows of the input pass once, padded and rectified, into a ring of rows that
 * stays in the level-1 cache; an output row is then a list of taps, each a pointer into the ring and a weight. The
 * gradient of x is the same over rows of dy: the pixels of x in a phase of the stride share their taps. The gradient
 * of w holds its sums in registers along each row, ten taps at a time. */
#include "conv.h"

#include <omp.h>
#include <string.h>

enum {
    TILE_PIXELS = DCK_VECTOR / 2 < 8 ? DCK_VECTOR / 2 : 8, /* eight accumulators: two chains' latency of four */
    GROUP = 10,                                            /* taps of the weight gradient held at once */
};

/* Rows of one plane, padded with zeros; column c of a row is the plane's column c + left. */
typedef struct ring {
    float *rows;
    int count, width, left;
    const float *plane;
    int h, w;
    bool relu;
    int filled; /* rows below this one are in the ring */
} ring;

static float *ring_row(const ring *r, int y)
{
    int slot = y % r->count;
    slot += slot < 0 ? r->count : 0;
    return r->rows + (size_t)slot * r->width * DCK_LANES;
}

static void fill_row(const ring *r, int y)
{
    float *row = ring_row(r, y);
    int begin = r->left < 0 ? -r->left : 0, end = r->w - r->left < r->width ? r->w - r->left : r->width;
    if (y < 0 || y >= r->h || begin >= end) {
        memset(row, 0, (size_t)r->width * DCK_PIXEL_BYTES);
        return;
    }
    memset(row, 0, (size_t)begin * DCK_PIXEL_BYTES);
    const dck_vec *restrict from = (const dck_vec *)(r->plane + ((size_t)y * r->w + begin + r->left) * DCK_LANES);
    dck_vec *restrict to = (dck_vec *)(row + (size_t)begin * DCK_LANES);
    int n = (end - begin) * DCK_PER_PIXEL;
    if (r->relu)
        for (int i = 0; i < n; i++)
            to[i] = dck_relu(from[i]);
    else
        for (int i = 0; i < n; i++)
            to[i] = from[i];
    memset(row + (size_t)end * DCK_LANES, 0, (size_t)(r->width - end) * DCK_PIXEL_BYTES);
}

/* Makes rows first..last of the plane present; first never falls. */
static void ring_advance(ring *r, int first, int last)
{
    for (int y = r->filled > first ? r->filled : first; y <= last; y++)
        fill_row(r, y);
    r->filled = r->filled > last + 1 ? r->filled : last + 1;
}

/* ---- one row: out[p] (+)= sum_t weight[t] * tap[t][p] ---- */

typedef struct taps {
    int n;
    const float **at; /* pixel 0 of the row */
    float *weight;
} taps;

typedef struct row_output {
    float *out;
    const float *mask; /* NULL: none */
    bool add;
} row_output;

DCK_INLINE void row_tile(int pixels, int in_step, int out_step, const taps *t, int first, row_output o)
{
    dck_vec sum[TILE_PIXELS * DCK_PER_PIXEL];
    for (int i = 0; i < pixels * DCK_PER_PIXEL; i++)
        sum[i] = (dck_vec){0};
    for (int n = 0; n < t->n; n++) {
        const dck_vec *x = (const dck_vec *)(t->at[n] + (size_t)first * in_step * DCK_LANES);
        dck_vec w = dck_set(t->weight[n]);
        for (int p = 0; p < pixels; p++)
            for (int v = 0; v < DCK_PER_PIXEL; v++)
                sum[p * DCK_PER_PIXEL + v] += w * x[p * in_step * DCK_PER_PIXEL + v];
    }
    for (int p = 0; p < pixels; p++) {
        size_t at = (size_t)(first + p) * out_step * DCK_LANES;
        dck_vec *to = (dck_vec *)(o.out + at);
        for (int v = 0; v < DCK_PER_PIXEL; v++) {
            dck_vec value = sum[p * DCK_PER_PIXEL + v];
            if (o.mask)
                value = dck_where(((const dck_vec *)(o.mask + at))[v] > (dck_vec){0}, value);
            if (o.add)
                value += to[v];
            to[v] = value;
        }
    }
}

DCK_INLINE void row_steps(int in_step, int out_step, const taps *t, int pixels, row_output o)
{
    int p = 0;
    for (; p + TILE_PIXELS <= pixels; p += TILE_PIXELS)
        row_tile(TILE_PIXELS, in_step, out_step, t, p, o);
    if (TILE_PIXELS > 4 && p + 4 <= pixels) {
        row_tile(TILE_PIXELS > 4 ? 4 : 1, in_step, out_step, t, p, o);
        p += 4;
    }
    if (TILE_PIXELS > 2 && p + 2 <= pixels) {
        row_tile(TILE_PIXELS > 2 ? 2 : 1, in_step, out_step, t, p, o);
        p += 2;
    }
    if (p < pixels)
        row_tile(1, in_step, out_step, t, p, o);
}

static void row(int in_step, int out_step, const taps *t, int pixels, row_output o)
{
    if (in_step == 1 && out_step == 1)
        row_steps(1, 1, t, pixels, o);
    else if (in_step == 2 && out_step == 1)
        row_steps(2, 1, t, pixels, o);
    else if (in_step == 1 && out_step == 2)
        row_steps(1, 2, t, pixels, o);
    else
        row_steps(in_step, out_step, t, pixels, o);
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
                  .relu = k->relu,
                  .filled = -k->pad_begin};
}

static ring dy_ring(const dck_conv *k, dck_view x, dck_view dy)
{
    int left = floor_divide(k->pad_begin - reach(k), k->stride);
    return (ring){.count = reach(k) / k->stride + 2,
                  .width = floor_divide(x.w - 1 + k->pad_begin, k->stride) - left + 1,
                  .left = left,
                  .h = dy.h,
                  .w = dy.w,
                  .filled = left};
}

static size_t ring_bytes(ring r)
{
    return (size_t)r.count * r.width * DCK_PIXEL_BYTES;
}

/* One thread's: the ring, the taps and the sums of the weight gradient. */
typedef struct thread_scratch {
    float *ring;
    taps taps;
    dck_vec *sum;
    size_t bytes;
} thread_scratch;

static thread_scratch lay_out(const dck_conv *k, size_t rings, char *memory)
{
    size_t size = (size_t)k->kernel * k->kernel;
    size_t sums = dck_lines(size * sizeof(dck_vec)), ats = dck_lines(size * sizeof(float *));
    return (thread_scratch){(float *)memory,
                            {0, (const float **)(memory + rings + sums), (float *)(memory + rings + sums + ats)},
                            (dck_vec *)(memory + rings),
                            rings + sums + ats + dck_lines(size * sizeof(float))};
}

/* ---- forward ---- */

/* The taps of output row y, in the order of the weights. */
static void x_taps(const dck_conv *k, ring *r, int y, taps *t)
{
    int top = y * k->stride - k->pad_begin;
    ring_advance(r, top, top + reach(k));
    t->n = 0;
    for (int j = 0; j < k->kernel; j++) {
        const float *at = ring_row(r, top + j * k->dilation);
        for (int i = 0; i < k->kernel; i++)
            t->at[t->n++] = at + (size_t)i * k->dilation * DCK_LANES;
    }
}

size_t DCK(depthwise_forward_scratch_bytes)(const dck_conv *k, dck_view x, dck_view y, int threads)
{
    return threads * lay_out(k, ring_bytes(x_ring(k, x, y)), NULL).bytes;
}

void DCK(depthwise_forward)(const dck_conv *k, dck_view x, const float *w, dck_view y, int blocks, void *scratch,
                            int threads)
{
    const size_t size = (size_t)k->kernel * k->kernel, bytes = DCK(depthwise_forward_scratch_bytes)(k, x, y, 1);
#pragma omp parallel num_threads(threads)
    {
        thread_scratch mine =
            lay_out(k, ring_bytes(x_ring(k, x, y)), (char *)scratch + (size_t)omp_get_thread_num() * bytes);
#pragma omp for collapse(2) schedule(static)
        for (int block = 0; block < blocks; block++)
            for (int c = 0; c < y.c; c++) {
                ring r = x_ring(k, x, y);
                r.rows = mine.ring;
                r.plane = x.data + block * x.stride + c * dck_plane(x);
                memcpy(mine.taps.weight, w + c * size, size * sizeof(float));
                float *out = y.data + block * y.stride + c * dck_plane(y);
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
    ring_advance(r, floor_divide(y + k->pad_begin - reach(k), k->stride), floor_divide(y + k->pad_begin, k->stride));
    const int step = tap_step(k), first_j = first_tap(k, y), first_i = first_tap(k, phase);
    const int column = (phase + k->pad_begin - first_i * k->dilation) / k->stride - r->left;
    const int column_step = step * k->dilation / k->stride;
    t->n = 0;
    for (int j = first_j; j < k->kernel; j += step) {
        const float *at = ring_row(r, (y + k->pad_begin - j * k->dilation) / k->stride) + (ptrdiff_t)column * DCK_LANES;
        for (int i = first_i; i < k->kernel; i += step, at -= column_step * DCK_LANES) {
            t->at[t->n] = at;
            t->weight[t->n++] = w[j * k->kernel + i];
        }
    }
}

static void backward_data(const dck_conv *k, dck_view x, const float *w, ring *r, taps *t, float *dx, const float *mask,
                          bool accumulate)
{
    for (int y = 0; y < x.h; y++)
        for (int phase = 0; phase < k->stride && phase < x.w; phase++) {
            size_t at = ((size_t)y * x.w + phase) * DCK_LANES;
            dy_taps(k, r, y, phase, w, t);
            row(1, k->stride, t, (x.w - phase + k->stride - 1) / k->stride,
                (row_output){dx + at, mask ? mask + at : NULL, accumulate});
        }
}

DCK_INLINE void weight_row(int n, const float *const *at, int step, const dck_vec *restrict dy, int pixels,
                           dck_vec *restrict sums)
{
    dck_vec sum[GROUP];
    const dck_vec *x[GROUP];
    for (int t = 0; t < n; t++) {
        sum[t] = sums[t];
        x[t] = (const dck_vec *)at[t];
    }
    for (int p = 0; p < pixels; p++)
        for (int v = 0; v < DCK_PER_PIXEL; v++) {
            dck_vec g = dy[p * DCK_PER_PIXEL + v];
            for (int t = 0; t < n; t++)
                sum[t] += g * x[t][(size_t)p * step * DCK_PER_PIXEL + v];
        }
    for (int t = 0; t < n; t++)
        sums[t] = sum[t];
}

static void weight_rows(const taps *t, int step, const dck_vec *dy, int pixels, dck_vec *sums)
{
    for (int i = 0, n; i < t->n; i += n) {
        int left = t->n - i;
        n = left == 9 ? 9 : left >= GROUP ? GROUP : left >= 5 ? 5 : 1;
        if (n == GROUP)
            weight_row(GROUP, t->at + i, step, dy, pixels, sums + i);
        else if (n == 9)
            weight_row(9, t->at + i, step, dy, pixels, sums + i);
        else if (n == 5)
            weight_row(5, t->at + i, step, dy, pixels, sums + i);
        else
            weight_row(1, t->at + i, step, dy, pixels, sums + i);
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

static size_t backward_ring_bytes(const dck_conv *k, dck_view x, dck_view y)
{
    size_t a = ring_bytes(x_ring(k, x, y)), b = ring_bytes(dy_ring(k, x, y));
    return a > b ? a : b;
}

size_t DCK(depthwise_backward_scratch_bytes)(const dck_conv *k, dck_view x, dck_view y, int blocks, int threads)
{
    size_t partials = (size_t)blocks * y.c * k->kernel * k->kernel * sizeof(float);
    return dck_lines(partials) + threads * lay_out(k, backward_ring_bytes(k, x, y), NULL).bytes;
}

void DCK(depthwise_backward)(const dck_conv *k, dck_view x, const float *w, dck_view dy, dck_view dx, bool accumulate,
                             float *dw, int blocks, void *scratch, int threads)
{
    const size_t size = (size_t)k->kernel * k->kernel, weights = size * dy.c, rings = backward_ring_bytes(k, x, dy);
    float *partial = scratch;
    char *rest = (char *)scratch + dck_lines(blocks * weights * sizeof(float));
#pragma omp parallel num_threads(threads)
    {
        thread_scratch mine = lay_out(k, rings, rest + omp_get_thread_num() * lay_out(k, rings, NULL).bytes);
#pragma omp for collapse(2) schedule(static)
        for (int block = 0; block < blocks; block++)
            for (int c = 0; c < x.c; c++) {
                const float *x_plane = x.data + block * x.stride + c * dck_plane(x);
                const float *dy_plane = dy.data + block * dy.stride + c * dck_plane(dy);
                if (dw) {
                    ring r = x_ring(k, x, dy);
                    r.rows = mine.ring;
                    r.plane = x_plane;
                    backward_weights(k, dy, dy_plane, &r, &mine, partial + block * weights + c * size);
                }
                if (dx.data) {
                    ring r = dy_ring(k, x, dy);
                    r.rows = mine.ring;
                    r.plane = dy_plane;
                    backward_data(k, x, w + c * size, &r, &mine.taps, dx.data + block * dx.stride + c * dck_plane(dx),
                                  k->relu ? x_plane : NULL, accumulate);
                }
            }
        if (dw)
            DCK(sum_partials)(partial, blocks, weights, dw);
    }
}
