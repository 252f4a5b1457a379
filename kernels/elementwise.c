/* Element by element: relu, copy, zero and a factor per image, which memory bounds, and dropout, which its random
 * numbers do. Where a factor per image makes the gradient of a batch norm's output, it is summed for it on the way. */
#include "internal.h"
#include "philox.h"
#include "plane.h"

#include <string.h>

/* What of a piece is read alike: all of it, or the part of it in one channel. */
typedef struct run {
    size_t first, floats; /* of the piece */
    dck_on_load on_load;
} run;

static run run_at(dck_view x, dck_piece piece, size_t first)
{
    const size_t plane = dck_plane_floats(x), left = piece.floats - first;
    if (!x.affine || left == 0)
        return (run){first, left, {1, 0}};
    const size_t here = (piece.first + first) % plane, in_plane = plane - here;
    return (run){first, left < in_plane ? left : in_plane, dck_on_load_of(x, (int)((piece.first + first) / plane))};
}

void DCK(relu_forward)(dck_view x, dck_view y, int blocks, int threads)
{
    const dck_pieces pieces = dck_cut(y, blocks);
#pragma omp parallel for schedule(static) num_threads(threads) if (pieces.threaded)
    for (int t = 0; t < pieces.count; t++) {
        dck_piece piece = dck_piece_at(&pieces, t);
        for (run r = run_at(x, piece, 0); r.floats > 0; r = run_at(x, piece, r.first + r.floats)) {
            const dck_vec *from = (const dck_vec *)(dck_at(x, piece) + r.first);
            dck_vec *to = (dck_vec *)(dck_at(y, piece) + r.first);
            for (size_t v = 0; v < r.floats / DCK_VECTOR; v++)
                to[v] = dck_relu(dck_read(r.on_load, from[v]));
        }
    }
}

void DCK(relu_backward)(dck_view y, dck_view dy, dck_view dx, bool accumulate, int blocks, int threads)
{
    const dck_pieces pieces = dck_cut(y, blocks);
#pragma omp parallel for schedule(static) num_threads(threads) if (pieces.threaded)
    for (int t = 0; t < pieces.count; t++) {
        dck_piece piece = dck_piece_at(&pieces, t);
        const dck_vec *value = (const dck_vec *)dck_at(y, piece), *from = (const dck_vec *)dck_at(dy, piece);
        dck_vec *to = (dck_vec *)dck_at(dx, piece);
        for (size_t v = 0; v < piece.floats / DCK_VECTOR; v++)
            dck_put(to + v, dck_where(value[v] > 0, from[v]), accumulate);
    }
}

void DCK(copy)(dck_view x, dck_view y, bool accumulate, int blocks, int threads)
{
    const dck_pieces pieces = dck_cut(y, blocks);
    const dck_how how = dck_how_to_write(y, accumulate, blocks, threads);
#pragma omp parallel for schedule(static) num_threads(threads) if (pieces.threaded)
    for (int t = 0; t < pieces.count; t++) {
        dck_piece piece = dck_piece_at(&pieces, t);
        if (!x.affine && how == DCK_SET) {
            memcpy(dck_at(y, piece), dck_at(x, piece), piece.floats * sizeof(float));
            continue;
        }
        for (run r = run_at(x, piece, 0); r.floats > 0; r = run_at(x, piece, r.first + r.floats)) {
            const dck_vec *from = (const dck_vec *)(dck_at(x, piece) + r.first);
            dck_vec *to = (dck_vec *)(dck_at(y, piece) + r.first);
            for (size_t v = 0; v < r.floats / DCK_VECTOR; v++)
                dck_put(to + v, dck_read(r.on_load, from[v]), how);
        }
        dck_written(how);
    }
}

void DCK(zero)(dck_view y, int blocks, int threads)
{
    const dck_pieces pieces = dck_cut(y, blocks);
#pragma omp parallel for schedule(static) num_threads(threads) if (pieces.threaded)
    for (int t = 0; t < pieces.count; t++) {
        dck_piece piece = dck_piece_at(&pieces, t);
        memset(dck_at(y, piece), 0, piece.floats * sizeof(float));
    }
}

/* A part of a plane: y (+)= (x as it is read) * by, and sums += those of what y is then with `of`; NULL: of nothing. */
DCK_INLINE void scale_pixels(size_t pixels, const dck_vec *x, dck_on_load on, const dck_vec *by, dck_vec *y,
                             dck_how how, const dck_vec *of, float mean, double *sums)
{
    dck_vec first = {0}, second = {0};
    for (size_t v = 0; v < pixels * DCK_PER_PIXEL; v += DCK_PER_PIXEL)
        for (int p = 0; p < DCK_PER_PIXEL; p++) {
            const size_t at = v + (size_t)p;
            dck_vec value = dck_read(on, x[at]) * by[p];
            if (how == DCK_ADD)
                value += y[at];
            dck_put(y + at, value, how == DCK_STREAM ? DCK_STREAM : DCK_SET);
            if (of) {
                first += value;
                second += value * (of[at] - mean);
            }
        }
    if (of) {
        sums[0] += (double)dck_sum_lanes(first);
        sums[1] += (double)dck_sum_lanes(second);
    }
}

void DCK(scale_images)(dck_view x, const float *factor, dck_view y, bool accumulate, dck_view of, dck_sums sums,
                       int blocks, int threads)
{
    const int tasks = blocks * y.c;
    const size_t plane = dck_plane_floats(y) / DCK_LANES;
    const dck_how how = dck_how_to_write(y, accumulate, blocks, threads);
#pragma omp parallel for schedule(static)                                                                              \
    num_threads(threads) if (dck_plane_floats(y) * (size_t)tasks > DCK_SERIAL_FLOATS)
    for (int t = 0; t < tasks; t++) {
        const int block = t / y.c, channel = t % y.c;
        const dck_vec *from = (const dck_vec *)dck_plane(x, block, channel);
        const dck_vec *by = (const dck_vec *)factor + (size_t)block * DCK_PER_PIXEL;
        const dck_vec *stored = sums.sums ? (const dck_vec *)dck_plane(of, block, channel) : NULL;
        const dck_on_load on_load = dck_on_load_of(x, channel);
        dck_vec *to = (dck_vec *)dck_plane(y, block, channel);
        double *sum = stored ? sums.sums + 2 * (size_t)t : NULL;
        if (stored)
            sum[0] = sum[1] = 0;
        for (size_t first = 0; first < plane; first += DCK_SUMMED_PIXELS) {
            const size_t pixels = plane - first < DCK_SUMMED_PIXELS ? plane - first : DCK_SUMMED_PIXELS;
            const size_t at = first * DCK_PER_PIXEL;
            if (stored)
                scale_pixels(pixels, from + at, on_load, by, to + at, how, stored + at, sums.mean[channel], sum);
            else
                scale_pixels(pixels, from + at, on_load, by, to + at, how, NULL, 0, NULL);
        }
        dck_written(how);
    }
}

/* Four neighbouring elements of an image share one Philox block: word e % 4 of counter image * ceil(elements / 4) + e /
 * 4 decides element e. The masks are computed again in backward, which is cheaper than keeping them. */
void DCK(dropout)(dck_view x, dck_view y, bool accumulate, float rate, uint64_t seed, uint64_t stream, uint32_t step,
                  uint32_t first_image, int blocks, int threads)
{
    enum { WORDS = 4 };
    const int elements = y.c * y.h * y.w, groups = (elements + WORDS - 1) / WORDS, tasks = blocks * groups;
    const float scale = 1 / (1 - rate);
#pragma omp parallel for schedule(static) num_threads(threads) if ((size_t)tasks * WORDS * DCK_LANES > 4096)
    for (int t = 0; t < tasks; t++) {
        const int block = t / groups, group = t % groups;
        float factor[WORDS][DCK_LANES];
        for (int lane = 0; lane < DCK_LANES; lane++) {
            uint64_t image = (uint64_t)first_image + (uint64_t)(block * DCK_LANES + lane);
            uint32_t word[WORDS];
            dck_philox(seed, stream, step, image * (uint64_t)groups + (uint64_t)group, word);
            for (int e = 0; e < WORDS; e++)
                factor[e][lane] = dck_philox_unit(word[e]) < rate ? 0 : scale;
        }
        const size_t first = (size_t)group * WORDS * DCK_LANES;
        const float *from = x.data + (size_t)block * x.stride + first;
        float *to = y.data + (size_t)block * y.stride + first;
        for (int e = 0; e < WORDS && group * WORDS + e < elements; e++)
            for (int lane = 0; lane < DCK_LANES; lane++) {
                float d = from[e * DCK_LANES + lane] * factor[e][lane];
                to[e * DCK_LANES + lane] = accumulate ? to[e * DCK_LANES + lane] + d : d;
            }
    }
}
