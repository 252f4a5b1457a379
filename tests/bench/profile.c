#include "profile.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_KERNELS = 4096, MAX_KINDS = 512 };

typedef struct kind {
    char name[64];
    long calls;
    double forward_s, backward_s;
} kind;

/* The backend's own interface, the watched one, and what has been measured. */
static const dc_backend_interface *inner;
static dc_backend_interface watched;
static struct {
    const dc_kernel *kernel;
    int kind;
} kernels[MAX_KERNELS];
static int n_kernels, n_kinds;
static bool with_shapes;
static kind kinds[MAX_KINDS];

static int find_kind(const char *name)
{
    int i = 0;
    while (i < n_kinds && strcmp(kinds[i].name, name) != 0)
        i++;
    if (i == MAX_KINDS)
        abort();
    if (i == n_kinds)
        snprintf(kinds[n_kinds++].name, sizeof kinds[0].name, "%s", name);
    return i;
}

static void name_of(const dc_graph *graph, int node, char name[64])
{
    const dc_node *n = &graph->nodes[node];
    const dc_attr *a = &n->attr;
    int length;
    if (n->op == DC_OP_CONV) {
        bool depthwise = a->groups > 1 && a->groups == graph->nodes[n->inputs[0]].shape.c;
        length = snprintf(name, 64, "%s %dx%d%s%s", depthwise ? "depthwise conv" : "conv", a->kernel, a->kernel,
                          a->dilation > 1 ? " dilated" : "", a->stride > 1 ? " strided" : "");
    } else {
        length = snprintf(name, 64, "%s", dc_op_name(n->op));
    }
    if (with_shapes && n->n_inputs > 0)
        snprintf(name + length, 64 - (size_t)length, " %d->%d %dx%d", graph->nodes[n->inputs[0]].shape.c, n->shape.c,
                 n->shape.h, n->shape.w);
}

static dc_status prepare(dc_backend *backend, const dc_graph *graph, int node, int batch, bool relu_input,
                         dc_kernel **kernel)
{
    dc_status status = inner->prepare(backend, graph, node, batch, relu_input, kernel);
    int i = 0;
    while (i < n_kernels && kernels[i].kernel != *kernel)
        i++;
    if (status == DC_OK && i == n_kernels && n_kernels < MAX_KERNELS) {
        char name[64];
        name_of(graph, node, name);
        kernels[n_kernels].kernel = *kernel;
        kernels[n_kernels++].kind = find_kind(name);
    }
    return status;
}

static kind *kind_of(const dc_kernel *kernel)
{
    int i = 0;
    while (i < n_kernels && kernels[i].kernel != kernel)
        i++;
    if (i == n_kernels)
        abort();
    return &kinds[kernels[i].kind];
}

static dc_status forward(dc_backend *backend, const dc_kernel *kernel, const dc_kernel_args *args)
{
    kind *k = kind_of(kernel);
    double start = dc_clock_seconds();
    dc_status status = inner->forward(backend, kernel, args);
    k->forward_s += dc_clock_seconds() - start;
    k->calls++;
    return status;
}

static dc_status backward(dc_backend *backend, const dc_kernel *kernel, const dc_kernel_args *args)
{
    kind *k = kind_of(kernel);
    double start = dc_clock_seconds();
    dc_status status = inner->backward(backend, kernel, args);
    k->backward_s += dc_clock_seconds() - start;
    k->calls++;
    return status;
}

/* Optimizers stand in the table as backward work. */
#define WATCH_OPTIMIZER(name, call)                                                                                    \
    do {                                                                                                               \
        kind *k_ = &kinds[find_kind(name)];                                                                            \
        double start_ = dc_clock_seconds();                                                                            \
        dc_status status_ = call;                                                                                      \
        k_->backward_s += dc_clock_seconds() - start_;                                                                 \
        k_->calls++;                                                                                                   \
        return status_;                                                                                                \
    } while (0)

static dc_status sgd(dc_backend *backend, int n, const dc_segment *segments, const dc_sgd *options, double *norm)
{
    WATCH_OPTIMIZER("SGD with norm", inner->sgd(backend, n, segments, options, norm));
}

static dc_status adam(dc_backend *backend, int n, const dc_segment *segments, const dc_adam *options)
{
    WATCH_OPTIMIZER("Adam", inner->adam(backend, n, segments, options));
}

void profile_attach(dc_backend *backend, bool shapes)
{
    with_shapes = shapes;
    inner = backend->call;
    watched = *inner;
    watched.prepare = prepare;
    watched.forward = forward;
    watched.backward = backward;
    watched.sgd = sgd;
    watched.adam = adam;
    backend->call = &watched;
}

void profile_reset(void)
{
    for (int i = 0; i < n_kinds; i++) {
        kinds[i].calls = 0;
        kinds[i].forward_s = kinds[i].backward_s = 0;
    }
}

static int slower_first(const void *a, const void *b)
{
    const kind *x = a, *y = b;
    double s = x->forward_s + x->backward_s, t = y->forward_s + y->backward_s;
    return (s < t) - (s > t);
}

void profile_print(FILE *out, int steps, double step_s)
{
    kind sorted[MAX_KINDS];
    double sum = 0, scale = 1e3 / steps;
    memcpy(sorted, kinds, sizeof sorted);
    qsort(sorted, (size_t)n_kinds, sizeof sorted[0], slower_first);
    fprintf(out, "  %-44s %8s %12s %13s %7s\n", "operation", "calls", "forward ms", "backward ms", "share");
    for (int i = 0; i < n_kinds; i++) {
        const kind *k = &sorted[i];
        double both = k->forward_s + k->backward_s;
        if (k->calls == 0)
            continue;
        sum += both;
        fprintf(out, "  %-44s %8.0f %12.2f %13.2f %6.1f%%\n", k->name, (double)k->calls / steps, k->forward_s * scale,
                k->backward_s * scale, 100 * both / steps / step_s);
    }
    fprintf(out, "  %-44s %8s %26.2f %6.1f%%\n\n", "outside of all kernels", "", 1e3 * step_s - sum * scale,
            100 * (1 - sum / steps / step_s));
}
