/* Panels and weights in pairs of bfloat16: two rows of a panel meet a pair of weights, two pixels of dy two of x, so
 * that an instruction multiplies twice as many numbers (AVX512-BF16), of half as many bytes. Zen 4, one core, on
 * panels in cache, GFLOP/s (the peak of floats is 128): products 143 (16 channels) to 202, where floats take 85 to 106;
 * outer products 150 to 171 (82 to 101). Pairing is one more pass over a few rows in the level-1 cache. */
#include "conv.h"

void DCK(pair_rows)(const float *from, int ld_from, int rows, int pixels, float *to, int ld)
{
    const int n = pixels * DCK_PER_PIXEL;
    for (int r = 0; r < rows; r += 2, to += (size_t)ld * DCK_LANES) {
        const dck_vec *first = (const dck_vec *)(from + (size_t)r * ld_from * DCK_LANES);
        const dck_vec *second = first + (size_t)ld_from * DCK_PER_PIXEL;
        dck_pairs *pairs = (dck_pairs *)to;
        if (r + 1 < rows)
            for (int v = 0; v < n; v++)
                pairs[v] = dck_pair(first[v], second[v]);
        else
            for (int v = 0; v < n; v++)
                pairs[v] = dck_pair(first[v], (dck_vec){0});
    }
}

void DCK(pair_pixels)(const float *from, int ld_from, int rows, int pixels, float *to, int ld)
{
    for (int r = 0; r < rows; r++, from += (size_t)ld_from * DCK_LANES, to += (size_t)ld * DCK_LANES) {
        const dck_vec *x = (const dck_vec *)from;
        dck_pairs *pairs = (dck_pairs *)to;
        for (int p = 0; p + 2 <= pixels; p += 2, x += 2 * DCK_PER_PIXEL)
            for (int v = 0; v < DCK_PER_PIXEL; v++)
                *pairs++ = dck_pair(x[v], x[v + DCK_PER_PIXEL]);
        for (int v = 0; v < DCK_PER_PIXEL && pixels % 2; v++)
            *pairs++ = dck_pair(x[v], (dck_vec){0});
    }
}

void DCK(gather_rows)(dck_form form, const dck_gather *g, dck_source from, int first_row, int rows, int first_pixel,
                      int pixels, float *panel, int ld)
{
    _Alignas(64) float lines[DCK_LINES_FLOATS];
    if (form == DCK_FLOATS)
        DCK(gather)(g, from, first_row, rows, first_pixel, pixels, panel, ld);
    for (int r = 0; r < rows && form == DCK_PAIRS; r += DCK_LINES, panel += (size_t)DCK_LINES / 2 * ld * DCK_LANES) {
        const int n = rows - r < DCK_LINES ? rows - r : DCK_LINES, ld_lines = dck_leading(pixels);
        DCK(gather)(g, from, first_row + r, n, first_pixel, pixels, lines, ld_lines);
        DCK(pair_rows)(lines, ld_lines, n, pixels, panel, ld);
    }
}

void DCK(gather_pixels)(dck_form form, const dck_gather *g, dck_source from, int first_row, int rows, int first_pixel,
                        int pixels, float *panel, int ld)
{
    _Alignas(64) float lines[DCK_LINES_FLOATS];
    if (form == DCK_FLOATS)
        DCK(gather)(g, from, first_row, rows, first_pixel, pixels, panel, ld);
    for (int r = 0; r < rows && form == DCK_PAIRS; r += DCK_LINES, panel += (size_t)DCK_LINES * ld * DCK_LANES) {
        const int n = rows - r < DCK_LINES ? rows - r : DCK_LINES, ld_lines = dck_leading(pixels);
        DCK(gather)(g, from, first_row + r, n, first_pixel, pixels, lines, ld_lines);
        DCK(pair_pixels)(lines, ld_lines, n, pixels, panel, ld);
    }
}

size_t DCK(paired_weights_bytes)(const dck_conv *k, dck_view x, dck_view y)
{
    const int rows = x.c / k->groups * k->kernel * k->kernel;
    return k->bf16 ? dck_lines((size_t)y.c * dck_words(DCK_PAIRS, rows) * sizeof(float)) : 0;
}

void DCK(pair_weights)(const float *from, int n, int rows, float *to)
{
    const size_t words = dck_words(DCK_PAIRS, rows);
#pragma omp for schedule(static)
    for (int i = 0; i < n; i++) {
        uint16_t *row = (uint16_t *)(to + i * words);
        for (int r = 0; r < rows; r++)
            row[r] = dck_to_bf16(from[(size_t)i * rows + r]);
        if (rows % 2)
            row[rows] = 0;
    }
}
