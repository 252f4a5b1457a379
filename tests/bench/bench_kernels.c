/* Times kernels beside the machine's ceilings: bench_kernels [threads] [isa] [words that a row's name must contain]
 *
 * A row: time of one call (the best of several), GFLOP/s (a multiply-add is two) and its share of the peak, GB/s of
 * the tensors that must be read or written at least once and its share of the memory's. Batch 64 unless said. */
#include "kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { BLOCKS = 4, IMAGES = BLOCKS * DCK_LANES, REPEATS = 15 };

typedef struct bench {
    const dck_kernels *call;
    int threads;
    const char *only;
    double peak_flops, memory_bytes, cache_bytes; /* per second */
    float *pool;                                  /* all tensors are cut from here */
    size_t pool_floats, used;
} bench;

/* One thread's time is its own: what else runs on the machine counts less. */
static double now(int threads)
{
    struct timespec t;
    clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

#define BEST_TIME(seconds, threads, statement)                                                                         \
    do {                                                                                                               \
        seconds = 1e9;                                                                                                 \
        for (int repeat_ = 0; repeat_ < REPEATS; repeat_++) {                                                          \
            double start_ = now(threads);                                                                              \
            statement;                                                                                                 \
            double took_ = now(threads) - start_;                                                                      \
            seconds = took_ < seconds ? took_ : seconds;                                                               \
        }                                                                                                              \
    } while (0)

static float *take(bench *b, size_t floats)
{
    float *memory = b->pool + b->used;
    b->used += (floats + 15) / 16 * 16;
    if (b->used > b->pool_floats) {
        fprintf(stderr, "bench_kernels: the pool of %zu floats is too small\n", b->pool_floats);
        exit(1);
    }
    return memory;
}

static dck_view take_view(bench *b, int blocks, int c, int h, int w)
{
    size_t stride = (size_t)c * h * w * DCK_LANES;
    return (dck_view){take(b, blocks * stride), c, h, w, stride, NULL};
}

static void report(const bench *b, const char *kernel, const char *shape, double seconds, double flops, double bytes)
{
    printf("%-24s %-30s %9.0f %8.1f %5.0f%% %8.1f %5.0f%%\n", kernel, shape, seconds * 1e6, flops / seconds * 1e-9,
           100 * flops / seconds / b->peak_flops, bytes / seconds * 1e-9, 100 * bytes / seconds / b->memory_bytes);
}

static void measure_ceilings(bench *b)
{
    double seconds, flops = 0;
    BEST_TIME(seconds, b->threads, flops = b->call->ceiling(20000, b->threads));
    b->peak_flops = flops / seconds;
    dck_view x = take_view(b, BLOCKS, 256, 32, 32), y = take_view(b, BLOCKS, 256, 32, 32);
    BEST_TIME(seconds, b->threads, b->call->copy(x, y, false, BLOCKS, b->threads));
    b->memory_bytes = 2.0 * BLOCKS * x.stride * sizeof(float) / seconds;
    x = (dck_view){x.data, b->threads, 28, 28, (size_t)b->threads * 28 * 28 * DCK_LANES, NULL};
    y = (dck_view){x.data + x.stride, x.c, x.h, x.w, x.stride, NULL};
    BEST_TIME(seconds, b->threads, for (int i = 0; i < 100; i++) b->call->copy(x, y, false, 1, b->threads));
    b->cache_bytes = 100 * 2.0 * x.stride * sizeof(float) / seconds;
    b->used = 0;
    printf("%s, %d threads: %.0f GFLOP/s, memory %.1f GB/s, level-2 cache %.1f GB/s (copies)\n\n", b->call->isa,
           b->threads, b->peak_flops * 1e-9, b->memory_bytes * 1e-9, b->cache_bytes * 1e-9);
    printf("%-24s %-30s %9s %8s %6s %8s %6s\n", "kernel", "shape", "us", "GFLOP/s", "peak", "GB/s", "memory");
}

/* ---- convolution ---- */

typedef struct conv_case {
    const char *name;
    int in, out, size; /* square images */
    dck_conv k;
} conv_case;

static void bench_conv_case(bench *b, const conv_case *c)
{
    const dck_conv *k = &c->k;
    int reach = (k->kernel - 1) * k->dilation, out = (c->size + k->pad_begin + k->pad_end - reach - 1) / k->stride + 1;
    dck_view x = take_view(b, BLOCKS, c->in, c->size, c->size), dx = take_view(b, BLOCKS, c->in, c->size, c->size);
    dck_view y = take_view(b, BLOCKS, c->out, out, out), none = {0};
    size_t weights = (size_t)c->out * (c->in / k->groups) * k->kernel * k->kernel;
    float *w = take(b, weights), *dw = take(b, weights);
    size_t forward = b->call->conv_forward_scratch_bytes(k, x, y, BLOCKS, b->threads);
    size_t backward = b->call->conv_backward_scratch_bytes(k, x, y, BLOCKS, b->threads);
    void *scratch = take(b, (forward > backward ? forward : backward) / sizeof(float));
    double flops = 2.0 * weights * out * out * BLOCKS * DCK_LANES, seconds;
    double x_bytes = 4.0 * BLOCKS * x.stride, y_bytes = 4.0 * BLOCKS * y.stride;
    const dck_grad dy = {.dz = y};
    char shape[64], name[64];
    snprintf(shape, sizeof shape, "%d->%d %dx%d k%d s%d d%d", c->in, c->out, c->size, c->size, k->kernel, k->stride,
             k->dilation);
    BEST_TIME(seconds, b->threads,
              b->call->conv_forward(k, x, w, y, IMAGES, (dck_moments){NULL, 0}, scratch, b->threads));
    snprintf(name, sizeof name, "%s forward", c->name);
    report(b, name, shape, seconds, flops, x_bytes + y_bytes);
    BEST_TIME(seconds, b->threads,
              b->call->conv_backward(k, x, w, dy, dx, false, NULL, (dck_sums){0}, IMAGES, scratch, b->threads));
    snprintf(name, sizeof name, "%s dx", c->name);
    report(b, name, shape, seconds, flops, x_bytes * (k->relu ? 2 : 1) + y_bytes);
    BEST_TIME(seconds, b->threads,
              b->call->conv_backward(k, x, w, dy, none, false, dw, (dck_sums){0}, IMAGES, scratch, b->threads));
    snprintf(name, sizeof name, "%s dw", c->name);
    report(b, name, shape, seconds, flops, x_bytes + y_bytes);
    b->used = 0;
}

/* As a network has it: x by its affine and ReLU, y's moments, dy as batch norm leaves it; both gradients at once. */
static void bench_preprocess(bench *b, const conv_case *c)
{
    const dck_conv *k = &c->k;
    const int out = c->size / k->stride;
    dck_view x = take_view(b, BLOCKS, c->in, c->size, c->size), dx = take_view(b, BLOCKS, c->in, c->size, c->size);
    const dck_view y = take_view(b, BLOCKS, c->out, out, out), dz = take_view(b, BLOCKS, c->out, out, out);
    const size_t weights = (size_t)c->out * c->in;
    float *w = take(b, weights), *dw = take(b, weights), *factors = take(b, 3 * c->out);
    x.affine = take(b, 2 * c->in);
    const size_t parts = b->call->conv_parts(k, x, y);
    const dck_moments moments = {(double *)take(b, 4 * BLOCKS * parts * c->out), c->out};
    size_t forward = b->call->conv_forward_scratch_bytes(k, x, y, BLOCKS, b->threads);
    size_t backward = b->call->conv_backward_scratch_bytes(k, x, y, BLOCKS, b->threads);
    void *scratch = take(b, (forward > backward ? forward : backward) / sizeof(float));
    double flops = 2.0 * weights * out * out * BLOCKS * DCK_LANES, seconds;
    double x_bytes = 4.0 * BLOCKS * x.stride / k->stride / k->stride, y_bytes = 4.0 * BLOCKS * y.stride;
    char shape[64], name[64];
    snprintf(shape, sizeof shape, "%d->%d %dx%d s%d", c->in, c->out, c->size, c->size, k->stride);
    BEST_TIME(seconds, b->threads, b->call->conv_forward(k, x, w, y, IMAGES, moments, scratch, b->threads));
    snprintf(name, sizeof name, "%s forward", c->name);
    report(b, name, shape, seconds, flops, x_bytes + y_bytes);
    BEST_TIME(seconds, b->threads,
              b->call->conv_backward(k, x, w, (dck_grad){dz, y, factors}, dx, false, dw, (dck_sums){0}, IMAGES, scratch,
                                     b->threads));
    snprintf(name, sizeof name, "%s backward", c->name);
    report(b, name, shape, seconds, 2 * flops, x_bytes + 2 * y_bytes + 4.0 * BLOCKS * x.stride);
    b->used = 0;
}

#define POINTWISE(in, out, size)                                                                                       \
    {                                                                                                                  \
        "preprocess", in, out, size,                                                                                   \
        {                                                                                                              \
            1, 1, 0, 0, 1, 1, true, false                                                                              \
        }                                                                                                              \
    }

static void bench_preprocesses(bench *b)
{
    static const conv_case cases[] = {
        POINTWISE(4, 4, 32),
        POINTWISE(8, 8, 16),
        POINTWISE(16, 4, 32),
        POINTWISE(4, 16, 32),
        POINTWISE(32, 8, 16),
        POINTWISE(8, 32, 16),
        POINTWISE(64, 16, 32),
        POINTWISE(48, 16, 32),
        POINTWISE(36, 36, 32),
        POINTWISE(64, 32, 32),
        POINTWISE(144, 36, 32),
        POINTWISE(128, 32, 16),
        POINTWISE(128, 64, 16),
        POINTWISE(256, 64, 8),
        {"preprocess", 64, 16, 32, {1, 2, 0, 0, 1, 1, true, false}},
        {"preprocess", 64, 16, 32, {1, 2, -1, 1, 1, 1, true, false}},
        {"preprocess", 128, 32, 16, {1, 2, 0, 0, 1, 1, true, false}},
    };
    for (size_t i = 0; i < 2 * sizeof cases / sizeof *cases; i++) {
        conv_case c = cases[i / 2];
        c.k.bf16 = i % 2;
        c.name = c.k.bf16 ? "preprocess bf16" : c.name;
        if (strstr(c.name, b->only))
            bench_preprocess(b, &c);
    }
}

static void bench_conv(bench *b)
{
    static const conv_case cases[] = {
        {"pointwise", 4, 4, 32, {1, 1, 0, 0, 1, 1, true, false}},
        {"pointwise", 16, 4, 32, {1, 1, 0, 0, 1, 1, true, false}},
        {"pointwise", 16, 16, 32, {1, 1, 0, 0, 1, 1, true, false}},
        {"pointwise", 36, 36, 32, {1, 1, 0, 0, 1, 1, true, false}},
        {"pointwise", 64, 16, 32, {1, 1, 0, 0, 1, 1, true, false}},
        {"pointwise", 32, 32, 16, {1, 1, 0, 0, 1, 1, true, false}},
        {"pointwise", 64, 64, 8, {1, 1, 0, 0, 1, 1, true, false}},
        {"pointwise", 256, 64, 8, {1, 1, 0, 0, 1, 1, true, false}},
        {"reduce", 64, 16, 32, {1, 2, 0, 0, 1, 1, true, false}},
        {"reduce", 64, 16, 32, {1, 2, -1, 1, 1, 1, true, false}},
        {"depthwise", 4, 4, 32, {3, 1, 1, 1, 1, 4, true, false}},
        {"depthwise", 16, 16, 32, {3, 1, 1, 1, 1, 16, true, false}},
        {"depthwise", 16, 16, 32, {5, 1, 2, 2, 1, 16, true, false}},
        {"depthwise", 16, 16, 32, {3, 1, 2, 2, 2, 16, true, false}},
        {"depthwise", 16, 16, 32, {5, 1, 4, 4, 2, 16, true, false}},
        {"depthwise", 16, 16, 32, {5, 2, 2, 2, 1, 16, true, false}},
        {"depthwise", 64, 64, 8, {5, 1, 2, 2, 1, 64, true, false}},
        {"depthwise", 48, 48, 28, {3, 1, 1, 1, 1, 48, true, false}},
        {"dense", 3, 48, 32, {3, 1, 1, 1, 1, 1, false, false}},
        {"dense", 3, 24, 64, {3, 2, 1, 1, 1, 1, false, false}},
        {"dense", 16, 16, 32, {3, 1, 1, 1, 1, 1, true, false}},
        {"dense", 64, 64, 8, {3, 1, 1, 1, 1, 1, true, false}},
        {"dense", 128, 768, 2, {2, 1, 0, 0, 1, 1, true, false}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (strstr(cases[i].name, b->only))
            bench_conv_case(b, &cases[i]);
}

/* ---- what streams through memory: no operations are counted ---- */

enum { FEATURES = 8 };

typedef struct stream_case {
    const char *name;
    int channels, size; /* square images */
    void (*run)(const bench *b, const dck_view *x, float *scratch);
    int tensors; /* read or written at the least, in sizes of x */
} stream_case;

static const dck_pool pool3 = {3, 1, 1};
static const int feature_index[FEATURES] = {0, 1, 2, 3, 4, 5, 6, 7};
static const bool feature_accumulate[FEATURES] = {false};

static dck_norm norm_in(float *scratch, int c)
{
    return (dck_norm){scratch, scratch + c, scratch + 2 * c, scratch + 3 * c, 0.1f, 1e-5f, scratch + 4 * c};
}

static void run_norm_forward(const bench *b, const dck_view *x, float *scratch)
{
    dck_norm k = norm_in(scratch, x[0].c);
    b->call->norm_forward(&k, x[0], x[1], BLOCKS * DCK_LANES, true, scratch + 6 * x[0].c + 64, b->threads);
}

static void run_norm_backward(const bench *b, const dck_view *x, float *scratch)
{
    dck_norm k = norm_in(scratch, x[0].c);
    float *dgamma = scratch + 6 * x[0].c, *dbeta = scratch + 7 * x[0].c;
    b->call->norm_backward(&k, x[0], x[1], x[2], false, dgamma, dbeta, BLOCKS * DCK_LANES, scratch + 8 * x[0].c + 64,
                           b->threads);
}

static void run_relu_forward(const bench *b, const dck_view *x, float *scratch)
{
    (void)scratch;
    b->call->relu_forward(x[0], x[1], BLOCKS, b->threads);
}

static void run_max_forward(const bench *b, const dck_view *x, float *scratch)
{
    (void)scratch;
    b->call->max_pool_forward(&pool3, x[0], x[1], BLOCKS, b->threads);
}

static void run_max_backward(const bench *b, const dck_view *x, float *scratch)
{
    run_max_forward(b, x, scratch);
    b->call->max_pool_backward(&pool3, x[0], x[1], x[2], x[3], false, BLOCKS, b->threads);
}

static void run_avg_forward(const bench *b, const dck_view *x, float *scratch)
{
    (void)scratch;
    b->call->avg_pool_forward(&pool3, x[0], x[1], BLOCKS, b->threads);
}

static void run_avg_backward(const bench *b, const dck_view *x, float *scratch)
{
    (void)scratch;
    b->call->avg_pool_backward(&pool3, x[0], x[1], false, BLOCKS, b->threads);
}

static void run_mix_forward(const bench *b, const dck_view *x, float *scratch)
{
    b->call->mix_forward(FEATURES, x, scratch, feature_index, x[FEATURES], BLOCKS, b->threads);
}

static void run_mix_backward(const bench *b, const dck_view *x, float *scratch)
{
    const dck_reader reader = {x[FEATURES], scratch, feature_index, scratch + FEATURES};
    b->call->mix_backward(FEATURES, x, 1, &reader, x + FEATURES + 1, feature_accumulate, NULL, BLOCKS, scratch + 64,
                          b->threads);
}

static void run_add(const bench *b, const dck_view *x, float *scratch)
{
    (void)scratch;
    b->call->mix_forward(2, x, NULL, NULL, x[2], BLOCKS, b->threads);
}

static void bench_streams(bench *b)
{
    static const stream_case cases[] = {
        {"batch_norm forward", 4, 32, run_norm_forward, 2},
        {"batch_norm backward", 4, 32, run_norm_backward, 3},
        {"batch_norm forward", 16, 32, run_norm_forward, 2},
        {"batch_norm backward", 16, 32, run_norm_backward, 3},
        {"batch_norm forward", 64, 32, run_norm_forward, 2},
        {"batch_norm backward", 64, 32, run_norm_backward, 3},
        {"batch_norm forward", 64, 8, run_norm_forward, 2},
        {"batch_norm backward", 64, 8, run_norm_backward, 3},
        {"relu forward", 16, 32, run_relu_forward, 2},
        {"max_pool forward", 16, 32, run_max_forward, 2},
        {"max_pool both", 16, 32, run_max_backward, 6},
        {"avg_pool forward", 16, 32, run_avg_forward, 2},
        {"avg_pool backward", 16, 32, run_avg_backward, 2},
        {"max_pool both", 64, 8, run_max_backward, 6},
        {"avg_pool forward", 64, 8, run_avg_forward, 2},
        {"avg_pool backward", 64, 8, run_avg_backward, 2},
        {"mix of 8 forward", 4, 32, run_mix_forward, 9},
        {"mix of 8 backward", 4, 32, run_mix_backward, 17},
        {"mix of 8 forward", 16, 32, run_mix_forward, 9},
        {"mix of 8 backward", 16, 32, run_mix_backward, 17},
        {"add of 2 forward", 16, 32, run_add, 3},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const stream_case *c = &cases[i];
        if (!strstr(c->name, b->only))
            continue;
        dck_view x[2 * FEATURES + 1];
        for (int k = 0; k < 2 * FEATURES + 1; k++)
            x[k] = take_view(b, BLOCKS, c->channels, c->size, c->size);
        float *scratch = take(b, (size_t)1 << 20);
        double seconds;
        char shape[64];
        snprintf(shape, sizeof shape, "%d %dx%d", c->channels, c->size, c->size);
        BEST_TIME(seconds, b->threads, c->run(b, x, scratch));
        report(b, c->name, shape, seconds, 0, 4.0 * c->tensors * BLOCKS * x[0].stride);
        b->used = 0;
    }
}

int main(int argc, char **argv)
{
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    bench b = {.call = dck_kernels_for(argc > 2 && *argv[2] ? argv[2] : NULL),
               .threads = threads > 0 ? threads : 1,
               .only = argc > 3 ? argv[3] : "",
               .pool_floats = (size_t)80 << 20};
    if (!b.call || posix_memalign((void **)&b.pool, (size_t)2 << 20, b.pool_floats * sizeof(float))) {
        fprintf(stderr, "bench_kernels: this machine cannot run %s\n", argc > 2 ? argv[2] : "any kernels");
        return 1;
    }
    madvise(b.pool, b.pool_floats * sizeof(float), MADV_HUGEPAGE); /* as the backend's memory; a hint, may fail */
    for (size_t i = 0; i < b.pool_floats; i++)
        b.pool[i] = (float)(i * 2654435761u % 1000) / 1000 - 0.5f;
    measure_ceilings(&b);
    bench_conv(&b);
    bench_preprocesses(&b);
    bench_streams(&b);
    free(b.pool);
    return 0;
}
