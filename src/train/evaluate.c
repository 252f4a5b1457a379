#include "train/evaluate.h"

#include "train/checkpoint.h"

#include <stdlib.h>

dc_status dc_batch_stage(dc_backend *backend, const dc_graph *graph, const dc_batch *batch, dc_step *step)
{
    const size_t lane = (size_t)backend->layout.lane, blocks = ((size_t)batch->n_images + lane - 1) / lane;
    const dc_shape shape = graph->nodes[graph->input].shape;
    const size_t stride = (size_t)shape.c * (size_t)shape.h * (size_t)shape.w * lane;
    const float *images = batch->images;
    step->labels = batch->labels;
    step->n_images = batch->n_images;
    step->n_global = batch->n_global;
    step->first_image = (uint32_t)batch->first_image;
    if (backend->call->stage_batch)
        DC_TRY(backend->call->stage_batch(backend, batch->images, blocks * stride, batch->labels, blocks * lane,
                                          &images, &step->labels));
    step->images = (dc_view){.data = (float *)images, .shape = shape, .stride = stride}; /* an input is only read */
    return DC_OK;
}

dc_status dc_metrics_sum(const dc_comm *comm, dc_metrics *metrics)
{
    double sums[DC_METRICS_NUMBERS];
    dc_metrics_pack(metrics, sums);
    DC_TRY(dc_comm_sum_doubles(comm, sums, DC_METRICS_NUMBERS));
    *metrics = dc_metrics_unpack(sums);
    return DC_OK;
}

/* logits: room for a batch. */
static dc_status count_confusion(dc_model *model, const dc_batch *batch, float *logits, int64_t *confusion)
{
    int classes = model->graph->nodes[model->graph->logits].shape.c;
    DC_TRY(dc_executor_read(model->executor, model->graph->logits, batch->n_images, logits));
    for (int i = 0; i < batch->n_images; i++) {
        const float *row = logits + (size_t)i * (size_t)classes;
        int likely = 0;
        for (int k = 1; k < classes; k++)
            if (row[k] > row[likely])
                likely = k;
        confusion[(size_t)batch->labels[i] * (size_t)classes + (size_t)likely]++;
    }
    return DC_OK;
}

static dc_status evaluate_batches(dc_model *model, dc_loader *loader, const dc_comm *comm, float *logits,
                                  int64_t *confusion, dc_metrics *metrics)
{
    const dc_batch *batch;
    DC_TRY(dc_loader_begin_epoch(loader, 0, 0));
    for (;;) {
        DC_TRY(dc_loader_next(loader, &batch));
        if (!batch)
            return DC_OK;
        dc_watchdog_moved(comm->watchdog, NULL, batch->step);
        if (batch->n_images == 0)
            continue;
        dc_step step = {.index = batch->step};
        DC_TRY(dc_batch_stage(model->params->backend, model->graph, batch, &step));
        DC_TRY(dc_executor_forward(model->executor, &step));
        DC_TRY(dc_executor_metrics(model->executor, metrics));
        if (confusion)
            DC_TRY(count_confusion(model, batch, logits, confusion));
    }
}

static dc_status evaluate_own(dc_model *model, dc_loader *loader, const dc_comm *comm, int64_t *confusion,
                              dc_metrics *metrics)
{
    float *logits = NULL;
    if (confusion) {
        size_t classes = (size_t)model->graph->nodes[model->graph->logits].shape.c;
        logits = dc_alloc((size_t)dc_executor_plan(model->executor)->rounded_batch * classes * sizeof *logits);
        if (!logits)
            return DC_ERR_MEMORY;
    }
    dc_status status = evaluate_batches(model, loader, comm, logits, confusion, metrics);
    dc_status complete = model->params->backend->call->sync(model->params->backend); /* metrics, also after an error */
    free(logits);
    return status == DC_OK ? complete : status;
}

dc_status dc_evaluate(dc_model *model, dc_loader *loader, const dc_comm *comm, int64_t *confusion, dc_metrics *metrics)
{
    *metrics = (dc_metrics){0};
    DC_TRY_ALL(comm, evaluate_own(model, loader, comm, confusion, metrics));
    if (confusion) {
        size_t classes = (size_t)model->graph->nodes[model->graph->logits].shape.c;
        DC_TRY(dc_comm_sum_int64(comm, confusion, classes * classes));
    }
    return dc_metrics_sum(comm, metrics);
}
