#include "train/evaluate.h"

#include "train/checkpoint.h"

#include <math.h>
#include <stdlib.h>

dc_status dc_batch_stage(dc_backend *backend, const dc_graph *graph, const dc_batch *batch, dc_step *step)
{
    const size_t lane = (size_t)backend->layout.lane;
    const dc_shape shape = graph->nodes[graph->input].shape;
    const size_t stride = (size_t)shape.c * (size_t)shape.h * (size_t)shape.w * lane;
    const float *images = batch->images;
    step->labels = batch->labels;
    step->n_images = batch->n_images;
    step->n_global = batch->n_global;
    step->first_image = (uint32_t)batch->first_image;
    if (backend->call->stage_batch)
        DC_TRY(backend->call->stage_batch(backend, shape, batch->n_images, &batch->pixels, batch->labels, &images,
                                          &step->labels));
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

/* What is counted image by image. Losses are added up as whole numbers of 2^-20, in any order the same. */
typedef struct tally {
    int64_t *confusion; /* NULL: nothing is counted */
    float *logits;      /* room for a batch */
    int64_t loss, not_finite;
} tally;

static const double loss_unit = 1.0 / (1 << 20), loss_most = 1e5;

static void count_image(tally *t, const float *logits, int classes, int label)
{
    int likely = 0;
    double sum = 1; /* the most likely one's */
    for (int k = 1; k < classes; k++)
        if (logits[k] > logits[likely])
            likely = k;
    for (int k = 0; k < classes; k++)
        sum += k == likely ? 0 : exp((double)logits[k] - (double)logits[likely]);
    const double loss = log(sum) + (double)logits[likely] - (double)logits[label];
    t->confusion[(size_t)label * (size_t)classes + (size_t)likely]++;
    t->not_finite += !isfinite(loss);
    t->loss += isfinite(loss) ? (int64_t)(fmin(loss, loss_most) / loss_unit + 0.5) : 0;
}

static dc_status count_batch(dc_model *model, const dc_batch *batch, tally *t)
{
    const int classes = model->graph->nodes[model->graph->logits].shape.c;
    DC_TRY(dc_executor_read(model->executor, model->graph->logits, batch->n_images, t->logits));
    for (int i = 0; i < batch->n_images; i++)
        count_image(t, t->logits + (size_t)i * (size_t)classes, classes, batch->labels[i]);
    return DC_OK;
}

static dc_status evaluate_batches(dc_model *model, dc_loader *loader, const dc_comm *comm, tally *t,
                                  dc_metrics *metrics)
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
        if (t->confusion)
            DC_TRY(count_batch(model, batch, t));
    }
}

static dc_status evaluate_own(dc_model *model, dc_loader *loader, const dc_comm *comm, tally *t, dc_metrics *metrics)
{
    if (t->confusion) {
        size_t classes = (size_t)model->graph->nodes[model->graph->logits].shape.c;
        t->logits = dc_alloc((size_t)dc_executor_plan(model->executor)->rounded_batch * classes * sizeof *t->logits);
        if (!t->logits)
            return DC_ERR_MEMORY;
    }
    dc_status status = evaluate_batches(model, loader, comm, t, metrics);
    dc_status complete = model->params->backend->call->sync(model->params->backend); /* metrics, also after an error */
    free(t->logits);
    return status == DC_OK ? complete : status;
}

dc_status dc_evaluate(dc_model *model, dc_loader *loader, const dc_comm *comm, int64_t *confusion, dc_metrics *metrics)
{
    tally t = {.confusion = confusion};
    *metrics = (dc_metrics){0};
    DC_TRY_ALL(comm, evaluate_own(model, loader, comm, &t, metrics));
    DC_TRY(dc_metrics_sum(comm, metrics));
    if (!confusion)
        return DC_OK;
    const size_t classes = (size_t)model->graph->nodes[model->graph->logits].shape.c;
    int64_t losses[] = {t.loss, t.not_finite};
    DC_TRY(dc_comm_sum_int64(comm, losses, 2));
    metrics->loss = losses[1] ? (double)NAN : (double)losses[0] * loss_unit;
    return dc_comm_sum_int64(comm, confusion, classes * classes);
}
