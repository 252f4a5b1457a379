#include "search/search.h"

#include "base/units.h"
#include "search/searcher.h"
#include "train/evaluate.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* About this many rows of the trace in a search, besides those at the ends of epochs. */
enum { TRACE_ROWS = 200 };

/* ---- one step ---- */

static bool alpha_moves(const dc_searcher *s)
{
    return s->at.step >= (int64_t)s->steps * s->job->options->warmup_epochs;
}

static dc_status next_batch(dc_searcher *s, dc_loader *loader, const dc_batch **batch)
{
    DC_TRY_ALL(s->job->comm, dc_loader_next(loader, batch));
    s->images += (*batch)->n_global;
    return DC_OK;
}

static double waited_s(const dc_searcher *s)
{
    return dc_loader_wait_seconds(s->train_loader) + dc_loader_wait_seconds(s->validation_loader);
}

/* The constraint's gradient is added to alpha's. It depends on alpha alone, which the host knows: nothing is read. */
static dc_status constrain(dc_searcher *s)
{
    dc_alpha grad = {{{0}}};
    if (!s->job->options->constrained)
        return DC_OK;
    dc_constraint_step(&s->constraint, s->alpha, grad);
    for (int type = 0; type < DC_CELL_TYPES; type++) {
        float *to = s->params->grads + s->params->items[s->alpha_item[type]].offset;
        DC_TRY(s->backend->call->add(s->backend, to, grad[type][0], sizeof grad[type] / sizeof(float)));
    }
    return DC_OK;
}

/* The gradients in `what` of a batch, summed over the search's ranks. */
static dc_status summed_gradients(dc_searcher *s, const dc_batch *batch, unsigned what, dc_metrics *metrics)
{
    const dc_comm *comm = s->job->comm;
    const dc_step step = {.training = true, .momentum = 0.1f, .seed = s->job->seed, .index = (uint32_t)s->at.step};
    DC_TRY(dc_comm_alone(comm, dc_reducer_begin(s->reducer, s->model->graph, what)));
    DC_TRY(dc_comm_alone(comm, dc_gradients_compute(&s->gradients, s->model, batch, &step, what, s->reducer, metrics)));
    return dc_comm_alone(comm, dc_reducer_finish(s->reducer));
}

/* The supernet of this step, for both of its halves, is the one that alpha derives at its start: alpha, moved in the
 * last step's first half, comes to the host while the device is at the second half, and no device waits for the host.
 */
static dc_status renew_supernet(dc_searcher *s)
{
    DC_TRY(dc_searcher_settle(s));
    return dc_searcher_choose_supernet(s);
}

static dc_status alpha_step(dc_searcher *s)
{
    const dc_batch *batch = NULL;
    DC_TRY(next_batch(s, s->validation_loader, &batch));
    DC_TRY(dc_comm_alone(s->job->comm, renew_supernet(s)));
    DC_TRY(summed_gradients(s, batch, DC_GRAD_ALPHA, &s->at.validation));
    DC_TRY(dc_comm_alone(s->job->comm, constrain(s)));
    const dc_alpha_options *o = &s->job->options->alpha;
    int64_t first = (int64_t)s->steps * s->job->options->warmup_epochs, moved = s->at.step - first;
    dc_schedule schedule = {.learning_rate = o->learning_rate, .epochs = (double)(s->total_steps - first)};
    double rate = o->anneal ? dc_schedule_rate(&schedule, (double)moved) : o->learning_rate;
    dc_adam adam = {(float)rate, (float)o->beta1, (float)o->beta2, 1e-8f, (float)o->weight_decay, (uint32_t)moved + 1};
    DC_TRY(s->backend->call->adam(s->backend, s->model->n_alpha, s->model->alpha, &adam));
    return dc_comm_alone(s->job->comm, dc_searcher_alpha_moved(s));
}

static dc_status weight_step(dc_searcher *s)
{
    const dc_batch *batch = NULL;
    DC_TRY(next_batch(s, s->train_loader, &batch));
    DC_TRY(summed_gradients(s, batch, DC_GRAD_WEIGHTS, &s->at.training));
    double rate = dc_schedule_rate(&s->schedule, (double)s->at.step / s->steps);
    return dc_model_sgd(s->model, &s->job->options->sgd, rate, NULL);
}

/* ---- what is told ---- */

static double mean_entropy(const float alpha[DC_CELL_EDGES][DC_DARTS_N_OPS])
{
    double sum = 0;
    for (int e = 0; e < DC_CELL_EDGES; e++) {
        double largest = (double)alpha[e][0], total = 0, weighted = 0;
        for (int o = 1; o < DC_DARTS_N_OPS; o++)
            largest = fmax(largest, (double)alpha[e][o]);
        for (int o = 0; o < DC_DARTS_N_OPS; o++) {
            double x = (double)alpha[e][o] - largest;
            total += exp(x);
            weighted += x * exp(x);
        }
        sum += log(total) - weighted / total;
    }
    return sum / DC_CELL_EDGES;
}

/* Fills a result whose alpha is set. */
static void describe(const dc_searcher *s, dc_search_result *result)
{
    dc_log_probability log_p;
    dc_log_probability_of_alpha(result->alpha, log_p);
    dc_derive_darts(log_p, &result->genotype);
    for (int m = 0; m < DC_METRICS; m++)
        result->derived_cost[m] = dc_cost_table_count(&s->job->tables[m], &result->genotype);
    for (int type = 0; type < DC_CELL_TYPES; type++) {
        result->entropy[type] = mean_entropy(result->alpha[type]);
        result->skips[type] = 0;
        for (int k = 0; k < DC_CELL_KEPT; k++)
            result->skips[type] += result->genotype.cell[type][k].op == DC_DARTS_SKIP_CONNECT;
    }
    result->validation_loss = s->at.validation_loss;
    result->validation_accuracy = s->at.validation_accuracy;
    result->seconds = s->at.seconds;
}

static void describe_now(const dc_searcher *s, dc_search_result *now)
{
    memcpy(now->alpha, s->alpha, sizeof now->alpha);
    describe(s, now);
}

static double ratio(double a, int64_t n)
{
    return n ? a / (double)n : 0;
}

static dc_status write_row(dc_searcher *s, int64_t done, const dc_metrics *t, const dc_metrics *v)
{
    dc_search_result now;
    describe_now(s, &now);
    double constraint[2][3] = {{0}};
    for (int m = 0; m < s->constraint.n_metrics && m < 2; m++) {
        const dc_constraint_metric *metric = &s->constraint.metrics[m];
        constraint[m][0] = metric->k / metric->target;
        constraint[m][1] = metric->lambda;
        constraint[m][2] = metric->effective;
    }
    double epoch = (double)done / s->steps;
    return dc_csv_write(
        s->csv, "%lld,%.6g,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g,%d,%d,%.0f,%.0f,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g",
        (long long)done, epoch, dc_schedule_rate(&s->schedule, epoch), ratio(t->loss, t->n),
        ratio((double)t->top1, t->n), ratio(v->loss, v->n), ratio((double)v->top1, v->n), now.entropy[DC_CELL_NORMAL],
        now.entropy[DC_CELL_REDUCE], now.skips[DC_CELL_NORMAL], now.skips[DC_CELL_REDUCE],
        now.derived_cost[DC_METRIC_PARAMS], now.derived_cost[DC_METRIC_MACS], constraint[0][0], constraint[0][1],
        constraint[0][2], constraint[1][0], constraint[1][1], constraint[1][2]);
}

/* A row of the trace, of all ranks' images. Collective. */
static dc_status write_trace(dc_searcher *s, int64_t done)
{
    const dc_comm *comm = s->job->comm;
    if (!s->job->csv)
        return DC_OK;
    dc_metrics training = s->at.training, validation = s->at.validation;
    DC_TRY(dc_metrics_sum(comm, &training));
    DC_TRY(dc_metrics_sum(comm, &validation));
    return dc_comm_agree(comm, comm->rank == 0 ? write_row(s, done, &training, &validation) : DC_OK);
}

static dc_status tell_epoch(dc_searcher *s, int epoch)
{
    if (s->job->comm->rank != 0)
        return DC_OK;
    dc_search_result now;
    describe_now(s, &now);
    dc_log_info(s->job->log,
                "%s: epoch %d/%d: training accuracy %.1f %%, validation %.1f %%; alpha's entropy %.2f normal, %.2f "
                "reduction; %d and %d of 8 kept operations are skips; derives %s parameters; "
                "data wait %.1f %%",
                s->job->name, epoch, s->job->options->epochs, 100 * s->at.train_accuracy,
                100 * s->at.validation_accuracy, now.entropy[DC_CELL_NORMAL], now.entropy[DC_CELL_REDUCE],
                now.skips[DC_CELL_NORMAL], now.skips[DC_CELL_REDUCE],
                dc_format_count((int64_t)now.derived_cost[DC_METRIC_PARAMS]).s, 100 * s->data_wait);
    cJSON *event = s->job->events ? dc_event_create("search_epoch") : NULL;
    if (!event)
        return DC_OK;
    cJSON_AddStringToObject(event, "phase", s->job->name);
    cJSON_AddNumberToObject(event, "epoch", epoch);
    cJSON_AddNumberToObject(event, "train_loss", s->at.train_loss);
    cJSON_AddNumberToObject(event, "validation_loss", s->at.validation_loss);
    cJSON_AddNumberToObject(event, "validation_accuracy", s->at.validation_accuracy);
    cJSON_AddNumberToObject(event, "entropy_normal", now.entropy[DC_CELL_NORMAL]);
    cJSON_AddNumberToObject(event, "entropy_reduce", now.entropy[DC_CELL_REDUCE]);
    cJSON_AddNumberToObject(event, "skips_normal", now.skips[DC_CELL_NORMAL]);
    cJSON_AddNumberToObject(event, "skips_reduce", now.skips[DC_CELL_REDUCE]);
    cJSON_AddNumberToObject(event, "data_wait", s->data_wait);
    for (int m = 0; m < DC_METRICS; m++)
        cJSON_AddNumberToObject(event, dc_metric_name((dc_metric)m), now.derived_cost[m]);
    return dc_events_write(s->job->events, event);
}

/* Before metrics and alpha are told. */
static dc_status complete(dc_searcher *s)
{
    DC_TRY(dc_comm_alone(s->job->comm, s->backend->call->sync(s->backend)));
    return dc_comm_alone(s->job->comm, dc_searcher_settle(s));
}

static dc_status tell_progress(dc_searcher *s)
{
    const dc_hooks *hooks = &s->job->hooks;
    if (s->at.step % s->steps == 0 || !dc_pace_tells(&s->pace)) /* an epoch's figures start anew after its end */
        return DC_OK;
    DC_TRY(complete(s));
    double done = (double)s->at.step / (double)s->total_steps, elapsed = dc_pace_elapsed(&s->pace);
    const dc_metrics *t = &s->at.training, *v = &s->at.validation;
    dc_search_result now;
    describe_now(s, &now);
    char text[200];
    snprintf(
        text, sizeof text,
        "epoch %d/%d, loss %.3f, validation %.1f %%, %.0f images/s, data wait %.1f %%, %s left, entropy %.2f, %d skips",
        (int)(s->at.step / s->steps) + 1, s->job->options->epochs, ratio(t->loss, t->n),
        100 * ratio((double)v->top1, v->n), s->images / (elapsed > 0 ? elapsed : 1),
        100 * dc_pace_waiting(&s->pace, waited_s(s)), dc_format_duration(dc_pace_left(&s->pace, done)).s,
        (now.entropy[DC_CELL_NORMAL] + now.entropy[DC_CELL_REDUCE]) / 2,
        now.skips[DC_CELL_NORMAL] + now.skips[DC_CELL_REDUCE]);
    return hooks->progress(hooks->context, done, text);
}

/* ---- the loop ---- */

static dc_status end_epoch(dc_searcher *s)
{
    dc_metrics training = s->at.training, validation = s->at.validation;
    DC_TRY(dc_metrics_sum(s->job->comm, &training));
    DC_TRY(dc_metrics_sum(s->job->comm, &validation));
    s->at.train_loss = ratio(training.loss, training.n);
    s->at.train_accuracy = ratio((double)training.top1, training.n);
    s->at.validation_loss = ratio(validation.loss, validation.n);
    s->at.validation_accuracy = ratio((double)validation.top1, validation.n);
    DC_TRY(dc_pace_lap(&s->pace, waited_s(s), &s->data_wait));
    DC_TRY_ALL(s->job->comm, tell_epoch(s, (int)(s->at.step / s->steps)));
    s->at.training = s->at.validation = (dc_metrics){0};
    return DC_OK;
}

static dc_status search_step(dc_searcher *s)
{
    if (alpha_moves(s))
        DC_TRY(alpha_step(s));
    DC_TRY(weight_step(s));
    const int64_t done = s->at.step + 1, every = s->total_steps / TRACE_ROWS + 1;
    const bool ends = done % s->steps == 0;
    if (ends || (s->job->csv && done % every == 0)) {
        DC_TRY(complete(s));
        DC_TRY(write_trace(s, done));
    }
    s->at.step = done;
    return ends ? end_epoch(s) : DC_OK;
}

static dc_status search_steps(dc_searcher *s)
{
    while (s->at.step < s->total_steps) {
        DC_TRY(search_step(s));
        dc_watchdog_moved(s->job->comm->watchdog, s->job->name, s->at.step);
        bool save, stop;
        DC_TRY(dc_pace_check(&s->pace, &save, &stop));
        if (save || s->at.step == s->total_steps)
            DC_TRY(dc_searcher_save(s));
        if (stop && s->at.step < s->total_steps)
            return dc_fail(DC_INTERRUPTED, "%s stopped at step %lld of %lld%s", s->job->name, (long long)s->at.step,
                           (long long)s->total_steps, s->job->checkpoint ? "; its state is saved" : "");
        DC_TRY(tell_progress(s));
    }
    return DC_OK;
}

dc_status dc_search_run(const dc_search_job *job, dc_search_result *result)
{
    dc_searcher searcher = {.job = job};
    dc_status status = dc_searcher_open(&searcher);
    const int64_t first = searcher.at.step;
    if (status == DC_OK)
        status = search_steps(&searcher);
    if (status == DC_OK)
        status = dc_comm_alone(job->comm, dc_searcher_settle(&searcher));
    if (status == DC_OK) {
        const bool kept = searcher.at.kept_share > 0;
        memcpy(result->alpha, kept ? searcher.at.kept : searcher.alpha, sizeof result->alpha);
        describe(&searcher, result);
    }
    result->steps_made = searcher.at.step - first;
    dc_searcher_close(&searcher);
    return status;
}
