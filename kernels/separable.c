/* A depthwise convolution and the pointwise one after it, forward: what lies between them stays in cache.
 *
 * A band of rows of every channel is convolved into a panel, of which the product is taken. Rows that bands share are
 * read again, from cache. Of the 4 * (3 c + out) bytes an element that the two move apart, 4 * (c + out) are left. */
#include "conv.h"

#include <omp.h>
#include <string.h>

enum {
    BAND_BYTES = 288 * 1024, /* of a panel, so that it stays in a level-2 cache of 512 kB; more rows are read once */
    MOST_BAND_BYTES = 400 * 1024,
};

typedef struct separable {
    const dck_conv *depthwise;
    dck_view x, y;
    const float *w, *v;          /* v: in its form */
    int n, rows, bands, threads; /* rows: of a band */
    dck_moments moments;
} separable;

/* Rows of a band, no more bands than dense_parts; 0: a panel would be too large. */
static int band_rows(dck_view x, dck_view y)
{
    const int row_bytes = x.c * y.w * DCK_PIXEL_BYTES, parts = DCK(dense_parts)(y);
    const int least = (y.h + parts - 1) / parts, fit = BAND_BYTES / row_bytes;
    const int rows = fit > y.h ? y.h : fit > least ? fit : least;
    return rows * row_bytes <= MOST_BAND_BYTES ? rows : 0;
}

typedef struct thread_memory {
    char *depthwise;
    float *panel, *lines; /* lines: two rows of floats that are to be paired */
    dck_vec *sums;        /* [y.c][2] */
    float *pivot;
    size_t bytes;
} thread_memory;

static thread_memory lay_out(const dck_conv *depthwise, dck_view x, dck_view y, char *memory)
{
    const size_t ring = dck_lines(DCK(depthwise_forward_scratch_bytes)(depthwise, x, y, 1));
    const size_t row = (size_t)dck_leading(band_rows(x, y) * y.w) * DCK_PIXEL_BYTES;
    const size_t rows = dck_words(dck_form_of(depthwise), x.c) * row, panel = rows + (depthwise->bf16 ? 2 * row : 0);
    const size_t sums = dck_lines(2 * (size_t)y.c * sizeof(dck_vec)), pivot = dck_lines((size_t)y.c * sizeof(float));
    return (thread_memory){memory,
                           (float *)(memory + ring),
                           (float *)(memory + ring + rows),
                           (dck_vec *)(memory + ring + panel),
                           (float *)(memory + ring + panel + sums),
                           ring + panel + sums + pivot};
}

/* Of the pointwise convolution's weights in pairs. */
static size_t weights_bytes(const dck_conv *depthwise, dck_view x, dck_view y)
{
    const dck_conv pointwise = {.kernel = 1, .groups = 1, .bf16 = depthwise->bf16};
    return DCK(paired_weights_bytes)(&pointwise, x, y);
}

size_t DCK(separable_scratch_bytes)(const dck_conv *depthwise, dck_view x, dck_view y, int threads)
{
    if (band_rows(x, y) == 0)
        return 0;
    return weights_bytes(depthwise, x, y) + (size_t)threads * lay_out(depthwise, x, y, NULL).bytes;
}

/* Bands are parts of the block; parts that there are no bands for have no pixels. */
static void write_moments(const separable *s, int block, int band, int pixels, const thread_memory *mine)
{
    const int parts = DCK(dense_parts)(s->y);
    DCK(leave_moments)(&s->moments, s->y, s->n, mine->sums, mine->pivot, block, 0, s->y.c, band, pixels);
    for (int i = s->bands; band == 0 && i < parts; i++)
        memset(s->moments.sums + 2 * ((size_t)block * parts + i) * s->moments.channels, 0,
               2 * (size_t)s->y.c * sizeof(double));
}

/* The rows of x that the band after this one reads and this one has not. */
static void look_ahead(const separable *s, int block, int band, dck_ahead *ahead)
{
    const dck_conv *k = s->depthwise;
    int row = ++band * s->rows + (k->kernel - 1) * k->dilation - k->pad_begin;
    ahead->n = 0;
    if (band == s->bands) {
        block++;
        row = 0;
    }
    if (k->stride > 1 || !dck_worth_prefetching(s->x.c, s->y.c) || block == dck_blocks_of(s->n) || row >= s->x.h)
        return;
    for (int c = 0; c < s->x.c && c < DCK_MAX_AHEAD; c++)
        ahead->row[ahead->n++] = dck_plane(s->x, block, c) + (size_t)row * s->x.w * DCK_LANES;
}

/* The depthwise convolution's outputs, of all channels, as a panel. */
static void fill_panel(const separable *s, int block, int first, int rows, int ld, const thread_memory *mine)
{
    const dck_form form = dck_form_of(s->depthwise);
    const size_t row = (size_t)ld * DCK_LANES;
    for (int c = 0; c < s->x.c; c++) {
        float *to = form == DCK_PAIRS ? mine->lines + c % 2 * row : mine->panel + c * row;
        DCK(depthwise_rows)(s->depthwise, s->x, s->w, s->y, block, c, first, rows, mine->depthwise, to, DCK_SET);
        if (form == DCK_PAIRS && (c % 2 == 1 || c == s->x.c - 1))
            DCK(pair_rows)(mine->lines, ld, 1 + c % 2, rows * s->y.w, mine->panel + c / 2 * row, ld);
    }
}

static void run_band(const separable *s, int block, int band, const thread_memory *mine)
{
    const int first = band * s->rows, rows = s->y.h - first < s->rows ? s->y.h - first : s->rows;
    const int pixels = rows * s->y.w, ld = dck_leading(pixels);
    const int words = dck_words(dck_form_of(s->depthwise), s->x.c);
    fill_panel(s, block, first, rows, ld, mine);
    dck_output out = {.to = dck_plane(s->y, block, 0) + (size_t)first * s->y.w * DCK_LANES,
                      .ld = (size_t)s->y.h * s->y.w,
                      .how = dck_how_to_write(s->y, false, dck_blocks_of(s->n), s->threads)};
    if (s->moments.sums) {
        memset(mine->sums, 0, 2 * (size_t)s->y.c * sizeof(dck_vec));
        out.sums = mine->sums;
        out.pivot = mine->pivot;
        out.lanes = dck_lanes_of(block, s->n);
    }
    dck_ahead ahead;
    look_ahead(s, block, band, &ahead);
    DCK(product)
    (dck_form_of(s->depthwise), s->v, words, mine->panel, ld, words, s->y.c, pixels, out, &ahead);
    if (s->moments.sums)
        write_moments(s, block, band, pixels, mine);
}

void DCK(separable_forward)(const dck_conv *depthwise, dck_view x, const float *w, const float *v, dck_view y, int n,
                            dck_moments moments, void *scratch, int threads)
{
    const int rows = band_rows(x, y), bands = (y.h + rows - 1) / rows, blocks = dck_blocks_of(n);
    const size_t weights = weights_bytes(depthwise, x, y);
    const size_t bytes = lay_out(depthwise, x, y, NULL).bytes, pixels = blocks * dck_plane_floats(y);
    threads = dck_worth(threads, pixels * (x.c + y.c), pixels * x.c * y.c);
    const separable s = {depthwise, x, y, w, weights ? scratch : v, n, rows, bands, threads, moments};
#pragma omp parallel num_threads(threads)
    {
        const thread_memory mine = lay_out(depthwise, x, y, (char *)scratch + weights + omp_get_thread_num() * bytes);
        if (weights)
            DCK(pair_weights)(v, y.c, x.c, scratch);
        DCK(depthwise_begin)(depthwise, x, y, mine.depthwise);
#pragma omp for collapse(2) schedule(static) nowait
        for (int block = 0; block < blocks; block++)
            for (int band = 0; band < bands; band++)
                run_band(&s, block, band, &mine);
    }
}
