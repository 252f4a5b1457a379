#include "tests/support/trial.h"

#include <stdlib.h>
#include <string.h>

/* ---- operands ---- */

static size_t floats_of(dc_shape s)
{
    return (size_t)s.c * (size_t)s.h * (size_t)s.w;
}

static size_t node_floats(const dc_trial *t, int id)
{
    const dc_node *node = &t->graph->nodes[id];
    if (node->op == DC_OP_CROSS_ENTROPY)
        return 4;
    return floats_of(node->shape) * (node->batch_free ? 1 : (size_t)t->step.n_images);
}

static float *random_floats(size_t n, uint64_t seed, const char *what, float low, float high)
{
    float *p = dc_alloc(n * sizeof *p);
    dc_rng_key key = {.seed = seed, .stream = dc_rng_stream(what)};
    for (size_t i = 0; p && i < n; i++)
        p[i] = low + (high - low) * dc_rng_uniform(key, 0, i);
    return p;
}

static void fill_params(const dc_trial *t, dc_operands *o, uint64_t seed)
{
    const dc_node *node = &t->graph->nodes[t->node];
    o->n_params = node->n_params;
    for (int p = 0; p < node->n_params; p++) {
        const dc_param *param = &t->graph->params[node->params[p]];
        bool positive = node->op == DC_OP_BATCH_NORM && p == 1; /* a variance */
        o->n_param[p] = param->count;
        o->param[p] = random_floats(param->count, seed, param->name, positive ? 0.5f : -1, positive ? 1.5f : 1);
        o->dparam[p] = dc_alloc_zeroed(param->count * sizeof(float));
    }
}

dc_operands *dc_operands_create(const dc_trial *t, uint64_t seed)
{
    const dc_node *node = &t->graph->nodes[t->node];
    dc_operands *o = dc_alloc_zeroed(sizeof *o);
    if (!o)
        return NULL;
    o->n_inputs = node->n_inputs;
    for (int i = 0; i < node->n_inputs; i++) {
        o->n_x[i] = node_floats(t, node->inputs[i]);
        o->x[i] = random_floats(o->n_x[i], seed + (uint64_t)i, "x", -1, 1);
        o->dx[i] = random_floats(o->n_x[i], seed + (uint64_t)i, "dx", -1, 1);
    }
    o->n_y = node_floats(t, t->node);
    o->y = dc_alloc_zeroed(o->n_y * sizeof(float));
    o->dy = random_floats(o->n_y, seed, "dy", -1, 1);
    fill_params(t, o, seed);
    o->labels = dc_alloc((size_t)t->step.n_images * sizeof *o->labels);
    int classes = node->op == DC_OP_CROSS_ENTROPY ? t->graph->nodes[node->inputs[0]].shape.c : 1;
    for (int i = 0; o->labels && i < t->step.n_images; i++)
        o->labels[i] = (int32_t)(dc_rng_uniform((dc_rng_key){seed, 3}, 0, (uint64_t)i) * (float)classes);
    return o;
}

dc_operands *dc_operands_copy(const dc_operands *from, const dc_trial *t)
{
    dc_operands *o = dc_operands_create(t, 0);
    if (!o)
        return NULL;
    for (int i = 0; i < o->n_inputs; i++) {
        memcpy(o->x[i], from->x[i], o->n_x[i] * sizeof(float));
        memcpy(o->dx[i], from->dx[i], o->n_x[i] * sizeof(float));
    }
    memcpy(o->dy, from->dy, o->n_y * sizeof(float));
    for (int p = 0; p < o->n_params; p++)
        memcpy(o->param[p], from->param[p], o->n_param[p] * sizeof(float));
    memcpy(o->labels, from->labels, (size_t)t->step.n_images * sizeof *o->labels);
    return o;
}

void dc_operands_destroy(dc_operands *o)
{
    if (!o)
        return;
    for (int i = 0; i < o->n_inputs; i++) {
        free(o->x[i]);
        free(o->dx[i]);
    }
    for (int p = 0; p < o->n_params; p++) {
        free(o->param[p]);
        free(o->dparam[p]);
    }
    free(o->y);
    free(o->dy);
    free(o->labels);
    free(o);
}

/* ---- watched device memory ---- */

enum { GUARD_CHANNELS = 1, GUARD_FLOATS = 64 };

/* A tensor in the middle channels of its storage, or (batch-free, lane 0) plain floats; poison all around. */
typedef struct tensor {
    void *memory;
    dc_view view;
    size_t elements;      /* of the storage, guard included */
    size_t element_bytes; /* 2 of what belongs to images where the layout is narrow */
    size_t plain;         /* floats of a plain one */
    int lane, blocks;
} tensor;

typedef struct machine {
    dc_backend *backend;
    const dc_trial *trial;
    tensor x[DC_TRIAL_INPUTS], dx[DC_TRIAL_INPUTS], y, dy;
    tensor param[DC_MAX_PARAMS], dparam[DC_MAX_PARAMS];
    tensor saved, forward_scratch, backward_scratch, labels;
} machine;

/* A quiet NaN in either width, that nothing computes. */
static const void *poison_of(const tensor *t)
{
    static const uint32_t wide = 0x7fc0dead;
    static const uint16_t narrow = 0x7fde;
    return t->element_bytes == sizeof narrow ? (const void *)&narrow : &wide;
}

static size_t bytes_of(const tensor *t)
{
    return t->elements * t->element_bytes;
}

static dc_status fill_poison(const machine *m, const tensor *t)
{
    unsigned char *host = dc_alloc(bytes_of(t));
    if (!host)
        return DC_ERR_MEMORY;
    for (size_t i = 0; i < t->elements; i++)
        memcpy(host + i * t->element_bytes, poison_of(t), t->element_bytes);
    dc_status status = m->backend->call->copy_in(m->backend, t->memory, host, bytes_of(t));
    free(host);
    return status;
}

static dc_status make_plain(const machine *m, size_t floats, tensor *t)
{
    *t = (tensor){.plain = floats, .elements = floats + GUARD_FLOATS, .element_bytes = sizeof(float)};
    DC_TRY(m->backend->call->alloc(m->backend, bytes_of(t), &t->memory));
    t->view = (dc_view){.data = t->memory, .shape = {(int)floats, 1, 1}, .stride = floats};
    return fill_poison(m, t);
}

static dc_status make_tensor(const machine *m, int id, tensor *t)
{
    const dc_node *node = &m->trial->graph->nodes[id];
    if (node->batch_free) {
        DC_TRY(make_plain(m, node_floats(m->trial, id), t));
        t->view.shape = node->shape;
        return DC_OK;
    }
    int lane = m->backend->layout.lane;
    size_t channel = (size_t)node->shape.h * (size_t)node->shape.w * (size_t)lane;
    size_t stride = ((size_t)node->shape.c + 2 * GUARD_CHANNELS) * channel;
    *t = (tensor){.element_bytes = dc_plan_element_bytes(&m->backend->layout),
                  .lane = lane,
                  .blocks = (m->trial->batch + lane - 1) / lane};
    t->elements = (size_t)t->blocks * stride;
    DC_TRY(m->backend->call->alloc(m->backend, bytes_of(t), &t->memory));
    t->view = (dc_view){.data = (void *)((char *)t->memory + GUARD_CHANNELS * channel * t->element_bytes),
                        .shape = node->shape,
                        .stride = stride};
    return fill_poison(m, t);
}

static void drop(const machine *m, tensor *t)
{
    if (t->memory)
        m->backend->call->release(m->backend, t->memory, bytes_of(t));
}

/* Whether element i of the storage belongs to the operand. */
static bool owned(const tensor *t, size_t i)
{
    if (!t->lane)
        return i < t->plain;
    size_t channel = (size_t)t->view.shape.h * (size_t)t->view.shape.w * (size_t)t->lane, at = i % t->view.stride;
    return at >= GUARD_CHANNELS * channel && at < (size_t)(t->view.shape.c + GUARD_CHANNELS) * channel;
}

static dc_status check_guards(const machine *m, const tensor *t, const char *what)
{
    unsigned char *host = dc_alloc(bytes_of(t));
    if (!host)
        return DC_ERR_MEMORY;
    dc_status status = m->backend->call->copy_out(m->backend, host, t->memory, bytes_of(t));
    for (size_t i = 0; status == DC_OK && i < t->elements; i++)
        if (!owned(t, i) && memcmp(host + i * t->element_bytes, poison_of(t), t->element_bytes) != 0)
            status = dc_fail(DC_ERR_INTERNAL, "%s: element %zu beside it was written", what, i);
    free(host);
    return status;
}

/* Writes images, and `beyond` into the unused lanes of the last block that holds images. */
static dc_status put_images(const machine *m, const tensor *t, const float *host, float beyond)
{
    if (!t->lane)
        return m->backend->call->copy_in(m->backend, t->memory, host, t->plain * sizeof(float));
    size_t image = floats_of(t->view.shape), n = (size_t)m->trial->step.n_images;
    size_t rounded = (n + (size_t)t->lane - 1) / (size_t)t->lane * (size_t)t->lane;
    float *all = dc_alloc(rounded * image * sizeof *all);
    if (!all)
        return DC_ERR_MEMORY;
    memcpy(all, host, n * image * sizeof *all);
    for (size_t i = n * image; i < rounded * image; i++)
        all[i] = beyond;
    dc_status status = m->backend->call->write(m->backend, t->view, (int)rounded, all);
    free(all);
    return status;
}

static dc_status get_images(const machine *m, const tensor *t, float *host, bool zero_beyond, const char *what)
{
    DC_TRY(check_guards(m, t, what));
    if (!t->lane)
        return m->backend->call->copy_out(m->backend, host, t->memory, t->plain * sizeof(float));
    size_t image = floats_of(t->view.shape), n = (size_t)m->trial->step.n_images;
    size_t rounded = (n + (size_t)t->lane - 1) / (size_t)t->lane * (size_t)t->lane;
    float *all = dc_alloc(rounded * image * sizeof *all);
    if (!all)
        return DC_ERR_MEMORY;
    dc_status status = m->backend->call->read(m->backend, t->view, (int)rounded, all);
    memcpy(host, all, n * image * sizeof *all);
    for (size_t i = n * image; status == DC_OK && zero_beyond && i < rounded * image; i++)
        if (all[i] != 0)
            status = dc_fail(DC_ERR_INTERNAL, "%s of an image past the last one is %g, not 0", what, (double)all[i]);
    free(all);
    return status;
}

/* ---- a run ---- */

static dc_status make_all(machine *m, const dc_operands *o)
{
    const dc_trial *t = m->trial;
    const dc_node *node = &t->graph->nodes[t->node];
    for (int i = 0; i < node->n_inputs; i++) {
        DC_TRY(make_tensor(m, node->inputs[i], &m->x[i]));
        DC_TRY(put_images(m, &m->x[i], o->x[i], 7));
        DC_TRY(make_tensor(m, node->inputs[i], &m->dx[i]));
        if (t->accumulate || t->graph->nodes[node->inputs[i]].batch_free)
            DC_TRY(put_images(m, &m->dx[i], o->dx[i], 0));
    }
    DC_TRY(make_tensor(m, t->node, &m->y));
    DC_TRY(make_tensor(m, t->node, &m->dy));
    DC_TRY(put_images(m, &m->dy, o->dy, 0));
    for (int p = 0; p < node->n_params; p++) {
        DC_TRY(make_plain(m, o->n_param[p], &m->param[p]));
        DC_TRY(put_images(m, &m->param[p], o->param[p], 0));
        DC_TRY(make_plain(m, o->n_param[p], &m->dparam[p]));
    }
    size_t saved, forward, backward;
    const dc_plan_layout *layout = &m->backend->layout;
    layout->extra(layout->context, t->graph, t->node, t->batch, t->relu_input, &saved, &forward, &backward);
    DC_TRY(make_plain(m, (saved + 3) / 4, &m->saved));
    DC_TRY(make_plain(m, (forward + 3) / 4, &m->forward_scratch));
    DC_TRY(make_plain(m, (backward + 3) / 4, &m->backward_scratch));
    DC_TRY(make_plain(m, (size_t)t->batch + 16, &m->labels));
    return m->backend->call->copy_in(m->backend, m->labels.memory, o->labels,
                                     (size_t)t->step.n_images * sizeof *o->labels);
}

static dc_status check_extras(const machine *m)
{
    DC_TRY(check_guards(m, &m->saved, "saved"));
    DC_TRY(check_guards(m, &m->forward_scratch, "forward scratch"));
    return check_guards(m, &m->backward_scratch, "backward scratch");
}

static dc_status run_backward(machine *m, const dc_kernel *kernel, dc_kernel_args *args, dc_operands *o)
{
    const dc_trial *t = m->trial;
    const dc_node *node = &t->graph->nodes[t->node];
    if (!dc_op_backward_reads_output(node->op))
        DC_TRY(fill_poison(m, &m->y));
    for (int i = 0; i < node->n_inputs; i++)
        if (!dc_op_backward_reads_inputs(node->op))
            DC_TRY(fill_poison(m, &m->x[i]));
    args->scratch = m->backward_scratch.memory;
    DC_TRY(m->backend->call->backward(m->backend, kernel, args));
    DC_TRY(m->backend->call->sync(m->backend));
    for (int i = 0; i < node->n_inputs; i++)
        if (t->want_inputs)
            DC_TRY(get_images(m, &m->dx[i], o->dx[i], true, "gradient"));
    for (int p = 0; p < node->n_params; p++)
        if (args->param_grads[p])
            DC_TRY(get_images(m, &m->dparam[p], o->dparam[p], false, "parameter gradient"));
    return check_extras(m);
}

static dc_status run(machine *m, dc_operands *o)
{
    const dc_trial *t = m->trial;
    const dc_node *node = &t->graph->nodes[t->node];
    DC_TRY(make_all(m, o));
    dc_step step = t->step;
    step.labels = m->labels.memory;
    dc_view inputs[DC_TRIAL_INPUTS], input_grads[DC_TRIAL_INPUTS];
    float *params[DC_MAX_PARAMS] = {0}, *param_grads[DC_MAX_PARAMS] = {0};
    bool accumulate[DC_TRIAL_INPUTS];
    for (int i = 0; i < node->n_inputs; i++) {
        inputs[i] = m->x[i].view;
        input_grads[i] = m->dx[i].view;
        if (!t->want_inputs)
            input_grads[i].data = NULL;
        accumulate[i] = t->accumulate || !m->x[i].lane;
    }
    for (int p = 0; p < node->n_params; p++) {
        params[p] = m->param[p].memory;
        bool state = t->graph->params[node->params[p]].role == DC_ROLE_STATE;
        param_grads[p] = t->want_params && !state ? m->dparam[p].memory : NULL;
    }
    const dc_norm_sums no_sums[DC_TRIAL_INPUTS] = {{NULL, NULL}};
    dc_kernel_args args = {.step = &step,
                           .batch = t->batch,
                           .n_inputs = node->n_inputs,
                           .inputs = inputs,
                           .output = m->y.view,
                           .params = params,
                           .saved = m->saved.memory,
                           .scratch = m->forward_scratch.memory,
                           .index = node->index,
                           .output_grad = m->dy.view,
                           .input_grads = input_grads,
                           .accumulate = accumulate,
                           .norm_sums = no_sums,
                           .param_grads = param_grads};
    dc_kernel *kernel;
    DC_TRY(m->backend->call->prepare(m->backend, t->graph, t->node, t->batch, t->relu_input, &kernel));
    DC_TRY(m->backend->call->forward(m->backend, kernel, &args));
    DC_TRY(m->backend->call->sync(m->backend));
    DC_TRY(get_images(m, &m->y, o->y, false, "output"));
    for (int p = 0; p < node->n_params; p++)
        DC_TRY(get_images(m, &m->param[p], o->param[p], false, "parameter"));
    DC_TRY(check_extras(m));
    return step.training ? run_backward(m, kernel, &args, o) : DC_OK;
}

dc_status dc_trial_run(dc_backend *backend, const dc_trial *trial, dc_operands *operands)
{
    machine m = {.backend = backend, .trial = trial};
    dc_status status = run(&m, operands);
    for (int i = 0; i < DC_TRIAL_INPUTS; i++) {
        drop(&m, &m.x[i]);
        drop(&m, &m.dx[i]);
    }
    for (int p = 0; p < DC_MAX_PARAMS; p++) {
        drop(&m, &m.param[p]);
        drop(&m, &m.dparam[p]);
    }
    tensor *rest[] = {&m.y, &m.dy, &m.saved, &m.forward_scratch, &m.backward_scratch, &m.labels};
    for (size_t i = 0; i < sizeof rest / sizeof *rest; i++)
        drop(&m, rest[i]);
    return status;
}
