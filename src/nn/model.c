#include "nn/model.h"

#include <stdlib.h>

static dc_status bind(dc_model *model, dc_params *params)
{
    const dc_graph *graph = model->graph;
    float **values = dc_alloc(2 * (size_t)graph->n_params * sizeof *values);
    if (!values)
        return DC_ERR_MEMORY;
    float **grads = values + graph->n_params;
    dc_status status = dc_params_bind(params, graph, values, grads);
    if (status == DC_OK)
        dc_executor_bind(model->executor, values, grads);
    free(values);
    return status;
}

dc_status dc_model_create(dc_graph *graph, const dc_plan_options *options, dc_step_arena *arena, dc_params *params,
                          dc_model **model_out)
{
    dc_model *model = dc_alloc_zeroed(sizeof *model);
    if (!model) {
        dc_graph_destroy(graph);
        return DC_ERR_MEMORY;
    }
    model->graph = graph;
    model->params = params;
    dc_status status = dc_executor_create(graph, options, arena, &model->executor);
    if (status == DC_OK)
        status = bind(model, params);
    if (status == DC_OK && params->grads)
        status = dc_params_segments(params, graph, DC_ROLE_WEIGHT, &model->n_weights, &model->weights);
    if (status == DC_OK && params->grads)
        status = dc_params_segments(params, graph, DC_ROLE_ALPHA, &model->n_alpha, &model->alpha);
    if (status != DC_OK) {
        dc_model_destroy(model);
        return status;
    }
    *model_out = model;
    return DC_OK;
}

void dc_model_destroy(dc_model *model)
{
    if (!model)
        return;
    dc_executor_destroy(model->executor);
    dc_graph_destroy(model->graph);
    free(model->weights);
    free(model->alpha);
    free(model);
}

dc_status dc_model_sgd(dc_model *model, const dc_sgd_options *options, double learning_rate, double *norm)
{
    dc_backend *backend = model->params->backend;
    dc_sgd sgd = {.learning_rate = (float)learning_rate,
                  .momentum = (float)options->momentum,
                  .weight_decay = (float)options->weight_decay,
                  .nesterov = options->nesterov,
                  .clip = (float)options->clip};
    return backend->call->sgd(backend, model->n_weights, model->weights, &sgd, norm);
}
