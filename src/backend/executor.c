#include "backend/executor.h"

#include <stdlib.h>
#include <string.h>

/* A node's prepared kernel and the arguments of its calls; views are set once for an arena's address. */
typedef struct bound_node {
    const dc_kernel *kernel; /* NULL: nothing to run */
    dc_kernel_args args;
    void *saved, *forward_scratch, *backward_scratch;
    dc_kernel_args again; /* of a recomputed value: forward, into the place where its reader looks in backward */
    float *param_grads[DC_MAX_PARAMS]; /* as bound; args.param_grads holds those wanted now */
} bound_node;

struct dc_executor {
    dc_backend *backend;
    const dc_graph *graph;
    dc_plan *plan;
    dc_step_arena *arena;
    char *base;          /* the arena's address that the views are made for */
    const float *images; /* the address that the readers of the input are set for */
    bound_node *nodes;
    dc_view *views; /* storage of all argument arrays */
    float **pointers;
    const dc_kernel_args **followers;
    dc_norm_sums *norm_sums;
    dc_runs *runs; /* what the backend has recorded of forward and backward */
};

dc_status dc_step_arena_reserve(dc_step_arena *arena, size_t bytes)
{
    if (bytes <= arena->bytes)
        return DC_OK;
    dc_step_arena_clear(arena);
    DC_TRY(arena->backend->call->alloc(arena->backend, bytes, &arena->memory));
    arena->bytes = bytes;
    return DC_OK;
}

void dc_step_arena_clear(dc_step_arena *arena)
{
    if (arena->memory)
        arena->backend->call->release(arena->backend, arena->memory, arena->bytes);
    arena->memory = NULL;
    arena->bytes = 0;
}

/* What was recorded has addresses built in. */
static void forget_runs(dc_executor *e)
{
    if (e->runs)
        e->backend->call->destroy_runs(e->backend, e->runs);
    e->runs = NULL;
}

/* ---- addresses ---- */

static void *at(const dc_executor *e, size_t offset_bytes)
{
    return offset_bytes == SIZE_MAX ? NULL : e->base + offset_bytes;
}

static dc_view view_of(const dc_executor *e, int id, dc_place place)
{
    const dc_node *node = &e->graph->nodes[id];
    dc_view view = {.shape = node->shape};
    if (place.offset_bytes == SIZE_MAX)
        return view;
    size_t block = node->batch_free ? 1 : (size_t)e->backend->layout.lane;
    size_t channel = (size_t)node->shape.h * (size_t)node->shape.w * block;
    const size_t element_bytes = node->batch_free ? sizeof(float) : dc_plan_element_bytes(&e->backend->layout);
    view.data = at(e, place.offset_bytes + (size_t)place.first_channel * channel * element_bytes);
    view.stride = (size_t)place.storage_channels * channel;
    if (place.affine_bytes != SIZE_MAX)
        view.affine = (const float *)at(e, place.affine_bytes) + 2 * (size_t)place.first_channel;
    return view;
}

static dc_norm_share norm_share_of(const dc_executor *e, const dc_plan_node *planned)
{
    if (planned->norm < 0)
        return (dc_norm_share){0};
    const dc_plan_node *norm = &e->plan->nodes[planned->norm];
    return (dc_norm_share){.saved = at(e, norm->saved_offset_bytes),
                           .scratch = at(e, norm->forward_scratch_offset_bytes),
                           .channels = e->graph->nodes[planned->norm].shape.c,
                           .first_channel = planned->norm_channel};
}

static dc_norm_sums norm_sums_of(const dc_executor *e, int x, int reader)
{
    const dc_plan_node *norm = &e->plan->nodes[x];
    if (norm->summed_by != reader)
        return (dc_norm_sums){0};
    return (dc_norm_sums){at(e, norm->saved_offset_bytes), at(e, norm->backward_scratch_offset_bytes)};
}

static void point_at_arena(dc_executor *e)
{
    forget_runs(e);
    e->base = e->arena->memory;
    e->images = NULL;
    for (int i = 0; i < e->graph->n_nodes; i++) {
        const dc_plan_node *planned = &e->plan->nodes[i];
        bound_node *bound = &e->nodes[i];
        dc_view *inputs = (dc_view *)bound->args.inputs, *input_grads = (dc_view *)bound->args.input_grads;
        for (int k = 0; k < e->graph->nodes[i].n_inputs; k++) {
            int x = planned->sources[k];
            inputs[k] = view_of(e, x, e->plan->nodes[x].value);
            input_grads[k] = view_of(e, x, e->plan->nodes[x].grad);
            ((dc_norm_sums *)bound->args.norm_sums)[k] = norm_sums_of(e, x, i);
            if (!planned->wants[k])
                input_grads[k].data = NULL;
        }
        bound->args.output = view_of(e, i, planned->value);
        bound->args.output_grad = view_of(e, i, planned->grad);
        bound->saved = at(e, planned->saved_offset_bytes);
        bound->forward_scratch = at(e, planned->forward_scratch_offset_bytes);
        bound->backward_scratch = at(e, planned->backward_scratch_offset_bytes);
        bound->args.saved = bound->saved;
        bound->args.norm = norm_share_of(e, planned);
        if (planned->inner >= 0) {
            bound->args.inner = &e->nodes[planned->inner].args;
            bound->args.inner_kernel = e->nodes[planned->inner].kernel;
        }
        bound->again = bound->args;
        bound->again.output = view_of(e, i, planned->again);
        bound->again.scratch = at(e, planned->again_scratch_offset_bytes);
    }
}

/* The images are the loader's memory: their readers follow it from step to step. */
static void point_at_images(dc_executor *e, const dc_step *step)
{
    if (e->images == step->images.data)
        return;
    e->images = step->images.data;
    for (int i = 0; i < e->graph->n_nodes; i++)
        for (int k = 0; k < e->graph->nodes[i].n_inputs; k++)
            if (e->plan->nodes[i].sources[k] == e->graph->input)
                ((dc_view *)e->nodes[i].args.inputs)[k] = step->images;
}

/* ---- making ---- */

static dc_status bind_arrays(dc_executor *e)
{
    const dc_graph *g = e->graph;
    size_t n_inputs = 0;
    for (int i = 0; i < g->n_nodes; i++)
        n_inputs += (size_t)g->nodes[i].n_inputs;
    e->nodes = dc_alloc_zeroed((size_t)g->n_nodes * sizeof *e->nodes);
    e->views = dc_alloc_zeroed((2 * n_inputs + 1) * sizeof *e->views);
    e->pointers = dc_alloc_zeroed((size_t)g->n_nodes * 2 * DC_MAX_PARAMS * sizeof *e->pointers);
    e->followers = dc_alloc_zeroed((size_t)g->n_nodes * DC_MAX_READERS * sizeof *e->followers);
    e->norm_sums = dc_alloc_zeroed((n_inputs + 1) * sizeof *e->norm_sums);
    if (!e->nodes || !e->views || !e->pointers || !e->followers || !e->norm_sums)
        return DC_ERR_MEMORY;
    dc_view *views = e->views;
    dc_norm_sums *norm_sums = e->norm_sums;
    const dc_kernel_args **followers = e->followers;
    float **pointers = e->pointers;
    for (int i = 0; i < g->n_nodes; i++) {
        const dc_node *node = &g->nodes[i];
        const dc_plan_node *planned = &e->plan->nodes[i];
        bound_node *bound = &e->nodes[i];
        bound->args = (dc_kernel_args){.batch = e->plan->batch,
                                       .n_inputs = node->n_inputs,
                                       .inputs = views,
                                       .input_grads = views + node->n_inputs,
                                       .accumulate = planned->accumulate,
                                       .index = node->index,
                                       .n_left = planned->n_left,
                                       .deferred = planned->deferred,
                                       .grad_deferred = planned->grad_deferred,
                                       .summed = planned->summed_by >= 0,
                                       .norm_sums = norm_sums,
                                       .params = pointers,
                                       .param_grads = pointers + DC_MAX_PARAMS,
                                       .followers = followers};
        for (int f = planned->leader == i ? planned->next_sibling : -1; f >= 0; f = e->plan->nodes[f].next_sibling) {
            *followers++ = &e->nodes[f].args;
            bound->args.n_followers++;
        }
        for (int f = planned->extended_by; f >= 0; f = e->plan->nodes[f].extended_by) {
            *followers++ = &e->nodes[f].args;
            bound->args.n_followers++;
        }
        views += 2 * node->n_inputs;
        norm_sums += node->n_inputs;
        pointers += 2 * DC_MAX_PARAMS;
        if (planned->active && !planned->folded && node->op != DC_OP_INPUT) {
            dc_kernel *kernel = NULL;
            DC_TRY(e->backend->call->prepare(e->backend, g, i, e->plan->batch, planned->relu_input, &kernel));
            bound->kernel = kernel;
        }
    }
    return DC_OK;
}

dc_status dc_executor_create(const dc_graph *graph, const dc_plan_options *options, dc_step_arena *arena,
                             dc_executor **executor)
{
    dc_executor *e = dc_alloc_zeroed(sizeof *e);
    if (!e)
        return DC_ERR_MEMORY;
    e->backend = arena->backend;
    e->graph = graph;
    e->arena = arena;
    dc_status status = dc_plan_create(graph, &arena->backend->layout, options, &e->plan);
    if (status == DC_OK)
        status = bind_arrays(e);
    if (status == DC_OK)
        status = dc_step_arena_reserve(arena, e->plan->arena_bytes);
    if (status != DC_OK) {
        dc_executor_destroy(e);
        return status;
    }
    point_at_arena(e);
    *executor = e;
    return DC_OK;
}

void dc_executor_destroy(dc_executor *e)
{
    if (!e)
        return;
    forget_runs(e);
    dc_plan_destroy(e->plan);
    free(e->nodes);
    free(e->views);
    free(e->pointers);
    free(e->followers);
    free(e->norm_sums);
    free(e);
}

const dc_plan *dc_executor_plan(const dc_executor *e)
{
    return e->plan;
}

void dc_executor_bind(dc_executor *e, float *const *values, float *const *grads)
{
    forget_runs(e);
    for (int i = 0; i < e->graph->n_nodes; i++) {
        const dc_node *node = &e->graph->nodes[i];
        for (int p = 0; p < node->n_params; p++) {
            ((float **)e->nodes[i].args.params)[p] = values[node->params[p]];
            e->nodes[i].param_grads[p] = grads ? grads[node->params[p]] : NULL;
        }
    }
}

/* ---- running ---- */

static void prepare_step(dc_executor *e, const dc_step *step)
{
    if (e->base != e->arena->memory)
        point_at_arena(e);
    point_at_images(e, step);
}

/* Begins forward (what = 0) or backward. */
static dc_status open_run(dc_executor *e, const dc_step *step, unsigned what, const void *parts, bool *replayed)
{
    *replayed = false;
    prepare_step(e, step);
    return e->backend->call->open_run ? e->backend->call->open_run(e->backend, &e->runs, step, what, parts, replayed)
                                      : DC_OK;
}

static dc_status close_run(dc_executor *e, dc_status status)
{
    return e->backend->call->close_run ? e->backend->call->close_run(e->backend, e->runs, status) : status;
}

static dc_status run_forward(dc_executor *e, const dc_step *step)
{
    for (int i = 0; i < e->graph->n_nodes; i++) {
        bound_node *bound = &e->nodes[i];
        const dc_plan_node *planned = &e->plan->nodes[i];
        if (!bound->kernel || planned->leader != i || planned->outer >= 0)
            continue;
        bound->args.step = step;
        bound->args.scratch = bound->forward_scratch;
        DC_TRY(e->backend->call->forward(e->backend, bound->kernel, &bound->args));
    }
    return DC_OK;
}

dc_status dc_executor_forward(dc_executor *e, const dc_step *step)
{
    bool replayed;
    DC_TRY(open_run(e, step, 0, NULL, &replayed));
    return close_run(e, replayed ? DC_OK : run_forward(e, step));
}

/* Computes again what node i is about to read and was not kept. */
static dc_status recompute_input(dc_executor *e, int i, const dc_step *step)
{
    bound_node *source = &e->nodes[e->plan->nodes[i].recomputed];
    source->again.step = step;
    return e->backend->call->forward(e->backend, source->kernel, &source->again);
}

/* A node's backward. */
static dc_status backward_node(dc_executor *e, int i, const dc_step *step)
{
    bound_node *bound = &e->nodes[i];
    const dc_plan_node *planned = &e->plan->nodes[i];
    bound->args.step = step;
    bound->args.scratch = bound->backward_scratch;
    if (planned->recomputed < 0)
        return e->backend->call->backward(e->backend, bound->kernel, &bound->args);
    if (bound->args.param_grads[0] || planned->relu_input)
        DC_TRY(recompute_input(e, i, step));
    dc_view *input = (dc_view *)bound->args.inputs;
    const dc_view forward = *input;
    *input = e->nodes[planned->recomputed].again.output;
    dc_status status = e->backend->call->backward(e->backend, bound->kernel, &bound->args);
    *input = forward;
    return status;
}

/* Sets which parameter gradients this call computes; true when there is anything to do for the node. */
static bool choose_gradients(dc_executor *e, int id, unsigned what)
{
    const dc_node *node = &e->graph->nodes[id];
    bound_node *bound = &e->nodes[id];
    float **param_grads = (float **)bound->args.param_grads;
    bool any = e->plan->nodes[id].grad_deferred;
    for (int p = 0; p < node->n_params; p++) {
        const bool wanted = dc_grad_has(what, e->graph->params[node->params[p]].role);
        param_grads[p] = wanted ? bound->param_grads[p] : NULL;
        any |= param_grads[p] != NULL;
    }
    for (int k = 0; k < node->n_inputs; k++)
        any |= e->plan->nodes[id].wants[k];
    if (node->op == DC_OP_MIX) { /* the softmax's gradient */
        int softmax = node->inputs[0];
        dc_view *grad = (dc_view *)&bound->args.input_grads[0];
        *grad = view_of(e, softmax, e->plan->nodes[softmax].grad);
        if (!(what & DC_GRAD_ALPHA))
            grad->data = NULL;
    }
    return any;
}

static dc_status zero_softmax_gradients(dc_executor *e)
{
    for (int i = 0; i < e->graph->n_nodes; i++)
        if (e->graph->nodes[i].op == DC_OP_SOFTMAX && e->nodes[i].args.output_grad.data) {
            dc_shape s = e->graph->nodes[i].shape;
            DC_TRY(e->backend->call->fill_zero(e->backend, e->nodes[i].args.output_grad.data,
                                               (size_t)s.c * (size_t)s.w * sizeof(float)));
        }
    return DC_OK;
}

/* Parameters of nodes that no loss depends on: a cell's node that nothing reads. */
static dc_status zero_param_gradients(dc_executor *e, int id)
{
    const dc_node *node = &e->graph->nodes[id];
    for (int p = 0; p < node->n_params; p++) {
        float *grad = ((float *const *)e->nodes[id].args.param_grads)[p];
        size_t bytes = e->graph->params[node->params[p]].count * sizeof *grad;
        if (grad)
            DC_TRY(e->backend->call->fill_zero(e->backend, grad, bytes));
    }
    return DC_OK;
}

/* Node i and those that it runs. */
static dc_status backward_of(dc_executor *e, int i, const dc_step *step, unsigned what)
{
    const dc_plan_node *nodes = e->plan->nodes;
    const bool runs = e->nodes[i].kernel && nodes[i].needs_grad;
    bool any = false;
    for (int f = i; f >= 0; f = nodes[f].next_sibling) {
        any |= choose_gradients(e, f, what);
        if (!runs)
            DC_TRY(zero_param_gradients(e, f));
    }
    return runs && any ? backward_node(e, i, step) : DC_OK;
}

/* What the hook starts is not the run's own. */
static dc_status call_hook(dc_executor *e, int i, const dc_grad_hook *hook)
{
    const dc_backend_interface *call = e->backend->call;
    bool starts = false;
    for (int f = i; f >= 0; f = e->plan->nodes[f].next_sibling)
        if (e->graph->nodes[f].n_params)
            DC_TRY(hook->done(hook->context, e->graph, f, &starts));
    if (!starts)
        return DC_OK;
    if (call->end_part)
        DC_TRY(call->end_part(e->backend, e->runs));
    DC_TRY(hook->start(hook->context));
    return call->begin_part ? call->begin_part(e->backend, e->runs) : DC_OK;
}

static dc_status run_backward(dc_executor *e, const dc_step *step, unsigned what, const dc_grad_hook *hook,
                              bool replayed)
{
    if (what & DC_GRAD_ALPHA && !replayed)
        DC_TRY(zero_softmax_gradients(e));
    for (int i = e->graph->n_nodes - 1; i >= 0; i--) {
        if (e->plan->nodes[i].leader != i)
            continue;
        if (!replayed)
            DC_TRY(backward_of(e, i, step, what));
        if (hook)
            DC_TRY(call_hook(e, i, hook));
    }
    return DC_OK;
}

dc_status dc_executor_backward(dc_executor *e, const dc_step *step, unsigned what, const dc_grad_hook *hook)
{
    bool replayed;
    DC_TRY(open_run(e, step, what, hook ? hook->context : NULL, &replayed));
    return close_run(e, run_backward(e, step, what, hook, replayed));
}

static void take_main(void *context, const float *result)
{
    dc_metrics *metrics = context;
    const double n = (double)result[3];
    metrics->loss += (double)result[0] * n;
    metrics->n += (int64_t)n;
    metrics->top1 += (int64_t)result[1];
    metrics->top5 += (int64_t)result[2];
}

static void take_auxiliary(void *context, const float *result)
{
    ((dc_metrics *)context)->auxiliary += (double)result[0] * (double)result[3];
}

dc_status dc_executor_metrics(dc_executor *e, dc_metrics *metrics)
{
    for (int i = 0; i < e->graph->n_nodes; i++) {
        if (e->graph->nodes[i].op != DC_OP_CROSS_ENTROPY || !e->nodes[i].kernel)
            continue;
        const dc_take take = e->graph->nodes[i].auxiliary ? take_auxiliary : take_main;
        DC_TRY(dc_backend_copy_out_later(e->backend, e->nodes[i].args.output.data, 4, take, metrics));
    }
    return DC_OK;
}

static dc_status read_view(dc_executor *e, int id, dc_view view, int n_images, float *values)
{
    const dc_node *node = &e->graph->nodes[id];
    if (!view.data)
        return dc_fail(DC_ERR_INTERNAL, "node '%s' (%s) has no value in this plan", node->name, dc_op_name(node->op));
    if (node->batch_free)
        return e->backend->call->copy_out(e->backend, values, view.data,
                                          (size_t)node->shape.c * (size_t)node->shape.h * (size_t)node->shape.w *
                                              sizeof(float));
    return e->backend->call->read(e->backend, view, n_images, values);
}

dc_status dc_executor_read(dc_executor *e, int node, int n_images, float *values)
{
    return read_view(e, node, e->nodes[node].args.output, n_images, values);
}

dc_status dc_executor_read_grad(dc_executor *e, int node, int n_images, float *values)
{
    dc_view grad = e->nodes[node].args.output_grad;
    if (e->plan->nodes[node].norm >= 0) /* what lies there is the gradient behind the batch norm */
        grad.data = NULL;
    return read_view(e, node, grad, n_images, values);
}
