/* Plans of random graphs, executed on a memory that remembers only who wrote each piece last: what a node reads must
 * still be there, in forward and in backward, and gradients must be complete before they are used. */
#include "base/rng.h"
#include "graph/plan.h"
#include "tests/support/random_graph.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LANE = 16, BATCH = 20, PIECE = 64, N_GRAPHS = 400, N_SIBLINGS = 64 };

enum kind { VALUE = 1, GRAD, SAVED, SCRATCH, AFFINE };

typedef struct memory {
    const dc_graph *graph;
    const dc_plan *plan;
    int *owner;   /* of each PIECE bytes */
    int *written; /* per node: contributions to its gradient so far */
    int *alias;   /* per node: whose gradient its own is */
    uint64_t seed;
} memory;

static int tag(enum kind kind, int node)
{
    return node * 8 + (int)kind;
}

/* Sizes that vary with the node, some 0. */
static void extra(const void *context, const dc_graph *graph, int node, int batch, bool relu_input, size_t *saved,
                  size_t *forward, size_t *backward)
{
    (void)context, (void)batch, (void)relu_input;
    *saved = (size_t)(node * 37 % 5) * 50;
    *forward = (size_t)(node * 53 % 4) * 90 + (size_t)graph->nodes[node].n_params;
    *backward = (size_t)(node * 29 % 7) * 70;
}

/* ---- pieces of memory ---- */

static void paint(memory *m, size_t offset, size_t bytes, int who)
{
    assert_int_equal(offset % PIECE, 0);
    assert_true(offset + bytes <= m->plan->arena_bytes);
    for (size_t i = offset / PIECE; i * PIECE < offset + bytes; i++)
        m->owner[i] = who;
}

static void check_owner(const memory *m, size_t offset, size_t bytes, int who)
{
    for (size_t i = offset / PIECE; i * PIECE < offset + bytes; i++)
        if (m->owner[i] != who)
            fail_msg("graph %llu: '%s' (%d) was overwritten by '%s' (%d)", (unsigned long long)m->seed,
                     m->graph->nodes[who / 8].name, who % 8, m->graph->nodes[m->owner[i] / 8].name, m->owner[i] % 8);
}

/* Every piece of a tensor, or channel range of one. */
static void each(memory *m, int node, dc_place place, int who, bool write)
{
    dc_shape s = m->graph->nodes[node].shape;
    assert_true(place.offset_bytes != SIZE_MAX);
    size_t channel = (size_t)s.h * (size_t)s.w * LANE * sizeof(float);
    size_t blocks = (size_t)m->plan->rounded_batch / LANE;
    if (m->graph->nodes[node].batch_free) {
        channel = (size_t)s.c * (size_t)s.h * (size_t)s.w * sizeof(float);
        blocks = 1;
        s.c = 1;
    } else {
        assert_true(place.first_channel + s.c <= place.storage_channels);
    }
    for (size_t b = 0; b < blocks; b++) {
        size_t first = b * (size_t)place.storage_channels * channel + (size_t)place.first_channel * channel;
        if (write)
            paint(m, place.offset_bytes + first, (size_t)s.c * channel, who);
        else
            check_owner(m, place.offset_bytes + first, (size_t)s.c * channel, who);
    }
}

static void at_offset(memory *m, int node, size_t offset, size_t bytes, enum kind kind, bool write)
{
    if (!bytes)
        return;
    if (write)
        paint(m, offset, bytes, tag(kind, node));
    else
        check_owner(m, offset, bytes, tag(kind, node));
}

static bool is_view(const memory *m, int node)
{
    return m->graph->nodes[node].op == DC_OP_CONCAT && m->plan->nodes[node].folded;
}

/* ---- values ---- */

/* The scales and shifts of a stored tensor: named after the concat that it is, or the only batch norm. */
static void affine(memory *m, int node, bool write)
{
    int owner = node;
    for (int i = 0; i < m->graph->n_nodes; i++)
        for (int k = 0; k < m->graph->nodes[i].n_inputs && is_view(m, i); k++)
            owner = m->graph->nodes[i].inputs[k] == node ? i : owner;
    dc_place place = m->plan->nodes[node].value;
    at_offset(m, owner, place.affine_bytes, (size_t)place.storage_channels * 2 * sizeof(float), AFFINE, write);
}

static void check_value(memory *m, int node)
{
    const dc_node *n = &m->graph->nodes[node];
    if (n->op == DC_OP_INPUT)
        return;
    assert_int_equal(m->plan->nodes[node].value.affine_bytes != SIZE_MAX,
                     m->plan->nodes[node].deferred || (is_view(m, node) && m->plan->nodes[n->inputs[0]].deferred));
    if (m->plan->nodes[node].deferred) { /* the input's, seen through an affine */
        dc_place mine = m->plan->nodes[node].value, below = m->plan->nodes[m->plan->nodes[node].sources[0]].value;
        assert_int_equal(mine.offset_bytes, below.offset_bytes);
        assert_int_equal(mine.first_channel, below.first_channel);
        affine(m, node, false);
        check_value(m, m->plan->nodes[node].sources[0]);
        return;
    }
    if (!is_view(m, node)) {
        each(m, node, m->plan->nodes[node].value, tag(VALUE, node), false);
        return;
    }
    int channel = m->plan->nodes[node].value.first_channel;
    for (int k = 0; k < n->n_inputs; k++) {
        dc_place part = m->plan->nodes[n->inputs[k]].value, whole = m->plan->nodes[node].value;
        assert_int_equal(part.offset_bytes, whole.offset_bytes);
        assert_int_equal(part.storage_channels, whole.storage_channels);
        assert_int_equal(part.first_channel, channel);
        channel += m->graph->nodes[n->inputs[k]].shape.c;
        check_value(m, n->inputs[k]);
    }
}

/* What a node that runs asks for, scratch also for those that it leads; for others there is none. */
static void extra_in(const memory *m, int node, size_t *saved, size_t *forward, size_t *backward)
{
    extra(NULL, m->graph, node, 0, false, saved, forward, backward);
    const dc_plan_node *p = &m->plan->nodes[node];
    if (p->leader != node)
        *forward = *backward = 0;
    for (int i = p->leader == node ? p->next_sibling : -1; i >= 0; i = m->plan->nodes[i].next_sibling) {
        size_t other, more_forward, more_backward;
        extra(NULL, m->graph, i, 0, false, &other, &more_forward, &more_backward);
        *forward += more_forward;
        *backward += more_backward;
    }
}

static void own_extra(memory *m, int node, bool backward, bool write)
{
    const dc_plan_node *p = &m->plan->nodes[node];
    size_t saved, forward_bytes, backward_bytes;
    extra_in(m, node, &saved, &forward_bytes, &backward_bytes);
    if (p->outer >= 0)
        saved = 0;
    if (!backward && write && p->norm >= 0) { /* moments, among those of the convolutions beside it */
        size_t moments, other;
        extra(NULL, m->graph, p->norm, 0, false, &other, &moments, &other);
        at_offset(m, p->norm, m->plan->nodes[p->norm].forward_scratch_offset_bytes, moments, SCRATCH, true);
    }
    if (!backward || !write)
        at_offset(m, node, p->saved_offset_bytes, saved, SAVED, write);
    if (backward)
        at_offset(m, node, p->backward_scratch_offset_bytes, backward_bytes, SCRATCH, write && p->summed_by < 0);
    else
        at_offset(m, node, p->forward_scratch_offset_bytes, forward_bytes, SCRATCH, write && !p->grad_deferred);
}

static bool runs(const memory *m, int node)
{
    const dc_plan_node *p = &m->plan->nodes[node];
    return p->active && !p->folded && m->graph->nodes[node].op != DC_OP_INPUT;
}

/* Forward; an inner convolution does not, its outer one runs for it. */
static bool runs_forward(const memory *m, int node)
{
    const dc_plan_node *p = &m->plan->nodes[node];
    return runs(m, node) && p->outer < 0;
}

/* What a node reads forward. */
static void check_inputs(memory *m, int node)
{
    const dc_plan_node *p = &m->plan->nodes[node];
    for (int k = 0; k < m->graph->nodes[node].n_inputs; k++) {
        int x = p->sources[k];
        assert_true(m->plan->nodes[x].active);
        assert_false(m->plan->nodes[x].folded && m->graph->nodes[x].op == DC_OP_RELU);
        if (x == p->inner)
            check_inputs(m, x);
        else
            check_value(m, x);
    }
}

static void forward(memory *m, int node)
{
    const dc_plan_node *p = &m->plan->nodes[node];
    own_extra(m, node, false, true);
    if (p->deferred)
        affine(m, node, true);
    else
        each(m, node, p->value, tag(VALUE, node), true);
    own_extra(m, node, false, false);
    check_inputs(m, node);
}

/* ---- gradients ---- */

/* How often a node's gradient is added to: once for each place where a node that has a gradient reads it. */
static int readings(const memory *m, int node)
{
    int n = 0;
    for (int i = 0; i < m->graph->n_nodes; i++)
        for (int k = 0; k < m->graph->nodes[i].n_inputs; k++)
            n += m->plan->nodes[i].needs_grad && !(m->plan->nodes[i].folded && m->graph->nodes[i].op == DC_OP_RELU) &&
                 m->plan->nodes[i].sources[k] == node;
    return n;
}

static void write_grad(memory *m, int node, dc_place from)
{
    const dc_plan_node *p = &m->plan->nodes[node];
    m->written[node]++;
    if (is_view(m, node)) {
        for (int k = 0; k < m->graph->nodes[node].n_inputs; k++) {
            dc_place part = from;
            int x = m->graph->nodes[node].inputs[k];
            for (int j = 0; j < k; j++)
                part.first_channel += m->graph->nodes[m->graph->nodes[node].inputs[j]].shape.c;
            if (m->plan->nodes[x].needs_grad && m->written[node] == 1) { /* once for all its readers */
                assert_int_equal(m->written[x], 0);                      /* nothing yet that this would overwrite */
                write_grad(m, x, part);
            } else {
                each(m, x, part, tag(GRAD, x), true);
            }
        }
        return;
    }
    if (p->needs_grad) {
        assert_int_equal(p->grad.offset_bytes, from.offset_bytes);
        assert_int_equal(p->grad.first_channel, from.first_channel);
    }
    each(m, node, from, tag(GRAD, node), true);
}

static void check_grad(memory *m, int node)
{
    int owner = node;
    while (m->alias[owner] != owner)
        owner = m->alias[owner];
    each(m, node, m->plan->nodes[node].grad, tag(GRAD, owner), false);
}

static void backward_reads(memory *m, int node)
{
    const dc_node *n = &m->graph->nodes[node];
    own_extra(m, node, true, false);
    const dc_plan_node *p = &m->plan->nodes[node];
    if (n->op != DC_OP_CROSS_ENTROPY)
        check_grad(m, node);
    for (int by = p->extended_by; by >= 0; by = m->plan->nodes[by].extended_by) {
        assert_int_equal(m->written[by], readings(m, by));
        check_grad(m, by);
    }
    if (dc_op_backward_reads_output(n->op) || p->norm >= 0)
        check_value(m, node);
    if (p->norm >= 0) {
        size_t saved, other;
        extra(NULL, m->graph, p->norm, 0, false, &saved, &other, &other);
        at_offset(m, p->norm, m->plan->nodes[p->norm].saved_offset_bytes, saved, SAVED, false);
    }
    for (int k = 0; k < n->n_inputs && dc_op_backward_reads_inputs(n->op); k++)
        if (p->sources[k] == p->recomputed)
            each(m, p->recomputed, m->plan->nodes[p->recomputed].again, tag(VALUE, p->recomputed), false);
        else
            check_value(m, p->sources[k]);
}

/* The forward of what is computed again for node's backward. */
static void recompute(memory *m, int node)
{
    const dc_plan_node *p = &m->plan->nodes[node];
    size_t scratch, other;
    extra(NULL, m->graph, node, 0, false, &other, &scratch, &other);
    at_offset(m, node, p->again_scratch_offset_bytes, scratch, SCRATCH, true);
    each(m, node, p->again, tag(VALUE, node), true);
    at_offset(m, node, p->again_scratch_offset_bytes, scratch, SCRATCH, false);
    for (int k = 0; k < m->graph->nodes[node].n_inputs; k++)
        check_value(m, p->sources[k]);
}

static int n_summed[2]; /* batch norms, by others and by mixes */

/* The sums that a node leaves, before it does anything else, for the batch norms that it reads: it needs their means
 * and what they read; written false: whether they are there when it has done all else, and are of the whole gradient.
 */
static void leave_sums(memory *m, int node, bool write)
{
    for (int k = 0; k < m->graph->nodes[node].n_inputs; k++) {
        const int x = m->plan->nodes[node].sources[k];
        size_t saved, scratch, other;
        if (m->plan->nodes[x].summed_by != node)
            continue;
        extra(NULL, m->graph, x, 0, false, &saved, &other, &scratch);
        at_offset(m, x, m->plan->nodes[x].saved_offset_bytes, saved, SAVED, false);
        at_offset(m, x, m->plan->nodes[x].backward_scratch_offset_bytes, scratch, SCRATCH, write);
        check_value(m, m->plan->nodes[x].sources[0]);
        assert_true(write || m->written[x] == readings(m, x));
        n_summed[m->graph->nodes[node].op == DC_OP_MIX] += write;
    }
}

static void backward(memory *m, int node)
{
    const dc_node *n = &m->graph->nodes[node];
    const dc_plan_node *p = &m->plan->nodes[node];
    if (n->op != DC_OP_CROSS_ENTROPY)
        assert_int_equal(m->written[node], readings(m, node));
    if (p->recomputed >= 0)
        recompute(m, p->recomputed);
    own_extra(m, node, true, true);
    for (int k = 0; k < n->n_inputs; k++) {
        int x = p->sources[k];
        if (!m->plan->nodes[x].needs_grad) {
            assert_false(p->wants[k]);
        } else if (k > 0 && k <= p->n_left) { /* the one that it extends writes it */
            assert_int_equal(m->graph->nodes[p->extends].inputs[k], n->inputs[k]);
            assert_false(p->wants[k]);
        } else if (p->leader != node) { /* the leader writes it */
            assert_false(p->wants[k]);
            m->written[x]++;
        } else if (!p->wants[k]) { /* it shares ours */
            assert_true(n->op == DC_OP_ADD || p->grad_deferred);
            assert_int_equal(readings(m, x), 1);
            assert_int_equal(m->plan->nodes[x].grad.offset_bytes, p->grad.offset_bytes);
            assert_int_equal(m->plan->nodes[x].grad.first_channel, p->grad.first_channel);
            for (int j = 0; j < m->graph->nodes[x].n_inputs && is_view(m, x); j++) {
                m->alias[m->graph->nodes[x].inputs[j]] = node;
                m->written[m->graph->nodes[x].inputs[j]]++;
            }
            m->alias[x] = node;
            m->written[x]++;
        } else {
            assert_int_equal(p->accumulate[k], m->written[x] > 0);
            if (m->written[x] > 0 && !is_view(m, x))
                check_grad(m, x);
            write_grad(m, x, m->plan->nodes[x].grad);
            for (int by = k > 0 ? p->extended_by : -1; by >= 0; by = m->plan->nodes[by].extended_by)
                m->written[x]++;
        }
    }
    backward_reads(m, node);
}

/* ---- a step ---- */

/* Those that run with it, in forward or backward: all are written before any is read, as their order is free. */
static int run_with(memory *m, int leader, bool is_backward)
{
    int n = 0;
    if (is_backward)
        leave_sums(m, leader, true);
    for (int i = leader; i >= 0; i = m->plan->nodes[i].next_sibling, n++) {
        assert_int_equal(m->plan->nodes[i].leader, leader);
        assert_int_equal(m->plan->nodes[i].sources[0], m->plan->nodes[leader].sources[0]);
        assert_int_equal(m->plan->nodes[i].needs_grad, m->plan->nodes[leader].needs_grad);
        if (is_backward)
            backward(m, i);
        else
            forward(m, i);
    }
    for (int i = leader; i >= 0 && n > 1; i = m->plan->nodes[i].next_sibling) {
        own_extra(m, i, is_backward, false);
        if (is_backward)
            backward_reads(m, i);
        else
            each(m, i, m->plan->nodes[i].value, tag(VALUE, i), false);
    }
    if (is_backward)
        leave_sums(m, leader, false);
    return n;
}

/* How many inputs mixes leave to those that they extend. */
static int count_left(const memory *m)
{
    int left = 0;
    for (int i = 0; i < m->graph->n_nodes; i++)
        left += m->graph->nodes[i].op == DC_OP_MIX ? m->plan->nodes[i].n_left : 0;
    return left;
}

/* Returns how much is done at another's step. */
static int run_step(memory *m, const dc_plan_options *options)
{
    const dc_graph *g = m->graph;
    int joined = 0;
    for (int i = 0; i < g->n_nodes; i++) {
        m->alias[i] = i;
        if (runs_forward(m, i) && m->plan->nodes[i].leader == i)
            joined += run_with(m, i, false) - 1;
    }
    for (int i = 0; i < g->n_nodes; i++)
        if (g->nodes[i].op == DC_OP_SOFTMAX && m->plan->nodes[i].needs_grad)
            write_grad(m, i, m->plan->nodes[i].grad); /* it is zeroed now, and counts as written from here on */
    for (int i = g->n_nodes - 1; i >= 0; i--) {
        if (!m->plan->nodes[i].needs_grad || !runs(m, i) || m->plan->nodes[i].leader != i)
            continue;
        if (g->nodes[i].op == DC_OP_SOFTMAX)
            m->written[i]--;
        run_with(m, i, true);
    }
    for (int i = 0; i < g->n_nodes; i++)
        if (runs(m, i) && (i == g->logits || g->nodes[i].op == DC_OP_CROSS_ENTROPY))
            check_value(m, i);
    for (int k = 0; k < options->n_keep; k++)
        check_value(m, options->keep[k]);
    return joined + count_left(m);
}

/* Convolutions of one tensor, each behind its batch norm, with chains between them that take and leave memory. */
static dc_graph *siblings(uint64_t seed)
{
    dc_graph *g = dc_graph_create((dc_shape){3, 8, 8});
    int x = dc_graph_conv(g, "x", g->input, 3, 3, 1, 1, 1, 1, 1), sum[4];
    for (int i = 0; i < 4; i++) {
        char name[8] = {'c', (char)('0' + i), 0};
        sum[i] = dc_graph_conv(g, name, x, 3, 1, 1, 0, 0, 1, 1);
        name[0] = 'n';
        sum[i] = dc_graph_batch_norm(g, name, sum[i], true);
        for (int j = 0; j < 1 + (int)(seed >> i & 3); j++) {
            char link[8] = {'l', (char)('0' + i), (char)('0' + j), 0};
            sum[i] = j % 2 ? dc_graph_conv(g, link, sum[i], 3, 3, 1, 1, 1, 1, 1)
                           : dc_graph_max_pool(g, link, sum[i], 3, 1, 1);
        }
    }
    g->logits = dc_graph_linear(g, "linear", dc_graph_global_avg_pool(g, "pool", dc_graph_add(g, "sum", 4, sum)), 2);
    dc_graph_cross_entropy(g, "loss", g->logits, 0, 1);
    return g;
}

static int check_plan(uint64_t seed, const dc_plan_layout *layout, dc_plan_options options)
{
    dc_graph *g = seed < N_GRAPHS ? random_graph(seed) : siblings(seed);
    assert_int_equal(dc_graph_check(g), DC_OK);
    int keep[2] = {(int)(seed % (uint64_t)g->n_nodes), (int)(seed * 7 % (uint64_t)g->n_nodes)};
    options.n_keep = (int)(seed % 3);
    options.keep = keep;
    dc_plan *plan;
    assert_int_equal(dc_plan_create(g, layout, &options, &plan), DC_OK);
    size_t n = (size_t)g->n_nodes;
    memory m = {g,
                plan,
                calloc(plan->arena_bytes / PIECE + 1, sizeof *m.owner),
                calloc(n, sizeof(int)),
                calloc(n, sizeof(int)),
                seed};
    int joined = run_step(&m, &options);
    dc_plan *again;
    assert_int_equal(dc_plan_create(g, layout, &options, &again), DC_OK);
    assert_int_equal(again->arena_bytes, plan->arena_bytes);
    assert_memory_equal(&again->nodes[n - 1].value, &plan->nodes[n - 1].value, sizeof plan->nodes[0].value);
    dc_plan_destroy(again);
    free(m.owner);
    free(m.written);
    free(m.alias);
    dc_plan_destroy(plan);
    dc_graph_destroy(g);
    return joined;
}

static bool reads_deferred(const void *context, const dc_graph *graph, int node, bool relu_input)
{
    (void)context, (void)graph;
    return relu_input || node % 7 != 0;
}

static bool takes_norm(const void *context, const dc_graph *graph, int node)
{
    (void)context, (void)graph;
    return node % 3 != 0;
}

static bool recomputes(const void *context, const dc_graph *graph, int node)
{
    (void)context, (void)graph;
    return node % 2 != 0;
}

static bool joins(const void *context, const dc_graph *graph, int n, const int *nodes)
{
    (void)context, (void)graph;
    return n <= DC_MAX_SIBLINGS && nodes[n - 1] % 5 != 0;
}

static bool fuses(const void *context, const dc_graph *graph, int node)
{
    (void)context, (void)graph;
    return node % 5 != 0;
}

static dc_plan_sums sums_gradient(const void *context, const dc_graph *graph, int node, bool relu_input)
{
    (void)context, (void)relu_input;
    return graph->nodes[node].op == DC_OP_MIX ? DC_SUMS_ALONE : node % 3 != 0 ? DC_SUMS_LAST : DC_SUMS_NONE;
}

static const dc_plan_layout folding = {.lane = LANE,
                                       .folds_relu = true,
                                       .concat_views = true,
                                       .reads_deferred = reads_deferred,
                                       .takes_norm = takes_norm,
                                       .joins = joins,
                                       .chains_mixes = true,
                                       .sums_gradient = sums_gradient,
                                       .recomputes = recomputes,
                                       .fuses = fuses,
                                       .extra = extra};
static const dc_plan_layout plain = {.lane = LANE, .extra = extra};

static void nothing_that_is_read_was_overwritten_in_training(void **state)
{
    (void)state;
    int joined = 0;
    for (uint64_t seed = 0; seed < N_GRAPHS + N_SIBLINGS; seed++) {
        joined += check_plan(seed, &folding, (dc_plan_options){.batch = BATCH, .training = true});
        assert_int_equal(check_plan(seed, &plain, (dc_plan_options){.batch = BATCH, .training = true}), 0);
    }
    assert_true(joined > 0);
    assert_true(n_summed[0] > 0 && n_summed[1] > 0);
}

static void nothing_that_is_read_was_overwritten_in_inference(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < N_GRAPHS; seed++) {
        check_plan(seed, &folding, (dc_plan_options){.batch = BATCH, .keep_losses = seed % 2});
        check_plan(seed, &plain, (dc_plan_options){.batch = BATCH, .keep_losses = seed % 2});
    }
}

static void memory_is_reused_and_nothing_is_moved(void **state)
{
    (void)state;
    dc_graph *g = dc_graph_create((dc_shape){4, 8, 8});
    int x = g->input, parts[3];
    for (int i = 0; i < 6; i++) { /* two tensors suffice in inference */
        char name[8] = {'c', (char)('0' + i), 0};
        x = dc_graph_conv(g, name, x, 4, 3, 1, 1, 1, 1, 1);
    }
    int relu = dc_graph_relu(g, "relu", x);
    for (int i = 0; i < 3; i++) {
        char name[8] = {'p', (char)('0' + i), 0};
        parts[i] = dc_graph_conv(g, name, relu, 4, 1, 1, 0, 0, 1, 1);
    }
    int all = dc_graph_concat(g, "concat", 3, parts);
    g->logits = dc_graph_global_avg_pool(g, "pool", all);
    dc_plan_layout layout = {.lane = LANE, .folds_relu = true, .concat_views = true, .extra = extra};
    dc_plan_options options = {.batch = LANE};
    dc_plan *plan;
    assert_int_equal(dc_plan_create(g, &layout, &options, &plan), DC_OK);
    assert_true(plan->nodes[all].folded);
    assert_true(plan->nodes[relu].folded);
    size_t tensor = LANE * 4 * 8 * 8 * sizeof(float);
    assert_true(plan->arena_bytes < 6 * tensor); /* of ten: two of the chain, and the concat */
    dc_plan_destroy(plan);
    dc_graph_destroy(g);
}

static void no_extra(const void *context, const dc_graph *graph, int node, int batch, bool relu_input, size_t *saved,
                     size_t *forward, size_t *backward)
{
    (void)context, (void)graph, (void)node, (void)batch, (void)relu_input;
    *saved = *forward = *backward = 0;
}

/* Tensors of images are half as large, but what belongs to no image, alpha's softmax and the loss, is not. */
static void narrow_elements_halve_a_step(void **state)
{
    (void)state;
    size_t bytes[2];
    for (int narrow = 0; narrow < 2; narrow++) {
        dc_graph *g = dc_graph_create((dc_shape){4, 16, 16});
        const int first = dc_graph_conv(g, "first", g->input, 4, 3, 1, 1, 1, 1, 1), features[] = {first, first};
        const int alpha = dc_graph_softmax(g, "alpha", 100, 8, 1);
        const int mix = dc_graph_mix(g, "mix", alpha, 2, features, (const int[]){1, 5});
        g->logits = dc_graph_linear(g, "logits", mix, 10);
        dc_graph_cross_entropy(g, "loss", g->logits, 0, 1);
        const dc_plan_layout layout = {.lane = LANE, .narrow = narrow, .concat_views = true, .extra = no_extra};
        const dc_plan_options options = {.batch = LANE, .training = true};
        dc_plan *plan;
        assert_int_equal(dc_plan_create(g, &layout, &options, &plan), DC_OK);
        bytes[narrow] = plan->arena_bytes;
        dc_plan_destroy(plan);
        dc_graph_destroy(g);
    }
    const size_t alphas = 2 * 800 * sizeof(float), pieces = 8 * 256; /* with gradient; tensors are rounded up */
    assert_true(bytes[1] <= (bytes[0] - alphas) / 2 + alphas + pieces);
    assert_true(bytes[1] >= (bytes[0] - alphas) / 2 + alphas - pieces);
}

/* A cell's nodes with shared operations: the first to read a feature differentiates it for all of them. */
static void mixes_of_the_same_features_are_chained(void **state)
{
    (void)state;
    dc_graph *g = dc_graph_create((dc_shape){4, 8, 8});
    int mixes[DC_MAX_READERS + 1], features[2 * DC_MAX_READERS + 3], index[2 * DC_MAX_READERS + 3], n = 0;
    const int alpha = dc_graph_softmax(g, "alpha", 8, 8, 1);
    int x = dc_graph_conv(g, "x", g->input, 4, 3, 1, 1, 1, 1, 1);
    for (int i = 0; i <= DC_MAX_READERS; i++) {
        char name[8] = {'f', (char)('0' + i), 0};
        features[n] = dc_graph_max_pool(g, name, x, 3, 1, 1), index[n] = n, n++;
        features[n] = x, index[n] = n, n++;
        name[0] = 'm';
        x = mixes[i] = dc_graph_mix(g, name, alpha, n, features, index);
    }
    g->logits = dc_graph_linear(g, "logits", x, 10);
    dc_graph_cross_entropy(g, "loss", g->logits, 0, 1);
    const dc_plan_layout layout = {.lane = LANE, .chains_mixes = true, .extra = no_extra};
    dc_plan *plan;
    assert_int_equal(dc_plan_create(g, &layout, &(dc_plan_options){.batch = LANE, .training = true}, &plan), DC_OK);
    for (int i = 0; i < DC_MAX_READERS; i++) {
        const dc_plan_node *mix = &plan->nodes[mixes[i]];
        assert_int_equal(mix->extends, i > 0 ? mixes[i - 1] : -1);
        assert_int_equal(mix->extended_by, i + 1 < DC_MAX_READERS ? mixes[i + 1] : -1);
        assert_int_equal(mix->n_left, 2 * i);
        for (int k = 1; k <= 2 * i + 2; k++)
            assert_int_equal(mix->wants[k], k > 2 * i);
    }
    assert_int_equal(plan->nodes[mixes[DC_MAX_READERS]].extends, -1); /* one too many: it is on its own */
    dc_plan_destroy(plan);
    dc_graph_destroy(g);
}

static void batches_and_graphs_that_are_none_are_refused(void **state)
{
    (void)state;
    dc_plan *plan;
    dc_graph *g = random_graph(0);
    assert_int_equal(dc_plan_create(g, &plain, &(dc_plan_options){.batch = 0}, &plan), DC_ERR_INPUT);
    assert_non_null(strstr(dc_status_message(), "batch 0"));
    dc_graph_relu(g, "bad", 1 << 20);
    assert_int_equal(dc_plan_create(g, &plain, &(dc_plan_options){.batch = 1}, &plan), DC_ERR_INPUT);
    dc_graph_destroy(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(nothing_that_is_read_was_overwritten_in_training),
                                       cmocka_unit_test(nothing_that_is_read_was_overwritten_in_inference),
                                       cmocka_unit_test(memory_is_reused_and_nothing_is_moved),
                                       cmocka_unit_test(mixes_of_the_same_features_are_chained),
                                       cmocka_unit_test(narrow_elements_halve_a_step),
                                       cmocka_unit_test(batches_and_graphs_that_are_none_are_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
