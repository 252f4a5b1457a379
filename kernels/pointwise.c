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
 * 4 in * out operations a pixel and image; read 4 (in + 2 out) bytes, written 4 in. Before panels were prefetched
 * (panel.c), AVX2, Zen 3, one core, from memory, of the peak of 113 GFLOP/s: 256 -> 64 at 8x8 69 %, 128 -> 64 at 16x16
 * 60 %, 64 -> 32 at 32x32 56 %, 36 -> 36 53 %. 16
 * -> 4 at 32x32 30 %, memory at 21 GB/s; a halving 64 -> 16 at 32x32 21 %, a third of its time the zeros. */
#include "conv.h"

#include <omp.h>
#include <string.h>

enum {
    PANELS = 4,         /* of a thread: two of dy, x, dx before it is spread */
    X_ROWS_BESIDE = 40, /* beside more than one panel of dy: with x's and dx's rows it stays in the level-2 cache */
};

typedef struct backward {
    dck_view x, dx, y;        /* y: its height and width */
    const dck_branch *branch; /* their outputs one after the other are the rows of dy */
    int branches;             /* more than one: of one group */
    bool relu;
    dck_how how; /* dx is written */
    dck_form form;
    int n, groups, in, out; /* in, out: of one group; of a kernel as large as the image, in counts its taps */
    int stride, phase;      /* dy's pixel (i, j) is of x's pixel (i * stride + phase, j * stride + phase) */
    dck_gather x_gather, dy_gather;
    dck_cut_up chunks, units, in_ranges, out_ranges;
    float *transposed, *partial; /* [groups][in][words of out]; [units][groups][out][in], NULL: dw is not wanted */
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
    const size_t words = dck_words(s->form, s->out);
#pragma omp for schedule(static)
    for (int c = 0; c < s->groups * s->in; c++) {
        float *to = s->transposed + c * words;
        uint16_t *narrow = (uint16_t *)to;
        if (s->form == DCK_PAIRS)
            narrow[2 * words - 1] = 0;
        for (int b = 0; b < s->branches; b++) {
            const int out = s->branch[b].dy.dz.c / s->groups;
            const float *from = s->branch[b].w + (size_t)(c / s->in) * out * s->in + c % s->in;
            for (int o = 0; o < out; o++)
                if (s->form == DCK_PAIRS)
                    *narrow++ = dck_to_bf16(from[(size_t)o * s->in]);
                else
                    *to++ = from[(size_t)o * s->in];
        }
    }
}

/* One row of pixels to its squares; square: of x's pixels, at the row's first one. */
static void spread_run(const backward *s, const float *from, int grid_x, int pixels, int rows, float *square,
                       dck_how how)
{
    const int step = s->stride, left = s->x.w - grid_x * step, width = pixels * step < left ? pixels * step : left;
    for (int y = 0; y < rows; y++) {
        dck_vec *to = (dck_vec *)(square + (size_t)y * s->x.w * DCK_LANES);
        const dck_vec *value = (const dck_vec *)from;
        for (int x = 0; x < width; x++) {
            const bool tapped = y == s->phase && x % step == s->phase;
            if (!tapped && how == DCK_ADD)
                continue;
            for (int v = 0; v < DCK_PER_PIXEL; v++)
                dck_put(&to[x * DCK_PER_PIXEL + v], tapped ? *value++ : (dck_vec){0}, how);
        }
    }
}

static void spread(const backward *s, const float *result, int ld, int m, int first_pixel, int pixels, float *to,
                   dck_how how)
{
    const int w = s->y.w;
    for (int i = 0; i < m; i++, to += dck_plane_floats(s->dx)) {
        int y = first_pixel / w, x = first_pixel % w;
        for (int p = 0, run; p < pixels; p += run, y++, x = 0) {
            run = w - x < pixels - p ? w - x : pixels - p;
            const int below = s->x.h - y * s->stride, rows = below < s->stride ? below : s->stride;
            float *square = to + ((size_t)y * s->x.w + x) * s->stride * DCK_LANES;
            spread_run(s, result + ((size_t)i * ld + p) * DCK_LANES, x, run, rows, square, how);
        }
    }
}

/* ld: pixels from row to row of its panels; ld_words: words of them, where pixels are paired. */
typedef struct chunk {
    int block, group, first_pixel, pixels, ld, ld_words;
} chunk;

/* Items: the chunks of y's pixels, block after block. */
static chunk chunk_at(dck_cut_up chunks, dck_view y, int item, int group)
{
    const int at = item % chunks.count, pixels = dck_cut_length(chunks, at, y.h * y.w);
    return (chunk){item / chunks.count, group,
                   at * chunks.size,    pixels,
                   dck_leading(pixels), dck_leading(dck_words(DCK_PAIRS, pixels))};
}

/* A thread's panels. Of pairs there are two of dy, for either product; the one of rows is the other of pixels. */
typedef struct panels {
    float *dy, *dy_pixels, *x, *result;
} panels;

static panels panels_in(const backward *s, float *memory)
{
    const size_t size = DCK_PANEL_BYTES / sizeof(float);
    if (s->form == DCK_FLOATS)
        return (panels){memory, memory, memory + 2 * size, memory + 3 * size};
    enum { PIXELS = (DCK_PANEL_PIXELS / 2 | 1) * DCK_LANES };
    _Static_assert(DCK_DY_ROWS / 2 <= DCK_PANEL_ROWS, "dy's pairs of rows fit one panel");
    _Static_assert((DCK_DY_ROWS + DCK_PANEL_ROWS) * PIXELS * sizeof(float) <= 2 * DCK_PANEL_BYTES,
                   "dy's and x's pairs of pixels fit two");
    return (panels){memory, memory + size, memory + size + (size_t)DCK_DY_ROWS * PIXELS, memory + 3 * size};
}

/* From row to row of x's panel, and of dy's that the outer product reads. */
static int ld_pixels(const backward *s, const chunk *c)
{
    return s->form == DCK_PAIRS ? c->ld_words : c->ld;
}

/* The part of dx (inputs first.. of a group) that comes of dy's outputs first_out.. */
static void chunk_dx(const backward *s, const chunk *c, int first, int m, int first_out, int rows, const panels *at,
                     const dck_ahead *ahead)
{
    const int channel = c->group * s->in + first, ld_a = dck_words(s->form, s->out);
    const float *a = s->transposed + (size_t)channel * ld_a + dck_words(s->form, first_out);
    const bool add = s->how == DCK_ADD || first_out > 0;
    const dck_how how = s->out_ranges.count == 1 ? s->how : add ? DCK_ADD : DCK_SET;
    float *to = dck_plane(s->dx, c->block, channel);
    dck_output out = {.mask = s->relu ? at->x : NULL, .mask_form = s->form, .ld_mask = ld_pixels(s, c)};
    rows = dck_words(s->form, rows);
    if (s->stride == 1) {
        out.to = to + (size_t)c->first_pixel * DCK_LANES;
        out.ld = (size_t)s->dx.h * s->dx.w;
        out.how = how;
        DCK(product)(s->form, a, ld_a, at->dy, c->ld, rows, m, c->pixels, out, ahead);
    } else {
        out.to = at->result;
        out.ld = c->ld;
        DCK(product)(s->form, a, ld_a, at->dy, c->ld, rows, m, c->pixels, out, ahead);
        spread(s, at->result, c->ld, m, c->first_pixel, c->pixels, to, how);
        dck_written(how);
    }
}

/* Rows first..first + m of dy: gathered, or, panel NULL, added to what is prefetched. */
static void gather_dy(const backward *s, const chunk *c, int first, int m, float *panel, dck_ahead *ahead)
{
    for (int b = 0, begin = 0, out; b < s->branches; b++, begin += out) {
        const dck_grad *dy = &s->branch[b].dy;
        out = dy->dz.c / s->groups;
        const int from = first > begin ? first - begin : 0, to = first + m < begin + out ? first + m - begin : out;
        if (from >= to)
            continue;
        const dck_source source = dck_gradient_source(dy, s->n, c->block, c->group * out);
        if (panel) {
            DCK(gather)
            (&s->dy_gather, source, from, to - from, c->first_pixel, c->pixels, panel, c->ld);
            panel += (size_t)(to - from) * c->ld * DCK_LANES;
        } else {
            DCK(prefetch_panel)(&s->dy_gather, source, from, to - from, c->first_pixel, ahead);
        }
    }
}

/* The same in pairs; by_rows, by_pixels NULL: not wanted. */
static void gather_dy_pairs(const backward *s, const chunk *c, int first, int m, float *by_rows, float *by_pixels)
{
    _Alignas(64) float lines[DCK_LINES_FLOATS];
    for (int r = 0; r < m; r += DCK_LINES) {
        const int n = m - r < DCK_LINES ? m - r : DCK_LINES;
        gather_dy(s, c, first + r, n, lines, NULL);
        if (by_rows)
            DCK(pair_rows)(lines, c->ld, n, c->pixels, by_rows + (size_t)r / 2 * c->ld * DCK_LANES, c->ld);
        if (by_pixels)
            DCK(pair_pixels)
        (lines, c->ld, n, c->pixels, by_pixels + (size_t)r * c->ld_words * DCK_LANES, c->ld_words);
    }
}

/* Outputs of range o against inputs of range i of a chunk, the item-th of all blocks. */
typedef struct turn {
    int item, o, i;
    chunk c;
} turn;

static turn first_turn(const backward *s, int item, int group)
{
    return (turn){.item = item, .c = chunk_at(s->chunks, s->y, item, group)};
}

static turn next_turn(const backward *s, turn t)
{
    if (++t.i < s->in_ranges.count)
        return t;
    t.i = 0;
    return ++t.o < s->out_ranges.count ? t : first_turn(s, t.item + 1, t.c.group);
}

/* Gathers what the turn before this one has not; at NULL: adds it to what is prefetched. */
static void gather_turn(const backward *s, const turn *t, const panels *at, dck_ahead *ahead)
{
    const chunk *c = &t->c;
    const int first_out = t->o * s->out_ranges.size, m = dck_cut_length(s->out_ranges, t->o, s->out);
    if (t->i == 0 && at && s->form == DCK_PAIRS)
        gather_dy_pairs(s, c, first_out, m, s->dx.data ? at->dy : NULL, s->partial ? at->dy_pixels : NULL);
    else if (t->i == 0)
        gather_dy(s, c, first_out, m, at ? at->dy : NULL, ahead);
    if ((!s->partial && !s->relu) || (t->o > 0 && s->in_ranges.count == 1))
        return;
    const dck_source x = dck_source_of(s->x, c->block, c->group * s->in);
    const int first = t->i * s->in_ranges.size, rows = dck_cut_length(s->in_ranges, t->i, s->in);
    if (at)
        DCK(gather_pixels)
    (s->form, &s->x_gather, x, first, rows, c->first_pixel, c->pixels, at->x, ld_pixels(s, c));
    else DCK(prefetch_panel)(&s->x_gather, x, first, rows, c->first_pixel, ahead);
}

static void run_turn(const backward *s, const turn *t, float *sum, const panels *at, const dck_ahead *ahead)
{
    const int first_out = t->o * s->out_ranges.size, m = dck_cut_length(s->out_ranges, t->o, s->out);
    const int first = t->i * s->in_ranges.size, rows = dck_cut_length(s->in_ranges, t->i, s->in);
    gather_turn(s, t, at, NULL);
    if (sum)
        DCK(outer_product)
    (s->form, at->dy_pixels, m, at->x, rows, ld_pixels(s, &t->c), dck_words(s->form, t->c.pixels),
     sum + (size_t)first_out * s->in + first, s->in, ahead);
    if (s->dx.data)
        chunk_dx(s, &t->c, first, rows, first_out, m, at, sum ? NULL : ahead);
}

static void run_unit(const backward *s, int unit, int group, const panels *at)
{
    const int all = dck_blocks_of(s->n) * s->chunks.count, end = (unit + 1) * s->units.size;
    const size_t weights = (size_t)s->out * s->in;
    float *sum = s->partial ? s->partial + ((size_t)unit * s->groups + group) * weights : NULL;
    if (sum)
        memset(sum, 0, weights * sizeof(float));
    for (turn t = first_turn(s, unit * s->units.size, group), next; t.item < end && t.item < all; t = next) {
        dck_ahead ahead;
        ahead.n = 0;
        next = next_turn(s, t);
        if (next.item < (s->groups == 1 ? all : end) && dck_worth_prefetching(s->in, s->out))
            gather_turn(s, &next, NULL, &ahead);
        run_turn(s, &t, sum, at, &ahead);
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
                  .how = dck_how_to_write(dx, accumulate, blocks, threads),
                  .relu = k->relu,
                  .form = dck_form_of(k),
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
    s.out_ranges = dck_cut_rows_at(s.out, DCK_DY_ROWS);
    s.in_ranges = dck_cut_rows_at(s.in, s.out_ranges.size > DCK_PANEL_ROWS ? X_ROWS_BESIDE : DCK_PANEL_ROWS);
    float *partial = s.transposed + weight_floats(k, x, y), *memory = partial + weight_floats(k, x, y) * s.units.count;
    s.partial = want_dw ? partial : NULL;
    const size_t pixels = (size_t)y.h * y.w * DCK_LANES * blocks;
    threads =
        dck_worth(threads, (x.c * dck_plane_floats(x) + y.c * dck_plane_floats(y)) * blocks, 2 * pixels * y.c * s.in);
#pragma omp parallel num_threads(threads)
    {
        const panels mine =
            panels_in(&s, memory + (size_t)omp_get_thread_num() * PANELS * (DCK_PANEL_BYTES / sizeof(float)));
        if (dx.data)
            transpose(&s);
#pragma omp for collapse(2) schedule(static)
        for (int unit = 0; unit < s.units.count; unit++)
            for (int group = 0; group < s.groups; group++)
                run_unit(&s, unit, group, &mine);
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
    dck_form form;
    dck_view x;
    const dck_branch *branch;
    const float *weights[DCK_BRANCHES]; /* in that form */
    int branches, outputs, n, threads;  /* outputs: channels of all branches */
    dck_cut_up chunks;
} forward;

/* What a panel, rows row.. of x, adds to outputs first..first + m of a branch. */
static void branch_product(const forward *s, int branch, const chunk *c, int first, int m, int row, int rows,
                           const float *panel, const dck_ahead *ahead)
{
    const dck_branch *b = &s->branch[branch];
    const int ld_w = dck_words(s->form, s->x.c);
    dck_vec sums[DCK_PANEL_ROWS][2];
    float pivot[DCK_PANEL_ROWS];
    const size_t plane = dck_plane_floats(b->y);
    const bool moments = b->moments.sums && row + rows == s->x.c;
    dck_output out = {.to = dck_plane(b->y, c->block, first) + (size_t)c->first_pixel * DCK_LANES,
                      .ld = plane / DCK_LANES,
                      .how = rows == s->x.c ? dck_how_to_write(b->y, false, dck_blocks_of(s->n), s->threads)
                             : row > 0      ? DCK_ADD
                                            : DCK_SET};
    if (moments) {
        memset(sums, 0, (size_t)m * sizeof *sums);
        out.sums = *sums;
        out.pivot = pivot;
        out.lanes = dck_lanes_of(c->block, s->n);
    }
    DCK(product)
    (s->form, s->weights[branch] + (size_t)first * ld_w + dck_words(s->form, row), ld_w, panel, c->ld,
     dck_words(s->form, rows), m, c->pixels, out, ahead);
    if (moments)
        DCK(leave_moments)
    (&b->moments, b->y, s->n, *sums, pivot, c->block, first, m, c->first_pixel / dck_cut_pixels(b->y.h * b->y.w).size,
     c->pixels);
}

/* What is gathered after range i of an item. */
static void look_ahead(const forward *s, int item, dck_cut_up in_ranges, int i, dck_ahead *ahead)
{
    const bool last = ++i == in_ranges.count;
    ahead->n = 0;
    if (!dck_worth_prefetching(s->x.c, s->outputs) || item + last >= dck_blocks_of(s->n) * s->chunks.count)
        return;
    const chunk next = chunk_at(s->chunks, s->x, item + last, 0);
    i = last ? 0 : i;
    DCK(prefetch_panel)
    (&s->gather, dck_source_of(s->x, next.block, 0), i * in_ranges.size, dck_cut_length(in_ranges, i, s->x.c),
     next.first_pixel, ahead);
}

static void forward_item(const forward *s, int item, float *panel)
{
    const dck_cut_up in_ranges = dck_cut_rows(s->x.c);
    const chunk this = chunk_at(s->chunks, s->x, item, 0), *c = &this;
    for (int i = 0; i < in_ranges.count; i++) {
        const int row = i * in_ranges.size, rows = dck_cut_length(in_ranges, i, s->x.c);
        dck_ahead ahead;
        const dck_source x = dck_source_of(s->x, c->block, 0);
        DCK(gather_rows)(s->form, &s->gather, x, row, rows, c->first_pixel, c->pixels, panel, c->ld);
        look_ahead(s, item, in_ranges, i, &ahead);
        for (int b = 0; b < s->branches; b++) {
            const dck_cut_up ranges = dck_cut_rows(s->branch[b].y.c);
            for (int r = 0; r < ranges.count; r++)
                branch_product(s, b, c, r * ranges.size, dck_cut_length(ranges, r, s->branch[b].y.c), row, rows, panel,
                               b + r == 0 ? &ahead : NULL);
        }
    }
}

void DCK(siblings_forward)(const dck_conv *k, dck_view x, int branches, const dck_branch *branch, int n, void *scratch,
                           int threads)
{
    const dck_view y = branch->y;
    const int grid = y.h * y.w, blocks = dck_blocks_of(n);
    forward s = {.gather = dck_forward_gather(k, x, y, scratch),
                 .form = dck_form_of(k),
                 .x = x,
                 .branch = branch,
                 .branches = branches,
                 .n = n,
                 .chunks = dck_cut_pixels(grid)};
    float *const paired = (float *)((char *)scratch + dck_taps_bytes(k));
    const size_t words = dck_words(DCK_PAIRS, x.c);
    dck_view all = y;
    for (int b = 0; b < branches; b++) {
        s.weights[b] = k->bf16 ? paired + s.outputs * words : branch[b].w;
        s.outputs += branch[b].y.c;
    }
    all.c = s.outputs;
    const size_t pixels = (size_t)grid * DCK_LANES * blocks;
    threads = dck_worth(threads, pixels * (x.c + s.outputs), pixels * x.c * s.outputs);
    s.threads = threads;
    char *const all_panels = (char *)paired + DCK(paired_weights_bytes)(k, x, all);
#pragma omp parallel num_threads(threads)
    {
        float *panel = (float *)(all_panels + (size_t)omp_get_thread_num() * 2 * DCK_PANEL_BYTES);
        for (int b = 0, first = 0; b < branches && k->bf16; first += branch[b++].y.c)
            DCK(pair_weights)(branch[b].w, branch[b].y.c, x.c, paired + first * words);
#pragma omp for schedule(static)
        for (int item = 0; item < blocks * s.chunks.count; item++)
            forward_item(&s, item, panel);
    }
}
