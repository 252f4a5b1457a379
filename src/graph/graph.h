/* The one description of a network. A graph is executed by a backend, counted (cost.h), planned (plan.h), exported,
 * drawn and hashed; nothing else describes a network.
 *
 * A node has exactly one output, so a node's id also names the tensor it makes. Shapes are per image (C,H,W); the
 * batch is chosen when a plan is made. Nodes are appended in topological order (an input always has a smaller id).
 * Everything the graph owns lives in it; ids are stable. */
#ifndef DC_GRAPH_GRAPH_H
#define DC_GRAPH_GRAPH_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum dc_op {
    DC_OP_INPUT,      /* the images */
    DC_OP_CONV,       /* params: weight [out_c][in_c/groups][k][k]; no bias (batch norm follows) */
    DC_OP_BATCH_NORM, /* params: mean[c], variance[c] (state), then, if affine, gamma[c], beta[c] */
    DC_OP_RELU,
    DC_OP_MAX_POOL,
    DC_OP_AVG_POOL,        /* padding is not counted (the DARTS convention) */
    DC_OP_GLOBAL_AVG_POOL, /* (C,H,W) -> (C,1,1) */
    DC_OP_LINEAR,          /* params: weight [out_c][c*h*w], bias [out_c]; (C,H,W) -> (out_c,1,1) */
    DC_OP_ADD,             /* sum of all inputs, same shape */
    DC_OP_SOFTMAX,         /* params: alpha [rows][columns]; no inputs; softmax of each row; batch-free */
    DC_OP_MIX,             /* inputs: a SOFTMAX node, then features of one shape; sum of weight[index[i]] * feature i */
    DC_OP_CONCAT,          /* along channels */
    DC_OP_ZERO,            /* the 'none' operation: zeros of the input's shape divided by stride */
    DC_OP_DROP_PATH,       /* per image: x * mask / keep, keep = 1 - the step's drop-path rate; identity in inference */
    DC_OP_DROPOUT,         /* per element: x * mask / keep, keep = 1 - attr.rate; identity in inference */
    DC_OP_CROSS_ENTROPY,   /* input: logits (classes,1,1); mean over the batch's images; batch-free */
    DC_OP_COUNT
} dc_op;

typedef struct dc_shape {
    int c, h, w;
} dc_shape;

/* What a parameter is to the optimizers. */
typedef enum dc_role {
    DC_ROLE_WEIGHT, /* trained by the weights' optimizer */
    DC_ROLE_ALPHA,  /* architecture parameter: trained by Adam on the validation loss */
    DC_ROLE_STATE   /* not trained: batch norm's running statistics */
} dc_role;

typedef enum dc_init {
    DC_INIT_ZERO,
    DC_INIT_ONE,
    DC_INIT_UNIFORM, /* U(-scale, scale) */
    DC_INIT_NORMAL   /* N(0, scale^2) */
} dc_init;

enum { DC_NAME_CHARS = 96, DC_MAX_PARAMS = 4 };

typedef struct dc_param {
    char name[DC_NAME_CHARS]; /* "cells.3.node.2.edge.1.sep_conv_3x3.conv1.weight": stable over rebuilds, the key of
                                 weights in a dc_params store and in a checkpoint */
    dc_role role;
    dc_init init;
    float scale;    /* of the init */
    int shape[4];   /* unused trailing dimensions are 1 */
    size_t count;   /* elements */
    bool auxiliary; /* belongs to the auxiliary head: excluded from the size of the network */
} dc_param;

typedef struct dc_attr {
    int out_c;              /* CONV, LINEAR */
    int kernel, stride;     /* CONV, pools, ZERO (stride) */
    int pad_begin, pad_end; /* CONV, pools; before the first and after the last row and column; -1 at the beginning
                               shifts the window by one (the second branch of a factorized reduce) */
    int dilation, groups;   /* CONV */
    bool affine;            /* BATCH_NORM */
    float rate;             /* DROPOUT */
    float smoothing;        /* CROSS_ENTROPY: label smoothing */
    float weight;           /* CROSS_ENTROPY: this loss's factor in the total (auxiliary head: 0.4) */
} dc_attr;

typedef struct dc_node {
    dc_op op;
    dc_attr attr;
    int n_inputs;
    const int *inputs; /* node ids */
    const int *index;  /* MIX only: for input i >= 1 the position in the softmax's rows*columns; index[0] unused */
    int n_params;
    int params[DC_MAX_PARAMS]; /* positions in graph->params */
    dc_shape shape;            /* of the output; batch-free nodes: SOFTMAX (rows,1,columns), CROSS_ENTROPY (1,1,1) */
    bool batch_free;           /* the output does not grow with the batch */
    bool auxiliary;            /* belongs to the auxiliary head */
    char name[DC_NAME_CHARS];
} dc_node;

typedef struct dc_graph {
    int n_nodes, n_params;
    dc_node *nodes;
    dc_param *params;
    int input;               /* the INPUT node */
    int logits;              /* the classifier's output node, -1 until set */
    bool building_auxiliary; /* what is appended now belongs to the auxiliary head */
    dc_status error;         /* the first error of a builder call (see below) */
    /* private: storage of inputs and index arrays, capacities */
    struct dc_graph_storage *storage;
} dc_graph;

/* Creates a graph with its INPUT node. NULL with a message when out of memory. Owned by the caller. */
dc_graph *dc_graph_create(dc_shape input);
void dc_graph_destroy(dc_graph *graph);

/* Builder calls append one node, infer its shape and return its id. Errors are sticky: after the first one every call
 * returns -1 and does nothing, so that a builder is written without checks and ends with
 * DC_TRY(dc_graph_check(graph)). `name` is the node's name and the prefix of its parameters' names. */
int dc_graph_conv(dc_graph *g, const char *name, int x, int out_c, int kernel, int stride, int pad_begin, int pad_end,
                  int dilation, int groups);
int dc_graph_batch_norm(dc_graph *g, const char *name, int x, bool affine);
int dc_graph_relu(dc_graph *g, const char *name, int x);
int dc_graph_max_pool(dc_graph *g, const char *name, int x, int kernel, int stride, int pad);
int dc_graph_avg_pool(dc_graph *g, const char *name, int x, int kernel, int stride, int pad);
int dc_graph_global_avg_pool(dc_graph *g, const char *name, int x);
int dc_graph_linear(dc_graph *g, const char *name, int x, int out_c);
int dc_graph_add(dc_graph *g, const char *name, int n, const int *x);
/* alpha parameter `name` [rows][columns] ~ N(0, init_scale^2), and its row-wise softmax */
int dc_graph_softmax(dc_graph *g, const char *name, int rows, int columns, float init_scale);
/* sum over i of softmax[index[i]] * x[i] */
int dc_graph_mix(dc_graph *g, const char *name, int softmax, int n, const int *x, const int *index);
int dc_graph_concat(dc_graph *g, const char *name, int n, const int *x);
int dc_graph_zero(dc_graph *g, const char *name, int x, int stride);
int dc_graph_drop_path(dc_graph *g, const char *name, int x);
int dc_graph_dropout(dc_graph *g, const char *name, int x, float rate);
int dc_graph_cross_entropy(dc_graph *g, const char *name, int logits, float smoothing, float weight);

/* Adds an error found by a caller's own builder; the first one is kept. Returns -1. */
int dc_graph_fail(dc_graph *g, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The first error of any builder call, with its message. */
dc_status dc_graph_check(const dc_graph *g);

/* A 64-bit hash of structure, attributes, shapes, and the names of parameters and random masks: equal graphs compute
 * the same function. */
uint64_t dc_graph_hash(const dc_graph *g);

const char *dc_op_name(dc_op op);

#endif
