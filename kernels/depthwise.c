/* Depthwise convolution of any kernel, stride, dilation and padding.
 *
 * Work is one plane (block, channel). Rows of the input pass once, scaled, shifted and rectified, into a ring of rows
 * that lie between zeros and stay in the level-1 cache; an output row is then a sum over taps (taps.c), each an offset
 * into the ring and a weight. Rows of taps outside of the plane are left out. The gradient of x is the same over rows
 * of dy: the pixels of x in a phase of the stride share their taps; with x at hand for relu's mask, it is summed for
 * the batch norm that x comes from.
 *
 * An image: 2 k^2 operations for each pixel of y; 4 bytes for each pixel read and written. 3x3 is bound by memory (18
 * operations to 8 bytes), 5x5 by arithmetic: what is missing is filling the ring, and its stores. AVX2, Zen 3, a batch
 * of 64: 5x5 on 16 channels of 32x32 forward 67 % of the peak of 110 GFLOP/s a core, gradient of x (the mask is read as
 * well) and of w 64 %, with dilation 2 68, 64 and 51 %; 64 channels of 8x8 62, 52 and 58 %; 3x3 48, 44 and 51 %, which
 * moves 23 to 30 GB/s where a copy in memory moves 20. */
#include "conv.h"
#include "taps.h"

#include <omp.h>
#include <string.h>

/* Rows of one plane between zeros; column c of a row is the plane's column c + left. */
typedef struct ring {
    float *rows;
    int count, width, left;
    const float *plane;
    int h, w;
    bool relu;
    dck_on_load on_load;
    int filled; /* rows below this one are in the ring */
    int base;   /* a multiple of count: row y is in slot y - base, or count less */
} ring;

static size_t ring_bytes(ring r)
{
    return (size_t)r.count * r.width * DCK_PIXEL_BYTES;
}

static float *ring_row(const ring *r, int y)
{
    int slot = y - r->base;
    return r->rows + (size_t)(slot < r->count ? slot : slot - r->count) * r->width * DCK_LANES;
}

/* What is beside the plane's columns was set to zero once and stays so. */
static void fill_row(const ring *r, int y)
{
    int begin = r->left < 0 ? -r->left : 0, end = r->w - r->left < r->width ? r->w - r->left : r->width;
    const dck_vec *restrict from = (const dck_vec *)(r->plane + ((ptrdiff_t)y * r->w + begin + r->left) * DCK_LANES);
    dck_vec *restrict to = (dck_vec *)(ring_row(r, y) + (size_t)begin * DCK_LANES);
    const dck_on_load on_load = r->on_load;
    int n = (end - begin) * DCK_PER_PIXEL;
    if (r->relu)
        for (int i = 0; i < n; i++)
            to[i] = dck_relu(dck_read(on_load, from[i]));
    else
        for (int i = 0; i < n; i++)
            to[i] = dck_read(on_load, from[i]);
}

/* Makes rows first..last present, those of them that the plane has; first never falls. */
static void ring_advance(ring *r, int first, int last)
{
    while (first - r->base >= r->count)
        r->base += r->count;
    int y = r->filled > first ? r->filled : first;
    for (; y <= last && y < r->h; y++)
        fill_row(r, y);
    r->filled = y;
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
                  .width = (y.w - 1 + DCK_SLACK) * k->stride + reach(k) + 1,
                  .left = -k->pad_begin,
                  .h = x.h,
                  .w = x.w,
                  .relu = k->relu};
}

static ring dy_ring(const dck_conv *k, dck_view x, dck_view dy)
{
    int left = floor_divide(k->pad_begin - reach(k), k->stride);
    return (ring){.count = reach(k) / k->stride + 2,
                  .width = floor_divide(x.w - 1 + k->pad_begin, k->stride) - left + 1 + DCK_SLACK,
                  .left = left,
                  .h = dy.h,
                  .w = dy.w,
                  .on_load = {1, 0}};
}

/* Of the taps along one axis only every stride / gcd(stride, dilation)-th reaches the positions phase, phase + stride,
 * ... of x. */
typedef struct phase {
    int first, count; /* of these taps */
    int dy;           /* what the first of them reaches position `phase` from */
} phase;

/* One thread's: its rings, the taps of a row and the sums of the weight gradient. */
typedef struct thread_scratch {
    float *x_rows, *dy_rows;
    const float **at;
    float *weight;
    dck_vec *sum;
    phase *phases;
    size_t bytes;
} thread_scratch;

static thread_scratch lay_out(const dck_conv *k, size_t x_rows, size_t dy_rows, char *memory)
{
    const size_t size = (size_t)k->kernel * k->kernel;
    const size_t bytes[] = {x_rows,
                            dy_rows,
                            size * sizeof(dck_vec),
                            k->kernel * sizeof(float *),
                            size * sizeof(float),
                            k->stride * sizeof(phase)};
    enum { PARTS = sizeof bytes / sizeof *bytes };
    size_t at[PARTS + 1] = {0};
    for (int i = 0; i < PARTS; i++)
        at[i + 1] = at[i] + dck_lines(bytes[i]);
    return (thread_scratch){(float *)memory,
                            (float *)(memory + at[1]),
                            (const float **)(memory + at[3]),
                            (float *)(memory + at[4]),
                            (dck_vec *)(memory + at[2]),
                            (phase *)(memory + at[5]),
                            at[PARTS]};
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

/* The taps of output row y that lie in the plane; returns the first of their rows. */
static int x_taps(const dck_conv *k, ring *r, int y, dck_taps *t)
{
    int top = y * k->stride - k->pad_begin, first = 0;
    ring_advance(r, top > 0 ? top : 0, top + reach(k));
    for (; first < k->kernel && top < 0; first++)
        top += k->dilation;
    t->rows = 0;
    for (; first + t->rows < k->kernel && top < r->h; top += k->dilation)
        t->at[t->rows++] = ring_row(r, top);
    return first;
}

size_t DCK(depthwise_forward_scratch_bytes)(const dck_conv *k, dck_view x, dck_view y, int threads)
{
    return threads * lay_out_forward(k, x, y, NULL).bytes;
}

void DCK(depthwise_begin)(const dck_conv *k, dck_view x, dck_view y, void *scratch)
{
    memset(lay_out_forward(k, x, y, scratch).x_rows, 0, ring_bytes(x_ring(k, x, y)));
}

void DCK(depthwise_rows)(const dck_conv *k, dck_view x, const float *w, dck_view y, int block, int channel, int first,
                         int rows, void *scratch, float *out, dck_how how)
{
    const thread_scratch mine = lay_out_forward(k, x, y, scratch);
    ring r = x_ring(k, x, y);
    r.rows = mine.x_rows;
    r.plane = dck_plane(x, block, channel);
    r.on_load = dck_on_load_of(x, channel);
    dck_taps t = {.columns = k->kernel, .step = k->dilation, .at = mine.at};
    for (int i = first; i < first + rows; i++, out += (size_t)y.w * DCK_LANES) {
        t.weight = w + ((size_t)channel * k->kernel + x_taps(k, &r, i, &t)) * k->kernel;
        DCK(tap_row)(k->stride, 1, &t, y.w, &(dck_row){.out = out, .how = how});
    }
    dck_written(how);
}

void DCK(depthwise_forward)(const dck_conv *k, dck_view x, const float *w, dck_view y, int blocks, void *scratch,
                            int threads)
{
    const size_t bytes = lay_out_forward(k, x, y, NULL).bytes;
    const dck_how how = dck_how_to_write(y, false, blocks, threads);
#pragma omp parallel num_threads(threads)
    {
        char *mine = (char *)scratch + omp_get_thread_num() * bytes;
        DCK(depthwise_begin)(k, x, y, mine);
#pragma omp for collapse(2) schedule(static) nowait
        for (int block = 0; block < blocks; block++)
            for (int c = 0; c < y.c; c++)
                DCK(depthwise_rows)(k, x, w, y, block, c, 0, y.h, mine, dck_plane(y, block, c), how);
    }
}

/* ---- backward ---- */

static int tap_step(const dck_conv *k)
{
    int step = 1;
    while (step * k->dilation % k->stride != 0)
        step++;
    return step;
}

static void find_phases(const dck_conv *k, phase *phases)
{
    const int step = tap_step(k);
    for (int p = 0; p < k->stride; p++) {
        int i = 0;
        while (i < k->kernel && (p + k->pad_begin - i * k->dilation) % k->stride != 0)
            i++;
        phases[p] = (phase){i, (k->kernel - i + step - 1) / step, (p + k->pad_begin - i * k->dilation) / k->stride};
    }
}

/* The weights in the order in which phases of rows and, in each, phases of columns want them: columns of taps from
 * right to left, which over dy is from left to right. */
static void pack_weights(const dck_conv *k, const phase *phases, int step, const float *w, float *packed)
{
    for (int row = 0; row < k->stride; row++)
        for (int column = 0; column < k->stride; column++)
            for (int j = phases[row].first; j < k->kernel; j += step)
                for (int n = phases[column].count; n-- > 0;)
                    *packed++ = w[j * k->kernel + phases[column].first + n * step];
}

/* The taps that lie in dy of a row's pixels of a phase; top: the row of dy of the first. t->weight: the phase's. */
static void dy_taps(const ring *r, phase row, phase column, int top, dck_taps *t)
{
    const int left = column.dy - (column.count - 1) * t->step - r->left;
    t->columns = column.count;
    t->rows = 0;
    for (int j = 0; j < row.count && top >= 0; j++, top -= t->step)
        if (top < r->h)
            t->at[t->rows++] = ring_row(r, top) + (ptrdiff_t)left * DCK_LANES;
        else
            t->weight += t->columns;
}

/* Adds a plane's part to the sums for a batch norm, and begins the next one. */
static void add_sums(dck_vec part[2], double *sums)
{
    for (int i = 0; i < 2; i++) {
        sums[i] += (double)dck_sum_lanes(part[i]);
        part[i] = (dck_vec){0};
    }
}

/* to: the plane of dx, and of x where it masks. sums: [2] of the plane, or NULL. */
static void backward_data(const dck_conv *k, dck_view x, const float *w, ring *r, thread_scratch *mine, dck_row to,
                          double *sums)
{
    const phase *phases = mine->phases;
    const int step = tap_step(k);
    dck_taps t = {.at = mine->at, .step = step * k->dilation / k->stride};
    pack_weights(k, phases, step, w, mine->weight);
    int last = floor_divide(k->pad_begin, k->stride), beyond = k->pad_begin - last * k->stride; /* of dy's rows */
    const float *weight = NULL;
    dck_vec part[2] = {{0}, {0}};
    to.sums = sums ? part : NULL;
    for (int y = 0, p = 0, outer = 0, pixels = 0; y < x.h; y++) { /* y = outer * stride + p */
        ring_advance(r, last - r->count + 1 > 0 ? last - r->count + 1 : 0, last);
        if (p == 0)
            weight = mine->weight;
        for (int q = 0; q < k->stride; q++) {
            t.weight = weight;
            weight += phases[p].count * phases[q].count;
            if (q >= x.w)
                continue;
            size_t at = ((size_t)y * x.w + q) * DCK_LANES;
            dck_row row = to;
            row.out += at;
            row.mask = to.mask ? to.mask + at : NULL;
            dy_taps(r, phases[p], phases[q], outer + phases[p].dy, &t);
            DCK(tap_row)(1, k->stride, &t, k->stride == 1 ? x.w : (x.w - q + k->stride - 1) / k->stride, &row);
        }
        pixels += x.w;
        if (sums && (pixels >= DCK_SUMMED_PIXELS || y == x.h - 1)) {
            add_sums(part, sums);
            pixels = 0;
        }
        if (++p == k->stride) {
            p = 0;
            outer++;
        }
        if (++beyond == k->stride) {
            beyond = 0;
            last++;
        }
    }
    dck_written(to.how);
}

/* One plane's share of the weight gradient: kernel^2 floats. */
static void backward_weights(const dck_conv *k, dck_view dy, const float *plane, ring *r, thread_scratch *mine,
                             float *dw)
{
    const int size = k->kernel * k->kernel;
    dck_taps t = {.columns = k->kernel, .step = k->dilation, .at = mine->at};
    memset(mine->sum, 0, size * sizeof(dck_vec));
    for (int y = 0; y < dy.h; y++, plane += (size_t)dy.w * DCK_LANES) {
        int first = x_taps(k, r, y, &t);
        DCK(tap_gradients)(k->stride, &t, plane, dy.w, mine->sum + first * k->kernel);
    }
    for (int i = 0; i < size; i++)
        dw[i] = dck_sum_lanes(mine->sum[i]);
}

size_t DCK(depthwise_backward_scratch_bytes)(const dck_conv *k, dck_view x, dck_view y, int blocks, int threads)
{
    size_t partials = (size_t)blocks * y.c * k->kernel * k->kernel * sizeof(float);
    return dck_lines(partials) + threads * lay_out_backward(k, x, y, NULL).bytes;
}

void DCK(depthwise_backward)(const dck_conv *k, dck_view x, const float *w, dck_view dy, dck_view dx, bool accumulate,
                             float *dw, dck_sums sums, int blocks, void *scratch, int threads)
{
    const size_t size = (size_t)k->kernel * k->kernel, weights = size * dy.c;
    const size_t bytes = lay_out_backward(k, x, dy, NULL).bytes;
    const dck_how how = dck_how_to_write(dx, accumulate, blocks, threads);
    float *partial = scratch;
    char *rest = (char *)scratch + dck_lines(blocks * weights * sizeof(float));
#pragma omp parallel num_threads(threads)
    {
        thread_scratch mine = lay_out_backward(k, x, dy, rest + omp_get_thread_num() * bytes);
        memset(mine.x_rows, 0, ring_bytes(x_ring(k, x, dy)));
        memset(mine.dy_rows, 0, ring_bytes(dy_ring(k, x, dy)));
        find_phases(k, mine.phases);
#pragma omp for collapse(2) schedule(static)
        for (int block = 0; block < blocks; block++)
            for (int c = 0; c < x.c; c++) {
                const float *x_plane = dck_plane(x, block, c), *dy_plane = dck_plane(dy, block, c);
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
                    double *plane_sums = sums.sums ? sums.sums + 2 * ((size_t)block * x.c + c) : NULL;
                    if (plane_sums)
                        plane_sums[0] = plane_sums[1] = 0;
                    backward_data(k, x, w + c * size, &r, &mine,
                                  (dck_row){.out = dck_plane(dx, block, c),
                                            .mask = k->relu ? x_plane : NULL,
                                            .on_load = dck_on_load_of(x, c),
                                            .how = how,
                                            .mean = plane_sums ? sums.mean[c] : 0},
                                  plane_sums);
                }
            }
        if (dw)
            DCK(sum_partials)(partial, blocks, weights, weights, dw);
    }
}
