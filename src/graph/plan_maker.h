/* Private to graph/: what is known of a plan while it is made. */
#ifndef DC_GRAPH_PLAN_MAKER_H
#define DC_GRAPH_PLAN_MAKER_H

#include "graph/places.h"
#include "graph/plan.h"

/* Everything that is needed only while a plan is made. Step numbers: node i runs forward at i, backward at 2n-1-i, or
 * when its leader does. */
typedef struct dc_plan_maker {
    const dc_graph *graph;
    const dc_plan_layout *layout;
    const dc_plan_options *options;
    dc_plan *plan;
    int n;
    int *last_reader;   /* largest id of an active node that reads this one; -1: none */
    int *n_readers;     /* active nodes that read it (an input listed twice counts twice) */
    bool *kept;         /* must survive the step */
    int *value_root;    /* the node whose storage holds this node's value (itself, or the concat that it lies in) */
    int *value_channel; /* first channel there */
    int *grad_root;
    int *grad_channel;
    int *n_writers;   /* nodes whose backward writes or adds to its gradient itself, not to one that it is a part of */
    int *last_writer; /* the last of them */
    bool *normalised; /* by root: some of its storage is seen through scales and shifts, which lie behind it */
    dc_interval *values, *grads, *saved, *forward_scratch, *backward_scratch; /* by node; bytes 0: none */
    dc_interval *again, *again_scratch;                                       /* of recomputed nodes */
} dc_plan_maker;

/* Marks what is active and counts its readers; folds relus and concats, defers batch norms, chooses what is recomputed
 * or computed on the way: active, sources, and all that needs no gradients known, and the roots of values. */
void dc_plan_fold(dc_plan_maker *m);

/* Chooses the convolutions that run together: leader, next_sibling. After it is known who needs a gradient. */
void dc_plan_join_siblings(dc_plan_maker *m);

/* Chooses the mixes whose backward is taken together: extends, extended_by, n_left. After it is known who needs a
 * gradient. */
void dc_plan_chain_mixes(dc_plan_maker *m);

/* The inputs of node i get, one after the other, the root of i and the channels from that of i on. */
void dc_plan_share_root(const dc_plan_maker *m, int i, int *root, int *channel);

/* A concat of deferred batch norms: where its inputs lie in place, it is read through their scales and shifts. */
bool dc_plan_joins_deferred(const dc_plan_maker *m, int id);

#endif
