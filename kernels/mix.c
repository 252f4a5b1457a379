/* The weighted sum of features (DARTS's mixed node; with sharing, every feature of a source at once) and plain add.
 *
 * forward reads every feature once and writes y: 4 * (n_x + 1) bytes an element. backward, of all mixes that
 * read the same features at once, reads each dy once from memory, and for each feature reads x, where its weights'
 * gradients or a batch norm's sums are wanted, and writes dx: 4 * readers + 8 * n_x bytes an element. Work goes in
 * chunks of a plane of y that stay in the first-level cache while features pass by, a few at a time, so that few
 * streams are open at once. The scale of a normalised feature goes into its weight, all shifts into one constant. */
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

/* y = shift + the weighted sum of n <= TOGETHER features, or y += the sum. */
DCK_INLINE void add_features(int n, const float *const *x, const float *w, float shift, float *y, size_t floats,
                             dck_how how)
{
    dck_vec *to = (dck_vec *)y;
    const dck_vec constant = dck_set(shift);
    for (size_t v = 0; v < floats / DCK_VECTOR; v++) {
        dck_vec sum = how == DCK_ADD ? to[v] : constant;
        for (int i = 0; i < n; i++)
            sum += ((const dck_vec *)x[i])[v] * w[i];
        dck_put(to + v, sum, how == DCK_STREAM ? DCK_STREAM : DCK_SET);
    }
}

DCK_INLINE void add_some_features(int n, const float *const *x, const float *w, float shift, float *y, size_t floats,
                                  dck_how how)
{
    if (how == DCK_ADD)
        add_features(n, x, w, shift, y, floats, DCK_ADD);
    else if (how == DCK_STREAM)
        add_features(n, x, w, shift, y, floats, DCK_STREAM);
    else
        add_features(n, x, w, shift, y, floats, DCK_SET);
}

/* alone: how features are written that are all added at once. */
static void mix_chunk(int n_x, const dck_view *x, const float *weight, const int *index, chunk at, dck_how alone,
                      float *y)
{
    float shift = 0;
    for (int i = 0; i < n_x; i++)
        shift += weight_of(weight, index, i) * shift_of(x[i], at.channel);
    for (int i = 0; i < n_x; i += TOGETHER) {
        const int n = n_x - i < TOGETHER ? n_x - i : TOGETHER;
        const dck_how how = i > 0 ? DCK_ADD : n == n_x ? alone : DCK_SET;
        const float *from[TOGETHER] = {0};
        float w[TOGETHER] = {0};
        for (int j = 0; j < n; j++) {
            from[j] = chunk_of(x[i + j], at);
            w[j] = weight_of(weight, index, i + j) * scale_of(x[i + j], at.channel);
        }
        if (n == TOGETHER)
            add_some_features(TOGETHER, from, w, shift, y, at.floats, how);
        else if (n == 2)
            add_some_features(2, from, w, shift, y, at.floats, how);
        else
            add_some_features(n, from, w, shift, y, at.floats, how);
    }
}

void DCK(mix_forward)(int n_x, const dck_view *x, const float *weight, const int *index, dck_view y, int blocks,
                      int threads)
{
    const int tasks = blocks * y.c;
    const dck_how alone = dck_how_to_write(y, false, blocks, threads);
#pragma omp parallel for schedule(static) num_threads(threads) if (worth_threads(y, tasks))
    for (int t = 0; t < tasks; t++) {
        for (size_t first = 0; first < dck_plane_floats(y); first += CHUNK_FLOATS) {
            chunk at = chunk_at(y, t, first);
            mix_chunk(n_x, x, weight, index, at, alone, chunk_of(y, at));
        }
        dck_settle();
    }
}

/* One feature's chunk: dx (+)= sum_r w[r] * dy[r], and dot[r] = dy[r] . (x - mean), or only one of them (dx or x NULL).
 */
DCK_INLINE void back_chunk(int readers, const float *x, float mean, const float *w, const float *const *dy, float *dx,
                           dck_how how, size_t floats, float *dot)
{
    const dck_vec *xs = (const dck_vec *)x;
    dck_vec *dxs = (dck_vec *)dx, sum[DCK_READERS][WAYS] = {{{0}}};
    const size_t ways = readers == 1 ? WAYS : readers == 2 ? WAYS / 2 : 1; /* as many sums as additions overlap */
    size_t v = 0;
    for (const size_t whole = floats / DCK_VECTOR / ways * ways; v < floats / DCK_VECTOR;)
#pragma GCC unroll 4
        for (size_t i = 0; i < (v < whole ? ways : 1); i++, v++) {
            dck_vec value = {0};
            if (xs)
                value = xs[v] - mean;
            dck_vec gradient = {0};
            DCK_UNROLL
            for (int r = 0; r < readers; r++) {
                const dck_vec from = ((const dck_vec *)dy[r])[v];
                gradient += from * w[r];
                if (xs)
                    sum[r][i] += from * value;
            }
            if (dxs)
                dck_put(dxs + v, gradient, how);
        }
    for (int r = 0; r < readers && xs; r++) {
        for (size_t i = 1; i < ways; i++)
            sum[r][0] += sum[r][i];
        dot[r] = dck_sum_lanes(sum[r][0]);
    }
}

DCK_INLINE void back_feature(int readers, const float *x, float mean, const float *w, const float *const *dy, float *dx,
                             dck_how how, size_t floats, float *dot)
{
    if (!x && how == DCK_ADD)
        back_chunk(readers, NULL, 0, w, dy, dx, DCK_ADD, floats, dot);
    else if (!x)
        back_chunk(readers, NULL, 0, w, dy, dx, how, floats, dot);
    else if (!dx)
        back_chunk(readers, x, mean, w, dy, NULL, DCK_SET, floats, dot);
    else if (how == DCK_ADD)
        back_chunk(readers, x, mean, w, dy, dx, DCK_ADD, floats, dot);
    else
        back_chunk(readers, x, mean, w, dy, dx, how, floats, dot);
}

static float sum_chunk(const float *dy, size_t floats)
{
    dck_vec sum = {0};
    for (size_t v = 0; v < floats / DCK_VECTOR; v++)
        sum += ((const dck_vec *)dy)[v];
    return dck_sum_lanes(sum);
}

typedef struct backward {
    int n_x, readers, blocks, threads;
    const dck_view *x, *dx;
    const dck_reader *reader;
    const bool *accumulate;
    const dck_sums *sums;
} backward;

/* Adds what a chunk is to a batch norm's sums; the first of its plane begins them. */
static void add_sums(const dck_sums *to, int channels, chunk at, int readers, const float *w, const float *total,
                     const float *dot)
{
    double *sums = to->sums + 2 * ((size_t)at.block * (size_t)channels + (size_t)at.channel);
    if (at.first == 0)
        sums[0] = sums[1] = 0;
    for (int r = 0; r < readers; r++) {
        sums[0] += (double)w[r] * (double)total[r];
        sums[1] += (double)w[r] * (double)dot[r];
    }
}

/* One chunk for every feature; dots: [n_x][readers] or NULL, added to. */
static void mix_backward_chunk(const backward *s, chunk at, double *dots)
{
    const float *dy[DCK_READERS];
    float total[DCK_READERS] = {0}, w[DCK_READERS], dot[DCK_READERS] = {0};
    for (int r = 0; r < s->readers; r++) {
        dy[r] = chunk_of(s->reader[r].dy, at);
        if (dots || s->sums)
            total[r] = sum_chunk(dy[r], at.floats);
    }
    for (int i = 0; i < s->n_x; i++) {
        const dck_sums *sums = s->sums && s->sums[i].sums ? &s->sums[i] : NULL;
        const float *x = dots || sums ? chunk_of(s->x[i], at) : NULL, mean = sums ? sums->mean[at.channel] : 0;
        float *dx = s->dx[i].data ? chunk_of(s->dx[i], at) : NULL;
        for (int r = 0; r < s->readers; r++)
            w[r] = weight_of(s->reader[r].weight, s->reader[r].index, i);
        if (!x && !dx)
            continue;
        const dck_how how = dck_how_to_write(s->dx[i], s->accumulate[i], s->blocks, s->threads);
        if (s->readers == 1)
            back_feature(1, x, mean, w, dy, dx, how, at.floats, dot);
        else if (s->readers == 2)
            back_feature(2, x, mean, w, dy, dx, how, at.floats, dot);
        else if (s->readers == 3)
            back_feature(3, x, mean, w, dy, dx, how, at.floats, dot);
        else
            back_feature(4, x, mean, w, dy, dx, how, at.floats, dot);
        if (sums)
            add_sums(sums, s->x[i].c, at, s->readers, w, total, dot);
        const double scale = scale_of(s->x[i], at.channel), shift = shift_of(s->x[i], at.channel) + scale * mean;
        for (int r = 0; dots && r < s->readers; r++)
            dots[i * s->readers + r] += scale * (double)dot[r] + shift * (double)total[r];
    }
}

size_t DCK(mix_backward_scratch_bytes)(int n_x, dck_view y, int blocks, int threads)
{
    (void)threads;
    return sizeof(double) * (size_t)n_x * DCK_READERS * ((size_t)blocks * (size_t)y.c + 1);
}

void DCK(mix_backward)(int n_x, const dck_view *x, int readers, const dck_reader *reader, const dck_view *dx,
                       const bool *accumulate, const dck_sums *sums, int blocks, void *scratch, int threads)
{
    const backward s = {n_x, readers, blocks, threads, x, dx, reader, accumulate, sums};
    const dck_view y = reader->dy;
    const int tasks = blocks * y.c, n_dots = n_x * readers;
    const bool want_dots = reader->dweight;
    double *partial = scratch, *total = partial + (size_t)n_dots * (size_t)tasks;
#pragma omp parallel num_threads(threads) if (worth_threads(y, tasks))
    {
#pragma omp for schedule(static)
        for (int t = 0; t < tasks; t++) {
            double *dots = want_dots ? partial + (size_t)t * (size_t)n_dots : NULL;
            for (int i = 0; dots && i < n_dots; i++)
                dots[i] = 0;
            for (size_t first = 0; first < dck_plane_floats(y); first += CHUNK_FLOATS)
                mix_backward_chunk(&s, chunk_at(y, t, first), dots);
            dck_settle();
        }
        if (want_dots) {
#pragma omp for schedule(static)
            for (int i = 0; i < n_dots; i++) {
                total[i] = 0;
                for (int t = 0; t < tasks; t++)
                    total[i] += partial[(size_t)t * (size_t)n_dots + (size_t)i];
            }
        }
    }
    for (int i = 0; want_dots && i < n_x; i++) /* two features may have one weight */
        for (int r = 0; r < readers; r++)
            reader[r].dweight[reader[r].index[i]] += (float)total[i * readers + r];
}
