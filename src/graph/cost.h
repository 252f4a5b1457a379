/* What a network costs, counted from its graph. */
#ifndef DC_GRAPH_COST_H
#define DC_GRAPH_COST_H

#include "graph/graph.h"

typedef struct dc_cost {
    int64_t params; /* weights, affine and bias of the network without the auxiliary head and alpha */
    int64_t params_with_auxiliary;
    int64_t macs; /* conv + linear multiply-accumulates of one image, without the auxiliary head */
    int64_t macs_with_auxiliary;
    int64_t peak_activation_bytes; /* inference of one image, fp32: the largest sum of tensors alive at once, nodes
                                      run in graph order, relu and batch norm in place, concat by reference,
                                      without the auxiliary head */
} dc_cost;

dc_cost dc_graph_cost(const dc_graph *graph);

/* Multiply-accumulates of one node for one image (conv, linear; else 0). */
int64_t dc_node_macs(const dc_graph *graph, int node);

#endif
