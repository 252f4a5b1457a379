/* Sums over the taps of a row, and their gradient, one vector of a pixel at a time.
 *
 * Forward, a tile of outputs is in registers and a row of taps' weights beside it: each vector of the input is loaded
 * once and multiplied by all of them, 12 loads and 5 broadcasts for the 40 multiply-adds of a 5x5 kernel's row. For the
 * gradient of the weights the sums of ten taps are in registers and four vectors of dy. */
#include "taps.h"

enum {
    MOST_COLUMNS = 5, /* of taps, whose weights are held in registers */
    TILE = 8,         /* pixels of an output row: as many sums as two chains' latency of four needs */
    NARROW = 4,       /* what is left of a row */
    GRADIENTS = 4,    /* pixels of dy held while the taps' sums stay in registers */
    GROUP = 5,        /* taps of an unusual kernel's weight gradient held at once */
};

/* One row of taps: each vector of the input is loaded once, for all outputs that it is part of. */
DCK_INLINE void add_taps(int pixels, int columns, int step, int in_step, const float *weight, const dck_vec *x,
                         dck_vec *sum)
{
    dck_vec w[MOST_COLUMNS];
    DCK_UNROLL
    for (int i = 0; i < columns; i++)
        w[i] = dck_set(weight[i]);
#pragma GCC unroll 32
    for (int c = 0; c <= (pixels - 1) * in_step + (columns - 1) * step; c++) {
        dck_vec v = x[c * DCK_PER_PIXEL];
        DCK_UNROLL
        for (int i = 0; i < columns; i++) {
            int at = c - i * step;
            if (at >= 0 && at % in_step == 0 && at / in_step < pixels)
                sum[at / in_step] += w[i] * v;
        }
    }
}

/* As add_taps, any number of them. */
DCK_INLINE void add_any_taps(int pixels, int columns, int step, int in_step, const float *weight, const dck_vec *x,
                             dck_vec *sum)
{
    for (int i = 0; i < columns; i++, x += step * DCK_PER_PIXEL) {
        dck_vec w = dck_set(weight[i]);
        DCK_UNROLL
        for (int p = 0; p < pixels; p++)
            sum[p] += w * x[p * in_step * DCK_PER_PIXEL];
    }
}

/* The first n of `pixels` sums to where they belong. */
DCK_INLINE void put_sums(int pixels, int n, const dck_vec *sum, int step, dck_vec *out, const dck_vec *mask,
                         dck_on_load on_load, dck_how how)
{
    DCK_UNROLL
    for (int p = 0; p < pixels; p++) {
        if (p >= n)
            break;
        const size_t at = (size_t)p * step * DCK_PER_PIXEL;
        dck_vec value = sum[p];
        if (mask)
            value = dck_where(dck_read(on_load, mask[at]) > (dck_vec){0}, value);
        dck_put(out + at, value, how);
    }
}

/* The first n outputs of a tile, masked, to where they belong, and what is there then is summed. */
static __attribute__((noinline)) void put_and_add_up(int n, const dck_vec *sum, int step, dck_vec *out,
                                                     const dck_vec *mask, const dck_row *o)
{
    dck_vec first = {0}, second = {0};
    for (int p = 0; p < n; p++) {
        const size_t at = (size_t)p * step * DCK_PER_PIXEL;
        dck_vec value = dck_where(dck_read(o->on_load, mask[at]) > (dck_vec){0}, sum[p]);
        if (o->how == DCK_ADD)
            value += out[at];
        dck_put(out + at, value, o->how == DCK_STREAM ? DCK_STREAM : DCK_SET);
        first += value;
        second += value * (mask[at] - o->mean);
    }
    o->sums[0] += first;
    o->sums[1] += second;
}

/* One vector of each of `pixels` pixels, of which n are there. */
DCK_INLINE void row_tile(bool any, int pixels, int columns, int step, int in_step, int out_step, const dck_taps *t,
                         const size_t from, size_t to, int n, const dck_row *o)
{
    dck_vec sum[TILE];
    DCK_UNROLL
    for (int p = 0; p < pixels; p++)
        sum[p] = (dck_vec){0};
    const float *weight = t->weight;
    for (int j = 0; j < t->rows; j++, weight += columns) {
        const dck_vec *x = (const dck_vec *)t->at[j] + from;
        __asm__("" : "+r"(x)); /* one pointer, not one offset for each load: there are not so many registers */
        if (any)
            add_any_taps(pixels, columns, step, in_step, weight, x, sum);
        else
            add_taps(pixels, columns, step, in_step, weight, x, sum);
    }
    dck_vec *out = (dck_vec *)o->out + to;
    const dck_vec *mask = o->mask ? (const dck_vec *)o->mask + to : NULL;
    if (o->sums) {
        dck_vec kept[TILE]; /* so that sum itself need not lie in memory */
        DCK_UNROLL
        for (int p = 0; p < pixels; p++)
            kept[p] = sum[p];
        put_and_add_up(n < pixels ? n : pixels, kept, out_step, out, mask, o);
    } else if (n < pixels || out_step != 1)
        put_sums(pixels, n, sum, out_step, out, mask, o->on_load, o->how);
    else if (!mask)
        put_sums(pixels, pixels, sum, 1, out, NULL, o->on_load, o->how);
    else if (o->how == DCK_SET)
        put_sums(pixels, pixels, sum, 1, out, mask, o->on_load, DCK_SET);
    else if (o->how == DCK_STREAM)
        put_sums(pixels, pixels, sum, 1, out, mask, o->on_load, DCK_STREAM);
    else
        put_sums(pixels, pixels, sum, 1, out, mask, o->on_load, DCK_ADD);
}

DCK_INLINE void row_tiles(bool any, int columns, int step, int in_step, int out_step, const dck_taps *t, int pixels,
                          const dck_row *o)
{
    for (int p = 0; p < pixels; p += TILE)
#pragma GCC unroll 1
        for (int part = 0; part < DCK_PER_PIXEL; part++) {
            size_t from = (size_t)p * in_step * DCK_PER_PIXEL + part, to = (size_t)p * out_step * DCK_PER_PIXEL + part;
            if (pixels - p > NARROW)
                row_tile(any, TILE, columns, step, in_step, out_step, t, from, to, pixels - p, o);
            else
                row_tile(any, NARROW, columns, step, in_step, out_step, t, from, to, pixels - p, o);
        }
}

/* The kernels of the operations of search spaces, 3x3 and 5x5 at strides 1 and 2 and dilations 1 and 2, each by
 * itself. */
void DCK(tap_row)(int in_step, int out_step, const dck_taps *t, int pixels, const dck_row *o)
{
    switch (t->columns == 1 && in_step == 1 ? 111 : in_step * 100 + t->step * 10 + t->columns) {
    case 111:
        row_tiles(false, 1, 1, 1, out_step, t, pixels, o);
        break;
    case 112:
        row_tiles(false, 2, 1, 1, out_step, t, pixels, o);
        break;
    case 113:
        row_tiles(false, 3, 1, 1, out_step, t, pixels, o);
        break;
    case 115:
        row_tiles(false, 5, 1, 1, out_step, t, pixels, o);
        break;
    case 123:
        row_tiles(false, 3, 2, 1, out_step, t, pixels, o);
        break;
    case 125:
        row_tiles(false, 5, 2, 1, out_step, t, pixels, o);
        break;
    case 213:
        row_tiles(false, 3, 1, 2, out_step, t, pixels, o);
        break;
    case 215:
        row_tiles(false, 5, 1, 2, out_step, t, pixels, o);
        break;
    case 223:
        row_tiles(false, 3, 2, 2, out_step, t, pixels, o);
        break;
    case 225:
        row_tiles(false, 5, 2, 2, out_step, t, pixels, o);
        break;
    default:
        row_tiles(true, t->columns, t->step, in_step, out_step, t, pixels, o);
    }
}

/* ---- the gradient of the weights ---- */

/* The products of `pixels` pixels of dy, from the p-th: each vector of x is loaded once. */
DCK_INLINE void gradient_tile(int pixels, int rows, int ways, int columns, int step, int in_step,
                              const dck_vec *const *x, const dck_vec *dy, int p, dck_vec *sum)
{
    dck_vec g[GRADIENTS];
    DCK_UNROLL
    for (int q = 0; q < pixels; q++)
        g[q] = dy[(size_t)(p + q) * DCK_PER_PIXEL];
    const size_t first = (size_t)p * in_step * DCK_PER_PIXEL;
    DCK_UNROLL
    for (int c = 0; c <= (pixels - 1) * in_step + (columns - 1) * step; c++)
        DCK_UNROLL
    for (int r = 0; r < rows; r++) {
        dck_vec v = x[r][first + c * DCK_PER_PIXEL];
        DCK_UNROLL
        for (int i = 0; i < columns; i++) {
            int at = c - i * step, q = at / in_step;
            if (at >= 0 && at % in_step == 0 && q < pixels)
                sum[(r * ways + q % ways) * columns + i] += g[q] * v;
        }
    }
}

/* sums[row][i] += sum_p dy[p] * x[row][p * in_step + i * step] over a row of dy. Few sums would wait for each other: a
 * single row of them is kept twice, for even and odd pixels. */
DCK_INLINE void gradient_row(int rows, int columns, int step, int in_step, const float *const *at, const float *from,
                             int pixels, dck_vec *restrict sums)
{
    enum { MOST = 2 * MOST_COLUMNS };
    const int ways = rows == 1 ? 2 : 1;
    dck_vec sum[MOST];
    DCK_UNROLL
    for (int i = 0; i < rows * ways * columns; i++)
        sum[i] = (dck_vec){0};
    DCK_UNROLL
    for (int i = 0; i < rows * columns; i++)
        sum[i] = sums[i];
#pragma GCC unroll 1
    for (int part = 0; part < DCK_PER_PIXEL; part++) {
        const dck_vec *x[3], *dy = (const dck_vec *)from + part;
        DCK_UNROLL
        for (int r = 0; r < rows; r++)
            x[r] = (const dck_vec *)at[r] + part;
        int p = 0;
        for (; p + GRADIENTS <= pixels; p += GRADIENTS)
            gradient_tile(GRADIENTS, rows, ways, columns, step, in_step, x, dy, p, sum);
        for (; p < pixels; p++)
            gradient_tile(1, rows, ways, columns, step, in_step, x, dy, p, sum);
    }
    DCK_UNROLL
    for (int i = 0; i < rows * columns; i++) {
        sums[i] = sum[i];
        if (ways == 2)
            sums[i] += sum[i + columns];
    }
}

/* As many rows of taps at a time as sums fit into registers. */
DCK_INLINE void gradient_rows(int columns, int step, int in_step, const dck_taps *t, const float *dy, int pixels,
                              dck_vec *sums)
{
    const int most = columns == 3 ? 3 : 2;
    int j = 0;
    for (; j + most <= t->rows; j += most)
        gradient_row(most, columns, step, in_step, t->at + j, dy, pixels, sums + j * columns);
    if (j + 2 <= t->rows) {
        gradient_row(2, columns, step, in_step, t->at + j, dy, pixels, sums + j * columns);
        j += 2;
    }
    if (j < t->rows)
        gradient_row(1, columns, step, in_step, t->at + j, dy, pixels, sums + j * columns);
}

/* sums[i] for n taps of one row, any steps. */
DCK_INLINE void any_gradients(int n, int step, size_t in_step, const dck_vec *x, const dck_vec *dy, int pixels,
                              dck_vec *restrict sums)
{
    dck_vec sum[GROUP];
    DCK_UNROLL
    for (int i = 0; i < n; i++)
        sum[i] = sums[i];
    for (int p = 0; p < pixels; p++, x += in_step)
        for (int v = 0; v < DCK_PER_PIXEL; v++) {
            dck_vec g = dy[p * DCK_PER_PIXEL + v];
            DCK_UNROLL
            for (int i = 0; i < n; i++)
                sum[i] += g * x[(size_t)i * step * DCK_PER_PIXEL + v];
        }
    DCK_UNROLL
    for (int i = 0; i < n; i++)
        sums[i] = sum[i];
}

static void any_gradient_rows(int in_step, const dck_taps *t, const float *from, int pixels, dck_vec *sums)
{
    const dck_vec *dy = (const dck_vec *)from;
    const size_t step = (size_t)in_step * DCK_PER_PIXEL;
    for (int j = 0; j < t->rows; j++)
        for (int i = 0, n; i < t->columns; i += n, sums += n) {
            const dck_vec *x = (const dck_vec *)t->at[j] + (size_t)i * t->step * DCK_PER_PIXEL;
            n = t->columns - i < GROUP ? 1 : GROUP;
            if (n == GROUP)
                any_gradients(GROUP, t->step, step, x, dy, pixels, sums);
            else
                any_gradients(1, t->step, step, x, dy, pixels, sums);
        }
}

void DCK(tap_gradients)(int in_step, const dck_taps *t, const float *dy, int pixels, dck_vec *sums)
{
    switch (in_step * 100 + t->step * 10 + t->columns) {
    case 113:
        gradient_rows(3, 1, 1, t, dy, pixels, sums);
        break;
    case 115:
        gradient_rows(5, 1, 1, t, dy, pixels, sums);
        break;
    case 123:
        gradient_rows(3, 2, 1, t, dy, pixels, sums);
        break;
    case 125:
        gradient_rows(5, 2, 1, t, dy, pixels, sums);
        break;
    case 213:
        gradient_rows(3, 1, 2, t, dy, pixels, sums);
        break;
    case 215:
        gradient_rows(5, 1, 2, t, dy, pixels, sums);
        break;
    case 223:
        gradient_rows(3, 2, 2, t, dy, pixels, sums);
        break;
    case 225:
        gradient_rows(5, 2, 2, t, dy, pixels, sums);
        break;
    default:
        any_gradient_rows(in_step, t, dy, pixels, sums);
    }
}
