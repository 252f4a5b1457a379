/* Dense and grouped convolution of any kernel, stride, dilation and padding; pointwise is the one with a single tap.
 *
 * Forward: y[o] = sum_r w[o][r] * panel[r], r = (channel, tap). Gradient of x: the same product with the weights
 * transposed and dy as input, once for each of the stride^2 phases of x's pixels, whose taps are fixed. Gradient of
 * w: outer products of a panel of dy and a panel of x, summed per unit (a fixed range of blocks and pixels) and then
 * over the units, so that the number of threads changes nothing. */
#include "conv.h"

#include <omp.h>
#include <string.h>

/* One product over a whole batch: from is gathered, to is written at pixels (grid * step + phase). */
typedef struct pass {
    dck_gather gather;
    dck_view from, to, mask; /* mask.data NULL: none */
    dck_grad grad;           /* from is the dz of this one, if it has factors */
    dck_moments moments;
    int n;               /* images */
    dck_form form;       /* of a, and of the panels */
    const float *a;      /* [groups * m][words of rows] */
    const float *w;      /* what is to be paired first ... */
    float *paired;       /* ... to there; NULL: nothing */
    int groups, m, rows; /* m, rows: of one group */
    int grid_h, step, phase_y, phase_x;
    dck_how how;
} pass;

/* One row of pixels from a compact panel to every step-th place. */
static void scatter_run(const float *from, int pixels, int step, float *out, const float *mask, const float *affine,
                        dck_how how)
{
    const dck_vec a = dck_set(affine ? affine[0] : 1), b = dck_set(affine ? affine[1] : 0);
    for (int p = 0; p < pixels; p++)
        for (int v = 0; v < DCK_PER_PIXEL; v++) {
            const size_t at = (size_t)p * step * DCK_PER_PIXEL + v;
            dck_vec value = ((const dck_vec *)from)[p * DCK_PER_PIXEL + v], *to = (dck_vec *)out + at;
            if (mask)
                value = dck_where(a * ((const dck_vec *)mask)[at] + b > (dck_vec){0}, value);
            dck_put(to, value, how);
        }
}

static void scatter(const pass *s, const float *result, int ld, int m, int first_pixel, int pixels, dck_output out)
{
    const int w = s->gather.grid_w;
    for (int i = 0; i < m; i++) {
        int y = first_pixel / w, x = first_pixel % w;
        for (int p = 0, run; p < pixels; p += run, y++, x = 0) {
            run = w - x < pixels - p ? w - x : pixels - p;
            size_t at = i * dck_plane_floats(s->to) +
                        ((size_t)(y * s->step + s->phase_y) * s->to.w + x * s->step + s->phase_x) * DCK_LANES;
            scatter_run(result + ((size_t)i * ld + p) * DCK_LANES, run, s->step, out.to + at,
                        out.mask ? out.mask + at : NULL, out.affine ? out.affine + 2 * i : NULL, out.how);
        }
    }
}

void DCK(leave_moments)(const dck_moments *moments, dck_view y, int n, const dck_vec *sums, const float *pivot,
                        int block, int channel, int m, int part, int pixels)
{
    const double count = (double)pixels * dck_lanes_of(block, n);
    const size_t parts = DCK(dense_parts)(y);
    double *to = moments->sums + 2 * ((block * parts + part) * moments->channels + channel);
    for (int i = 0; i < m; i++) {
        const double p = pivot[i], first = dck_sum_lanes(sums[2 * i]), second = dck_sum_lanes(sums[2 * i + 1]);
        to[2 * i] = first + count * p;
        to[2 * i + 1] = second + p * (2 * first + count * p);
    }
}

static dck_source source_of(const pass *s, int block, int group)
{
    const int channel = group * (s->from.c / s->groups);
    return s->grad.factors ? dck_gradient_source(&s->grad, s->n, block, channel)
                           : dck_source_of(s->from, block, channel);
}

/* What is gathered after range i of a chunk; last: of the group's outputs there are no more after these. */
static void look_ahead(const pass *s, int block, int group, bool last, dck_cut_up ranges, int i, int first_pixel,
                       int pixels, dck_ahead *ahead)
{
    ahead->n = 0;
    if (!dck_worth_prefetching(s->rows, s->m))
        return;
    if (++i == ranges.count) {
        i = 0;
        first_pixel += pixels;
        if (first_pixel == s->grid_h * s->gather.grid_w) {
            first_pixel = 0;
            group += last;
            block += group == s->groups;
            group %= s->groups;
        }
    }
    if (block < dck_blocks_of(s->n))
        DCK(prefetch_panel)
    (&s->gather, source_of(s, block, group), i * ranges.size, dck_cut_length(ranges, i, s->rows), first_pixel, ahead);
}

/* Outputs first..first + m of a group, one chunk of pixels, one block. */
static void pass_chunk(const pass *s, int block, int group, int first, int m, int first_pixel, int pixels, float *panel,
                       float *result)
{
    const int channel = group * s->m + first;
    const dck_source from = source_of(s, block, group);
    const size_t plane = dck_plane_floats(s->to), at = (size_t)first_pixel * DCK_LANES;
    const int ld = dck_leading(pixels), ld_a = dck_words(s->form, s->rows);
    const float *a = s->a + (size_t)channel * ld_a;
    const dck_cut_up ranges = dck_cut_rows(s->rows);
    dck_output out = {.to = dck_plane(s->to, block, channel), .ld = plane / DCK_LANES, .ld_mask = plane / DCK_LANES};
    if (s->mask.data) {
        out.mask = dck_plane(s->mask, block, channel);
        out.affine = s->mask.affine ? s->mask.affine + 2 * channel : NULL;
    }
    dck_vec sums[DCK_PANEL_ROWS][2];
    float pivot[DCK_PANEL_ROWS];
    dck_ahead ahead;
    for (int i = 0, n = ranges.count; i < n; i++) {
        int row = i * ranges.size, rows = dck_cut_length(ranges, i, s->rows);
        out.how = n == 1 ? s->how : i > 0 || s->how == DCK_ADD ? DCK_ADD : DCK_SET;
        DCK(gather_rows)(s->form, &s->gather, from, row, rows, first_pixel, pixels, panel, ld);
        row = dck_words(s->form, row);
        rows = dck_words(s->form, rows);
        look_ahead(s, block, group, first + m == s->m, ranges, i, first_pixel, pixels, &ahead);
        if (s->step == 1) {
            dck_output here = out;
            here.to += at;
            here.mask = out.mask ? out.mask + at : NULL;
            if (s->moments.sums && i == n - 1) {
                memset(sums, 0, (size_t)m * sizeof *sums);
                here.sums = *sums;
                here.pivot = pivot;
                here.lanes = dck_lanes_of(block, s->n);
            }
            DCK(product)(s->form, a + row, ld_a, panel, ld, rows, m, pixels, here, &ahead);
        } else {
            DCK(product)
            (s->form, a + row, ld_a, panel, ld, rows, m, pixels, (dck_output){.to = result, .ld = ld}, &ahead);
            scatter(s, result, ld, m, first_pixel, pixels, out);
            dck_written(out.how);
        }
    }
    if (s->moments.sums)
        DCK(leave_moments)
    (&s->moments, s->to, s->n, *sums, pivot, block, channel, m, first_pixel / dck_cut_pixels(s->to.h * s->to.w).size,
     pixels);
}

static void run_pass(const pass *s, char *panels, int threads)
{
    const int grid = s->grid_h * s->gather.grid_w;
    if (grid == 0)
        return;
    const dck_cut_up chunks = dck_cut_pixels(grid), ranges = dck_cut_rows(s->m);
    const size_t pixels = (size_t)grid * DCK_LANES * dck_blocks_of(s->n);
    threads = dck_worth(threads, pixels * (s->from.c + s->to.c), pixels * s->groups * s->m * s->rows);
#pragma omp parallel num_threads(threads)
    {
        float *panel = (float *)(panels + (size_t)omp_get_thread_num() * 2 * DCK_PANEL_BYTES);
        float *result = panel + DCK_PANEL_BYTES / sizeof(float);
        if (s->paired)
            DCK(pair_weights)(s->w, s->groups * s->m, s->rows, s->paired);
#pragma omp for collapse(4) schedule(static)
        for (int block = 0; block < dck_blocks_of(s->n); block++)
            for (int group = 0; group < s->groups; group++)
                for (int range = 0; range < ranges.count; range++)
                    for (int chunk = 0; chunk < chunks.count; chunk++)
                        pass_chunk(s, block, group, range * ranges.size, dck_cut_length(ranges, range, s->m),
                                   chunk * chunks.size, dck_cut_length(chunks, chunk, grid), panel, result);
    }
}

/* ---- forward ---- */

size_t DCK(dense_forward_scratch_bytes)(const dck_conv *k, dck_view x, dck_view y, int threads)
{
    return dck_taps_bytes(k) + DCK(paired_weights_bytes)(k, x, y) + (size_t)threads * 2 * DCK_PANEL_BYTES;
}

int DCK(dense_parts)(dck_view y)
{
    return dck_cut_pixels(y.h * y.w).count;
}

void DCK(dense_forward)(const dck_conv *k, dck_view x, const float *w, dck_view y, int n, dck_moments moments,
                        void *scratch, int threads)
{
    pass s = {.gather = dck_forward_gather(k, x, y, scratch),
              .from = x,
              .to = y,
              .moments = moments,
              .n = n,
              .form = dck_form_of(k),
              .a = w,
              .w = w,
              .groups = k->groups,
              .m = y.c / k->groups,
              .grid_h = y.h,
              .step = 1,
              .how = dck_how_to_write(y, false, dck_blocks_of(n), threads)};
    s.rows = x.c / k->groups * s.gather.n_taps;
    char *memory = (char *)scratch + dck_taps_bytes(k);
    if (k->bf16)
        s.a = s.paired = (float *)memory;
    run_pass(&s, memory + DCK(paired_weights_bytes)(k, x, y), threads);
}

/* ---- backward ---- */

static size_t weight_count(const dck_conv *k, dck_view x, dck_view y)
{
    return (size_t)y.c * (x.c / k->groups) * k->kernel * k->kernel;
}

typedef struct backward_scratch {
    dck_tap *tap;
    float *transposed, *partial;
    char *panels;
    size_t bytes;
} backward_scratch;

static backward_scratch lay_out(const dck_conv *k, dck_view x, dck_view y, int blocks, int threads, char *memory)
{
    size_t weights = dck_lines(weight_count(k, x, y) * sizeof(float));
    size_t partials = dck_lines(weight_count(k, x, y) * dck_most_units(y, blocks) * sizeof(float));
    size_t head = dck_taps_bytes(k) + weights + partials;
    return (backward_scratch){(dck_tap *)memory, (float *)(memory + dck_taps_bytes(k)),
                              (float *)(memory + dck_taps_bytes(k) + weights), memory + head,
                              head + (size_t)threads * 2 * DCK_PANEL_BYTES};
}

size_t DCK(dense_backward_scratch_bytes)(const dck_conv *k, dck_view x, dck_view y, int blocks, int threads)
{
    return DCK(pointwise_fits)(k, x, y) ? DCK(pointwise_backward_scratch_bytes)(k, x, y, blocks, threads)
                                        : lay_out(k, x, y, blocks, threads, NULL).bytes;
}

/* The taps that reach x's pixels (grid * stride + phase): dy's pixel is (grid + tap). */
static int phase_taps(const dck_conv *k, int phase_y, int phase_x, dck_tap *tap)
{
    int n = 0;
    for (int j = 0; j < k->kernel; j++)
        for (int i = 0; i < k->kernel; i++) {
            int y = phase_y + k->pad_begin - j * k->dilation, x = phase_x + k->pad_begin - i * k->dilation;
            if (y % k->stride == 0 && x % k->stride == 0)
                tap[n++] = (dck_tap){y / k->stride, x / k->stride};
        }
    return n;
}

/* transposed[group][i][o][tap of the phase] = w[group][o][i][tap], in rows of whole words */
static void transpose_phase(const dck_conv *k, int in, int out, int n_taps, int phase_y, int phase_x, const float *w,
                            float *transposed, int threads)
{
    const size_t size = (size_t)k->kernel * k->kernel;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int c = 0; c < k->groups * in; c++) {
        const float *from = w + ((size_t)(c / in) * out * in + c % in) * size;
        const size_t words = dck_words(dck_form_of(k), out * n_taps);
        float *to = transposed + c * words;
        uint16_t *narrow = (uint16_t *)to;
        if (k->bf16 && words > 0)
            narrow[2 * words - 1] = 0;
        for (int j = 0, n = 0; j < k->kernel; j++)
            for (int i = 0; i < k->kernel; i++) {
                int y = phase_y + k->pad_begin - j * k->dilation, x = phase_x + k->pad_begin - i * k->dilation;
                if (y % k->stride != 0 || x % k->stride != 0)
                    continue;
                for (int o = 0; o < out; o++) {
                    const float weight = from[(size_t)o * in * size + (size_t)j * k->kernel + i];
                    if (k->bf16)
                        narrow[(size_t)o * n_taps + n] = dck_to_bf16(weight);
                    else
                        to[(size_t)o * n_taps + n] = weight;
                }
                n++;
            }
    }
}

static void backward_data(const dck_conv *k, dck_view x, const float *w, const dck_grad *dy, dck_view dx,
                          bool accumulate, int n, const backward_scratch *memory, int threads)
{
    const int s = k->stride, in = x.c / k->groups, out = dy->dz.c / k->groups;
    for (int phase_y = 0; phase_y < s && phase_y < x.h; phase_y++)
        for (int phase_x = 0; phase_x < s && phase_x < x.w; phase_x++) {
            int taps = phase_taps(k, phase_y, phase_x, memory->tap);
            if (taps == 0 && accumulate)
                continue;
            transpose_phase(k, in, out, taps, phase_y, phase_x, w, memory->transposed, threads);
            int grid_w = (x.w - phase_x + s - 1) / s;
            pass p = {.gather = {dy->dz.h, dy->dz.w, grid_w, 1, taps, memory->tap, false},
                      .from = dy->dz,
                      .grad = *dy,
                      .to = dx,
                      .n = n,
                      .form = dck_form_of(k),
                      .a = memory->transposed,
                      .groups = k->groups,
                      .m = in,
                      .rows = out * taps,
                      .grid_h = (x.h - phase_y + s - 1) / s,
                      .step = s,
                      .phase_y = phase_y,
                      .phase_x = phase_x,
                      .how = dck_how_to_write(dx, accumulate, dck_blocks_of(n), threads)};
            if (k->relu)
                p.mask = x;
            run_pass(&p, memory->panels, threads);
        }
}

typedef struct weight_pass {
    dck_gather x_gather, dy_gather;
    dck_view x;
    dck_grad dy;
    dck_form form;
    int n, groups, m, rows;
    dck_cut_up chunks, units, ranges, row_ranges;
    float *partial;
    size_t weights;
} weight_pass;

/* One unit's sums for outputs first..first + m of a group. */
static void weight_unit(const weight_pass *s, int unit, int group, int range, float *dy_panel, float *x_panel)
{
    const int grid = s->dy.dz.h * s->dy.dz.w, first = range * s->ranges.size,
              m = dck_cut_length(s->ranges, range, s->m);
    const int in = s->x.c / s->groups, items = dck_blocks_of(s->n) * s->chunks.count;
    float *sum = s->partial + unit * s->weights + ((size_t)group * s->m + first) * s->rows;
    memset(sum, 0, (size_t)m * s->rows * sizeof(float));
    for (int item = unit * s->units.size, i = 0; i < dck_cut_length(s->units, unit, items); i++, item++) {
        int block = item / s->chunks.count, chunk = item % s->chunks.count;
        int first_pixel = chunk * s->chunks.size, pixels = dck_cut_length(s->chunks, chunk, grid),
            ld = dck_leading(dck_words(s->form, pixels));
        const dck_source dy = dck_gradient_source(&s->dy, s->n, block, group * s->m);
        const dck_source x = dck_source_of(s->x, block, group * in);
        DCK(gather_pixels)(s->form, &s->dy_gather, dy, first, m, first_pixel, pixels, dy_panel, ld);
        for (int j = 0; j < s->row_ranges.count; j++) {
            int row = j * s->row_ranges.size, rows = dck_cut_length(s->row_ranges, j, s->rows);
            DCK(gather_pixels)(s->form, &s->x_gather, x, row, rows, first_pixel, pixels, x_panel, ld);
            DCK(outer_product)
            (s->form, dy_panel, m, x_panel, rows, ld, dck_words(s->form, pixels), sum + row, s->rows, NULL);
        }
    }
}

static void backward_weights(const dck_conv *k, dck_view x, const dck_grad *gradient, float *dw, int n,
                             const backward_scratch *memory, int threads)
{
    const dck_view dy = gradient->dz;
    const dck_tap here = {0, 0};
    weight_pass s = {.x_gather = dck_forward_gather(k, x, dy, memory->tap),
                     .dy_gather = {dy.h, dy.w, dy.w, 1, 1, &here, false},
                     .x = x,
                     .dy = *gradient,
                     .form = dck_form_of(k),
                     .n = n,
                     .groups = k->groups,
                     .m = dy.c / k->groups,
                     .chunks = dck_cut_pixels(dy.h * dy.w),
                     .units = dck_cut_units(dy, dck_blocks_of(n)),
                     .partial = memory->partial,
                     .weights = weight_count(k, x, dy)};
    s.rows = x.c / k->groups * s.x_gather.n_taps;
    s.ranges = dck_cut_rows(s.m);
    s.row_ranges = dck_cut_rows(s.rows);
#pragma omp parallel num_threads(threads)
    {
        float *panel = (float *)(memory->panels + (size_t)omp_get_thread_num() * 2 * DCK_PANEL_BYTES);
#pragma omp for collapse(3) schedule(static)
        for (int unit = 0; unit < s.units.count; unit++)
            for (int group = 0; group < s.groups; group++)
                for (int range = 0; range < s.ranges.count; range++)
                    weight_unit(&s, unit, group, range, panel, panel + DCK_PANEL_BYTES / sizeof(float));
        DCK(sum_partials)(s.partial, s.units.count, s.weights, s.weights, dw);
    }
}

void DCK(dense_backward)(const dck_conv *k, dck_view x, const float *w, dck_grad dy, dck_view dx, bool accumulate,
                         float *dw, int n, void *scratch, int threads)
{
    if (DCK(pointwise_fits)(k, x, dy.dz)) {
        DCK(pointwise_backward)(k, x, w, dy, dx, accumulate, dw, n, scratch, threads);
        return;
    }
    const backward_scratch memory = lay_out(k, x, dy.dz, dck_blocks_of(n), threads, scratch);
    if (dw)
        backward_weights(k, x, &dy, dw, n, &memory, threads);
    if (dx.data)
        backward_data(k, x, w, &dy, dx, accumulate, n, &memory, threads);
}
