/* Gradients of convolutions with a single tap: pointwise ones, the two halves of a factorized reduce, and kernels as
 * large as the image, whose every pixel is a channel of its own; and pointwise siblings, which read the same x, in both
 * directions: they are one convolution whose outputs lie in several places.
 *
 * One pass over chunks of dy's pixels: a panel of dy and one of x, both changed on the way as their readers must, serve
 * the outer product for dw, the product with the transposed weights for dx, and x's as the mask of dx. So dz and y are
 * read once and x is not read again; gradients of w are summed per unit, a fixed range of blocks and chunks. Of a
 * stride's pixels only one in a square has a tap: the others' zeros are written along with it.
 *
 * Where dy has more rows than one panel, x is taken few rows at a time, so that both and what is written of dx stay in
 * the cache.
 *
 * 4 in * out operations a pixel and image; read 4 (in + 2 out) bytes, written 4 in. AVX2, Zen 3, one core, from memory,
 * of the peak of 113 GFLOP/s: 256 -> 64 at 8x8 69 %, 128 -> 64 at 16x16 60 %, 64 -> 32 at 32x32 56 %, 36 -> 36 53 %. 16
 * -> 4 at 32x32 30 %, memory at 21 GB/s; a halving 64 -> 16 at 32x32 21 %, a third of its time the zeros. */
#include "conv.h"

#include <omp.h>
#include <string.h>

enum {
    PANELS = 4, /* of a thread: two of dy, x, dx before it is spread */
    DY_ROWS = 2 * DCK_PANEL_ROWS,
    X_ROWS_BESIDE = 40, /* beside more than one panel of dy: with x's and dx's rows it stays in the level-2 cache */
};

typedef struct backward {
    dck_view x, dx, y;        /* y: its height and width */
    const dck_branch *branch; /* their outputs one after the other are the rows of dy */
    int branches;             /* more than one: of one group */
    bool accumulate, relu;
    int n, groups, in, out; /* in, out: of one group; of a kernel as large as the image, in counts its taps */
    int stride, phase;      /* dy's pixel (i, j) is of x's pixel (i * stride + phase, j * stride + phase) */
    dck_gather x_gather, dy_gather;
    dck_cut_up chunks, units, in_ranges, out_ranges;
    float *transposed, *partial; /* [groups][in][out]; [units][groups][out][in], NULL: dw is not wanted */
} backward;

static bool covers(int from, int to, int stride)
{
    return from * stride >= to && (from - 1) * stride < to;
}

static bool is_whole(const dck_conv *k, dck_view x, dck_view y)
{
    return k->groups == 1 && k->kernel == x.h && k->kernel == x.w && k->dilation == 1 && k->pad_begin == 0 &&
           y.h == 1 && y.w == 1;
}

bool DCK(pointwise_fits)(const dck_conv *k, dck_view x, dck_view y)
{
    if (is_whole(k, x, y))
        return true;
    return k->kernel == 1 && k->pad_begin <= 0 && -k->pad_begin < k->stride && covers(y.h, x.h, k->stride) &&
           covers(y.w, x.w, k->stride);
}

/* Of every group; in floats, whole lines. */
static size_t weight_floats(const dck_conv *k, dck_view x, dck_view y)
{
    return dck_lines((size_t)y.c * (x.c / k->groups) * k->kernel * k->kernel * sizeof(float)) / sizeof(float);
}

size_t DCK(pointwise_backward_scratch_bytes)(const dck_conv *k, dck_view x, dck_view y, int blocks, int threads)
{
    return weight_floats(k, x, y) * sizeof(float) * (1 + dck_most_units(y, blocks)) + dck_taps_bytes(k) +
           (size_t)threads * PANELS * DCK_PANEL_BYTES;
}

static void transpose(const backward *s)
{
#pragma omp for schedule(static)
    for (int c = 0; c < s->groups * s->in; c++) {
        float *to = s->transposed + (size_t)c * s->out;
        for (int b = 0; b < s->branches; b++) {
            const int out = s->branch[b].dy.dz.c / s->groups;
            const float *from = s->branch[b].w + (size_t)(c / s->in) * out * s->in + c % s->in;
            for (int o = 0; o < out; o++)
                *to++ = from[(size_t)o * s->in];
        }
    }
}

/* One row of pixels to its squares; square: of x's pixels, at the row's first one. */
static void spread_run(const backward *s, const float *from, int grid_x, int pixels, int rows, float *square, bool add)
{
    const int step = s->stride, left = s->x.w - grid_x * step;
    const size_t row = (size_t)s->x.w * DCK_LANES;
    if (!add)
        for (int y = 0; y < rows; y++)
            memset(square + y * row, 0, (size_t)(pixels * step < left ? pixels * step : left) * DCK_PIXEL_BYTES);
    if (s->phase >= rows)
        return;
    dck_vec *to = (dck_vec *)(square + s->phase * row + s->phase * DCK_LANES);
    for (int p = 0; p < pixels && p * step + s->phase < left; p++)
        for (int v = 0; v < DCK_PER_PIXEL; v++)
            dck_put(&to[p * step * DCK_PER_PIXEL + v], ((const dck_vec *)from)[p * DCK_PER_PIXEL + v], add);
}

static void spread(const backward *s, const float *result, int ld, int m, int first_pixel, int pixels, float *to,
                   bool add)
{
    const int w = s->y.w;
    for (int i = 0; i < m; i++, to += dck_plane_floats(s->dx)) {
        int y = first_pixel / w, x = first_pixel % w;
        for (int p = 0, run; p < pixels; p += run, y++, x = 0) {
            run = w - x < pixels - p ? w - x : pixels - p;
            const int below = s->x.h - y * s->stride, rows = below < s->stride ? below : s->stride;
            float *square = to + ((size_t)y * s->x.w + x) * s->stride * DCK_LANES;
            spread_run(s, result + ((size_t)i * ld + p) * DCK_LANES, x, run, rows, square, add);
        }
    }
}

typedef struct chunk {
    int block, group, first_pixel, pixels, ld;
} chunk;

/* The part of dx (inputs first.. of a group) that comes of dy's outputs first_out.. */
static void chunk_dx(const backward *s, const chunk *c, int first, int m, int first_out, int rows,
                     const float *dy_panel, const float *x_panel, float *result)
{
    const int channel = c->group * s->in + first;
    const float *a = s->transposed + (size_t)channel * s->out + first_out;
    const bool add = s->accumulate || first_out > 0;
    float *to = dck_plane(s->dx, c->block, channel);
    dck_output out = {.mask = s->relu ? x_panel : NULL, .ld_mask = c->ld};
    if (s->stride == 1) {
        out.to = to + (size_t)c->first_pixel * DCK_LANES;
        out.ld = (size_t)s->dx.h * s->dx.w;
        out.add = add;
        DCK(product)(a, s->out, dy_panel, c->ld, rows, m, c->pixels, out);
    } else {
        out.to = result;
        out.ld = c->ld;
        DCK(product)(a, s->out, dy_panel, c->ld, rows, m, c->pixels, out);
        spread(s, result, c->ld, m, c->first_pixel, c->pixels, to, add);
    }
}

/* Rows first..first + m of dy. */
static void gather_dy(const backward *s, const chunk *c, int first, int m, float *panel)
{
    for (int b = 0, begin = 0, out; b < s->branches; b++, begin += out) {
        const dck_grad *dy = &s->branch[b].dy;
        out = dy->dz.c / s->groups;
        const int from = first > begin ? first - begin : 0, to = first + m < begin + out ? first + m - begin : out;
        if (from >= to)
            continue;
        DCK(gather)
        (&s->dy_gather, dck_gradient_source(dy, s->n, c->block, c->group * out), from, to - from, c->first_pixel,
         c->pixels, panel, c->ld);
        panel += (size_t)(to - from) * c->ld * DCK_LANES;
    }
}

static void run_chunk(const backward *s, const chunk *c, float *sum, float *panels)
{
    const size_t size = DCK_PANEL_BYTES / sizeof(float);
    float *dy_panel = panels, *x_panel = panels + 2 * size;
    const dck_source x = dck_source_of(s->x, c->block, c->group * s->in);
    const bool want_x = s->partial || s->relu;
    for (int o = 0; o < s->out_ranges.count; o++) {
        const int first_out = o * s->out_ranges.size, m = dck_cut_length(s->out_ranges, o, s->out);
        gather_dy(s, c, first_out, m, dy_panel);
        for (int i = 0; i < s->in_ranges.count; i++) {
            const int first = i * s->in_ranges.size, rows = dck_cut_length(s->in_ranges, i, s->in);
            if (want_x && (o == 0 || s->in_ranges.count > 1))
                DCK(gather)(&s->x_gather, x, first, rows, c->first_pixel, c->pixels, x_panel, c->ld);
            if (sum)
                DCK(outer_product)
            (dy_panel, m, x_panel, rows, c->ld, c->pixels, sum + (size_t)first_out * s->in + first, s->in);
            if (s->dx.data)
                chunk_dx(s, c, first, rows, first_out, m, dy_panel, x_panel, panels + 3 * size);
        }
    }
}

static void run_unit(const backward *s, int unit, int group, float *panels)
{
    const int grid = s->y.h * s->y.w, end = dck_blocks_of(s->n) * s->chunks.count;
    const size_t weights = (size_t)s->out * s->in;
    float *sum = s->partial ? s->partial + ((size_t)unit * s->groups + group) * weights : NULL;
    if (sum)
        memset(sum, 0, weights * sizeof(float));
    for (int i = unit * s->units.size; i < (unit + 1) * s->units.size && i < end; i++) {
        const int at = i % s->chunks.count, pixels = dck_cut_length(s->chunks, at, grid);
        const chunk c = {i / s->chunks.count, group, at * s->chunks.size, pixels, dck_leading(pixels)};
        run_chunk(s, &c, sum, panels);
    }
}

static void run_backward(const dck_conv *k, dck_view x, int branches, const dck_branch *branch, dck_view dx,
                         bool accumulate, int n, void *scratch, int threads)
{
    const dck_tap origin = {0, 0};
    dck_view y = branch->dy.dz; /* of all */
    bool want_dw = branch->dw;
    for (int b = 1; b < branches; b++) {
        y.c += branch[b].dy.dz.c;
        want_dw |= branch[b].dw != NULL;
    }
    const int taps = k->kernel * k->kernel;
    const int blocks = dck_blocks_of(n);
    backward s = {.x = x,
                  .dx = dx,
                  .y = y,
                  .branch = branch,
                  .branches = branches,
                  .accumulate = accumulate,
                  .relu = k->relu,
                  .n = n,
                  .groups = k->groups,
                  .in = x.c / k->groups * taps,
                  .out = y.c / k->groups,
                  .stride = taps > 1 ? 1 : k->stride,
                  .phase = -k->pad_begin,
                  .x_gather = dck_forward_gather(k, x, y, scratch),
                  .dy_gather = {y.h, y.w, y.w, 1, 1, &origin, false},
                  .chunks = dck_cut_pixels(y.h * y.w),
                  .units = dck_cut_units(y, blocks),
                  .transposed = (float *)((char *)scratch + dck_taps_bytes(k))};
    if (taps > 1)
        s.dx = (dck_view){dx.data, s.in, 1, 1, dx.stride, NULL};
    s.out_ranges = dck_cut_rows_at(s.out, DY_ROWS);
    s.in_ranges = dck_cut_rows_at(s.in, s.out_ranges.size > DCK_PANEL_ROWS ? X_ROWS_BESIDE : DCK_PANEL_ROWS);
    float *partial = s.transposed + weight_floats(k, x, y), *panels = partial + weight_floats(k, x, y) * s.units.count;
    s.partial = want_dw ? partial : NULL;
    const size_t pixels = (size_t)y.h * y.w * DCK_LANES * blocks;
    threads =
        dck_worth(threads, (x.c * dck_plane_floats(x) + y.c * dck_plane_floats(y)) * blocks, 2 * pixels * y.c * s.in);
#pragma omp parallel num_threads(threads)
    {
        float *mine = panels + (size_t)omp_get_thread_num() * PANELS * (DCK_PANEL_BYTES / sizeof(float));
        if (dx.data)
            transpose(&s);
#pragma omp for collapse(2) schedule(static)
        for (int unit = 0; unit < s.units.count; unit++)
            for (int group = 0; group < s.groups; group++)
                run_unit(&s, unit, group, mine);
        size_t first = 0;
        for (int b = 0; b < branches; b++) {
            const size_t weights = (size_t)branch[b].dy.dz.c * s.in;
            if (branch[b].dw)
                DCK(sum_partials)(partial + first, s.units.count, (size_t)y.c * s.in, weights, branch[b].dw);
            first += weights;
        }
    }
}

void DCK(pointwise_backward)(const dck_conv *k, dck_view x, const float *w, dck_grad dy, dck_view dx, bool accumulate,
                             float *dw, int n, void *scratch, int threads)
{
    const dck_branch alone = {.w = w, .dy = dy, .dw = dw};
    run_backward(k, x, 1, &alone, dx, accumulate, n, scratch, threads);
}

void DCK(siblings_backward)(const dck_conv *k, dck_view x, int branches, const dck_branch *branch, dck_view dx,
                            bool accumulate, int n, void *scratch, int threads)
{
    run_backward(k, x, branches, branch, dx, accumulate, n, scratch, threads);
}

/* ---- forward of several ---- */

typedef struct forward {
    dck_gather gather;
    dck_view x;
    const dck_branch *branch;
    int branches, n;
} forward;

/* What a panel, rows row.. of x, adds to outputs first..first + m of a branch. */
static void branch_product(const forward *s, const dck_branch *b, const chunk *c, int first, int m, int row, int rows,
                           const float *panel)
{
    dck_vec sums[DCK_PANEL_ROWS][2];
    float pivot[DCK_PANEL_ROWS];
    const size_t plane = dck_plane_floats(b->y);
    const bool moments = b->moments.sums && row + rows == s->x.c;
    dck_output out = {.to = dck_plane(b->y, c->block, first) + (size_t)c->first_pixel * DCK_LANES,
                      .ld = plane / DCK_LANES,
                      .add = row > 0};
    if (moments) {
        memset(sums, 0, (size_t)m * sizeof *sums);
        out.sums = *sums;
        out.pivot = pivot;
        out.lanes = dck_lanes_of(c->block, s->n);
    }
    DCK(product)(b->w + (size_t)first * s->x.c + row, s->x.c, panel, c->ld, rows, m, c->pixels, out);
    if (moments)
        DCK(leave_moments)
    (&b->moments, b->y, s->n, *sums, pivot, c->block, first, m, c->first_pixel / dck_cut_pixels(b->y.h * b->y.w).size,
     c->pixels);
}

static void forward_chunk(const forward *s, const chunk *c, float *panel)
{
    const dck_source x = dck_source_of(s->x, c->block, 0);
    const dck_cut_up in_ranges = dck_cut_rows(s->x.c);
    for (int i = 0; i < in_ranges.count; i++) {
        const int row = i * in_ranges.size, rows = dck_cut_length(in_ranges, i, s->x.c);
        DCK(gather)(&s->gather, x, row, rows, c->first_pixel, c->pixels, panel, c->ld);
        for (int b = 0; b < s->branches; b++) {
            const dck_cut_up ranges = dck_cut_rows(s->branch[b].y.c);
            for (int r = 0; r < ranges.count; r++)
                branch_product(s, &s->branch[b], c, r * ranges.size, dck_cut_length(ranges, r, s->branch[b].y.c), row,
                               rows, panel);
        }
    }
}

void DCK(siblings_forward)(const dck_conv *k, dck_view x, int branches, const dck_branch *branch, int n, void *scratch,
                           int threads)
{
    const dck_view y = branch->y;
    const forward s = {dck_forward_gather(k, x, y, scratch), x, branch, branches, n};
    const int grid = y.h * y.w, blocks = dck_blocks_of(n);
    const dck_cut_up chunks = dck_cut_pixels(grid);
    size_t outputs = 0;
    for (int b = 0; b < branches; b++)
        outputs += branch[b].y.c;
    const size_t pixels = (size_t)grid * DCK_LANES * blocks;
    threads = dck_worth(threads, pixels * (x.c + outputs), pixels * x.c * outputs);
#pragma omp parallel num_threads(threads)
    {
        float *panel =
            (float *)((char *)scratch + dck_taps_bytes(k) + (size_t)omp_get_thread_num() * 2 * DCK_PANEL_BYTES);
#pragma omp for collapse(2) schedule(static)
        for (int block = 0; block < blocks; block++)
            for (int at = 0; at < chunks.count; at++) {
                const int length = dck_cut_length(chunks, at, grid);
                const chunk c = {block, 0, at * chunks.size, length, dck_leading(length)};
                forward_chunk(&s, &c, panel);
            }
    }
}
