#include "backend/cpu/cpu_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* An optimizer's segments above this size are shared by the threads; smaller ones go to one thread each. */
enum { LARGE_SEGMENT = 1 << 17, SERIAL_FLOATS = 1 << 15, N_GROUPS = 64 };

static dc_cpu_backend *cpu_of(dc_backend *backend)
{
    return (dc_cpu_backend *)backend;
}

/* ---- memory ---- */

static const size_t HUGE_PAGE_BYTES = (size_t)2 << 20, PAGE_BYTES = 4096;

static size_t whole_pages(size_t bytes, size_t page)
{
    return bytes ? (bytes + page - 1) / page * page : page;
}

/* Fresh from the kernel, which has cleared it, and aligned: what is too much before and behind is given back. */
static char *map_pages(size_t rounded)
{
    char *p = mmap(NULL, rounded + HUGE_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    const size_t before = (HUGE_PAGE_BYTES - (uintptr_t)p % HUGE_PAGE_BYTES) % HUGE_PAGE_BYTES;
    if (before)
        munmap(p, before);
    munmap(p + before + rounded, HUGE_PAGE_BYTES - before);
    return p + before;
}

/* Large memory lies on huge pages (a step touches gigabytes: with small pages, address translation would cost more than
 * the data), and every page is touched here, by all threads, not in the first step. */
static dc_status cpu_alloc(dc_backend *backend, size_t bytes, void **memory)
{
    const bool large = bytes >= HUGE_PAGE_BYTES;
    const size_t rounded = whole_pages(bytes, large ? HUGE_PAGE_BYTES : 64);
    char *p = large ? map_pages(rounded) : aligned_alloc(64, rounded);
    if (!p)
        return dc_fail(DC_ERR_MEMORY, "out of memory: %zu bytes were refused", bytes);
    if (large) {
        madvise(p, rounded, MADV_HUGEPAGE); /* a wish: small pages work as well */
#pragma omp parallel for schedule(static) num_threads(cpu_of(backend)->threads)
        for (size_t at = 0; at < rounded; at += PAGE_BYTES)
            *(volatile char *)(p + at) = 0;
    } else {
        memset(p, 0, rounded);
    }
    *memory = p;
    return DC_OK;
}

static void cpu_release(dc_backend *backend, void *memory, size_t bytes)
{
    (void)backend;
    if (memory && bytes >= HUGE_PAGE_BYTES)
        munmap(memory, whole_pages(bytes, HUGE_PAGE_BYTES));
    else
        free(memory);
}

static dc_status cpu_copy(dc_backend *backend, void *to, const void *from, size_t bytes)
{
    (void)backend;
    memcpy(to, from, bytes);
    return DC_OK;
}

static dc_status cpu_fill_zero(dc_backend *backend, void *device, size_t bytes)
{
    (void)backend;
    memset(device, 0, bytes);
    return DC_OK;
}

static dc_status cpu_sync(dc_backend *backend)
{
    (void)backend;
    return DC_OK;
}

static dc_status cpu_write(dc_backend *backend, dc_view view, int n_images, const float *nchw)
{
    cpu_of(backend)->kernels->from_nchw(nchw, n_images, lanes(view));
    return DC_OK;
}

static dc_status cpu_read(dc_backend *backend, dc_view view, int n_images, float *nchw)
{
    const size_t plane = (size_t)view.shape.h * (size_t)view.shape.w;
    cpu_of(backend)->kernels->to_nchw(lanes(view), n_images, nchw);
    for (size_t i = 0, n = view.affine ? (size_t)n_images * (size_t)view.shape.c * plane : 0; i < n; i++) {
        const float *affine = view.affine + 2 * (i / plane % (size_t)view.shape.c);
        nchw[i] = affine[0] * nchw[i] + affine[1];
    }
    return DC_OK;
}

/* ---- kernels ---- */

static dc_status cpu_prepare(dc_backend *backend, const dc_graph *graph, int node, int batch, bool relu_input,
                             dc_kernel **kernel)
{
    DC_TRY(dc_kernels_prepare(&cpu_of(backend)->prepared, graph, node, batch, relu_input, kernel));
    (*kernel)->conv.bf16 = cpu_of(backend)->bf16;
    return DC_OK;
}

static const dc_cpu_op *op_of(const dc_kernel *kernel)
{
    return &dc_cpu_ops[kernel->op];
}

static dc_status cpu_forward(dc_backend *backend, const dc_kernel *kernel, const dc_kernel_args *args)
{
    op_of(kernel)->forward(cpu_of(backend), kernel, args);
    return DC_OK;
}

static dc_status cpu_backward(dc_backend *backend, const dc_kernel *kernel, const dc_kernel_args *args)
{
    op_of(kernel)->backward(cpu_of(backend), kernel, args);
    return DC_OK;
}

/* As this backend will run it. */
static void describe(const dc_cpu_backend *b, const dc_graph *graph, int node, int batch, bool relu_input,
                     dc_kernel *kernel)
{
    dc_kernel_describe(graph, node, batch, relu_input, kernel);
    kernel->conv.bf16 = b->bf16;
}

/* Of a convolution with the one that it reads; 0: there is none, or they cannot be computed together. */
static size_t fused_scratch_bytes(const dc_cpu_backend *b, const dc_graph *graph, const dc_kernel *outer, int node)
{
    const int x = graph->nodes[node].op == DC_OP_CONV ? graph->nodes[node].inputs[0] : -1;
    dc_kernel inner;
    if (x < 0 || graph->nodes[x].op != DC_OP_CONV)
        return 0;
    describe(b, graph, x, 1, false, &inner);
    return dc_cpu_fused_scratch_bytes(b, &inner, outer);
}

static bool cpu_fuses(const void *context, const dc_graph *graph, int node)
{
    dc_kernel kernel;
    describe(context, graph, node, 1, false, &kernel);
    return fused_scratch_bytes(context, graph, &kernel, node) > 0;
}

static void cpu_extra(const void *context, const dc_graph *graph, int node, int batch, bool relu_input,
                      size_t *saved_bytes, size_t *forward_scratch_bytes, size_t *backward_scratch_bytes)
{
    dc_kernel kernel;
    dc_cpu_extra extra = {0};
    describe(context, graph, node, batch, relu_input, &kernel);
    if (op_of(&kernel)->extra)
        op_of(&kernel)->extra(context, &kernel, &extra);
    const size_t fused = fused_scratch_bytes(context, graph, &kernel, node);
    if (extra.forward_scratch_bytes < fused)
        extra.forward_scratch_bytes = fused;
    *saved_bytes = extra.saved_bytes;
    *forward_scratch_bytes = extra.forward_scratch_bytes;
    *backward_scratch_bytes = extra.backward_scratch_bytes;
}

static bool cpu_takes_norm(const void *context, const dc_graph *graph, int node)
{
    dc_kernel kernel;
    describe(context, graph, node, 1, false, &kernel);
    return dc_cpu_takes_norm(context, &kernel);
}

static dc_plan_sums cpu_sums_gradient(const void *context, const dc_graph *graph, int node, bool relu_input)
{
    dc_kernel kernel;
    switch (graph->nodes[node].op) {
    case DC_OP_MIX:
        return DC_SUMS_ALONE;
    case DC_OP_DROP_PATH:
        return DC_SUMS_LAST;
    case DC_OP_CONV:
        describe(context, graph, node, 1, relu_input, &kernel);
        return dc_cpu_sums_gradient(context, &kernel) ? DC_SUMS_LAST : DC_SUMS_NONE;
    default:
        return DC_SUMS_NONE;
    }
}

static bool cpu_joins(const void *context, const dc_graph *graph, int n, const int *nodes)
{
    dc_kernel kernels[DC_MAX_SIBLINGS];
    for (int i = 0; i < n; i++)
        describe(context, graph, nodes[i], 1, false, &kernels[i]);
    return dc_cpu_joins(context, n, kernels);
}

/* A depthwise convolution costs less than the memory that its output takes until backward. */
static bool cpu_recomputes(const void *context, const dc_graph *graph, int node)
{
    (void)context;
    dc_kernel kernel;
    dc_kernel_describe(graph, node, 1, false, &kernel);
    return dc_kernel_is_depthwise(&kernel);
}

/* ---- optimizers: every element is its own, so any division of the work gives the same numbers ---- */

/* True when the segments that are not large are worth waking other threads for. */
static bool worth_threads(int n, const dc_segment *segments)
{
    size_t total = 0;
    for (int i = 0; i < n; i++)
        total += segments[i].count < LARGE_SEGMENT ? segments[i].count : 0;
    return total > SERIAL_FLOATS;
}

static void adam_segment(const dc_cpu_backend *cpu, const dc_segment *s, const dc_adam *o, int threads)
{
    cpu->kernels->adam(s->value, s->grad, s->first, s->second, s->count, o->learning_rate, o->beta1, o->beta2,
                       o->epsilon, o->weight_decay, o->step, threads);
}

static dc_status cpu_adam(dc_backend *backend, int n, const dc_segment *segments, const dc_adam *adam)
{
    const dc_cpu_backend *cpu = cpu_of(backend);
    for (int i = 0; i < n; i++)
        if (segments[i].count >= LARGE_SEGMENT)
            adam_segment(cpu, &segments[i], adam, cpu->threads);
#pragma omp parallel for schedule(dynamic, 4) num_threads(cpu->threads) if (worth_threads(n, segments))
    for (int i = 0; i < n; i++)
        if (segments[i].count < LARGE_SEGMENT)
            adam_segment(cpu, &segments[i], adam, 1);
    return DC_OK;
}

static double norm_squared(const dc_cpu_backend *cpu, int n, const dc_segment *segments)
{
    double groups[N_GROUPS] = {0}; /* a fixed division of the small segments: the same sum for any number of threads */
#pragma omp parallel for schedule(dynamic, 1) num_threads(cpu->threads) if (worth_threads(n, segments))
    for (int g = 0; g < N_GROUPS; g++)
        for (int i = (int)((int64_t)n * g / N_GROUPS); i < (int)((int64_t)n * (g + 1) / N_GROUPS); i++)
            if (segments[i].count < LARGE_SEGMENT)
                groups[g] += cpu->kernels->sum_squares(segments[i].grad, segments[i].count, 1);
    double total = 0;
    for (int g = 0; g < N_GROUPS; g++)
        total += groups[g];
    for (int i = 0; i < n; i++)
        if (segments[i].count >= LARGE_SEGMENT)
            total += cpu->kernels->sum_squares(segments[i].grad, segments[i].count, cpu->threads);
    return total;
}

static void sgd_segment(const dc_cpu_backend *cpu, const dc_segment *s, const dc_sgd *o, float scale, int threads)
{
    cpu->kernels->sgd(s->value, s->grad, s->first, s->count, o->learning_rate, o->momentum, o->weight_decay,
                      o->nesterov, scale, threads);
}

static dc_status cpu_sgd(dc_backend *backend, int n, const dc_segment *segments, const dc_sgd *sgd, double *norm_out)
{
    const dc_cpu_backend *cpu = cpu_of(backend);
    const double norm = sqrt(norm_squared(cpu, n, segments));
    if (!isfinite(norm))
        return dc_backend_diverged((double)sgd->learning_rate);
    const float scale = dc_clip_scale(norm, (double)sgd->clip);
    if (norm_out)
        *norm_out = norm;
    for (int i = 0; i < n; i++)
        if (segments[i].count >= LARGE_SEGMENT)
            sgd_segment(cpu, &segments[i], sgd, scale, cpu->threads);
#pragma omp parallel for schedule(dynamic, 4) num_threads(cpu->threads) if (worth_threads(n, segments))
    for (int i = 0; i < n; i++)
        if (segments[i].count < LARGE_SEGMENT)
            sgd_segment(cpu, &segments[i], sgd, scale, 1);
    return DC_OK;
}

static dc_status cpu_blend(dc_backend *backend, float *y, const float *x, size_t count, float a, float b)
{
    const dc_cpu_backend *cpu = cpu_of(backend);
    cpu->kernels->blend(y, x, count, a, b, cpu->threads);
    return DC_OK;
}

static dc_status cpu_add(dc_backend *backend, float *y, const float *host, size_t count)
{
    (void)backend;
    for (size_t i = 0; i < count; i++)
        y[i] += host[i];
    return DC_OK;
}

/* ---- making ---- */

static void cpu_destroy(dc_backend *backend)
{
    dc_cpu_backend *cpu = cpu_of(backend);
    dc_kernels_clear(&cpu->prepared);
    free(cpu);
}

static const dc_backend_interface interface = {
    .name = "cpu",
    .destroy = cpu_destroy,
    .alloc = cpu_alloc,
    .release = cpu_release,
    .copy_in = cpu_copy,
    .copy_out = cpu_copy,
    .fill_zero = cpu_fill_zero,
    .sync = cpu_sync,
    .prepare = cpu_prepare,
    .forward = cpu_forward,
    .backward = cpu_backward,
    .write = cpu_write,
    .read = cpu_read,
    .sgd = cpu_sgd,
    .adam = cpu_adam,
    .blend = cpu_blend,
    .add = cpu_add,
};

static dc_status refuse_isa(const char *isa)
{
    static const char *const names[] = {"avx512_bf16", "avx512", "avx2", "portable"};
    char runs[64] = "";
    bool known = false;
    for (int i = 0; i < 4; i++) {
        known |= !strcmp(isa, names[i]);
        size_t used = strlen(runs);
        if (dck_kernels_for(names[i]))
            snprintf(runs + used, sizeof runs - used, "%s%s", used ? ", " : "", names[i]);
    }
    return dc_fail(DC_ERR_INPUT, "instruction set '%s' (DCANAS_ISA) %s; this machine runs: %s", isa,
                   known ? "is not one that this machine has" : "is not known", runs);
}

/* All that may. */
static bool cpu_reads_deferred(const void *context, const dc_graph *graph, int node, bool relu_input)
{
    (void)context, (void)graph, (void)node, (void)relu_input;
    return true;
}

dc_status dc_cpu_backend_create_isa(const char *isa, int threads, dc_precision precision, dc_backend **backend)
{
    if (threads < 1)
        return dc_fail(DC_ERR_INPUT, "%d threads: a rank needs at least 1", threads);
    const dck_kernels *kernels = dck_kernels_for(isa);
    if (!kernels)
        return refuse_isa(isa);
    dc_cpu_backend *cpu = dc_alloc_zeroed(sizeof *cpu);
    if (!cpu)
        return DC_ERR_MEMORY;
    cpu->kernels = kernels;
    cpu->threads = threads;
    cpu->bf16 = precision == DC_PRECISION_BF16;
    cpu->base.call = &interface;
    cpu->base.layout = (dc_plan_layout){.lane = DCK_LANES,
                                        .chains_mixes = true,
                                        .sums_gradient = cpu_sums_gradient,
                                        .folds_relu = true,
                                        .concat_views = true,
                                        .reads_deferred = cpu_reads_deferred,
                                        .takes_norm = cpu_takes_norm,
                                        .joins = cpu_joins,
                                        .recomputes = cpu_recomputes,
                                        .fuses = cpu_fuses,
                                        .extra = cpu_extra,
                                        .context = cpu};
    snprintf(cpu->base.description, sizeof cpu->base.description, "cpu %s, %d thread%s%s", kernels->isa, threads,
             threads == 1 ? "" : "s", cpu->bf16 ? ", products of bf16" : "");
    *backend = &cpu->base;
    return DC_OK;
}

dc_status dc_cpu_backend_create(int threads, dc_precision precision, dc_backend **backend)
{
    const char *isa = getenv("DCANAS_ISA");
    return dc_cpu_backend_create_isa(isa && *isa ? isa : NULL, threads, precision, backend);
}
