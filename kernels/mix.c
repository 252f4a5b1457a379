/* The weighted sum of features (DARTS's mixed node; with sharing, every feature of a source at once) and plain add.
 *
 * forward reads every feature once and writes y: 4 * (n_x + 1) bytes an element. backward reads dy once from memory,
 * and for each feature reads x and writes dx: 4 + 8 * n_x bytes an element. Work goes in chunks of a plane of y that
 * stay in the first-level cache while features pass by, a few at a time, so that few streams are open at once. The
 * scale of a normalised feature goes into its weight, all shifts into one constant. */
#include "internal.h"
#include "plane.h"

enum { CHUNK_FLOATS = 1024, TOGETHER = 4, WAYS = 4 };

/* A part of one plane. */
typedef struct chunk {
    int block, channel;
    size_t first, floats; /* in the plane */
} chunk;

static chunk chunk_at(dck_view y, int task, size_t first)
{
    size_t left = dck_plane_floats(y) - first;
    return (chunk){task / y.c, task % y.c, first, left < CHUNK_FLOATS ? left : CHUNK_FLOATS};
}

static float *chunk_of(dck_view view, chunk at)
{
    return dck_plane(view, at.block, at.channel) + at.first;
}

static bool worth_threads(dck_view y, int tasks)
{
    return dck_plane_floats(y) * (size_t)tasks > DCK_SERIAL_FLOATS;
}

static float weight_of(const float *weight, const int *index, int i)
{
    return weight ? weight[index[i]] : 1;
}

static float scale_of(dck_view x, int channel)
{
    return x.affine ? x.affine[2 * channel] : 1;
}

static float shift_of(dck_view x, int channel)
{
    return x.affine ? x.affine[2 * channel + 1] : 0;
}

/* y = shift + the weighted sum of n <= TOGETHER features, or y += it. */
DCK_INLINE void add_features(int n, const float *const *x, const float *w, float shift, float *y, size_t floats,
                             bool first)
{
    dck_vec *to = (dck_vec *)y;
    const dck_vec constant = dck_set(shift);
    for (size_t v = 0; v < floats / DCK_VECTOR; v++) {
        dck_vec sum = first ? constant : to[v];
        for (int i = 0; i < n; i++)
            sum += ((const dck_vec *)x[i])[v] * w[i];
        to[v] = sum;
    }
}

static void mix_chunk(int n_x, const dck_view *x, const float *weight, const int *index, chunk at, float *y)
{
    float shift = 0;
    for (int i = 0; i < n_x; i++)
        shift += weight_of(weight, index, i) * shift_of(x[i], at.channel);
    for (int i = 0; i < n_x; i += TOGETHER) {
        const int n = n_x - i < TOGETHER ? n_x - i : TOGETHER;
        const float *from[TOGETHER] = {0};
        float w[TOGETHER] = {0};
        for (int j = 0; j < n; j++) {
            from[j] = chunk_of(x[i + j], at);
            w[j] = weight_of(weight, index, i + j) * scale_of(x[i + j], at.channel);
        }
        if (n == TOGETHER)
            add_features(TOGETHER, from, w, shift, y, at.floats, i == 0);
        else if (n == 2)
            add_features(2, from, w, shift, y, at.floats, i == 0);
        else
            add_features(n, from, w, shift, y, at.floats, i == 0);
    }
}

void DCK(mix_forward)(int n_x, const dck_view *x, const float *weight, const int *index, dck_view y, int blocks,
                      int threads)
{
    const int tasks = blocks * y.c;
#pragma omp parallel for schedule(static) num_threads(threads) if (worth_threads(y, tasks))
    for (int t = 0; t < tasks; t++)
        for (size_t first = 0; first < dck_plane_floats(y); first += CHUNK_FLOATS) {
            chunk at = chunk_at(y, t, first);
            mix_chunk(n_x, x, weight, index, at, chunk_of(y, at));
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

static float sum_chunk(const float *dy, size_t floats)
{
    dck_vec sum = {0};
    for (size_t v = 0; v < floats / DCK_VECTOR; v++)
        sum += ((const dck_vec *)dy)[v];
    return dck_sum_lanes(sum);
}

size_t DCK(mix_backward_scratch_bytes)(int n_x, dck_view y, int blocks, int threads)
{
    (void)threads;
    return sizeof(double) * (size_t)n_x * ((size_t)blocks * (size_t)y.c + 1);
}

/* One chunk for every feature; dots: [n_x] or NULL, added to. */
static void mix_backward_chunk(int n_x, const dck_view *x, const float *weight, const int *index, const float *dy,
                               const dck_view *dx, const bool *accumulate, chunk at, double *dots)
{
    const float total = dots ? sum_chunk(dy, at.floats) : 0;
    for (int i = 0; i < n_x; i++) {
        float *to = dx[i].data ? chunk_of(dx[i], at) : NULL, w = weight_of(weight, index, i), dot;
        if (!dots) {
            if (to)
                back_chunk(NULL, w, dy, to, accumulate[i], at.floats);
            continue;
        }
        if (to && !accumulate[i])
            dot = back_chunk(chunk_of(x[i], at), w, dy, to, false, at.floats);
        else if (!to)
            dot = back_chunk(chunk_of(x[i], at), w, dy, NULL, false, at.floats);
        else
            dot = back_chunk(chunk_of(x[i], at), w, dy, to, true, at.floats);
        dots[i] +=
            (double)scale_of(x[i], at.channel) * (double)dot + (double)shift_of(x[i], at.channel) * (double)total;
    }
}

void DCK(mix_backward)(int n_x, const dck_view *x, const float *weight, const int *index, dck_view dy,
                       const dck_view *dx, const bool *accumulate, float *dweight, int blocks, void *scratch,
                       int threads)
{
    const int tasks = blocks * dy.c;
    double *partial = scratch, *total = partial + (size_t)n_x * (size_t)tasks;
#pragma omp parallel num_threads(threads) if (worth_threads(dy, tasks))
    {
#pragma omp for schedule(static)
        for (int t = 0; t < tasks; t++) {
            double *dots = dweight ? partial + (size_t)t * (size_t)n_x : NULL;
            for (int i = 0; dots && i < n_x; i++)
                dots[i] = 0;
            for (size_t first = 0; first < dck_plane_floats(dy); first += CHUNK_FLOATS) {
                chunk at = chunk_at(dy, t, first);
                mix_backward_chunk(n_x, x, weight, index, chunk_of(dy, at), dx, accumulate, at, dots);
            }
        }
        if (dweight) {
#pragma omp for schedule(static)
            for (int i = 0; i < n_x; i++) {
                total[i] = 0;
                for (int t = 0; t < tasks; t++)
                    total[i] += partial[(size_t)t * (size_t)n_x + (size_t)i];
            }
        }
    }
    if (dweight)
        for (int i = 0; i < n_x; i++) /* two features may have one weight */
            dweight[index[i]] += (float)total[i];
}
