#include "rig.h"

#include "kernels.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const double tolerance_of_values = 1e-4;

void rig_ok(dc_status status)
{
    if (status != DC_OK)
        fail_msg("status %d: %s", (int)status, dc_status_message());
}

bool rig_runs(const char *isa)
{
    char what[192];
    const char *only = getenv("DCANAS_TEST_DEVICE");
    if (only) /* where it is missing, making it fails */
        return strcmp(only, isa) == 0;
    return strcmp(isa, "cuda") == 0 ? dc_backend_gpus(what, sizeof what) > 0 : dck_kernels_for(isa) != NULL;
}

dc_backend *rig_backend(const char *isa)
{
    dc_backend *backend = NULL;
    const bool gpu = strcmp(isa, "cuda") == 0;
    if (!gpu)
        setenv("DCANAS_ISA", isa, 1);
    rig_ok(dc_backend_create(gpu ? "cuda" : "cpu", &(dc_backend_options){.threads = 2}, &backend));
    return backend;
}

static size_t elements(const dc_graph *graph, int node)
{
    dc_shape s = graph->nodes[node].shape;
    return (size_t)s.c * (size_t)s.h * (size_t)s.w;
}

/* Room on the host for the largest thing that is compared. */
static size_t largest(const dc_graph *graph, const dc_params *params, int batch)
{
    size_t most = 0;
    for (int i = 0; i < graph->n_nodes; i++) {
        size_t count = elements(graph, i) * (size_t)batch;
        most = count > most ? count : most;
    }
    for (int i = 0; i < params->n; i++)
        most = params->items[i].param.count > most ? params->items[i].param.count : most;
    return most;
}

rig *rig_create(const char *isa, dc_graph *training, dc_graph *inference, const dc_graph *also, int batch, int classes,
                int keep)
{
    dc_backend *backend = rig_backend(isa);
    assert_non_null(strstr(dc_backend_description(backend), isa));
    return rig_create_on(backend, training, inference, also, batch, classes, keep);
}

rig *rig_create_on(dc_backend *backend, dc_graph *training, dc_graph *inference, const dc_graph *also, int batch,
                   int classes, int keep)
{
    rig *r = calloc(1, sizeof *r);
    assert_non_null(r);
    r->batch = batch;
    r->classes = classes;
    r->backend = backend;
    rig_ok(dc_params_create(r->backend, &r->params));
    if (also)
        rig_ok(dc_params_add_graph(r->params, also));
    rig_ok(dc_params_add_graph(r->params, training));
    rig_ok(dc_params_allocate(r->params, 1));
    golden_fill_params(r->params);
    r->host = malloc(largest(training, r->params, batch) * sizeof *r->host);
    assert_non_null(r->host);
    r->arena.backend = r->backend;
    size_t lane = (size_t)r->backend->layout.lane, blocks = ((size_t)batch + lane - 1) / lane;
    size_t image = elements(training, training->input);
    r->step = (dc_step){.images = {.shape = training->nodes[training->input].shape, .stride = image * lane},
                        .n_images = batch,
                        .momentum = 0.1f};
    void *images = NULL;
    rig_ok(r->backend->call->alloc(r->backend, blocks * lane * image * sizeof(float), &images));
    r->step.images.data = images;
    rig_ok(r->backend->call->alloc(r->backend, blocks * lane * sizeof(int32_t), &r->labels));
    r->step.labels = r->labels;
    dc_plan_options options = {.batch = batch, .training = true, .n_keep = keep >= 0, .keep = &keep};
    rig_ok(dc_model_create(training, &options, &r->arena, r->params, &r->training));
    if (inference) {
        options = (dc_plan_options){.batch = batch, .keep_losses = true};
        rig_ok(dc_model_create(inference, &options, &r->arena, r->params, &r->inference));
    }
    return r;
}

void rig_destroy(rig *r)
{
    if (!r)
        return;
    dc_model_destroy(r->training);
    dc_model_destroy(r->inference);
    size_t lane = (size_t)r->backend->layout.lane, blocks = ((size_t)r->batch + lane - 1) / lane;
    r->backend->call->release(r->backend, r->step.images.data, blocks * r->step.images.stride * sizeof(float));
    r->backend->call->release(r->backend, r->labels, blocks * lane * sizeof(int32_t));
    dc_step_arena_clear(&r->arena);
    dc_params_destroy(r->params);
    dc_backend_destroy(r->backend);
    free(r->host);
    free(r);
}

void rig_train(rig *r, const char *seed, unsigned what)
{
    const dc_graph *graph = r->training->graph;
    golden_images(seed, elements(graph, graph->input) * (size_t)r->batch, r->host);
    rig_ok(r->backend->call->write(r->backend, r->step.images, r->batch, r->host));
    int32_t *labels = calloc((size_t)r->batch, sizeof *labels);
    assert_non_null(labels);
    golden_labels(seed, r->batch, r->classes, labels);
    rig_ok(r->backend->call->copy_in(r->backend, r->labels, labels, (size_t)r->batch * sizeof *labels));
    free(labels);
    r->step.training = true;
    rig_ok(dc_executor_forward(r->training->executor, &r->step));
    if (what)
        rig_ok(dc_executor_backward(r->training->executor, &r->step, what, NULL));
}

void rig_infer(rig *r)
{
    r->step.training = false;
    rig_ok(dc_executor_forward(r->inference->executor, &r->step));
}

dc_metrics rig_metrics(rig *r, const dc_model *model)
{
    dc_metrics metrics = {0};
    rig_ok(dc_executor_metrics(model->executor, &metrics));
    rig_ok(r->backend->call->sync(r->backend));
    assert_int_equal(metrics.n, r->batch);
    metrics.loss /= r->batch;
    metrics.auxiliary /= r->batch;
    return metrics;
}

void rig_check_node(rig *r, const golden *g, const dc_model *model, const char *kind, const char *golden_name, int node)
{
    rig_ok(dc_executor_read(model->executor, node, r->batch, r->host));
    golden_check(g, kind, golden_name, r->host, elements(model->graph, node) * (size_t)r->batch, tolerance_of_values);
}

void rig_check_node_grad(rig *r, const golden *g, const char *golden_name, int node)
{
    rig_ok(dc_executor_read_grad(r->training->executor, node, r->batch, r->host));
    golden_check(g, "value_grad", golden_name, r->host, elements(r->training->graph, node) * (size_t)r->batch,
                 tolerance_of_values);
}

void rig_check_params(rig *r, const golden *g, const char *kind, dc_role role, double tolerance)
{
    const dc_params *params = r->params;
    const float *source = strcmp(kind, "grad") == 0 ? params->grads : params->values;
    for (int i = 0; i < g->n; i++) {
        if (strcmp(g->entries[i].kind, kind) != 0)
            continue;
        int item = dc_params_find(params, g->entries[i].name);
        if (item < 0)
            fail_msg("there is no parameter '%s'", g->entries[i].name);
        const dc_param *param = &params->items[item].param;
        if (param->role != role)
            continue;
        rig_ok(r->backend->call->copy_out(r->backend, r->host, source + params->items[item].offset,
                                          param->count * sizeof(float)));
        golden_check(g, kind, param->name, r->host, param->count, tolerance);
    }
    const dc_graph *graph = r->training->graph;
    for (int i = 0; i < graph->n_params; i++)
        if (graph->params[i].role == role && !golden_find(g, kind, graph->params[i].name))
            fail_msg("no golden %s of '%s'", kind, graph->params[i].name);
}

int rig_node(const dc_graph *graph, const char *name)
{
    for (int i = 0; i < graph->n_nodes; i++)
        if (strcmp(graph->nodes[i].name, name) == 0)
            return i;
    fail_msg("there is no node '%s'", name);
    return -1;
}
