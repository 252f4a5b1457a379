#include "tests/support/reference_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct reference_backend {
    dc_backend base;
    dc_kernel *kernels; /* all that were prepared, to be freed */
} reference_backend;

static dc_status reference_alloc(dc_backend *backend, size_t bytes, void **memory)
{
    (void)backend;
    size_t rounded = (bytes + 63) / 64 * 64 + 64;
    *memory = aligned_alloc(64, rounded);
    if (!*memory)
        return dc_fail(DC_ERR_MEMORY, "out of memory: %zu bytes were refused", bytes);
    memset(*memory, 0, rounded);
    return DC_OK;
}

static void reference_release(dc_backend *backend, void *memory, size_t bytes)
{
    (void)backend, (void)bytes;
    free(memory);
}

static dc_status reference_copy(dc_backend *backend, void *to, const void *from, size_t bytes)
{
    (void)backend;
    memcpy(to, from, bytes);
    return DC_OK;
}

static dc_status reference_fill_zero(dc_backend *backend, void *device, size_t bytes)
{
    (void)backend;
    memset(device, 0, bytes);
    return DC_OK;
}

static dc_status reference_sync(dc_backend *backend)
{
    (void)backend;
    return DC_OK;
}

static dc_status reference_prepare(dc_backend *backend, const dc_graph *graph, int node, int batch, bool relu_input,
                                   dc_kernel **kernel)
{
    (void)batch;
    reference_backend *reference = (reference_backend *)backend;
    dc_kernel *k = dc_alloc_zeroed(sizeof *k);
    if (!k)
        return DC_ERR_MEMORY;
    k->op = graph->nodes[node].op;
    k->attr = graph->nodes[node].attr;
    k->relu = relu_input;
    k->stream = dc_rng_stream(graph->nodes[node].name);
    k->next = reference->kernels;
    reference->kernels = *kernel = k;
    return DC_OK;
}

static dc_status reference_run_forward(dc_backend *backend, const dc_kernel *kernel, const dc_kernel_args *args)
{
    (void)backend;
    dc_reference_forward[kernel->op](kernel, args);
    return DC_OK;
}

static dc_status reference_run_backward(dc_backend *backend, const dc_kernel *kernel, const dc_kernel_args *args)
{
    (void)backend;
    dc_reference_backward[kernel->op](kernel, args);
    return DC_OK;
}

static size_t image_floats(dc_view v)
{
    return (size_t)v.shape.c * (size_t)v.shape.h * (size_t)v.shape.w;
}

static dc_status reference_write(dc_backend *backend, dc_view view, int n_images, const float *nchw)
{
    (void)backend;
    for (int n = 0; n < n_images; n++)
        memcpy(view.data + (size_t)n * view.stride, nchw + (size_t)n * image_floats(view),
               image_floats(view) * sizeof(float));
    return DC_OK;
}

static dc_status reference_read(dc_backend *backend, dc_view view, int n_images, float *nchw)
{
    (void)backend;
    for (int n = 0; n < n_images; n++)
        memcpy(nchw + (size_t)n * image_floats(view), view.data + (size_t)n * view.stride,
               image_floats(view) * sizeof(float));
    return DC_OK;
}

static double norm_of(int n, const dc_segment *segments)
{
    double sum = 0;
    for (int s = 0; s < n; s++)
        for (size_t i = 0; i < segments[s].count; i++)
            sum += (double)segments[s].grad[i] * (double)segments[s].grad[i];
    return sqrt(sum);
}

static dc_status reference_sgd(dc_backend *backend, int n, const dc_segment *segments, const dc_sgd *o,
                               double *norm_out)
{
    (void)backend;
    const double norm = norm_of(n, segments), scale = (double)dc_clip_scale(norm, (double)o->clip);
    if (!isfinite(norm))
        return dc_backend_diverged((double)o->learning_rate);
    if (norm_out)
        *norm_out = norm;
    for (int s = 0; s < n; s++)
        for (size_t i = 0; i < segments[s].count; i++) {
            double value = (double)segments[s].value[i], momentum = (double)o->momentum;
            double g = (double)segments[s].grad[i] * scale + (double)o->weight_decay * value;
            double v = momentum * (double)segments[s].first[i] + g;
            segments[s].first[i] = (float)v;
            segments[s].value[i] = (float)(value - (double)o->learning_rate * (o->nesterov ? g + momentum * v : v));
        }
    return DC_OK;
}

static dc_status reference_adam(dc_backend *backend, int n, const dc_segment *segments, const dc_adam *o)
{
    (void)backend;
    double beta1 = (double)o->beta1, beta2 = (double)o->beta2;
    for (int s = 0; s < n; s++)
        for (size_t i = 0; i < segments[s].count; i++) {
            double value = (double)segments[s].value[i];
            double g = (double)segments[s].grad[i] + (double)o->weight_decay * value;
            double m = beta1 * (double)segments[s].first[i] + (1 - beta1) * g;
            double v = beta2 * (double)segments[s].second[i] + (1 - beta2) * g * g;
            segments[s].first[i] = (float)m;
            segments[s].second[i] = (float)v;
            double m_hat = m / (1 - pow(beta1, o->step)), v_hat = v / (1 - pow(beta2, o->step));
            segments[s].value[i] =
                (float)(value - (double)o->learning_rate * m_hat / (sqrt(v_hat) + (double)o->epsilon));
        }
    return DC_OK;
}

static dc_status reference_blend(dc_backend *backend, float *y, const float *x, size_t count, float a, float b)
{
    (void)backend;
    for (size_t i = 0; i < count; i++)
        y[i] = (float)((double)a * (double)x[i] + (double)b * (double)y[i]);
    return DC_OK;
}

static dc_status reference_add(dc_backend *backend, float *y, const float *host, size_t count)
{
    (void)backend;
    for (size_t i = 0; i < count; i++)
        y[i] += host[i];
    return DC_OK;
}

static void reference_destroy(dc_backend *backend)
{
    for (dc_kernel *k = ((reference_backend *)backend)->kernels; k;) {
        dc_kernel *next = k->next;
        free(k);
        k = next;
    }
    free(backend);
}

static void reference_extra(const void *context, const dc_graph *graph, int node, int batch, bool relu_input,
                            size_t *saved_bytes, size_t *forward_scratch_bytes, size_t *backward_scratch_bytes)
{
    (void)context, (void)relu_input;
    const dc_node *n = &graph->nodes[node];
    *saved_bytes = *forward_scratch_bytes = *backward_scratch_bytes = 0;
    if (n->op == DC_OP_BATCH_NORM)
        *saved_bytes = 2 * (size_t)n->shape.c * sizeof(double);
    if (n->op == DC_OP_CROSS_ENTROPY)
        *saved_bytes = (size_t)batch * (size_t)graph->nodes[n->inputs[0]].shape.c * sizeof(double);
}

static const dc_backend_interface interface = {
    .name = "reference",
    .destroy = reference_destroy,
    .alloc = reference_alloc,
    .release = reference_release,
    .copy_in = reference_copy,
    .copy_out = reference_copy,
    .fill_zero = reference_fill_zero,
    .sync = reference_sync,
    .prepare = reference_prepare,
    .forward = reference_run_forward,
    .backward = reference_run_backward,
    .write = reference_write,
    .read = reference_read,
    .sgd = reference_sgd,
    .adam = reference_adam,
    .blend = reference_blend,
    .add = reference_add,
};

dc_status dc_reference_backend_create(dc_backend **backend)
{
    reference_backend *reference = dc_alloc_zeroed(sizeof *reference);
    if (!reference)
        return DC_ERR_MEMORY;
    reference->base.call = &interface;
    reference->base.layout = (dc_plan_layout){.lane = 1, .extra = reference_extra};
    snprintf(reference->base.description, sizeof reference->base.description, "reference");
    *backend = &reference->base;
    return DC_OK;
}
