#include "graph/plan_maker.h"

#include <stdlib.h>
#include <string.h>

struct dc_plan_storage {
    int *sources;
    bool *flags;
};

enum { N_INTERVALS = 7 }; /* a node */

bool dc_op_backward_reads_inputs(dc_op op)
{
    return op == DC_OP_CONV || op == DC_OP_BATCH_NORM || op == DC_OP_LINEAR || op == DC_OP_MIX || op == DC_OP_MAX_POOL;
}

bool dc_op_backward_reads_output(dc_op op)
{
    return op == DC_OP_RELU || op == DC_OP_MAX_POOL || op == DC_OP_SOFTMAX;
}

bool dc_op_reads_deferred(dc_op op)
{
    return op == DC_OP_CONV || op == DC_OP_RELU || op == DC_OP_MAX_POOL || op == DC_OP_AVG_POOL ||
           op == DC_OP_GLOBAL_AVG_POOL || op == DC_OP_ADD || op == DC_OP_MIX || op == DC_OP_CONCAT ||
           op == DC_OP_ZERO || op == DC_OP_DROP_PATH;
}

static int forward_step(const dc_plan_maker *m, int node)
{
    const dc_plan_node *planned = &m->plan->nodes[node];
    return planned->outer >= 0 ? planned->outer : planned->leader;
}

static int backward_step(const dc_plan_maker *m, int node)
{
    return 2 * m->n - 1 - m->plan->nodes[node].leader;
}

/* ---- gradients: who needs one, who writes it first ---- */

/* Marks what has something to train before it and a loss after it. */
static dc_status mark_gradients(dc_plan_maker *m)
{
    if (!m->options->training)
        return DC_OK;
    bool *reaches_loss = dc_alloc_zeroed((size_t)m->n);
    if (!reaches_loss)
        return DC_ERR_MEMORY;
    for (int i = m->n - 1; i >= 0; i--) {
        reaches_loss[i] |= m->plan->nodes[i].active && m->graph->nodes[i].op == DC_OP_CROSS_ENTROPY;
        for (int k = 0; k < m->graph->nodes[i].n_inputs; k++)
            reaches_loss[m->graph->nodes[i].inputs[k]] |= reaches_loss[i];
    }
    for (int i = 0; i < m->n; i++) {
        const dc_node *node = &m->graph->nodes[i];
        dc_plan_node *planned = &m->plan->nodes[i];
        if (!reaches_loss[i])
            continue;
        for (int p = 0; p < node->n_params; p++)
            planned->needs_grad |= m->graph->params[node->params[p]].role != DC_ROLE_STATE;
        for (int k = 0; k < node->n_inputs; k++)
            planned->needs_grad |= m->plan->nodes[node->inputs[k]].needs_grad;
    }
    free(reaches_loss);
    return DC_OK;
}

static void mark_written(const dc_plan_maker *m, int id, bool *written)
{
    written[id] = true;
    if (m->graph->nodes[id].op == DC_OP_CONCAT && m->plan->nodes[id].folded)
        for (int k = 0; k < m->graph->nodes[id].n_inputs; k++)
            mark_written(m, m->graph->nodes[id].inputs[k], written);
}

/* An add's input with no other reader has the add's own gradient. */
static bool shares_gradient(const dc_plan_maker *m, int add, int x)
{
    return m->graph->nodes[add].op == DC_OP_ADD && m->n_readers[x] == 1 && !m->kept[x] &&
           m->graph->nodes[x].op != DC_OP_CONCAT;
}

/* Whether a mix leaves the gradient of its input k to the one that it extends. */
static bool leaves_gradient(const dc_plan_maker *m, int id, int k)
{
    return k > 0 && k <= m->plan->nodes[id].n_left;
}

static dc_status order_gradient_writes(dc_plan_maker *m)
{
    bool *written = dc_alloc_zeroed((size_t)m->n);
    if (!written)
        return DC_ERR_MEMORY;
    for (int i = 0; i < m->n; i++) {
        m->grad_root[i] = i;
        m->grad_channel[i] = 0;
    }
    for (int i = m->n - 1; i >= 0; i--) {
        dc_plan_node *node = &m->plan->nodes[i];
        bool *wants = (bool *)node->wants, *accumulate = (bool *)node->accumulate;
        if (node->grad_deferred || (node->folded && m->graph->nodes[i].op == DC_OP_CONCAT))
            dc_plan_share_root(m, i, m->grad_root, m->grad_channel);
        if (!node->needs_grad || node->folded || node->grad_deferred || node->leader != i)
            continue;
        for (int k = 0; k < m->graph->nodes[i].n_inputs; k++) {
            int x = node->sources[k];
            if (!m->plan->nodes[x].needs_grad || leaves_gradient(m, i, k))
                continue;
            if (shares_gradient(m, i, x)) {
                m->grad_root[x] = m->grad_root[i];
                m->grad_channel[x] = m->grad_channel[i];
            } else {
                wants[k] = true;
                m->n_writers[x]++;
                m->last_writer[x] = i;
                accumulate[k] = written[x] || m->graph->nodes[x].batch_free;
            }
            mark_written(m, x, written);
        }
    }
    free(written);
    return DC_OK;
}

/* Chooses who sums the gradients of batch norms. */
static void choose_summers(dc_plan_maker *m)
{
    dc_plan_node *nodes = m->plan->nodes;
    for (int i = 0; i < m->n; i++)
        nodes[i].summed_by = -1;
    for (int x = 0; x < m->n && m->layout->sums_gradient; x++) {
        if (!nodes[x].grad_deferred || !nodes[x].needs_grad || m->kept[x] || m->grad_root[x] != x ||
            m->n_writers[x] == 0)
            continue;
        const int last = m->last_writer[x];
        const dc_plan_sums can = m->layout->sums_gradient(m->layout->context, m->graph, last, nodes[last].relu_input);
        if (can == DC_SUMS_LAST || (can == DC_SUMS_ALONE && m->n_writers[x] == 1))
            nodes[x].summed_by = last;
    }
}

/* ---- lifetimes ---- */

static void extend(dc_interval *span, int step)
{
    if (span->begin > step)
        span->begin = step;
    if (span->end < step)
        span->end = step;
}

static size_t tensor_bytes(const dc_plan_maker *m, int id)
{
    dc_shape s = m->graph->nodes[id].shape;
    if (m->graph->nodes[id].op == DC_OP_CROSS_ENTROPY)
        return 4 * sizeof(float);
    const size_t elements = (size_t)s.c * (size_t)s.h * (size_t)s.w;
    if (m->graph->nodes[id].batch_free)
        return elements * sizeof(float);
    return elements * (size_t)m->plan->rounded_batch * dc_plan_element_bytes(m->layout);
}

static size_t affine_bytes(const dc_plan_maker *m, int id)
{
    return 2 * (size_t)m->graph->nodes[id].shape.c * sizeof(float);
}

static void value_lifetimes(dc_plan_maker *m)
{
    for (int i = 0; i < m->n; i++) {
        const dc_node *node = &m->graph->nodes[i];
        const dc_plan_node *planned = &m->plan->nodes[i];
        if (!planned->active || node->op == DC_OP_INPUT || (node->op == DC_OP_RELU && planned->folded))
            continue;
        dc_interval *mine = &m->values[m->value_root[i]];
        if (planned->outer < 0)
            extend(mine, forward_step(m, i));
        if (m->kept[i] || node->batch_free)
            extend(mine, 2 * m->n);
        if (planned->needs_grad && (dc_op_backward_reads_output(node->op) || planned->norm >= 0))
            extend(mine, backward_step(m, i));
        for (int k = 0; k < node->n_inputs; k++) {
            dc_interval *read = &m->values[m->value_root[planned->sources[k]]];
            if (planned->inner != planned->sources[k])
                extend(read, forward_step(m, i));
            if (!planned->needs_grad || !dc_op_backward_reads_inputs(node->op))
                continue;
            if (planned->recomputed == planned->sources[k])
                read = &m->again[planned->recomputed];
            extend(read, backward_step(m, i));
        }
    }
    for (int i = 0; i < m->n; i++) {
        if (m->values[i].end >= 0 && m->graph->nodes[i].op != DC_OP_INPUT)
            m->values[i].bytes = tensor_bytes(m, i) + (m->normalised[i] ? affine_bytes(m, i) : 0);
        if (m->again[i].end >= 0)
            m->again[i].bytes = tensor_bytes(m, i);
    }
}

/* From the first reader to write it until the node has used it. */
static void gradient_lifetimes(dc_plan_maker *m)
{
    for (int i = 0; i < m->n; i++) {
        const dc_node *node = &m->graph->nodes[i];
        const dc_plan_node *planned = &m->plan->nodes[i];
        if (!planned->needs_grad || (node->op == DC_OP_RELU && planned->folded) || node->op == DC_OP_CROSS_ENTROPY)
            continue;
        dc_interval *mine = &m->grads[m->grad_root[i]];
        extend(mine, backward_step(m, i));
        for (int mix = planned->extends; mix >= 0; mix = m->plan->nodes[mix].extends)
            extend(mine, backward_step(m, mix));
        if (m->kept[i] || node->batch_free) {
            extend(mine, m->n);
            extend(mine, 2 * m->n);
        }
    }
    for (int i = 0; i < m->n; i++) {
        const dc_plan_node *planned = &m->plan->nodes[i];
        if (!planned->active || (m->graph->nodes[i].op == DC_OP_RELU && planned->folded))
            continue;
        for (int k = 0; k < m->graph->nodes[i].n_inputs; k++) {
            dc_interval *read = &m->grads[m->grad_root[planned->sources[k]]];
            if (read->end >= 0 && !leaves_gradient(m, i, k))
                extend(read, backward_step(m, i));
        }
    }
    for (int i = 0; i < m->n; i++)
        if (m->grads[i].end >= 0)
            m->grads[i].bytes = tensor_bytes(m, i);
}

static void extra_lifetimes(dc_plan_maker *m)
{
    for (int i = 0; i < m->n; i++) {
        const dc_plan_node *planned = &m->plan->nodes[i];
        if (!planned->active || planned->folded || m->graph->nodes[i].op == DC_OP_INPUT)
            continue;
        m->layout->extra(m->layout->context, m->graph, i, m->plan->batch, planned->relu_input, &m->saved[i].bytes,
                         &m->forward_scratch[i].bytes, &m->backward_scratch[i].bytes);
        extend(&m->saved[i], forward_step(m, i));
        extend(&m->forward_scratch[i], forward_step(m, i));
        if (planned->norm >= 0)
            extend(&m->forward_scratch[planned->norm], forward_step(m, i));
        if (planned->norm >= 0 && planned->needs_grad)
            extend(&m->saved[planned->norm], backward_step(m, i));
        if (m->again[i].bytes) {
            m->again_scratch[i] = m->again[i];
            m->again_scratch[i].bytes = m->forward_scratch[i].bytes;
        }
        if (planned->needs_grad) {
            extend(&m->saved[i], backward_step(m, i));
            extend(&m->backward_scratch[i], backward_step(m, i));
            if (planned->summed_by >= 0)
                extend(&m->backward_scratch[i], backward_step(m, planned->summed_by));
        } else {
            m->backward_scratch[i].bytes = 0;
        }
        if (planned->leader != i) { /* which comes before it, and works in one scratch for all */
            m->forward_scratch[planned->leader].bytes += m->forward_scratch[i].bytes;
            m->backward_scratch[planned->leader].bytes += m->backward_scratch[i].bytes;
            m->forward_scratch[i].bytes = m->backward_scratch[i].bytes = 0;
        }
    }
}

static void fill_places(dc_plan_maker *m)
{
    for (int i = 0; i < m->n; i++) {
        dc_plan_node *node = &m->plan->nodes[i];
        const dc_interval *value = &m->values[m->value_root[i]], *grad = &m->grads[m->grad_root[i]];
        const dc_place nowhere = {.offset_bytes = SIZE_MAX, .affine_bytes = SIZE_MAX};
        bool relu = node->folded && m->graph->nodes[i].op == DC_OP_RELU;
        bool seen_through = node->deferred || (node->folded && dc_plan_joins_deferred(m, i));
        node->value =
            !node->active || relu || !value->bytes
                ? nowhere
                : (dc_place){value->offset_bytes, m->graph->nodes[m->value_root[i]].shape.c, m->value_channel[i],
                             seen_through ? value->offset_bytes + tensor_bytes(m, m->value_root[i]) : SIZE_MAX};
        node->grad = !node->needs_grad || relu || !grad->bytes
                         ? nowhere
                         : (dc_place){grad->offset_bytes, m->graph->nodes[m->grad_root[i]].shape.c, m->grad_channel[i],
                                      SIZE_MAX};
        node->again =
            m->again[i].bytes ? (dc_place){m->again[i].offset_bytes, m->graph->nodes[i].shape.c, 0, SIZE_MAX} : nowhere;
        node->saved_offset_bytes = m->saved[i].bytes ? m->saved[i].offset_bytes : SIZE_MAX;
        node->forward_scratch_offset_bytes =
            m->forward_scratch[i].bytes ? m->forward_scratch[i].offset_bytes : SIZE_MAX;
        node->backward_scratch_offset_bytes =
            m->backward_scratch[i].bytes ? m->backward_scratch[i].offset_bytes : SIZE_MAX;
        node->again_scratch_offset_bytes = m->again_scratch[i].bytes ? m->again_scratch[i].offset_bytes : SIZE_MAX;
    }
}

/* ---- making ---- */

static dc_status make(dc_plan_maker *m, dc_interval *all)
{
    const dc_interval unused = {.begin = 1 << 30, .end = -1};
    for (int i = 0; i < N_INTERVALS * m->n; i++)
        all[i] = unused;
    dc_plan_fold(m);
    DC_TRY(mark_gradients(m));
    dc_plan_join_siblings(m);
    dc_plan_chain_mixes(m);
    DC_TRY(order_gradient_writes(m));
    choose_summers(m);
    value_lifetimes(m);
    gradient_lifetimes(m);
    extra_lifetimes(m);
    DC_TRY(dc_places_assign(all, N_INTERVALS * m->n, &m->plan->arena_bytes));
    fill_places(m);
    return DC_OK;
}

/* The plan with its arrays; sources are the graph's own inputs until a relu is folded. */
static dc_status allocate(const dc_graph *graph, dc_plan *plan)
{
    size_t n_inputs = 0;
    for (int i = 0; i < graph->n_nodes; i++)
        n_inputs += (size_t)graph->nodes[i].n_inputs;
    plan->nodes = dc_alloc_zeroed((size_t)graph->n_nodes * sizeof *plan->nodes);
    plan->storage = dc_alloc_zeroed(sizeof *plan->storage);
    if (!plan->nodes || !plan->storage)
        return DC_ERR_MEMORY;
    int *sources = plan->storage->sources = dc_alloc((n_inputs + 1) * sizeof *sources);
    bool *flags = plan->storage->flags = dc_alloc_zeroed(2 * n_inputs + 1);
    if (!sources || !flags)
        return DC_ERR_MEMORY;
    for (int i = 0; i < graph->n_nodes; i++) {
        size_t n = (size_t)graph->nodes[i].n_inputs;
        if (n)
            memcpy(sources, graph->nodes[i].inputs, n * sizeof *sources);
        plan->nodes[i].sources = sources;
        plan->nodes[i].wants = flags;
        plan->nodes[i].accumulate = flags + n;
        sources += n;
        flags += 2 * n;
    }
    return DC_OK;
}

dc_status dc_plan_create(const dc_graph *graph, const dc_plan_layout *layout, const dc_plan_options *options,
                         dc_plan **plan_out)
{
    DC_TRY(dc_graph_check(graph));
    if (options->batch < 1)
        return dc_fail(DC_ERR_INPUT, "batch %d: at least one image is needed", options->batch);
    dc_plan *plan = dc_alloc_zeroed(sizeof *plan);
    if (!plan)
        return DC_ERR_MEMORY;
    plan->graph = graph;
    plan->batch = options->batch;
    plan->rounded_batch = (options->batch + layout->lane - 1) / layout->lane * layout->lane;
    plan->training = options->training;
    size_t n = (size_t)graph->n_nodes;
    int *ints = dc_alloc_zeroed(8 * n * sizeof *ints);
    bool *flags = dc_alloc_zeroed(2 * n);
    dc_interval *all = dc_alloc(N_INTERVALS * n * sizeof *all);
    dc_status status = ints && flags && all ? allocate(graph, plan) : DC_ERR_MEMORY;
    if (status == DC_OK) {
        dc_plan_maker m = {.graph = graph,
                           .layout = layout,
                           .options = options,
                           .plan = plan,
                           .n = (int)n,
                           .last_reader = ints,
                           .n_readers = ints + n,
                           .kept = flags,
                           .value_root = ints + 2 * n,
                           .value_channel = ints + 3 * n,
                           .grad_root = ints + 4 * n,
                           .grad_channel = ints + 5 * n,
                           .n_writers = ints + 6 * n,
                           .last_writer = ints + 7 * n,
                           .normalised = flags + n,
                           .values = all,
                           .grads = all + n,
                           .saved = all + 2 * n,
                           .forward_scratch = all + 3 * n,
                           .backward_scratch = all + 4 * n,
                           .again = all + 5 * n,
                           .again_scratch = all + 6 * n};
        status = make(&m, all);
    }
    free(ints);
    free(flags);
    free(all);
    if (status != DC_OK) {
        dc_plan_destroy(plan);
        return status;
    }
    *plan_out = plan;
    return DC_OK;
}

void dc_plan_destroy(dc_plan *plan)
{
    if (!plan)
        return;
    if (plan->storage) {
        free(plan->storage->sources);
        free(plan->storage->flags);
    }
    free(plan->storage);
    free(plan->nodes);
    free(plan);
}
