#include "app/calibrate.h"

#include "base/clock.h"

/* Steps are counted where work is asked whether to stop: once between two of them. */
typedef struct stopwatch {
    double seconds_s; /* enough */
    int steps;        /* made */
    double first_s, last_s, longest_s;
} stopwatch;

static dc_status between_steps(void *context, bool *stop)
{
    stopwatch *w = context;
    double now = dc_clock_seconds();
    if (w->steps == 0)
        w->first_s = now;
    else if (now - w->last_s > w->longest_s)
        w->longest_s = now - w->last_s;
    w->last_s = now;
    w->steps++;
    *stop = w->steps > 2 && now - w->first_s >= w->seconds_s;
    return DC_OK;
}

/* step_macs: of one step. The work was stopped, or was shorter than that. */
static dc_status conclude(const stopwatch *w, dc_status status, double step_macs, dc_speed *speed)
{
    if (status != DC_OK && status != DC_INTERRUPTED)
        return status;
    if (w->steps < 2)
        return dc_fail(DC_ERR_INPUT, "--measure: a work of one step cannot be measured");
    *speed = (dc_speed){w->longest_s, (w->last_s - w->first_s) / (w->steps - 1) / step_macs};
    return DC_OK;
}

dc_status dc_calibrate_search(const dc_pipeline *p, const dc_search_options *options, double macs, double seconds_s,
                              dc_speed *speed)
{
    stopwatch watch = {.seconds_s = seconds_s};
    const dc_comm alone = dc_comm_self();
    dc_search_options only_weights = *options; /* a step of alpha is counted as another of these */
    only_weights.warmup_epochs = only_weights.epochs - 1;
    const dc_search_job job = {.name = "calibration",
                               .backend = p->backend,
                               .comm = &alone,
                               .dataset = p->dataset,
                               .options = &only_weights,
                               .targets = p->budgets,
                               .tables = p->tables,
                               .seed = 1,
                               .checkpoint_interval_s = 1e9,
                               .hooks = {.context = &watch, .stop = between_steps}};
    dc_search_result result;
    return conclude(&watch, dc_search_run(&job, &result), 3 * macs * options->batch, speed);
}

dc_status dc_calibrate_training(const dc_pipeline *p, const dc_train_options *options, const dc_genotype *genotype,
                                double macs, double seconds_s, dc_speed *speed)
{
    stopwatch watch = {.seconds_s = seconds_s};
    const dc_comm alone = dc_comm_self();
    const dc_train_job job = {.name = "calibration",
                              .backend = p->backend,
                              .comm = &alone,
                              .dataset = p->dataset,
                              .evaluation_split = DC_SPLIT_TEST,
                              .genotype = genotype,
                              .options = options,
                              .seed = 1,
                              .checkpoint_interval_s = 1e9,
                              .hooks = {.context = &watch, .stop = between_steps}};
    dc_train_result result;
    return conclude(&watch, dc_train_run(&job, &result), 3 * macs * options->batch, speed);
}
