#include "train/train.h"

#include "base/units.h"
#include "train/evaluate.h"
#include "train/trainer.h"
#include "train/weights.h"

#include <stdio.h>

/* ---- one step ---- */

/* Steps made since the beginning. */
static uint32_t steps_made(const dc_trainer *t)
{
    return (uint32_t)t->at.epoch * t->steps + (uint32_t)t->at.step;
}

static dc_status gradients(dc_trainer *t, const dc_batch *batch)
{
    const dc_train_options *o = t->job->options;
    const dc_step step = {.training = true,
                          .drop_path_rate = (float)(o->drop_path_rate * t->at.epoch / o->epochs),
                          .momentum = 0.1f,
                          .seed = t->job->seed,
                          .index = steps_made(t)};
    return dc_gradients_compute(&t->gradients, t->model, batch, &step, DC_GRAD_WEIGHTS, t->reducer, &t->at.metrics);
}

static dc_status average_weights(dc_trainer *t)
{
    const double made = (double)steps_made(t), warm = (1 + made) / (10 + made), decay = t->job->options->ema_decay;
    return t->average ? dc_params_average(t->average, t->params, warm < decay ? warm : decay) : DC_OK;
}

static dc_status next_batch(dc_trainer *t, const dc_batch **batch)
{
    DC_TRY(dc_loader_next(t->train_loader, batch));
    if (!*batch)
        return dc_fail(DC_ERR_INTERNAL, "the loader ended its epoch at step %d of %u", t->at.step, t->steps);
    return DC_OK;
}

static double waited_s(const dc_trainer *t)
{
    return dc_loader_wait_seconds(t->train_loader) + dc_loader_wait_seconds(t->evaluation_loader);
}

static dc_status train_step(dc_trainer *t)
{
    const dc_comm *comm = t->job->comm;
    const dc_batch *batch = NULL;
    DC_TRY_ALL(comm, next_batch(t, &batch));
    DC_TRY(dc_comm_alone(comm, dc_reducer_begin(t->reducer, t->model->graph, DC_GRAD_WEIGHTS)));
    DC_TRY(dc_comm_alone(comm, gradients(t, batch)));
    DC_TRY(dc_comm_alone(comm, dc_reducer_finish(t->reducer)));
    double epoch = t->at.epoch + (double)t->at.step / t->steps;
    DC_TRY(dc_model_sgd(t->model, &t->job->options->sgd, dc_schedule_rate(&t->schedule, epoch), NULL));
    DC_TRY(average_weights(t));
    t->at.step++;
    t->images += batch->n_global;
    return DC_OK;
}

/* ---- between steps ---- */

static dc_status report_progress(dc_trainer *t)
{
    if (!dc_pace_tells(&t->pace))
        return DC_OK;
    DC_TRY(dc_comm_alone(t->job->comm, t->backend->call->sync(t->backend))); /* the metrics are complete */
    const dc_train_options *o = t->job->options;
    double done = (t->at.epoch + (double)t->at.step / t->steps) / o->epochs;
    double elapsed = dc_pace_elapsed(&t->pace);
    char text[200];
    double n = t->at.metrics.n ? (double)t->at.metrics.n : 1;
    snprintf(text, sizeof text,
             "epoch %d/%d, step %d/%u, loss %.3f, accuracy %.1f %%, %.0f images/s, data wait %.1f %%, %s left",
             t->at.epoch + 1, o->epochs, t->at.step, t->steps, t->at.metrics.loss / n,
             100 * (double)t->at.metrics.top1 / n, t->images / (elapsed > 0 ? elapsed : 1),
             100 * dc_pace_waiting(&t->pace, waited_s(t)), dc_format_duration(dc_pace_left(&t->pace, done)).s);
    return t->job->hooks.progress(t->job->hooks.context, done, text);
}

static dc_status between_steps(dc_trainer *t)
{
    bool save, stop;
    DC_TRY(dc_pace_check(&t->pace, &save, &stop));
    if (stop || (save && t->job->checkpoint))
        DC_TRY(dc_trainer_save(t));
    if (stop)
        return dc_fail(DC_INTERRUPTED, "%s stopped in epoch %d of %d, step %d of %u%s", t->job->name, t->at.epoch + 1,
                       t->job->options->epochs, t->at.step, t->steps, t->job->checkpoint ? "; its state is saved" : "");
    return report_progress(t);
}

static dc_status write_epoch(dc_trainer *t)
{
    if (t->job->comm->rank != 0)
        return DC_OK;
    const dc_train_result *r = &t->at.result;
    double rate = dc_schedule_rate(&t->schedule, t->at.epoch);
    DC_TRY(dc_csv_write(t->csv, "%d,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g", t->at.epoch + 1, rate, r->train_loss,
                        r->train_accuracy, r->loss, r->accuracy, r->top5));
    dc_log_info(t->job->log,
                "%s: epoch %d/%d: training loss %.4f, accuracy %.2f %%; %s loss %.4f, accuracy %.2f %%, top 5 %.2f %%; "
                "data wait %.1f %%",
                t->job->name, t->at.epoch + 1, t->job->options->epochs, r->train_loss, 100 * r->train_accuracy,
                t->job->evaluation_split == DC_SPLIT_TEST ? "test" : "validation", r->loss, 100 * r->accuracy,
                100 * r->top5, 100 * t->data_wait);
    cJSON *event = t->job->events ? dc_event_create("epoch") : NULL;
    if (event) {
        cJSON_AddStringToObject(event, "phase", t->job->name);
        cJSON_AddNumberToObject(event, "epoch", t->at.epoch + 1);
        cJSON_AddNumberToObject(event, "train_loss", r->train_loss);
        cJSON_AddNumberToObject(event, "train_accuracy", r->train_accuracy);
        cJSON_AddNumberToObject(event, "loss", r->loss);
        cJSON_AddNumberToObject(event, "accuracy", r->accuracy);
        cJSON_AddNumberToObject(event, "top5", r->top5);
        cJSON_AddNumberToObject(event, "data_wait", t->data_wait);
        return dc_events_write(t->job->events, event);
    }
    return DC_OK;
}

static dc_status end_epoch(dc_trainer *t)
{
    const dc_comm *comm = t->job->comm;
    dc_train_result *r = &t->at.result;
    DC_TRY(dc_comm_alone(comm, t->backend->call->sync(t->backend)));
    dc_metrics training = t->at.metrics, evaluation;
    DC_TRY(dc_metrics_sum(comm, &training));
    DC_TRY(dc_trainer_average_statistics(t));
    if (t->at.epoch + 1 < t->job->options->epochs) /* its first batches are made meanwhile */
        DC_TRY_ALL(comm, dc_loader_begin_epoch(t->train_loader, (uint32_t)t->at.epoch + 1, 0));
    DC_TRY(dc_evaluate(t->evaluation_model, t->evaluation_loader, comm, NULL, &evaluation));
    DC_TRY(dc_pace_lap(&t->pace, waited_s(t), &t->data_wait));
    r->train_loss = training.loss / (double)training.n;
    r->train_accuracy = (double)training.top1 / (double)training.n;
    r->loss = evaluation.loss / (double)evaluation.n;
    r->accuracy = (double)evaluation.top1 / (double)evaluation.n;
    r->top5 = (double)evaluation.top5 / (double)evaluation.n;
    r->evaluated = evaluation.n;
    bool better = t->at.epoch == 0 || r->accuracy > r->best_accuracy;
    if (better) {
        r->best_accuracy = r->accuracy;
        r->best_epoch = t->at.epoch;
    }
    dc_status status = comm->rank == 0 ? dc_lock_check(t->job->lock) : DC_OK;
    if (status == DC_OK)
        status = write_epoch(t);
    if (status == DC_OK && better && t->job->best && comm->rank == 0)
        status = dc_weights_save(t->job->best, &t->job->options->network, t->job->genotype, dc_trainer_evaluated(t),
                                 r->accuracy, t->at.epoch);
    DC_TRY_ALL(comm, status);
    t->at.epoch++;
    t->at.step = 0;
    t->at.metrics = (dc_metrics){0};
    return DC_OK;
}

static dc_status train_epochs(dc_trainer *t)
{
    const dc_comm *comm = t->job->comm;
    DC_TRY_ALL(comm, dc_loader_begin_epoch(t->train_loader, (uint32_t)t->at.epoch, (uint32_t)t->at.step));
    while (t->at.epoch < t->job->options->epochs) {
        while (t->at.step < (int)t->steps) {
            DC_TRY(train_step(t));
            dc_watchdog_moved(comm->watchdog, t->job->name, (int64_t)t->at.epoch * t->steps + t->at.step);
            DC_TRY(between_steps(t));
        }
        DC_TRY(end_epoch(t));
        DC_TRY(dc_trainer_save(t));
    }
    dc_status status = DC_OK;
    if (t->job->last && comm->rank == 0)
        status = dc_weights_save(t->job->last, &t->job->options->network, t->job->genotype, dc_trainer_evaluated(t),
                                 t->at.result.accuracy, t->job->options->epochs - 1);
    return dc_comm_agree(comm, status);
}

dc_status dc_train_run(const dc_train_job *job, dc_train_result *result)
{
    dc_trainer trainer = {.job = job};
    dc_status status = dc_trainer_open(&trainer);
    if (status == DC_OK)
        status = train_epochs(&trainer);
    if (status == DC_OK)
        *result = trainer.at.result;
    dc_trainer_close(&trainer);
    return status;
}
