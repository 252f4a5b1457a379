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

enum { BLOCKS = 4, REPEATS = 15 };

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
    return (dck_view){take(b, blocks * stride), c, h, w, stride};
}

static void report(const bench *b, const char *kernel, const char *shape, double seconds, double flops, double bytes)
{
    printf("%-22s %-30s %9.0f %8.1f %5.0f%% %8.1f %5.0f%%\n", kernel, shape, seconds * 1e6, flops / seconds * 1e-9,
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
    x = (dck_view){x.data, b->threads, 28, 28, (size_t)b->threads * 28 * 28 * DCK_LANES};
    y = (dck_view){x.data + x.stride, x.c, x.h, x.w, x.stride};
    BEST_TIME(seconds, b->threads, for (int i = 0; i < 100; i++) b->call->copy(x, y, false, 1, b->threads));
    b->cache_bytes = 100 * 2.0 * x.stride * sizeof(float) / seconds;
    b->used = 0;
    printf("%s, %d threads: %.0f GFLOP/s, memory %.1f GB/s, level-2 cache %.1f GB/s (copies)\n\n", b->call->isa,
           b->threads, b->peak_flops * 1e-9, b->memory_bytes * 1e-9, b->cache_bytes * 1e-9);
    printf("%-22s %-30s %9s %8s %6s %8s %6s\n", "kernel", "shape", "us", "GFLOP/s", "peak", "GB/s", "memory");
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
    dck_view y = take_view(b, BLOCKS, c->out, out, out), none = {NULL, 0, 0, 0, 0};
    size_t weights = (size_t)c->out * (c->in / k->groups) * k->kernel * k->kernel;
    float *w = take(b, weights), *dw = take(b, weights);
    size_t forward = b->call->conv_forward_scratch_bytes(k, x, y, BLOCKS, b->threads);
    size_t backward = b->call->conv_backward_scratch_bytes(k, x, y, BLOCKS, b->threads);
    void *scratch = take(b, (forward > backward ? forward : backward) / sizeof(float));
    double flops = 2.0 * weights * out * out * BLOCKS * DCK_LANES, seconds;
    double x_bytes = 4.0 * BLOCKS * x.stride, y_bytes = 4.0 * BLOCKS * y.stride;
    char shape[64], name[64];
    snprintf(shape, sizeof shape, "%d->%d %dx%d k%d s%d d%d", c->in, c->out, c->size, c->size, k->kernel, k->stride,
             k->dilation);
    BEST_TIME(seconds, b->threads, b->call->conv_forward(k, x, w, y, BLOCKS, scratch, b->threads));
    snprintf(name, sizeof name, "%s forward", c->name);
    report(b, name, shape, seconds, flops, x_bytes + y_bytes);
    BEST_TIME(seconds, b->threads, b->call->conv_backward(k, x, w, y, dx, false, NULL, BLOCKS, scratch, b->threads));
    snprintf(name, sizeof name, "%s dx", c->name);
    report(b, name, shape, seconds, flops, x_bytes * (k->relu ? 2 : 1) + y_bytes);
    BEST_TIME(seconds, b->threads, b->call->conv_backward(k, x, w, y, none, false, dw, BLOCKS, scratch, b->threads));
    snprintf(name, sizeof name, "%s dw", c->name);
    report(b, name, shape, seconds, flops, x_bytes + y_bytes);
    b->used = 0;
}

static void bench_conv(bench *b)
{
    static const conv_case cases[] = {
        {"pointwise", 4, 4, 32, {1, 1, 0, 0, 1, 1, true}},    {"pointwise", 16, 4, 32, {1, 1, 0, 0, 1, 1, true}},
        {"pointwise", 16, 16, 32, {1, 1, 0, 0, 1, 1, true}},  {"pointwise", 36, 36, 32, {1, 1, 0, 0, 1, 1, true}},
        {"pointwise", 64, 16, 32, {1, 1, 0, 0, 1, 1, true}},  {"pointwise", 32, 32, 16, {1, 1, 0, 0, 1, 1, true}},
        {"pointwise", 64, 64, 8, {1, 1, 0, 0, 1, 1, true}},   {"pointwise", 256, 64, 8, {1, 1, 0, 0, 1, 1, true}},
        {"reduce", 64, 16, 32, {1, 2, 0, 0, 1, 1, true}},     {"reduce", 64, 16, 32, {1, 2, -1, 1, 1, 1, true}},
        {"depthwise", 4, 4, 32, {3, 1, 1, 1, 1, 4, true}},    {"depthwise", 16, 16, 32, {3, 1, 1, 1, 1, 16, true}},
        {"depthwise", 16, 16, 32, {5, 1, 2, 2, 1, 16, true}}, {"depthwise", 16, 16, 32, {3, 1, 2, 2, 2, 16, true}},
        {"depthwise", 16, 16, 32, {5, 1, 4, 4, 2, 16, true}}, {"depthwise", 16, 16, 32, {5, 2, 2, 2, 1, 16, true}},
        {"depthwise", 64, 64, 8, {5, 1, 2, 2, 1, 64, true}},  {"depthwise", 48, 48, 28, {3, 1, 1, 1, 1, 48, true}},
        {"dense", 3, 48, 32, {3, 1, 1, 1, 1, 1, false}},      {"dense", 3, 24, 64, {3, 2, 1, 1, 1, 1, false}},
        {"dense", 16, 16, 32, {3, 1, 1, 1, 1, 1, true}},      {"dense", 64, 64, 8, {3, 1, 1, 1, 1, 1, true}},
        {"dense", 128, 768, 2, {2, 1, 0, 0, 1, 1, true}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (strstr(cases[i].name, b->only))
            bench_conv_case(b, &cases[i]);
}

int main(int argc, char **argv)
{
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    bench b = {.call = dck_kernels_for(argc > 2 && *argv[2] ? argv[2] : NULL),
               .threads = threads > 0 ? threads : 1,
               .only = argc > 3 ? argv[3] : "",
               .pool_floats = (size_t)48 << 20};
    if (!b.call || posix_memalign((void **)&b.pool, (size_t)2 << 20, b.pool_floats * sizeof(float))) {
        fprintf(stderr, "bench_kernels: this machine cannot run %s\n", argc > 2 ? argv[2] : "any kernels");
        return 1;
    }
    madvise(b.pool, b.pool_floats * sizeof(float), MADV_HUGEPAGE); /* as the backend's memory; a hint, may fail */
    for (size_t i = 0; i < b.pool_floats; i++)
        b.pool[i] = (float)(i * 2654435761u % 1000) / 1000 - 0.5f;
    measure_ceilings(&b);
    bench_conv(&b);
    free(b.pool);
    return 0;
}
