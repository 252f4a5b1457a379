#include "work.h"

#include "base/clock.h"
#include "graph/cost.h"
#include "kernels.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_GRAPHS = 8, REPEATS = 15, COPY_CHANNELS = 256, COPY_SIDE = 32, COPY_BLOCKS = 4 };

/* An operation in one direction. */
typedef struct item {
    double flops, bytes;
} item;

static const dc_backend_interface *inner;
static dc_backend_interface watched;
static bool searches;
static int n_graphs, last_node;
static item *items;
static size_t n_items, room;

static void add(double flops, double bytes)
{
    if (n_items == room) {
        room = room ? 2 * room : 4096;
        items = realloc(items, room * sizeof *items);
        if (!items)
            abort();
    }
    items[n_items++] = (item){flops, bytes};
}

/* ---- counting ---- */

/* What a node is to a half-step that updates one kind of parameters. */
typedef struct needs {
    bool wanted;     /* it has such parameters */
    bool below;      /* it or what it reads has: its output's gradient is needed */
    bool reaches;    /* a loss depends on it */
    bool normalised; /* a batch norm reads it, whose backward reads it again */
} needs;

typedef struct half {
    const dc_graph *graph;
    int batch;
    needs *needs;
    bool *read, *again, *grad_written; /* per tensor: it has moved already: its value in forward, its value in
                                          backward, its gradient */
} half;

/* Bytes of what node `id` stands for that have not moved yet. Batch norm, relu and random masks can be done on the way
 * and a concat is the tensors in it. */
static double fresh_bytes(const half *h, int id, bool *moved)
{
    const dc_node *node = &h->graph->nodes[id];
    double bytes = 0;
    switch (node->op) {
    case DC_OP_BATCH_NORM:
    case DC_OP_RELU:
    case DC_OP_DROP_PATH:
    case DC_OP_DROPOUT:
    case DC_OP_CONCAT:
        for (int k = 0; k < node->n_inputs; k++)
            bytes += fresh_bytes(h, node->inputs[k], moved);
        return bytes;
    default:
        if (!moved[id] && !node->batch_free)
            bytes = (double)sizeof(float) * h->batch * node->shape.c * node->shape.h * node->shape.w;
        moved[id] = true;
        return bytes;
    }
}

static double fresh_inputs(const half *h, int id, bool *moved, bool only_below)
{
    const dc_node *node = &h->graph->nodes[id];
    double bytes = 0;
    for (int k = 0; k < node->n_inputs; k++)
        if (!only_below || h->needs[node->inputs[k]].below)
            bytes += fresh_bytes(h, node->inputs[k], moved);
    return bytes;
}

static void find_needs(const dc_graph *g, dc_role role, needs *n)
{
    for (int i = 0; i < g->n_nodes; i++) {
        const dc_node *node = &g->nodes[i];
        for (int p = 0; p < node->n_params; p++)
            n[i].wanted |= g->params[node->params[p]].role == role;
        n[i].below = n[i].wanted;
        n[i].reaches = node->op == DC_OP_CROSS_ENTROPY;
        for (int k = 0; k < node->n_inputs; k++) {
            n[i].below |= n[node->inputs[k]].below;
            n[node->inputs[k]].normalised |= node->op == DC_OP_BATCH_NORM;
        }
    }
    for (int i = g->n_nodes - 1; i >= 0; i--)
        for (int k = 0; k < g->nodes[i].n_inputs; k++)
            n[g->nodes[i].inputs[k]].reaches |= n[i].reaches;
}

/* Forward and backward of one node. Of a tensor what cannot be avoided is counted: forward writes it once and reads it
 * once, backward does so with its gradient, and reads its value again where a weight's gradient, a relu's mask, alpha's
 * gradient or batch norm needs it. */
static void count_node(const half *h, int id)
{
    const dc_node *node = &h->graph->nodes[id];
    const needs *n = &h->needs[id];
    bool convolves = node->op == DC_OP_CONV || node->op == DC_OP_LINEAR, masked = false, passes = false;
    bool pools = node->op == DC_OP_MAX_POOL || node->op == DC_OP_AVG_POOL || node->op == DC_OP_GLOBAL_AVG_POOL;
    if (!convolves && !pools && node->op != DC_OP_MIX && node->op != DC_OP_ADD)
        return;
    for (int k = 0; k < node->n_inputs; k++) {
        masked |= h->graph->nodes[node->inputs[k]].op == DC_OP_RELU;
        passes |= h->needs[node->inputs[k]].below && !h->graph->nodes[node->inputs[k]].batch_free;
    }
    double out = (double)sizeof(float) * h->batch * node->shape.c * node->shape.h * node->shape.w;
    double flops = 2.0 * (double)dc_node_macs(h->graph, id) * h->batch;
    add(flops, fresh_inputs(h, id, h->read, false) + out);
    if (!n->below || !n->reaches || node->op == DC_OP_ADD) /* a sum hands its gradient on as it is */
        return;
    double bytes = out + fresh_inputs(h, id, h->grad_written, true);
    if (n->normalised)
        bytes += fresh_bytes(h, id, h->again);
    if (convolves ? n->wanted || masked : node->op == DC_OP_MIX && h->needs[node->inputs[0]].below)
        bytes += fresh_inputs(h, id, h->again, false);
    add(flops * (n->wanted + passes), bytes);
}

static void count_half(const dc_graph *g, int batch, dc_role role)
{
    enum { SGD_PASSES = 5 }; /* reads value, gradient and momentum, writes value and momentum */
    size_t count = (size_t)g->n_nodes;
    needs *n = calloc(count, sizeof *n);
    bool *flags = calloc(3 * count, sizeof *flags);
    if (!n || !flags)
        abort();
    const half h = {g, batch, n, flags, flags + count, flags + 2 * count};
    find_needs(g, role, n);
    for (int i = 0; i < g->n_nodes; i++)
        count_node(&h, i);
    if (role == DC_ROLE_WEIGHT)
        add(0, (double)dc_graph_cost(g).params_with_auxiliary * sizeof(float) * SGD_PASSES);
    free(n);
    free(flags);
}

static dc_status prepare(dc_backend *backend, const dc_graph *graph, int node, int batch, bool relu_input,
                         dc_kernel **kernel)
{
    if (node < last_node && n_graphs < (searches ? MAX_GRAPHS : 1)) {
        n_graphs++;
        if (searches)
            count_half(graph, batch, DC_ROLE_ALPHA);
        count_half(graph, batch, DC_ROLE_WEIGHT);
    }
    last_node = node;
    return inner->prepare(backend, graph, node, batch, relu_input, kernel);
}

void work_attach(dc_backend *backend, bool search)
{
    inner = backend->call;
    watched = *inner;
    watched.prepare = prepare;
    backend->call = &watched;
    searches = search;
    last_node = INT32_MAX;
}

/* ---- the machine ---- */

static double best_time(double best, double start)
{
    double took = dc_clock_seconds() - start;
    return took < best ? took : best;
}

static double measure_flops(const dck_kernels *call, int threads)
{
    double best = 1e9, flops = 0;
    for (int i = 0; i < REPEATS; i++) {
        double start = dc_clock_seconds();
        flops = call->ceiling(20000, threads);
        best = best_time(best, start);
    }
    return flops / best;
}

static double measure_bandwidth(const dck_kernels *call, int threads)
{
    size_t stride = (size_t)COPY_CHANNELS * COPY_SIDE * COPY_SIDE * DCK_LANES, count = COPY_BLOCKS * stride;
    double best = 1e9;
    float *memory = aligned_alloc(64, 2 * count * sizeof *memory);
    if (!memory)
        abort();
    memset(memory, 0, 2 * count * sizeof *memory);
    dck_view x = {memory, COPY_CHANNELS, COPY_SIDE, COPY_SIDE, stride, NULL}, y = x;
    y.data = memory + count;
    for (int i = 0; i < REPEATS; i++) {
        double start = dc_clock_seconds();
        call->copy(x, y, false, COPY_BLOCKS, threads);
        best = best_time(best, start);
    }
    free(memory);
    return 2.0 * (double)count * sizeof *memory / best;
}

work work_measure(int threads)
{
    const dck_kernels *call = dck_kernels_for(NULL);
    work w = {.peak_flops = measure_flops(call, threads), .peak_bytes = measure_bandwidth(call, threads)};
    for (size_t i = 0; i < n_items; i++) {
        double compute_s = items[i].flops / w.peak_flops, move_s = items[i].bytes / w.peak_bytes;
        w.flops += items[i].flops / n_graphs;
        w.bytes += items[i].bytes / n_graphs;
        w.floor_s += (compute_s > move_s ? compute_s : move_s) / n_graphs;
    }
    return w;
}
