/* Batch norm (Ioffe and Szegedy 2015).
 *
 * forward, training: x is read for its moments, read again and y written: 12 bytes an element from memory, 8 where a
 * layer fits in cache. backward: x and dy are read for two sums, read again, dx written: 20 bytes. Both run at the
 * speed of memory. Deferred (norm_measure, norm_factors) y and dx are not written: nothing is read forward where the
 * convolutions before have left the moments, else 4 bytes an element; backward nothing where a reader has left the
 * sums, else 8.
 *
 * Moments are taken in one pass over chunks of a plane, shifted by the chunk's first pixel: a number of the chunk
 * itself lies at most sqrt(chunk) deviations from its mean, so that float sums of squares keep their digits whatever
 * the mean is. Chunks, blocks and channels are then added in double in a fixed order. */
#include "internal.h"
#include "plane.h"

#include <math.h>
#include <string.h>

enum { WAYS = DCK_PER_PIXEL > 4 ? DCK_PER_PIXEL : 4 }; /* independent accumulators, a whole number of pixels */

/* Adds to sums[0] the sum and to sums[1] the sum of squares of a chunk's first `lanes` images. */
static void chunk_moments(const dck_vec *x, int pixels, int lanes, double sums[2])
{
    dck_vec shift[WAYS], first[WAYS], second[WAYS];
    for (int w = 0; w < WAYS; w++) {
        shift[w] = x[w % DCK_PER_PIXEL];
        first[w] = second[w] = (dck_vec){0};
    }
    int vectors = pixels * DCK_PER_PIXEL, v = 0;
    for (; v + WAYS <= vectors; v += WAYS)
        for (int w = 0; w < WAYS; w++) {
            dck_vec d = x[v + w] - shift[w];
            first[w] += d;
            second[w] += d * d;
        }
    for (int w = 0; v < vectors; v++, w++) {
        dck_vec d = x[v] - shift[w];
        first[w] += d;
        second[w] += d * d;
    }
    for (int w = DCK_PER_PIXEL; w < WAYS; w++) {
        first[w % DCK_PER_PIXEL] += first[w];
        second[w % DCK_PER_PIXEL] += second[w];
    }
    float m[DCK_LANES], s[DCK_LANES], q[DCK_LANES];
    memcpy(m, shift, sizeof m);
    memcpy(s, first, sizeof s);
    memcpy(q, second, sizeof q);
    for (int lane = 0; lane < lanes; lane++) {
        double mean = m[lane], sum = s[lane];
        sums[0] += sum + pixels * mean;
        sums[1] += q[lane] + mean * (2 * sum + pixels * mean);
    }
}

/* Adds to sums[0] the sum of dy and to sums[1] the sum of dy * (x - mean) of a chunk's first `lanes` images. */
static void chunk_products(const dck_vec *x, const dck_vec *dy, float mean, int pixels, int lanes, double sums[2])
{
    dck_vec first[WAYS], second[WAYS];
    for (int w = 0; w < WAYS; w++)
        first[w] = second[w] = (dck_vec){0};
    int vectors = pixels * DCK_PER_PIXEL, v = 0;
    for (; v + WAYS <= vectors; v += WAYS)
        for (int w = 0; w < WAYS; w++) {
            first[w] += dy[v + w];
            second[w] += dy[v + w] * (x[v + w] - mean);
        }
    for (int w = 0; v < vectors; v++, w++) {
        first[w] += dy[v];
        second[w] += dy[v] * (x[v] - mean);
    }
    for (int w = DCK_PER_PIXEL; w < WAYS; w++) {
        first[w % DCK_PER_PIXEL] += first[w];
        second[w % DCK_PER_PIXEL] += second[w];
    }
    float s[DCK_LANES], q[DCK_LANES];
    memcpy(s, first, sizeof s);
    memcpy(q, second, sizeof q);
    for (int lane = 0; lane < lanes; lane++) {
        sums[0] += s[lane];
        sums[1] += q[lane];
    }
}

static void plane_moments(dck_view x, int block, int channel, int lanes, double sums[2])
{
    const dck_vec *plane = (const dck_vec *)dck_plane(x, block, channel);
    sums[0] = sums[1] = 0;
    for (int pixel = 0, pixels = x.h * x.w; pixel < pixels; pixel += DCK_SUMMED_PIXELS) {
        int count = pixels - pixel < DCK_SUMMED_PIXELS ? pixels - pixel : DCK_SUMMED_PIXELS;
        chunk_moments(plane + (size_t)pixel * DCK_PER_PIXEL, count, lanes, sums);
    }
}

static void plane_products(dck_view x, dck_view dy, float mean, int block, int channel, int lanes, double sums[2])
{
    const dck_vec *x_plane = (const dck_vec *)dck_plane(x, block, channel);
    const dck_vec *dy_plane = (const dck_vec *)dck_plane(dy, block, channel);
    sums[0] = sums[1] = 0;
    for (int pixel = 0, pixels = x.h * x.w; pixel < pixels; pixel += DCK_SUMMED_PIXELS) {
        int count = pixels - pixel < DCK_SUMMED_PIXELS ? pixels - pixel : DCK_SUMMED_PIXELS;
        size_t offset = (size_t)pixel * DCK_PER_PIXEL;
        chunk_products(x_plane + offset, dy_plane + offset, mean, count, lanes, sums);
    }
}

/* The sums of one channel over all blocks, or parts of blocks; partial: [count][channels][2]. */
static void channel_sums(const double *partial, int count, int channels, int channel, double sums[2])
{
    sums[0] = sums[1] = 0;
    for (int b = 0; b < count; b++) {
        const double *p = partial + 2 * ((size_t)b * (size_t)channels + (size_t)channel);
        sums[0] += p[0];
        sums[1] += p[1];
    }
}

/* What the readers of y apply to x. In double: what is lost of mean * scale would be lost of every element. */
static void write_affine(const dck_norm *k, double mean, double inverse, int channel, float *affine)
{
    affine[2 * channel] = (float)(k->gamma ? (double)k->gamma[channel] * inverse : inverse);
    affine[2 * channel + 1] = (float)((k->beta ? (double)k->beta[channel] : 0) - mean * (double)affine[2 * channel]);
}

/* affine: NULL or [channels][2] */
static void finish_statistics(const dck_norm *k, const double sums[2], double count, int channel, int channels,
                              float *affine)
{
    double mean = sums[0] / count, variance = sums[1] / count - mean * mean;
    if (variance < 0)
        variance = 0;
    if (affine)
        write_affine(k, mean, 1 / sqrt(variance + (double)k->epsilon), channel, affine);
    double unbiased = count > 1 ? variance * count / (count - 1) : variance;
    k->mean[channel] += k->momentum * ((float)mean - k->mean[channel]);
    k->variance[channel] += k->momentum * ((float)unbiased - k->variance[channel]);
    k->saved[channel] = (float)mean;
    k->saved[channels + channel] = (float)(1 / sqrt(variance + (double)k->epsilon));
}

static void apply(const dck_norm *k, const float *x, float *y, size_t floats, float mean, float inverse, int channel)
{
    const float scale = k->gamma ? k->gamma[channel] * inverse : inverse;
    const float shift = k->beta ? k->beta[channel] : 0;
    const dck_vec *from = (const dck_vec *)x;
    dck_vec *to = (dck_vec *)y;
    for (size_t v = 0, n = floats / DCK_VECTOR; v < n; v++)
        to[v] = (from[v] - mean) * scale + shift;
}

size_t DCK(norm_scratch_bytes)(dck_view x, int blocks, int parts)
{
    return 2 * sizeof(double) * ((size_t)blocks * (size_t)(parts > 1 ? parts : 1) + 1) * (size_t)x.c;
}

/* Whether each thread takes whole channels, which are then still in its cache when they are read again; else all share
 * the planes of all channels. The numbers are the same. */
static bool by_channel(int channels, int threads)
{
    return channels % threads == 0 || channels >= 4 * threads;
}

typedef struct forward_call {
    const dck_norm *k;
    dck_view x, y;
    int n;
    bool training;
    int partials;
    double *partial; /* [partials][channels][2] */
    float *affine;   /* [channels][2], or NULL where y is written */
} forward_call;

static void measure_plane(const forward_call *f, int block, int channel)
{
    double *sums = f->partial + 2 * ((size_t)block * (size_t)f->x.c + (size_t)channel);
    plane_moments(f->x, block, channel, dck_lanes_of(block, f->n), sums);
}

static void finish_channel(const forward_call *f, int channel)
{
    double sums[2];
    channel_sums(f->partial, f->partials, f->x.c, channel, sums);
    finish_statistics(f->k, sums, (double)f->n * f->x.h * f->x.w, channel, f->x.c, f->affine);
}

static void apply_plane(const forward_call *f, int block, int channel)
{
    const dck_norm *k = f->k;
    float mean = f->training ? k->saved[channel] : k->mean[channel];
    float inverse = f->training ? k->saved[f->x.c + channel] : 1 / sqrtf(k->variance[channel] + k->epsilon);
    apply(k, dck_plane(f->x, block, channel), dck_plane(f->y, block, channel), dck_plane_floats(f->x), mean, inverse,
          channel);
}

void DCK(norm_forward)(const dck_norm *k, dck_view x, dck_view y, int n, bool training, void *scratch, int threads)
{
    const int blocks = dck_blocks_of(n), channels = x.c, tasks = blocks * channels;
    const forward_call f = {k, x, y, n, training, blocks, scratch, NULL};
#pragma omp parallel num_threads(threads) if (dck_plane_floats(x) * (size_t)tasks > DCK_SERIAL_FLOATS)
    if (training && by_channel(channels, threads)) {
#pragma omp for schedule(static)
        for (int c = 0; c < channels; c++) {
            for (int block = 0; block < blocks; block++)
                measure_plane(&f, block, c);
            finish_channel(&f, c);
            for (int block = blocks - 1; block >= 0; block--) /* the last one read is the freshest */
                apply_plane(&f, block, c);
        }
    } else {
        if (training) {
#pragma omp for schedule(static)
            for (int t = 0; t < tasks; t++)
                measure_plane(&f, t / channels, t % channels);
#pragma omp for schedule(static)
            for (int c = 0; c < channels; c++)
                finish_channel(&f, c);
        }
#pragma omp for schedule(static)
        for (int t = 0; t < tasks; t++)
            apply_plane(&f, t / channels, t % channels);
    }
}

void DCK(norm_measure)(const dck_norm *k, dck_view x, float *affine, int n, bool training, int parts, void *scratch,
                       int threads)
{
    const int blocks = dck_blocks_of(n), channels = x.c, tasks = blocks * channels;
    const forward_call f = {k, x, x, n, training, blocks * (parts > 0 ? parts : 1), scratch, affine};
    if (!training) {
        for (int c = 0; c < channels; c++)
            write_affine(k, (double)k->mean[c], 1 / sqrt((double)k->variance[c] + (double)k->epsilon), c, affine);
        return;
    }
    if (parts == 0) {
#pragma omp parallel for schedule(static)                                                                              \
    num_threads(threads) if (dck_plane_floats(x) * (size_t)tasks > DCK_SERIAL_FLOATS)
        for (int t = 0; t < tasks; t++)
            measure_plane(&f, t / channels, t % channels);
    }
    for (int c = 0; c < channels; c++)
        finish_channel(&f, c);
}

/* dx = a * dy + b + c * (x - mean): the gradient through the batch's mean and variance. */
typedef struct gradient {
    float mean, a, b, c;
} gradient;

static void differentiate(gradient g, const float *x, const float *dy, float *dx, bool accumulate, size_t floats)
{
    const dck_vec *xs = (const dck_vec *)x, *dys = (const dck_vec *)dy;
    dck_vec *dxs = (dck_vec *)dx;
    const size_t n = floats / DCK_VECTOR;
    if (accumulate)
        for (size_t v = 0; v < n; v++)
            dxs[v] += g.a * dys[v] + (g.b + g.c * (xs[v] - g.mean));
    else
        for (size_t v = 0; v < n; v++)
            dxs[v] = g.a * dys[v] + (g.b + g.c * (xs[v] - g.mean));
}

/* The same for a block with empty lanes, whose gradients stay zero. */
static void differentiate_lanes(gradient g, const float *x, const float *dy, float *dx, bool accumulate, size_t floats,
                                int lanes)
{
    for (size_t i = 0; i < floats; i += DCK_LANES)
        for (int lane = 0; lane < DCK_LANES; lane++) {
            float d = g.a * dy[i + lane] + (g.b + g.c * (x[i + lane] - g.mean));
            dx[i + lane] = (accumulate ? dx[i + lane] : 0) + (lane < lanes ? d : 0);
        }
}

typedef struct backward_call {
    const dck_norm *k;
    dck_view x, dy, dx;
    bool accumulate;
    float *dgamma, *dbeta;
    int n, blocks;
    double *partial, *total; /* [blocks][channels][2], [channels][2] */
} backward_call;

static void reduce_plane(const backward_call *g, int block, int channel)
{
    double *sums = g->partial + 2 * ((size_t)block * (size_t)g->x.c + (size_t)channel);
    plane_products(g->x, g->dy, g->k->saved[channel], block, channel, dck_lanes_of(block, g->n), sums);
}

static void finish_gradients(const backward_call *g, int channel)
{
    double *sums = g->total + 2 * (size_t)channel;
    channel_sums(g->partial, g->blocks, g->x.c, channel, sums);
    if (g->dgamma)
        g->dgamma[channel] = (float)(sums[1] * (double)g->k->saved[g->x.c + channel]);
    if (g->dbeta)
        g->dbeta[channel] = (float)sums[0];
}

static gradient gradient_of(const backward_call *g, int channel)
{
    const dck_norm *k = g->k;
    const double inverse = (double)k->saved[g->x.c + channel], count = (double)g->n * g->x.h * g->x.w;
    const double a = k->gamma ? (double)k->gamma[channel] * inverse : inverse;
    const double *sums = g->total + 2 * (size_t)channel;
    return (gradient){.mean = k->saved[channel],
                      .a = (float)a,
                      .b = (float)(-a * sums[0] / count),
                      .c = (float)(-a * inverse * inverse * sums[1] / count)};
}

static void differentiate_plane(const backward_call *g, int block, int channel)
{
    const gradient factors = gradient_of(g, channel);
    const float *x = dck_plane(g->x, block, channel), *dy = dck_plane(g->dy, block, channel);
    float *dx = dck_plane(g->dx, block, channel);
    const int lanes = dck_lanes_of(block, g->n);
    if (lanes == DCK_LANES)
        differentiate(factors, x, dy, dx, g->accumulate, dck_plane_floats(g->x));
    else
        differentiate_lanes(factors, x, dy, dx, g->accumulate, dck_plane_floats(g->x), lanes);
}

void DCK(norm_backward)(const dck_norm *k, dck_view x, dck_view dy, dck_view dx, bool accumulate, float *dgamma,
                        float *dbeta, int n, void *scratch, int threads)
{
    const int blocks = dck_blocks_of(n), channels = x.c, tasks = blocks * channels;
    double *partial = scratch;
    const backward_call g = {k, x, dy, dx, accumulate, dgamma, dbeta, n, blocks, partial, partial + 2 * (size_t)tasks};
#pragma omp parallel num_threads(threads) if (dck_plane_floats(x) * (size_t)tasks > DCK_SERIAL_FLOATS)
    if (by_channel(channels, threads)) {
#pragma omp for schedule(static)
        for (int c = 0; c < channels; c++) {
            for (int block = 0; block < blocks; block++)
                reduce_plane(&g, block, c);
            finish_gradients(&g, c);
            for (int block = blocks - 1; block >= 0 && dx.data; block--)
                differentiate_plane(&g, block, c);
        }
    } else {
#pragma omp for schedule(static)
        for (int t = 0; t < tasks; t++)
            reduce_plane(&g, t / channels, t % channels);
#pragma omp for schedule(static)
        for (int c = 0; c < channels; c++)
            finish_gradients(&g, c);
        if (dx.data) {
#pragma omp for schedule(static)
            for (int t = 0; t < tasks; t++)
                differentiate_plane(&g, t / channels, t % channels);
        }
    }
}

void DCK(norm_factors)(const dck_norm *k, dck_view x, dck_view dy, float *factors, float *dgamma, float *dbeta, int n,
                       bool summed, void *scratch, int threads)
{
    const int blocks = dck_blocks_of(n), channels = x.c, tasks = blocks * channels;
    double *partial = scratch;
    const backward_call g = {k, x, dy, x, false, dgamma, dbeta, n, blocks, partial, partial + 2 * (size_t)tasks};
#pragma omp parallel for schedule(static)                                                                              \
    num_threads(threads) if (!summed && dck_plane_floats(x) * (size_t)tasks > DCK_SERIAL_FLOATS)
    for (int t = 0; t < (summed ? 0 : tasks); t++)
        reduce_plane(&g, t / channels, t % channels);
    for (int c = 0; c < channels; c++) {
        finish_gradients(&g, c);
        const gradient d = gradient_of(&g, c);
        factors[3 * c] = d.a;
        factors[3 * c + 1] = d.c;
        factors[3 * c + 2] = (float)((double)d.b - (double)d.c * (double)d.mean);
    }
}
