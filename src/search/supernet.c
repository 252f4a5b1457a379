#include "search/supernet.h"

#include "space/cell.h"

enum { BOTTLENECK = 4 };

/* What is known of one cell while it is built. */
typedef struct cell_builder {
    dc_graph *g;
    const dc_supernet_options *options;
    dc_name name;
    dc_cell_type type;
    int channels;
    int softmax;
    const dc_choice *derived;                 /* DC_CELL_KEPT choices, or NULL: mix all operations */
    int states[DC_CELL_STATES];               /* outputs of the preprocessing and of the nodes */
    int sources[DC_CELL_STATES];              /* what operations on a state read: -1 until made */
    int made[DC_CELL_STATES][DC_DARTS_N_OPS]; /* operations made so far in this cell (sharing) or node, or -1 */
} cell_builder;

dc_supernet_options dc_supernet_defaults(dc_network_kind kind)
{
    bool cifar = kind == DC_NETWORK_CIFAR;
    return (dc_supernet_options){.kind = kind,
                                 .input = cifar ? (dc_shape){3, 32, 32} : (dc_shape){3, 224, 224},
                                 .classes = cifar ? 10 : 1000,
                                 .channels = 16,
                                 .cells = 8,
                                 .alpha_init = 1e-3f};
}

bool dc_supernet_is_engine(int i, int cells)
{
    return i == 0 || i == cells / 3;
}

static dc_status check_options(const dc_supernet_options *o)
{
    if (o->classes < 2)
        return dc_fail(DC_ERR_INPUT, "classes = %d: a network needs at least 2", o->classes);
    if (o->channels < 2)
        return dc_fail(DC_ERR_INPUT, "channels = %d: a supernet needs at least 2", o->channels);
    if (o->bottleneck && o->channels % BOTTLENECK)
        return dc_fail(DC_ERR_INPUT, "channels = %d: with the bottleneck it must be a multiple of %d", o->channels,
                       BOTTLENECK);
    if (o->cells < 3)
        return dc_fail(DC_ERR_INPUT, "cells = %d: a supernet needs at least 3 (a normal and two reduction cells)",
                       o->cells);
    return DC_OK;
}

/* What the operations on a state read: the state, or its bottleneck. */
static int source_of(cell_builder *c, int state)
{
    if (!c->options->bottleneck)
        return c->states[state];
    if (c->sources[state] < 0)
        c->sources[state] = dc_block_conv_bn(c->g, dc_name_of("%s.source.%d.reduce", c->name.text, state).text,
                                             c->states[state], c->channels / BOTTLENECK, 1, 1, false);
    return c->sources[state];
}

static void forget_operations(cell_builder *c)
{
    for (int s = 0; s < DC_CELL_STATES; s++)
        for (int op = 0; op < DC_DARTS_N_OPS; op++)
            c->made[s][op] = -1;
}

static int operation(cell_builder *c, int node, int state, int op)
{
    int *made = &c->made[state][op];
    if (*made < 0) {
        dc_name name = c->options->sharing ? dc_name_of("%s.source.%d", c->name.text, state)
                                           : dc_name_of("%s.node.%d.edge.%d", c->name.text, node, state);
        *made = dc_cell_op(c->g, name.text, op, source_of(c, state), dc_cell_stride(c->type, state), true);
    }
    return *made;
}

/* Equation 1 (Equation 5 with sharing): the sum over edges and operations, weighted by the softmax of alpha. */
static int mixed_node(cell_builder *c, const char *name, int node)
{
    int features[DC_CELL_STATES * DC_DARTS_N_OPS], index[DC_CELL_STATES * DC_DARTS_N_OPS], n = 0;
    for (int state = 0; state < DC_CELL_INPUTS + node; state++)
        for (int op = DC_DARTS_NONE + 1; op < DC_DARTS_N_OPS; op++) {
            features[n] = operation(c, node, state, op);
            index[n++] = (dc_cell_first_edge(node) + state) * DC_DARTS_N_OPS + op;
        }
    return dc_graph_mix(c->g, name, c->softmax, n, features, index);
}

static int derived_node(cell_builder *c, const char *name, int node)
{
    const dc_choice *pair = &c->derived[2 * node];
    int terms[2], n = 0;
    for (int e = 0; e < 2; e++)
        if (pair[e].op != DC_DARTS_NONE)
            terms[n++] = operation(c, node, pair[e].source, pair[e].op);
    if (n == 0)
        return dc_graph_zero(c->g, name, source_of(c, pair[0].source), dc_cell_stride(c->type, pair[0].source));
    return dc_graph_add(c->g, name, n, terms);
}

static int node(cell_builder *c, int i)
{
    dc_name name = dc_name_of("%s.node.%d", c->name.text, i);
    if (!c->options->sharing)
        forget_operations(c);
    int y = c->derived ? derived_node(c, name.text, i) : mixed_node(c, name.text, i);
    if (!c->options->bottleneck)
        return y;
    return dc_block_conv_bn(c->g, dc_name_of("%s.restore", name.text).text, y, c->channels, 1, 1, false);
}

static int cell(cell_builder *c, int s0, int s1, bool reduction_prev)
{
    for (int s = 0; s < DC_CELL_STATES; s++)
        c->sources[s] = -1;
    forget_operations(c);
    dc_cell_inputs(c->g, c->name.text, s0, s1, c->channels, reduction_prev, false, c->states);
    unsigned all_nodes = 0;
    for (int i = 0; i < DC_CELL_NODES; i++) {
        c->states[DC_CELL_INPUTS + i] = node(c, i);
        all_nodes |= 1u << (DC_CELL_INPUTS + i);
    }
    return dc_cell_output(c->g, c->name.text, all_nodes, c->states);
}

static void build(dc_graph *g, const dc_supernet_options *o, const dc_genotype *derived, bool losses)
{
    int alpha[DC_CELL_TYPES], s[2], channels = o->channels;
    alpha[DC_CELL_NORMAL] = dc_graph_softmax(g, "alpha.normal", DC_CELL_EDGES, DC_DARTS_N_OPS, o->alpha_init);
    alpha[DC_CELL_REDUCE] = dc_graph_softmax(g, "alpha.reduce", DC_CELL_EDGES, DC_DARTS_N_OPS, o->alpha_init);
    bool reduction_prev = o->kind == DC_NETWORK_IMAGENET; /* its stem's outputs differ in resolution */
    dc_block_stem(g, o->kind, g->input, channels, s);
    for (int i = 0; i < o->cells; i++) {
        dc_cell_type type = dc_cell_type_at(i, o->cells);
        if (type == DC_CELL_REDUCE)
            channels *= 2;
        bool mixes = !derived || !o->derived_cells || dc_supernet_is_engine(i, o->cells);
        cell_builder c = {.g = g,
                          .options = o,
                          .name = dc_name_of("cells.%d", i),
                          .type = type,
                          .channels = channels,
                          .softmax = alpha[type],
                          .derived = mixes ? NULL : derived->cell[type]};
        int out = cell(&c, s[0], s[1], reduction_prev);
        s[0] = s[1];
        s[1] = out;
        reduction_prev = type == DC_CELL_REDUCE;
    }
    int logits = dc_block_classifier(g, s[1], o->classes, 0);
    if (losses)
        dc_graph_cross_entropy(g, "loss", logits, o->label_smoothing, 1);
}

dc_status dc_supernet_build(const dc_supernet_options *options, const dc_genotype *derived, bool losses,
                            dc_graph **graph)
{
    *graph = NULL;
    DC_TRY(check_options(options));
    dc_graph *g = dc_graph_create(options->input);
    if (!g)
        return DC_ERR_MEMORY;
    build(g, options, derived, losses);
    dc_status status = dc_graph_check(g);
    if (status != DC_OK) {
        dc_graph_destroy(g);
        return status;
    }
    *graph = g;
    return DC_OK;
}
