#include "graph/cost.h"

#include <stdlib.h>

int64_t dc_node_macs(const dc_graph *graph, int id)
{
    const dc_node *node = &graph->nodes[id];
    if (node->op != DC_OP_CONV && node->op != DC_OP_LINEAR)
        return 0;
    int64_t weights = (int64_t)graph->params[node->params[0]].count;
    return weights * node->shape.h * node->shape.w;
}

/* The node whose memory holds this node's output: relu, batch norm, dropout and drop-path work in place, a concat's
 * inputs lie inside it. */
static int holder(const dc_graph *graph, const int *concat_of, int id)
{
    for (;;) {
        const dc_node *node = &graph->nodes[id];
        if (concat_of[id] >= 0)
            id = concat_of[id];
        else if (node->op == DC_OP_RELU || node->op == DC_OP_BATCH_NORM || node->op == DC_OP_DROP_PATH ||
                 node->op == DC_OP_DROPOUT)
            id = node->inputs[0];
        else
            return id;
    }
}

/* Largest sum of held tensors over the nodes in order; a tensor lives from the first write into it to the last read. */
static int64_t peak_bytes(const dc_graph *graph)
{
    int n = graph->n_nodes;
    int *work = dc_alloc((size_t)n * 3 * sizeof *work);
    int64_t *change = dc_alloc_zeroed((size_t)(n + 1) * sizeof *change);
    if (!work || !change) {
        free(work);
        free(change);
        return -1;
    }
    int *concat_of = work, *first = work + n, *last = work + 2 * n;
    for (int i = 0; i < n; i++) {
        concat_of[i] = first[i] = last[i] = -1;
        if (graph->nodes[i].op == DC_OP_CONCAT)
            for (int k = 0; k < graph->nodes[i].n_inputs; k++)
                if (concat_of[graph->nodes[i].inputs[k]] < 0)
                    concat_of[graph->nodes[i].inputs[k]] = i;
    }
    for (int i = 0; i < n; i++) {
        const dc_node *node = &graph->nodes[i];
        if (node->batch_free || node->auxiliary)
            continue;
        int mine = holder(graph, concat_of, i);
        if (first[mine] < 0)
            first[mine] = i;
        last[mine] = i;
        for (int k = 0; k < node->n_inputs; k++)
            if (!graph->nodes[node->inputs[k]].batch_free)
                last[holder(graph, concat_of, node->inputs[k])] = i;
    }
    for (int i = 0; i < n; i++)
        if (first[i] >= 0) {
            dc_shape s = graph->nodes[i].shape;
            int64_t bytes = (int64_t)sizeof(float) * s.c * s.h * s.w;
            change[first[i]] += bytes;
            change[last[i] + 1] -= bytes;
        }
    int64_t sum = 0, peak = 0;
    for (int i = 0; i < n; i++) {
        sum += change[i];
        if (sum > peak)
            peak = sum;
    }
    free(work);
    free(change);
    return peak;
}

dc_cost dc_graph_cost(const dc_graph *graph)
{
    dc_cost cost = {0};
    for (int i = 0; i < graph->n_params; i++) {
        const dc_param *param = &graph->params[i];
        if (param->role != DC_ROLE_WEIGHT)
            continue;
        cost.params_with_auxiliary += (int64_t)param->count;
        if (!param->auxiliary)
            cost.params += (int64_t)param->count;
    }
    for (int i = 0; i < graph->n_nodes; i++) {
        int64_t macs = dc_node_macs(graph, i);
        cost.macs_with_auxiliary += macs;
        if (!graph->nodes[i].auxiliary)
            cost.macs += macs;
    }
    cost.peak_activation_bytes = peak_bytes(graph);
    return cost;
}
