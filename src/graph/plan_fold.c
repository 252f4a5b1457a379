/* Which nodes run, what each one really reads, and what costs no pass over memory of its own. */
#include "graph/plan_maker.h"

#include <string.h>

static void mark_active(dc_plan_maker *m)
{
    const dc_graph *g = m->graph;
    dc_plan_node *nodes = m->plan->nodes;
    for (int i = 0; i < m->n; i++) {
        bool loss = g->nodes[i].op == DC_OP_CROSS_ENTROPY;
        bool wanted_loss = m->options->training || (m->options->keep_losses && !g->nodes[i].auxiliary);
        m->kept[i] = (loss && wanted_loss) || i == g->logits;
    }
    for (int k = 0; k < m->options->n_keep; k++)
        m->kept[m->options->keep[k]] = true;
    for (int i = m->n - 1; i >= 0; i--) {
        nodes[i].active |= m->kept[i];
        if (nodes[i].active)
            for (int k = 0; k < g->nodes[i].n_inputs; k++)
                nodes[g->nodes[i].inputs[k]].active = true;
    }
}

static void count_readers(dc_plan_maker *m)
{
    for (int i = 0; i < m->n; i++) {
        m->last_reader[i] = -1;
        m->n_readers[i] = 0;
    }
    for (int i = 0; i < m->n; i++) {
        const dc_plan_node *node = &m->plan->nodes[i];
        if (!node->active || (node->folded && m->graph->nodes[i].op == DC_OP_RELU))
            continue;
        for (int k = 0; k < m->graph->nodes[i].n_inputs; k++) {
            m->last_reader[node->sources[k]] = i;
            m->n_readers[node->sources[k]]++;
        }
    }
}

/* A relu that only convolutions read is applied by them on load. */
static void fold_relus(dc_plan_maker *m)
{
    const dc_graph *g = m->graph;
    dc_plan_node *nodes = m->plan->nodes;
    if (!m->layout->folds_relu)
        return;
    for (int i = 0; i < m->n; i++)
        nodes[i].folded = g->nodes[i].op == DC_OP_RELU && nodes[i].active && !m->kept[i];
    for (int i = 0; i < m->n; i++)
        if (nodes[i].active && g->nodes[i].op != DC_OP_CONV)
            for (int k = 0; k < g->nodes[i].n_inputs; k++)
                nodes[g->nodes[i].inputs[k]].folded = false;
    for (int i = 0; i < m->n; i++)
        if (nodes[i].active && g->nodes[i].op == DC_OP_CONV && nodes[g->nodes[i].inputs[0]].folded) {
            nodes[i].relu_input = true;
            ((int *)nodes[i].sources)[0] = g->nodes[g->nodes[i].inputs[0]].inputs[0];
        }
}

/* What x is made of must be stored: its reader cannot see through a batch norm. */
static void forbid_deferring(dc_plan_maker *m, int x)
{
    m->plan->nodes[x].deferred = false;
    for (int k = 0; m->graph->nodes[x].op == DC_OP_CONCAT && k < m->graph->nodes[x].n_inputs; k++)
        forbid_deferring(m, m->graph->nodes[x].inputs[k]);
}

static bool reads_deferred(const dc_plan_maker *m, int id)
{
    const dc_plan_layout *layout = m->layout;
    return dc_op_reads_deferred(m->graph->nodes[id].op) &&
           layout->reads_deferred(layout->context, m->graph, id, m->plan->nodes[id].relu_input);
}

/* A batch norm that alone reads its input, and whose readers can all read through it, is deferred. */
static void defer_norms(dc_plan_maker *m)
{
    const dc_graph *g = m->graph;
    dc_plan_node *nodes = m->plan->nodes;
    if (!m->layout->reads_deferred)
        return;
    for (int i = 0; i < m->n; i++) {
        int x = g->nodes[i].op == DC_OP_BATCH_NORM ? nodes[i].sources[0] : -1;
        nodes[i].deferred = x >= 0 && nodes[i].active && !m->kept[i] && !m->kept[x] && m->n_readers[x] == 1 &&
                            g->nodes[x].op != DC_OP_INPUT;
    }
    for (int i = 0; i < m->n; i++)
        if (nodes[i].active && !reads_deferred(m, i))
            for (int k = 0; k < g->nodes[i].n_inputs; k++)
                forbid_deferring(m, nodes[i].sources[k]);
}

bool dc_plan_joins_deferred(const dc_plan_maker *m, int id)
{
    return m->graph->nodes[id].op == DC_OP_CONCAT && m->plan->nodes[m->graph->nodes[id].inputs[0]].deferred;
}

/* A concat whose inputs can be computed right in their place, all or none of them deferred. In backward its own
 * gradient is written first, whole, so every other reader of an input (also another concat) must come before it. */
static bool can_view(const dc_plan_maker *m, int id)
{
    const dc_node *node = &m->graph->nodes[id];
    for (int k = 0; k < node->n_inputs; k++) {
        int x = node->inputs[k];
        const dc_node *input = &m->graph->nodes[x];
        if (input->op == DC_OP_INPUT || (input->op == DC_OP_RELU && m->plan->nodes[x].folded) ||
            m->last_reader[x] != id || m->plan->nodes[x].deferred != dc_plan_joins_deferred(m, id) ||
            dc_plan_joins_deferred(m, x))
            return false;
        for (int j = 0; j < k; j++)
            if (node->inputs[j] == x)
                return false;
    }
    return true;
}

void dc_plan_share_root(const dc_plan_maker *m, int i, int *root, int *channel)
{
    int at = channel[i];
    for (int k = 0; k < m->graph->nodes[i].n_inputs; k++) {
        int x = m->plan->nodes[i].sources[k];
        root[x] = root[i];
        channel[x] = at;
        at += m->graph->nodes[x].shape.c;
    }
}

static void place_values(dc_plan_maker *m)
{
    for (int i = 0; i < m->n; i++) {
        m->value_root[i] = i;
        m->value_channel[i] = 0;
    }
    for (int i = m->n - 1; i >= 0; i--) { /* outer concats first: their place is known when inner ones ask for it */
        dc_plan_node *planned = &m->plan->nodes[i];
        if (m->graph->nodes[i].op == DC_OP_CONCAT)
            planned->folded = m->layout->concat_views && planned->active && can_view(m, i);
        if (planned->deferred)
            m->normalised[m->value_root[i]] = true;
        if (planned->deferred || (planned->folded && m->graph->nodes[i].op == DC_OP_CONCAT))
            dc_plan_share_root(m, i, m->value_root, m->value_channel);
    }
}

/* The convolutions whose outputs a deferred batch norm reads, one or those of a concat in place, do a part of it if
 * all of them can. */
static void link_norms(dc_plan_maker *m)
{
    dc_plan_node *nodes = m->plan->nodes;
    for (int i = 0; i < m->n; i++)
        nodes[i].norm = -1;
    for (int i = 0; i < m->n; i++) {
        if (!nodes[i].deferred || !m->layout->takes_norm)
            continue;
        int x = nodes[i].sources[0];
        bool parts = m->graph->nodes[x].op == DC_OP_CONCAT && nodes[x].folded;
        int n = parts ? m->graph->nodes[x].n_inputs : 1;
        const int *producers = parts ? nodes[x].sources : &nodes[i].sources[0];
        nodes[i].grad_deferred = n > 0;
        for (int k = 0; k < n; k++)
            nodes[i].grad_deferred &= m->graph->nodes[producers[k]].op == DC_OP_CONV &&
                                      m->n_readers[producers[k]] == 1 && !m->kept[producers[k]] &&
                                      m->layout->takes_norm(m->layout->context, m->graph, producers[k]);
        if (nodes[i].grad_deferred)
            nodes[x].norm = i; /* also of a concat, which runs nothing */
        for (int k = 0, channel = 0; k < n && nodes[i].grad_deferred; k++) {
            nodes[producers[k]].norm = i;
            nodes[producers[k]].norm_channel = channel;
            channel += m->graph->nodes[producers[k]].shape.c;
        }
    }
}

/* A convolution that only another one reads can be computed again for its backward, and on the way of its forward. */
static void choose_recomputed(dc_plan_maker *m)
{
    const dc_plan_layout *layout = m->layout;
    dc_plan_node *nodes = m->plan->nodes;
    for (int i = 0; i < m->n; i++) {
        nodes[i].recomputed = nodes[i].inner = nodes[i].outer = -1;
        if (m->graph->nodes[i].op != DC_OP_CONV || !nodes[i].active)
            continue;
        int x = nodes[i].sources[0];
        if (m->graph->nodes[x].op != DC_OP_CONV || m->n_readers[x] != 1 || m->kept[x] || m->value_root[x] != x ||
            nodes[x].norm >= 0 || nodes[x].recomputed >= 0 || nodes[x].inner >= 0)
            continue;
        if (m->options->training && layout->recomputes && layout->recomputes(layout->context, m->graph, x))
            nodes[i].recomputed = x;
        if ((nodes[i].recomputed >= 0 || !m->options->training) && !nodes[i].relu_input && layout->fuses &&
            layout->fuses(layout->context, m->graph, i)) {
            nodes[i].inner = x;
            nodes[x].outer = i;
        }
    }
}

void dc_plan_fold(dc_plan_maker *m)
{
    mark_active(m);
    fold_relus(m);
    count_readers(m);
    defer_norms(m);
    place_values(m);
    link_norms(m);
    choose_recomputed(m);
}

/* ---- convolutions of the same tensor ---- */

static bool may_join(const dc_plan_maker *m, int leader, int node)
{
    const dc_plan_node *a = &m->plan->nodes[leader], *b = &m->plan->nodes[node];
    return b->active && m->graph->nodes[node].op == DC_OP_CONV && b->sources[0] == a->sources[0] &&
           b->relu_input == a->relu_input && b->needs_grad == a->needs_grad && b->recomputed < 0 && b->outer < 0;
}

/* Whether a reader computes this one again: it does so alone. */
static bool is_recomputed(const dc_plan_maker *m, int node)
{
    int reader = m->last_reader[node];
    return reader >= 0 && m->plan->nodes[reader].recomputed == node;
}

static void join_from(dc_plan_maker *m, int leader)
{
    dc_plan_node *nodes = m->plan->nodes;
    int group[DC_MAX_SIBLINGS] = {leader}, n = 1;
    for (int i = leader + 1, last = m->last_reader[nodes[leader].sources[0]]; i <= last && n < DC_MAX_SIBLINGS; i++) {
        if (nodes[i].leader != i || !may_join(m, leader, i) || is_recomputed(m, i))
            continue;
        group[n] = i;
        if (!m->layout->joins(m->layout->context, m->graph, n + 1, group))
            continue;
        nodes[i].leader = leader;
        nodes[group[n - 1]].next_sibling = i;
        n++;
    }
}

void dc_plan_join_siblings(dc_plan_maker *m)
{
    dc_plan_node *nodes = m->plan->nodes;
    for (int i = 0; i < m->n; i++) {
        nodes[i].leader = i;
        nodes[i].next_sibling = -1;
    }
    for (int i = 0; i < m->n && m->layout->joins; i++)
        if (nodes[i].leader == i && m->graph->nodes[i].op == DC_OP_CONV && may_join(m, i, i) && !is_recomputed(m, i))
            join_from(m, i);
}

/* ---- mixes of the same features ---- */

static bool may_extend(const dc_plan_maker *m, int mix, int by)
{
    const dc_node *a = &m->graph->nodes[mix], *b = &m->graph->nodes[by];
    return b->op == DC_OP_MIX && m->plan->nodes[by].needs_grad && m->plan->nodes[by].extends < 0 &&
           b->n_inputs > a->n_inputs && memcmp(a->inputs, b->inputs, (size_t)a->n_inputs * sizeof *a->inputs) == 0;
}

static int chain_length(const dc_plan_maker *m, int mix)
{
    int length = 0;
    for (; mix >= 0; mix = m->plan->nodes[mix].extends)
        length++;
    return length;
}

void dc_plan_chain_mixes(dc_plan_maker *m)
{
    dc_plan_node *nodes = m->plan->nodes;
    for (int i = 0; i < m->n; i++)
        nodes[i].extends = nodes[i].extended_by = -1;
    for (int i = 0; i < m->n && m->layout->chains_mixes; i++) {
        if (m->graph->nodes[i].op != DC_OP_MIX || !nodes[i].needs_grad || chain_length(m, i) == DC_MAX_READERS)
            continue;
        int by = i + 1;
        while (by < m->n && !may_extend(m, i, by))
            by++;
        if (by == m->n)
            continue;
        nodes[i].extended_by = by;
        nodes[by].extends = i;
        nodes[by].n_left = m->graph->nodes[i].n_inputs - 1;
    }
}
