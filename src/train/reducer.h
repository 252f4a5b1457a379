/* Sums the gradients of a graph's weights, or of its alpha, over ranks while backward still runs: parameters by name on
 * one side, the buckets of comm/ on the other. With one rank it does nothing. */
#ifndef DC_TRAIN_REDUCER_H
#define DC_TRAIN_REDUCER_H

#include "backend/executor.h"
#include "comm/buckets.h"
#include "nn/params.h"

typedef struct dc_reducer {
    const dc_comm *comm;
    const dc_params *params;
    dc_buckets *buckets;
    int *bucket_of; /* store item -> bucket parameter; -1: it has no gradient */
    bool *expected; /* bucket parameter: it is in the present backward */
    unsigned what;  /* gradients of the present backward, DC_GRAD_* */
    dc_grad_hook hook;
    int n;
} dc_reducer;

/* For an allocated store, equal on every rank. Nothing is broadcast: every rank draws the same weights from its own
 * counters, or loads the same checkpoint. DC_ERR_INPUT on every rank where the values of weights or alpha are not the
 * same after all. While it lives, the backend's watch looks after the sums. Collective, and so is dc_reducer_destroy,
 * which is legal on NULL. */
dc_status dc_reducer_create(const dc_comm *comm, const dc_params *params, dc_reducer **reducer);
void dc_reducer_destroy(dc_reducer *reducer);

/* Before backward through this graph, of these gradients (DC_GRAD_*), the same on every rank. */
dc_status dc_reducer_begin(dc_reducer *reducer, const dc_graph *graph, unsigned what);
/* For that backward: it starts sums as soon as they can be; NULL where there is nothing to sum. */
const dc_grad_hook *dc_reducer_hook(const dc_reducer *reducer);
/* In place of the hook: all gradients of the graph are complete now. */
dc_status dc_reducer_complete(dc_reducer *reducer, const dc_graph *graph);
/* In place of backward for a rank that has no images: its gradients are zero. */
dc_status dc_reducer_add_nothing(dc_reducer *reducer, const dc_graph *graph);
/* After backward: the gradients are sums over ranks. */
dc_status dc_reducer_finish(dc_reducer *reducer);

#endif
