/* The weighted sum of features (DARTS's mixed node; with sharing, every feature of a source at once) and plain add.
 *
 * forward reads every feature once and writes y: 4 * (n_x + 1) bytes an element. backward reads dy once from memory,
 * and for each feature reads x and writes dx: 4 + 8 * n_x bytes an element. Work goes in chunks of y that stay in the
 * first-level cache while features pass by, a few at a time, so that few streams are open at once. */
#include "internal.h"
#include "plane.h"

enum { CHUNK_FLOATS = 1024, TOGETHER = 4, WAYS = 4 };

DCK_INLINE float weight_of(const float *weight, const int *index, int i)
{
    return weight ? weight[index[i]] : 1;
}

/* y (+)= the weighted sum of n <= TOGETHER features. */
DCK_INLINE void add_features(int n, const float *const *x, const float *w, float *y, size_t floats, bool first)
{
    dck_vec *to = (dck_vec *)y;
    for (size_t v = 0; v < floats / DCK_VECTOR; v++) {
        dck_vec sum = first ? ((const dck_vec *)x[0])[v] * w[0] : to[v] + ((const dck_vec *)x[0])[v] * w[0];
        for (int i = 1; i < n; i++)
            sum += ((const dck_vec *)x[i])[v] * w[i];
        to[v] = sum;
    }
}

static void mix_chunk(int n_x, const dck_view *x, const float *weight, const int *index, dck_piece chunk, float *y)
{
    for (int i = 0; i < n_x; i += TOGETHER) {
        const int n = n_x - i < TOGETHER ? n_x - i : TOGETHER;
        const float *from[TOGETHER] = {0};
        float w[TOGETHER] = {0};
        for (int j = 0; j < n; j++) {
            from[j] = dck_at(x[i + j], chunk);
            w[j] = weight_of(weight, index, i + j);
        }
        if (n == TOGETHER)
            add_features(TOGETHER, from, w, y, chunk.floats, i == 0);
        else if (n == 2)
            add_features(2, from, w, y, chunk.floats, i == 0);
        else
            add_features(n, from, w, y, chunk.floats, i == 0);
    }
}

static dck_piece chunk_of(dck_piece piece, size_t first)
{
    size_t left = piece.floats - first;
    return (dck_piece){
        .block = piece.block, .first = piece.first + first, .floats = left < CHUNK_FLOATS ? left : CHUNK_FLOATS};
}

void DCK(mix_forward)(int n_x, const dck_view *x, const float *weight, const int *index, dck_view y, int blocks,
                      int threads)
{
    const dck_pieces pieces = dck_cut(y, blocks);
#pragma omp parallel for schedule(static) num_threads(threads) if (pieces.threaded)
    for (int t = 0; t < pieces.count; t++) {
        dck_piece piece = dck_piece_at(&pieces, t);
        for (size_t first = 0; first < piece.floats; first += CHUNK_FLOATS) {
            dck_piece chunk = chunk_of(piece, first);
            mix_chunk(n_x, x, weight, index, chunk, dck_at(y, chunk));
        }
    }
}

DCK_INLINE void back_vector(const dck_vec *x, float w, dck_vec dy, dck_vec *dx, bool accumulate, dck_vec *sum)
{
    if (x)
        *sum += dy * *x;
    if (dx)
        dck_put(dx, dy * w, accumulate);
}

/* dx (+)= w * dy and returns dy . x, or only one of them (dx or x NULL). */
DCK_INLINE float back_chunk(const float *x, float w, const float *dy, float *dx, bool accumulate, size_t floats)
{
    const dck_vec *xs = (const dck_vec *)x, *dys = (const dck_vec *)dy;
    dck_vec *dxs = (dck_vec *)dx, sum[WAYS] = {{0}};
    const size_t vectors = floats / DCK_VECTOR;
    size_t v = 0;
    for (; v + WAYS <= vectors; v += WAYS)
        for (size_t i = 0; i < WAYS; i++)
            back_vector(xs ? xs + v + i : NULL, w, dys[v + i], dxs ? dxs + v + i : NULL, accumulate, &sum[i]);
    for (; v < vectors; v++)
        back_vector(xs ? xs + v : NULL, w, dys[v], dxs ? dxs + v : NULL, accumulate, &sum[0]);
    for (int i = 1; i < WAYS; i++)
        sum[0] += sum[i];
    return dck_sum_lanes(sum[0]);
}

size_t DCK(mix_backward_scratch_bytes)(int n_x, dck_view y, int blocks, int threads)
{
    (void)threads;
    return sizeof(double) * (size_t)n_x * ((size_t)dck_cut(y, blocks).count + 1);
}

/* One piece for every feature; dots: [n_x], added to. */
static void mix_backward_chunk(int n_x, const dck_view *x, const float *weight, const int *index, const float *dy,
                               const dck_view *dx, const bool *accumulate, bool want_dots, dck_piece chunk,
                               double *dots)
{
    for (int i = 0; i < n_x; i++) {
        float *to = dx[i].data ? dck_at(dx[i], chunk) : NULL, w = weight_of(weight, index, i);
        if (want_dots && to && !accumulate[i])
            dots[i] += (double)back_chunk(dck_at(x[i], chunk), w, dy, to, false, chunk.floats);
        else if (want_dots && !to)
            dots[i] += (double)back_chunk(dck_at(x[i], chunk), w, dy, NULL, false, chunk.floats);
        else if (want_dots)
            dots[i] += (double)back_chunk(dck_at(x[i], chunk), w, dy, to, true, chunk.floats);
        else if (to)
            back_chunk(NULL, w, dy, to, accumulate[i], chunk.floats);
    }
}

void DCK(mix_backward)(int n_x, const dck_view *x, const float *weight, const int *index, dck_view dy,
                       const dck_view *dx, const bool *accumulate, float *dweight, int blocks, void *scratch,
                       int threads)
{
    const dck_pieces pieces = dck_cut(dy, blocks);
    double *partial = scratch, *total = partial + (size_t)n_x * (size_t)pieces.count;
#pragma omp parallel num_threads(threads) if (pieces.threaded)
    {
#pragma omp for schedule(static)
        for (int t = 0; t < pieces.count; t++) {
            dck_piece piece = dck_piece_at(&pieces, t);
            double *dots = partial + (size_t)t * (size_t)n_x;
            for (int i = 0; i < n_x; i++)
                dots[i] = 0;
            for (size_t first = 0; first < piece.floats; first += CHUNK_FLOATS) {
                dck_piece chunk = chunk_of(piece, first);
                mix_backward_chunk(n_x, x, weight, index, dck_at(dy, chunk), dx, accumulate, dweight != NULL, chunk,
                                   dots);
            }
        }
        if (dweight) {
#pragma omp for schedule(static)
            for (int i = 0; i < n_x; i++) {
                total[i] = 0;
                for (int t = 0; t < pieces.count; t++)
                    total[i] += partial[(size_t)t * (size_t)n_x + (size_t)i];
            }
        }
    }
    if (dweight)
        for (int i = 0; i < n_x; i++) /* two features may have one weight */
            dweight[index[i]] += (float)total[i];
}
