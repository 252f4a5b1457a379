/* A graph made ready to run: its executor, its parameters bound to a store, and their optimizer segments. */
#ifndef DC_NN_MODEL_H
#define DC_NN_MODEL_H

#include "backend/executor.h"
#include "nn/params.h"

typedef struct dc_model {
    dc_graph *graph;
    dc_executor *executor;
    dc_params *params; /* borrowed */
    int n_weights, n_alpha;
    dc_segment *weights, *alpha;
} dc_model;

/* Takes the graph over, also on failure. The store must hold the graph's parameters and be allocated; one without
 * gradients serves inference only. */
dc_status dc_model_create(dc_graph *graph, const dc_plan_options *options, dc_step_arena *arena, dc_params *params,
                          dc_model **model);
void dc_model_destroy(dc_model *model);

/* How weights move: torch.optim.SGD after torch.nn.utils.clip_grad_norm_. */
typedef struct dc_sgd_options {
    double momentum, weight_decay;
    bool nesterov;
    double clip; /* largest gradient norm; 0: no clipping */
} dc_sgd_options;

/* One update of the model's weights from their gradients. DC_ERR_INPUT when the gradient is no longer finite: the
 * training has diverged, on all ranks at once where they hold the same gradients. norm: before clipping; may be NULL.
 */
dc_status dc_model_sgd(dc_model *model, const dc_sgd_options *options, double learning_rate, double *norm);

#endif
