/* Panels and the two matrix products over them.
 *
 * The product of m x rows weights with rows x pixels: 2 m rows operations a pixel and image, 4 (m + rows) bytes. The
 * tile (4 x 3 vectors of 16 registers, 8 x 3 of 32) needs seven loads for twelve multiply-adds, so that registers, not
 * the cache, are its bound. AVX2, Zen 3, one core, of the peak of 113 GFLOP/s: on panels in the level-2 cache the
 * product takes 80 % (16 rows) to 86 % (from 64 rows), the outer product 76 to 83 %. Pointwise forward with all that a
 * network asks for, from memory: 256 -> 64 at 8x8 72 %, 128 -> 64 at 16x16 67 %, 64 -> 32 at 32x32 57 %: gathering
 * moved 17 GB/s, as a copy does, and took the rest, before the product prefetched the next panel into the level-2
 * cache. Up to 16 channels of a 32x32 image memory is the bound. 3x3: 64 -> 64 74 %, 16 -> 16 60 %, 3 -> 48 64 %.
 * With it, AVX-512, Zen 4 with 1 MB, of 128 GFLOP/s, forward and both gradients (before): 256 -> 64 74 and 70 (75, 67),
 * 128 -> 64 64 and 65 (61, 57), 64 -> 32 62 and 64 (49, 51), 64 -> 16 at 32x32 61 and 53 % (45, 42). Backward of more
 * than 72 outputs prefetches up to 755 kB, which a cache of 512 kB has not been tried with. */
#include "conv.h"

#include <string.h>

enum {
    TILE_M = DCK_VECTOR == 16 ? 8 : 4, /* 8 x 3, 4 x 3, 4 x 2 accumulators: 24 of 32, 12 of 16, 8 of 16 registers */
    TILE_V = DCK_VECTOR == 4 ? 2 : 3,
    OUTER_M = DCK_VECTOR == 16  ? 6
              : DCK_VECTOR == 8 ? 3
                                : 2, /* times four rows */
    STRIP_BYTES = 24 * 1024,         /* columns of a panel that stay in the level-1 cache */
    CHANNELS_AHEAD = 2,              /* how far a gather prefetches: rows of a panel lie far apart */
};

/* ---- gather ---- */

/* What is done to a run of pixels: copied with `change` applied, then ReLU. */
typedef struct run {
    const float *from, *y; /* as in dck_source, of one channel */
    const float *change;
    const dck_mask *lanes; /* [DCK_PER_PIXEL] */
    int step;
    /* floats from here to what is wanted next, prefetched while this is copied; rows of a panel are short,
     * far apart, and begin anew before the hardware has seen a pattern. */
    size_t ahead;
} run;

DCK_INLINE void copy_as(const run *r, float *restrict to, int pixels, bool affine, bool gradient, bool relu)
{
    const float *from = r->from, *y = r->y;
    const size_t step = (size_t)r->step * DCK_LANES;
    const dck_vec a = dck_set(affine || gradient ? r->change[0] : 1),
                  b = dck_set(affine || gradient ? r->change[1] : 0);
    const dck_vec c = dck_set(gradient ? r->change[2] : 0);
    for (int p = 0; p < pixels; p++, from += step, to += DCK_LANES) {
        __builtin_prefetch(from + r->ahead);
        if (gradient)
            __builtin_prefetch(y + r->ahead);
        for (int v = 0; v < DCK_PER_PIXEL; v++) {
            dck_vec x = ((const dck_vec *)from)[v];
            if (affine)
                x = a * x + b;
            if (gradient)
                x = dck_where(r->lanes[v], a * x + (b * ((const dck_vec *)y)[v] + c));
            ((dck_vec *)to)[v] = relu ? dck_relu(x) : x;
        }
        if (gradient)
            y += step;
    }
}

static void copy_run(const run *r, float *to, int pixels, bool relu)
{
    if (r->y)
        copy_as(r, to, pixels, false, true, false);
    else if (r->change && relu)
        copy_as(r, to, pixels, true, false, true);
    else if (r->change)
        copy_as(r, to, pixels, true, false, false);
    else if (relu)
        copy_as(r, to, pixels, false, false, true);
    else
        copy_as(r, to, pixels, false, false, false);
}

/* One run of grid pixels in a row of the image: column x0, x0 + step, ... r: that row. */
static void gather_run(const dck_gather *g, run r, int x0, int pixels, float *to)
{
    int begin = x0 >= 0 ? 0 : (-x0 + g->step - 1) / g->step;
    int end = x0 >= g->w ? 0 : (g->w - 1 - x0) / g->step + 1;
    end = end < pixels ? end : pixels;
    if (begin >= end) {
        memset(to, 0, (size_t)pixels * DCK_PIXEL_BYTES);
        return;
    }
    const ptrdiff_t first = ((ptrdiff_t)x0 + begin * g->step) * DCK_LANES;
    r.from += first;
    r.y = r.y ? r.y + first : NULL;
    memset(to, 0, (size_t)begin * DCK_PIXEL_BYTES);
    copy_run(&r, to + begin * DCK_LANES, end - begin, g->relu);
    memset(to + end * DCK_LANES, 0, (size_t)(pixels - end) * DCK_PIXEL_BYTES);
}

/* One row of a panel, of a plane that the tap reads. */
static void gather_row(const dck_gather *g, const run *plane, dck_tap tap, int first_pixel, int pixels, float *to)
{
    int grid_y = first_pixel / g->grid_w, grid_x = first_pixel % g->grid_w;
    for (int p = 0, n; p < pixels; p += n, grid_y++, grid_x = 0, to += (size_t)n * DCK_LANES) {
        n = g->grid_w - grid_x < pixels - p ? g->grid_w - grid_x : pixels - p;
        int y = grid_y * g->step + tap.y;
        if (y < 0 || y >= g->h) {
            memset(to, 0, (size_t)n * DCK_PIXEL_BYTES);
            continue;
        }
        run row = *plane;
        row.from += (size_t)y * g->w * DCK_LANES;
        row.y = row.y ? row.y + (size_t)y * g->w * DCK_LANES : NULL;
        gather_run(g, row, grid_x * g->step + tap.x, n, to);
    }
}

/* Rows of its panels are runs of pixels as they lie. */
static bool is_plain(const dck_gather *g)
{
    return g->step == 1 && g->n_taps == 1 && g->tap->y == 0 && g->tap->x == 0 && g->grid_w == g->w;
}

void DCK(prefetch_panel)(const dck_gather *g, dck_source from, int first_row, int rows, int first_pixel,
                         dck_ahead *ahead)
{
    const size_t plane = (size_t)g->h * g->w * DCK_LANES, first = first_row * plane + (size_t)first_pixel * DCK_LANES;
    if (!is_plain(g))
        return;
    for (int r = 0; r < rows; r++) {
        ahead->row[ahead->n++] = from.image + first + r * plane;
        if (from.y)
            ahead->row[ahead->n++] = from.y + first + r * plane;
    }
}

void DCK(gather)(const dck_gather *g, dck_source from, int first_row, int rows, int first_pixel, int pixels,
                 float *panel, int ld)
{
    const bool plain = is_plain(g) && first_pixel + pixels <= g->h * g->w;
    const size_t plane = (size_t)g->h * g->w * DCK_LANES;
    dck_mask lanes[DCK_PER_PIXEL];
    for (int v = 0; v < DCK_PER_PIXEL; v++)
        lanes[v] = dck_first_lanes(from.lanes, v);
    for (int r = 0; r < rows; r++, panel += (size_t)ld * DCK_LANES) {
        const int channel = (first_row + r) / g->n_taps;
        run line = {.from = from.image + channel * plane, .lanes = lanes, .step = g->step};
        if (from.y)
            line.y = from.y + channel * plane;
        if (from.change)
            line.change = from.change + channel * (from.y ? 3 : 2);
        line.ahead = r + CHANNELS_AHEAD * g->n_taps < rows ? CHANNELS_AHEAD * plane : 0;
        if (plain) {
            const size_t first = (size_t)first_pixel * DCK_LANES;
            line.from += first;
            line.y = line.y ? line.y + first : NULL;
            copy_run(&line, panel, pixels, g->relu);
        } else {
            gather_row(g, &line, g->tap[(first_row + r) % g->n_taps], first_pixel, pixels, panel);
        }
    }
}

/* ---- product ---- */

/* Weights and numbers of a panel in either form. */
DCK_INLINE dck_vec broadcast(dck_form form, const float *a)
{
    typedef uint32_t word __attribute__((may_alias));
    if (form == DCK_PAIRS)
        return (dck_vec)((dck_pairs){0} + *(const word *)a);
    return dck_set(*a);
}

DCK_INLINE dck_vec multiply_add(dck_form form, dck_vec sum, dck_vec a, dck_vec b)
{
    if (form == DCK_PAIRS)
        return dck_dot(sum, (dck_pairs)a, (dck_pairs)b);
    return sum + a * b;
}

/* Vector v of a row of pixels. */
DCK_INLINE dck_vec number_at(dck_form form, const dck_vec *row, size_t v)
{
    if (form == DCK_FLOATS)
        return row[v];
    const size_t pixel = v / DCK_PER_PIXEL;
    const dck_pairs two = ((const dck_pairs *)row)[pixel / 2 * DCK_PER_PIXEL + v % DCK_PER_PIXEL];
    return pixel % 2 ? dck_second(two) : dck_first(two);
}

typedef struct output {
    dck_vec *to;
    size_t at;           /* the vector of its row that `to` is */
    const dck_vec *mask; /* whole rows */
    dck_form mask_form;
    const float *affine;
    dck_vec *sums;
    float *pivot;
    bool begins;           /* a pivot is to be taken */
    const dck_mask *lanes; /* of the vectors from `to` on */
    size_t ld, ld_mask;
    dck_how how;
} output;

/* Rows i..i + m, vectors j.. of what a product writes to. */
static output output_at(const dck_output *out, const dck_mask *lanes, int i, int j)
{
    return (output){.to = (dck_vec *)out->to + i * out->ld * DCK_PER_PIXEL + j,
                    .at = (size_t)j,
                    .mask = out->mask ? (const dck_vec *)out->mask + i * out->ld_mask * DCK_PER_PIXEL : NULL,
                    .mask_form = out->mask_form,
                    .affine = out->affine ? out->affine + 2 * i : NULL,
                    .sums = out->sums ? out->sums + 2 * i : NULL,
                    .pivot = out->sums ? out->pivot + i : NULL,
                    .begins = j == 0,
                    .lanes = lanes,
                    .ld = out->ld * DCK_PER_PIXEL,
                    .ld_mask = out->ld_mask * DCK_PER_PIXEL,
                    .how = out->how};
}

/* Rows of a dck_ahead that a tile is to prefetch, and how many of them at a step of its loop. */
typedef struct share {
    const float *const *row;
    int n, at_once;
} share;

static share share_of(const dck_ahead *ahead, int begin, int end, int all, int steps)
{
    if (!ahead || ahead->n == 0)
        return (share){NULL, 0, 0};
    const int first = ahead->n * begin / all, n = ahead->n * end / all - first;
    return (share){ahead->row + first, n, (n + steps - 1) / steps};
}

/* Vectors j.. of the next rows; done: how many rows have been prefetched. Returns how many then. */
DCK_INLINE int prefetch(share next, int done, int j, int n)
{
    const int end = done + next.at_once < next.n ? done + next.at_once : next.n;
    for (; done < end; done++)
        DCK_UNROLL
    for (int v = 0; v < n; v += DCK_PER_PIXEL)
        __builtin_prefetch((const dck_vec *)next.row[done] + j + v, 0, 2);
    return done;
}

DCK_INLINE void store_row(int n, const dck_vec *from, dck_vec *to, bool stream)
{
    if (stream) {
        DCK_UNROLL
        for (int j = 0; j < n; j++)
            dck_stream(&to[j], from[j]);
    } else {
        DCK_UNROLL
        for (int j = 0; j < n; j++)
            to[j] = from[j];
    }
}

/* A tile's sums to where they belong. */
DCK_INLINE void put_tile(int m, int n, dck_vec sum[TILE_M][TILE_V], const output *out, bool add, bool masked,
                         dck_form mask_form, bool moments)
{
    dck_vec *to = out->to;
    const dck_vec *mask = out->mask;
    __asm__("" : "+r"(to), "+r"(mask)); /* addresses made here, not kept up from tile to tile in memory */
    DCK_UNROLL
    for (int i = 0; i < m; i++, to += out->ld) {
        DCK_UNROLL
        for (int j = 0; j < n; j++) {
            dck_vec value = sum[i][j];
            if (masked) {
                dck_vec x = number_at(mask_form, mask + i * out->ld_mask, out->at + j);
                if (out->affine)
                    x = out->affine[2 * i] * x + out->affine[2 * i + 1];
                value = dck_where(x > (dck_vec){0}, value);
            }
            if (add)
                value += to[j];
            sum[i][j] = value;
        }
        store_row(n, sum[i], to, out->how == DCK_STREAM);
        if (!moments)
            continue;
        dck_vec first = {0}, second = {0};
        if (out->begins)
            out->pivot[i] = sum[i][0][0];
        const dck_vec pivot = dck_set(out->pivot[i]);
        DCK_UNROLL
        for (int j = 0; j < n; j++) {
            dck_vec value = dck_where(out->lanes[j], sum[i][j] - pivot);
            first += value;
            second += value * value;
        }
        out->sums[2 * i] += first;
        out->sums[2 * i + 1] += second;
    }
}

DCK_INLINE void product_tile(dck_form form, int m, int n, const float *restrict a, size_t ld_a,
                             const dck_vec *restrict b, size_t ld, int rows, output out, share next, int at)
{
    dck_vec sum[TILE_M][TILE_V];
    DCK_UNROLL
    for (int i = 0; i < m; i++)
        DCK_UNROLL
    for (int j = 0; j < n; j++)
        sum[i][j] = (dck_vec){0};
    const bool add = out.how == DCK_ADD;
    if (rows >= dck_words(form, 16) && out.how != DCK_STREAM)
        DCK_UNROLL
    for (int i = 0; i < m; i++) { /* until so many rows are summed, these have come */
        __builtin_prefetch(&out.to[i * out.ld], 1);
        __builtin_prefetch(&out.to[i * out.ld + n - 1], 1);
    }
    for (int r = 0, fetched = 0; r < rows; r++, b += ld) {
        dck_vec x[TILE_V];
        fetched = prefetch(next, fetched, at, n);
        DCK_UNROLL
        for (int j = 0; j < n; j++)
            x[j] = b[j];
        DCK_UNROLL
        for (int i = 0; i < m; i++) {
            dck_vec w = broadcast(form, &a[(size_t)i * ld_a + r]);
            DCK_UNROLL
            for (int j = 0; j < n; j++)
                sum[i][j] = multiply_add(form, sum[i][j], w, x[j]);
        }
    }
    if (out.mask && out.mask_form == DCK_PAIRS)
        put_tile(m, n, sum, &out, add, true, DCK_PAIRS, false);
    else if (out.mask)
        put_tile(m, n, sum, &out, add, true, DCK_FLOATS, false);
    else if (out.sums && add)
        put_tile(m, n, sum, &out, true, false, DCK_FLOATS, true);
    else if (out.sums)
        put_tile(m, n, sum, &out, false, false, DCK_FLOATS, true);
    else
        put_tile(m, n, sum, &out, add, false, DCK_FLOATS, false);
}

/* n vectors from `at` on. */
DCK_INLINE void product_strip(dck_form form, int m, const float *a, size_t ld_a, const dck_vec *b, size_t ld, int rows,
                              int at, int n, output out, share next)
{
    const dck_mask *lanes = out.lanes;
    b += at;
    int j = 0;
    for (; j + TILE_V <= n; j += TILE_V) {
        out.lanes = lanes + j % DCK_PER_PIXEL;
        if (next.n > 0)
            product_tile(form, m, TILE_V, a, ld_a, b + j, ld, rows, out, next, at + j);
        else
            product_tile(form, m, TILE_V, a, ld_a, b + j, ld, rows, out, (share){NULL, 0, 0}, 0);
        out.begins = false;
        out.to += TILE_V;
        out.at += TILE_V;
    }
    out.lanes = lanes + j % DCK_PER_PIXEL;
    if (n - j == 2)
        product_tile(form, m, 2, a, ld_a, b + j, ld, rows, out, next, at + j);
    else if (n - j == 1)
        product_tile(form, m, 1, a, ld_a, b + j, ld, rows, out, next, at + j);
}

static int tile_below(int m)
{
    return m >= 8 && TILE_M == 8 ? 8 : m >= 4 ? 4 : m >= 2 ? 2 : 1;
}

DCK_INLINE void product_of(dck_form form, const float *a, size_t ld_a, const float *panel, int ld, int rows, int m,
                           int pixels, dck_output out, const dck_ahead *ahead)
{
    const int whole = TILE_V * DCK_PER_PIXEL; /* so that strips begin on cache lines */
    int strip = STRIP_BYTES / (rows > 0 ? rows : 1) / (int)sizeof(dck_vec) / whole * whole;
    strip = strip > whole ? strip : whole;
    const dck_vec *b = (const dck_vec *)panel;
    const size_t ld_b = (size_t)ld * DCK_PER_PIXEL;
    dck_mask lanes[DCK_PER_PIXEL + TILE_V];
    for (int v = 0; v < DCK_PER_PIXEL + TILE_V; v++)
        lanes[v] = dck_first_lanes(out.lanes, v % DCK_PER_PIXEL);
    for (int j = 0, n = pixels * DCK_PER_PIXEL; j < n; j += strip) {
        int width = n - j < strip ? n - j : strip;
        for (int i = 0, tile; i < m; i += tile) {
            tile = tile_below(m - i);
            const output to = output_at(&out, lanes, i, j);
            const share next = share_of(ahead, i, i + tile, m, rows);
            const float *rows_a = a + (size_t)i * ld_a;
            if (tile == 8 && TILE_M == 8)
                product_strip(form, TILE_M, rows_a, ld_a, b, ld_b, rows, j, width, to, next);
            else if (tile == 4)
                product_strip(form, 4, rows_a, ld_a, b, ld_b, rows, j, width, to, next);
            else if (tile == 2)
                product_strip(form, 2, rows_a, ld_a, b, ld_b, rows, j, width, to, next);
            else
                product_strip(form, 1, rows_a, ld_a, b, ld_b, rows, j, width, to, next);
        }
    }
}

void DCK(product)(dck_form form, const float *a, size_t ld_a, const float *panel, int ld, int rows, int m, int pixels,
                  dck_output out, const dck_ahead *ahead)
{
    if (form == DCK_PAIRS)
        product_of(DCK_PAIRS, a, ld_a, panel, ld, rows, m, pixels, out, ahead);
    else
        product_of(DCK_FLOATS, a, ld_a, panel, ld, rows, m, pixels, out, ahead);
    dck_written(out.how);
}

/* ---- outer product ---- */

DCK_INLINE void outer_tile(dck_form form, int m, const dck_vec *restrict left, const dck_vec *restrict right, size_t ld,
                           int n, float *restrict out, size_t ld_out, share next)
{
    dck_vec sum[OUTER_M][4];
    DCK_UNROLL
    for (int i = 0; i < m; i++)
        DCK_UNROLL
    for (int r = 0; r < 4; r++)
        sum[i][r] = (dck_vec){0};
    for (int j = 0; j < n; j++) {
        dck_vec g[OUTER_M];
        if (j % DCK_PER_PIXEL == 0 && form == DCK_PAIRS)
            prefetch(next, 0, 2 * j, 2 * DCK_PER_PIXEL);
        else if (j % DCK_PER_PIXEL == 0)
            prefetch(next, 0, j, 1);
        DCK_UNROLL
        for (int i = 0; i < m; i++)
            g[i] = left[i * ld + j];
        DCK_UNROLL
        for (int r = 0; r < 4; r++) {
            dck_vec x = right[r * ld + j];
            DCK_UNROLL
            for (int i = 0; i < m; i++)
                sum[i][r] = multiply_add(form, sum[i][r], g[i], x);
        }
    }
    DCK_UNROLL
    for (int i = 0; i < m; i++) {
        dck_four *to = (dck_four *)&out[i * ld_out];
        *to += dck_sum_lanes4(sum[i][0], sum[i][1], sum[i][2], sum[i][3]);
    }
}

/* The one to three rows that are left. */
DCK_INLINE void outer_row(dck_form form, const dck_vec *restrict left, const dck_vec *restrict right, size_t ld, int m,
                          int n, float *restrict out, size_t ld_out)
{
    for (int i = 0; i < m; i++) {
        dck_vec even = {0}, odd = {0};
        int j = 0;
        for (; j + 2 <= n; j += 2) {
            even = multiply_add(form, even, left[i * ld + j], right[j]);
            odd = multiply_add(form, odd, left[i * ld + j + 1], right[j + 1]);
        }
        if (j < n)
            even = multiply_add(form, even, left[i * ld + j], right[j]);
        out[i * ld_out] += dck_sum_lanes(even + odd);
    }
}

DCK_INLINE void outer_product_of(dck_form form, const float *left, int m, const float *right, int rows, int ld,
                                 int pixels, float *out, size_t ld_out, const dck_ahead *ahead)
{
    const size_t ld_v = (size_t)ld * DCK_PER_PIXEL;
    const int n = pixels * DCK_PER_PIXEL;
    for (int i = 0, tile; i < m; i += tile) {
        tile = m - i >= OUTER_M ? OUTER_M : m - i >= 3 && OUTER_M > 3 ? 3 : m - i >= 2 && OUTER_M > 2 ? 2 : 1;
        const dck_vec *g = (const dck_vec *)left + i * ld_v, *x = (const dck_vec *)right;
        float *to = out + i * ld_out;
        int r = 0;
        for (const int quads = rows / 4; r + 4 <= rows; r += 4) {
            const int at = i * quads + tile * (r / 4); /* tiles are rows of dy times quads of x's */
            const share next = share_of(ahead, at, at + tile, m * quads, 1);
            if (tile == OUTER_M)
                outer_tile(form, OUTER_M, g, x + r * ld_v, ld_v, n, to + r, ld_out, next);
            else if (tile == 3 && OUTER_M > 3)
                outer_tile(form, OUTER_M > 3 ? 3 : 1, g, x + r * ld_v, ld_v, n, to + r, ld_out, next);
            else if (tile == 2 && OUTER_M > 2)
                outer_tile(form, OUTER_M > 2 ? 2 : 1, g, x + r * ld_v, ld_v, n, to + r, ld_out, next);
            else
                outer_tile(form, 1, g, x + r * ld_v, ld_v, n, to + r, ld_out, next);
        }
        for (; r < rows; r++)
            outer_row(form, g, x + r * ld_v, ld_v, tile, n, to + r, ld_out);
    }
}

void DCK(outer_product)(dck_form form, const float *left, int m, const float *right, int rows, int ld, int pixels,
                        float *out, size_t ld_out, const dck_ahead *ahead)
{
    if (form == DCK_PAIRS)
        outer_product_of(DCK_PAIRS, left, m, right, rows, ld, pixels, out, ld_out, ahead);
    else
        outer_product_of(DCK_FLOATS, left, m, right, rows, ld, pixels, out, ld_out, ahead);
}

void DCK(sum_partials)(const float *partial, int units, size_t stride, size_t count, float *dw)
{
#pragma omp for schedule(static)
    for (size_t i = 0; i < count; i++) {
        float sum = 0;
        for (int u = 0; u < units; u++)
            sum += partial[u * stride + i];
        dw[i] = sum;
    }
}
