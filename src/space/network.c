#include "space/network.h"

#include "space/cell.h"

dc_network_options dc_network_defaults(dc_network_kind kind)
{
    if (kind == DC_NETWORK_CIFAR)
        return (dc_network_options){.kind = kind,
                                    .input = {3, 32, 32},
                                    .classes = 10,
                                    .channels = 36,
                                    .cells = 20,
                                    .auxiliary = true,
                                    .auxiliary_weight = 0.4f,
                                    .drop_path = true};
    return (dc_network_options){.kind = kind,
                                .input = {3, 224, 224},
                                .classes = 1000,
                                .channels = 48,
                                .cells = 14,
                                .auxiliary = true,
                                .auxiliary_weight = 0.4f,
                                .label_smoothing = 0.1f};
}

static dc_status check_options(const dc_network_options *o)
{
    if (o->classes < 2)
        return dc_fail(DC_ERR_INPUT, "classes = %d: a network needs at least 2", o->classes);
    if (o->channels < 2)
        return dc_fail(DC_ERR_INPUT, "channels = %d: a network needs at least 2", o->channels);
    if (o->cells < 3)
        return dc_fail(DC_ERR_INPUT, "cells = %d: a network needs at least 3 (a normal and two reduction cells)",
                       o->cells);
    return DC_OK;
}

/* One operation of a target cell, with its drop-path; -1 for `none`. */
static int choice(dc_graph *g, const char *name, dc_cell_type type, dc_choice c, const int *states, bool drop_path)
{
    if (c.op == DC_DARTS_NONE)
        return -1;
    int y = dc_cell_op(g, name, c.op, states[c.source], dc_cell_stride(type, c.source), false);
    bool identity = y == states[c.source];
    if (!drop_path || identity)
        return y;
    return dc_graph_drop_path(g, dc_name_of("%s.drop_path", name).text, y);
}

/* A node: the sum of its two operations. Always a tensor of its own, so that the concat can own it. */
static int node(dc_graph *g, const char *name, dc_cell_type type, const dc_choice pair[2], const int *states,
                bool drop_path)
{
    int terms[2], n = 0;
    for (int e = 0; e < 2; e++) {
        int y = choice(g, dc_name_of("%s.edge.%d", name, e).text, type, pair[e], states, drop_path);
        if (y >= 0)
            terms[n++] = y;
    }
    if (n == 0)
        return dc_graph_zero(g, name, states[pair[0].source], dc_cell_stride(type, pair[0].source));
    return dc_graph_add(g, name, n, terms);
}

static int cell(dc_graph *g, const dc_genotype *genotype, const dc_network_options *o, int index, int channels, int s0,
                int s1, bool reduction_prev)
{
    dc_name name = dc_name_of("cells.%d", index);
    dc_cell_type type = dc_cell_type_at(index, o->cells);
    int states[DC_CELL_STATES];
    dc_cell_inputs(g, name.text, s0, s1, channels, reduction_prev, true, states);
    for (int i = 0; i < DC_CELL_NODES; i++)
        states[DC_CELL_INPUTS + i] = node(g, dc_name_of("%s.node.%d", name.text, i).text, type,
                                          &genotype->cell[type][2 * i], states, o->drop_path);
    return dc_cell_output(g, name.text, genotype->concat[type], states);
}

static void build(dc_graph *g, const dc_genotype *genotype, const dc_network_options *o)
{
    int s[2], channels = o->channels, auxiliary = -1;
    bool reduction_prev = o->kind == DC_NETWORK_IMAGENET; /* its stem's outputs differ in resolution */
    dc_block_stem(g, o->kind, g->input, channels, s);
    for (int i = 0; i < o->cells; i++) {
        bool reduction = dc_cell_type_at(i, o->cells) == DC_CELL_REDUCE;
        if (reduction)
            channels *= 2;
        int out = cell(g, genotype, o, i, channels, s[0], s[1], reduction_prev);
        s[0] = s[1];
        s[1] = out;
        reduction_prev = reduction;
        if (o->auxiliary && i == 2 * o->cells / 3)
            auxiliary = dc_block_auxiliary_head(g, o->kind, out, o->classes);
    }
    int logits = dc_block_classifier(g, s[1], o->classes, o->dropout);
    if (!o->losses)
        return;
    dc_graph_cross_entropy(g, "loss", logits, o->label_smoothing, 1);
    if (o->auxiliary) {
        g->building_auxiliary = true;
        dc_graph_cross_entropy(g, "auxiliary.loss", auxiliary, o->label_smoothing, o->auxiliary_weight);
        g->building_auxiliary = false;
    }
}

dc_status dc_network_build(const dc_genotype *genotype, const dc_network_options *options, dc_graph **graph)
{
    *graph = NULL;
    DC_TRY(check_options(options));
    dc_graph *g = dc_graph_create(options->input);
    if (!g)
        return DC_ERR_MEMORY;
    build(g, genotype, options);
    dc_status status = dc_graph_check(g);
    if (status != DC_OK) {
        dc_graph_destroy(g);
        return status;
    }
    *graph = g;
    return DC_OK;
}
