#include "train/trainer.h"

#include "train/checkpoint.h"

#include "base/clock.h"
#include "train/statistics.h"
#include "train/weights.h"

#include <stdlib.h>
#include <string.h>

/* ---- building ---- */

dc_status dc_train_graphs(const dc_genotype *genotype, const dc_train_options *options, dc_graph **training,
                          dc_graph **evaluation)
{
    dc_network_options network = options->network;
    network.losses = true;
    network.drop_path = options->drop_path_rate > 0;
    DC_TRY(dc_network_build(genotype, &network, training));
    network.auxiliary = false;
    network.drop_path = false;
    network.dropout = 0;
    dc_status status = dc_network_build(genotype, &network, evaluation);
    if (status != DC_OK)
        dc_graph_destroy(*training);
    return status;
}

static dc_status build_models(dc_trainer *t)
{
    const dc_train_job *job = t->job;
    dc_graph *training, *evaluation;
    DC_TRY(dc_train_graphs(job->genotype, job->options, &training, &evaluation));
    dc_status status = dc_params_create(t->backend, &t->params);
    if (status == DC_OK)
        status = dc_params_add_graph(t->params, training);
    if (status == DC_OK)
        status = dc_params_allocate(t->params, job->seed);
    if (status != DC_OK) {
        dc_graph_destroy(training);
        dc_graph_destroy(evaluation);
        return status;
    }
    const dc_train_options *o = job->options;
    dc_plan_options plan = {.batch = dc_gradients_piece(o->batch, job->comm->size, o->micro_batch), .training = true};
    status = dc_model_create(training, &plan, &t->arena, t->params, &t->model);
    if (status == DC_OK)
        status = dc_gradients_init(&t->gradients, t->params, o->batch, job->comm->size, o->micro_batch);
    if (status == DC_OK && o->ema_decay > 0)
        status = dc_params_copy(t->params, &t->average);
    if (status != DC_OK) {
        dc_graph_destroy(evaluation);
        return status;
    }
    plan.training = false;
    plan.keep_losses = true;
    return dc_model_create(evaluation, &plan, &t->arena, dc_trainer_evaluated(t), &t->evaluation_model);
}

dc_params *dc_trainer_evaluated(const dc_trainer *t)
{
    return t->average ? t->average : t->params;
}

static dc_loader_options train_loader_options(const dc_train_options *o, const dc_backend *backend, int rank, int size,
                                              const dc_indices *indices, uint64_t seed)
{
    return (dc_loader_options){.split = DC_SPLIT_TRAIN,
                               .indices = indices,
                               .batch = o->batch,
                               .rank = rank,
                               .size = size,
                               .lane = backend->layout.lane,
                               .as_pixels = backend->call->stage_batch != NULL,
                               .seed = seed,
                               .shuffle = true,
                               .augment = o->augment,
                               .loading = o->loading};
}

static dc_loader_options evaluation_loader_options(const dc_train_options *o, const dc_backend *backend, int rank,
                                                   int size, dc_split split, const dc_indices *indices)
{
    return (dc_loader_options){.split = split,
                               .indices = indices,
                               .batch = dc_gradients_piece(o->batch, size, o->micro_batch) * size,
                               .rank = rank,
                               .size = size,
                               .lane = backend->layout.lane,
                               .as_pixels = backend->call->stage_batch != NULL,
                               .loading = o->loading};
}

static dc_status build_loaders(dc_trainer *t)
{
    const dc_train_job *job = t->job;
    int rank = job->comm->rank, size = job->comm->size;
    dc_loader_options training = train_loader_options(job->options, t->backend, rank, size, job->train, job->seed);
    DC_TRY(dc_loader_create(job->dataset, &training, &t->train_loader));
    t->steps = dc_loader_steps(t->train_loader);
    dc_loader_options evaluation =
        evaluation_loader_options(job->options, t->backend, rank, size, job->evaluation_split, job->evaluation);
    return dc_loader_create(job->dataset, &evaluation, &t->evaluation_loader);
}

/* ---- running statistics, rank by rank ---- */

/* Of what is trained, then of its average. */
static size_t statistics_count(const dc_trainer *t)
{
    return (t->average ? 2 : 1) * dc_statistics_count(t->params);
}

static dc_status read_statistics(const dc_trainer *t, float *packed)
{
    DC_TRY(dc_statistics_read(t->params, packed));
    return t->average ? dc_statistics_read(t->average, packed + dc_statistics_count(t->params)) : DC_OK;
}

static dc_status write_statistics(dc_trainer *t, const float *packed)
{
    DC_TRY(dc_statistics_write(t->params, packed));
    return t->average ? dc_statistics_write(t->average, packed + dc_statistics_count(t->params)) : DC_OK;
}

dc_status dc_trainer_average_statistics(dc_trainer *t)
{
    const dc_comm *comm = t->job->comm;
    size_t n = statistics_count(t);
    if (comm->size == 1 || n == 0)
        return DC_OK;
    float *packed = dc_alloc(n * sizeof *packed);
    dc_status status = packed ? read_statistics(t, packed) : DC_ERR_MEMORY;
    status = dc_comm_agree(comm, status);
    if (status == DC_OK)
        status = dc_comm_sum_floats(comm, packed, n);
    for (size_t i = 0; i < n && status == DC_OK; i++)
        packed[i] /= (float)comm->size;
    if (status == DC_OK)
        status = write_statistics(t, packed);
    free(packed);
    return status;
}

/* ---- checkpoints ---- */

/* This rank's row (train/statistics.h). */
static size_t own_bytes(const dc_trainer *t)
{
    return dc_statistics_row_bytes(t->params, t->average != NULL);
}

static dc_status pack_own(dc_trainer *t, double *own)
{
    dc_metrics_pack(&t->at.metrics, own);
    return read_statistics(t, (float *)(own + DC_METRICS_NUMBERS));
}

static void put_result(dc_state *state, const dc_train_result *r)
{
    const double values[] = {
        r->train_loss,         r->train_accuracy,    r->loss,   r->accuracy, r->top5, r->best_accuracy,
        (double)r->best_epoch, (double)r->evaluated, r->seconds};
    dc_state_put_doubles(state, "result", 1, (int64_t[]){sizeof values / sizeof values[0]}, values);
}

static dc_status get_result(dc_state *state, dc_train_result *r)
{
    double v[9];
    DC_TRY(dc_state_get_doubles(state, "result", 1, (int64_t[]){9}, v));
    *r = (dc_train_result){v[0], v[1], v[2], v[3], v[4], v[5], (int)v[6], (int64_t)v[7], v[8]};
    return DC_OK;
}

/* What is being written: the training, and every rank's own part. */
typedef struct written {
    const dc_trainer *trainer;
    const dc_blobs *ranks;
} written;

static void put_state(void *context, dc_state *state)
{
    const written *w = context;
    const dc_trainer *t = w->trainer;
    const dc_train_result *r = &t->at.result;
    dc_state_put_about(state, "epoch=%d epochs=%d step=%d steps=%u seconds=%.3f accuracy=%.6f best=%.6f best_epoch=%d",
                       t->at.epoch, t->job->options->epochs, t->at.step, t->steps, r->seconds, r->accuracy,
                       r->best_accuracy, r->best_epoch + 1);
    dc_state_put_i64(state, "epoch", t->at.epoch);
    dc_state_put_i64(state, "step", t->at.step);
    dc_state_put_i64(state, "epochs", t->job->options->epochs);
    put_result(state, &t->at.result);
    dc_state_put_bytes(state, "ranks", 2, (int64_t[]){w->ranks->n, (int64_t)own_bytes(t)}, w->ranks->data);
    dc_network_put(state, &t->job->options->network, t->job->genotype);
}

/* This rank's part, or, when the number of ranks has changed, the mean of all ranks' statistics (and, on rank 0, the
 * sum of their metrics). */
static dc_status take_own(dc_trainer *t, const unsigned char *ranks, int64_t n_ranks)
{
    const dc_comm *comm = t->job->comm;
    const bool same = n_ranks == comm->size;
    const size_t row = own_bytes(t), n = dc_statistics_count(t->params);
    double metrics[DC_METRICS_NUMBERS] = {0};
    float *statistics = dc_alloc((2 * n + 1) * sizeof *statistics);
    if (!statistics)
        return DC_ERR_MEMORY;
    ranks += same ? (size_t)comm->rank * row : 0;
    n_ranks = same ? 1 : n_ranks;
    for (int64_t r = 0; r < n_ranks && (same || comm->rank == 0); r++) {
        double theirs[DC_METRICS_NUMBERS];
        memcpy(theirs, ranks + (size_t)r * row, sizeof theirs);
        for (int i = 0; i < DC_METRICS_NUMBERS; i++)
            metrics[i] += theirs[i];
    }
    t->at.metrics = dc_metrics_unpack(metrics);
    dc_statistics_mean(t->params, ranks, n_ranks, row, false, statistics);
    if (t->average)
        dc_statistics_mean(t->params, ranks, n_ranks, row, true, statistics + n);
    dc_status status = write_statistics(t, statistics);
    free(statistics);
    return status;
}

static dc_status get_ranks(dc_trainer *t, dc_state *state)
{
    int64_t dims[DC_STATE_MAX_RANK];
    DC_TRY(dc_state_shape(state, "ranks", NULL, NULL, dims));
    if (dims[1] != (int64_t)own_bytes(t))
        return dc_fail(DC_ERR_INPUT, "%s: its running statistics are those of another network", dc_state_path(state));
    unsigned char *ranks = dc_alloc((size_t)dims[0] * own_bytes(t));
    dc_status status = ranks ? dc_state_get_bytes(state, "ranks", 2, dims, ranks) : DC_ERR_MEMORY;
    if (status == DC_OK)
        status = take_own(t, ranks, dims[0]);
    free(ranks);
    return status;
}

static dc_status get_state(void *context, dc_state *state)
{
    dc_trainer *t = context;
    int64_t epoch = 0, step = 0;
    DC_TRY(dc_state_get_i64(state, "epoch", &epoch));
    DC_TRY(dc_state_get_i64(state, "step", &step));
    DC_TRY(get_result(state, &t->at.result));
    t->at.epoch = (int)epoch;
    t->at.step = (int)step;
    return get_ranks(t, state);
}

static dc_checkpoint checkpoint_of(const dc_trainer *t, void *context)
{
    return (dc_checkpoint){.path = t->job->checkpoint,
                           .name = t->job->name,
                           .identity = t->job->identity,
                           .params = t->params,
                           .average = t->average,
                           .put = put_state,
                           .get = get_state,
                           .context = context,
                           .table = t->csv,
                           .lock = t->job->lock};
}

dc_status dc_trainer_save(dc_trainer *t)
{
    const dc_comm *comm = t->job->comm;
    t->at.result.seconds += dc_pace_saved(&t->pace);
    if (!t->job->checkpoint)
        return DC_OK;
    double *own = dc_alloc(own_bytes(t));
    dc_status status = t->backend->call->sync(t->backend); /* the metrics are complete */
    if (status == DC_OK)
        status = own ? pack_own(t, own) : DC_ERR_MEMORY;
    status = dc_comm_agree(comm, status);
    dc_blobs ranks = {0};
    if (status == DC_OK)
        status = dc_comm_gather(comm, own, own_bytes(t), &ranks);
    written w = {t, &ranks};
    const dc_checkpoint checkpoint = checkpoint_of(t, &w);
    if (status == DC_OK && comm->rank == 0)
        status = dc_checkpoint_write(&checkpoint);
    dc_blobs_clear(&ranks);
    free(own);
    return dc_comm_agree(comm, status);
}

/* ---- life ---- */

static dc_status open_tables(dc_trainer *t)
{
    if (!t->job->csv || t->job->comm->rank != 0)
        return DC_OK;
    int64_t last = t->at.epoch > 0 ? t->at.epoch : -1;
    return dc_csv_open(t->job->csv, "epoch,learning_rate,train_loss,train_accuracy,loss,accuracy,top5", last, &t->csv);
}

static dc_status open_own(dc_trainer *t)
{
    DC_TRY(build_models(t));
    DC_TRY(build_loaders(t));
    const dc_checkpoint checkpoint = checkpoint_of(t, t);
    DC_TRY(dc_checkpoint_resume(&checkpoint, t->job->comm->rank == 0, t->job->log));
    return open_tables(t);
}

static dc_status check_memory(const dc_train_job *job)
{
    dc_train_memory memory;
    DC_TRY(dc_train_plan(job->backend, job->dataset, job->genotype, job->options, job->comm->size, &memory));
    return dc_backend_check_memory(job->backend, memory.arena_bytes + memory.model_bytes + memory.step_bytes,
                                   "a training", "[target]");
}

dc_status dc_trainer_open(dc_trainer *t)
{
    const dc_train_job *job = t->job;
    t->backend = job->backend;
    t->arena.backend = job->backend;
    t->schedule = job->options->schedule;
    t->schedule.epochs = job->options->epochs;
    DC_TRY_ALL(job->comm, check_memory(job));
    DC_TRY_ALL(job->comm, open_own(t));
    DC_TRY(dc_pace_agree_on_start(job->comm, (int64_t)t->at.epoch * t->steps + t->at.step, job->name));
    DC_TRY(dc_reducer_create(job->comm, t->params, &t->reducer));
    double done = (t->at.epoch + (double)t->at.step / t->steps) / job->options->epochs;
    dc_pace_start(&t->pace, job->comm, &job->hooks, job->checkpoint_interval_s, done);
    if (done > 0 && done < 1)
        dc_log_info(job->log, "%s: resumed in epoch %d of %d, step %d of %u", job->name, t->at.epoch + 1,
                    job->options->epochs, t->at.step, t->steps);
    return DC_OK;
}

void dc_trainer_close(dc_trainer *t)
{
    t->backend->call->sync(t->backend); /* no metrics are still to come */
    dc_csv_close(t->csv);
    dc_reducer_destroy(t->reducer);
    dc_loader_destroy(t->train_loader);
    dc_loader_destroy(t->evaluation_loader);
    dc_model_destroy(t->model);
    dc_model_destroy(t->evaluation_model);
    dc_gradients_clear(&t->gradients);
    dc_step_arena_clear(&t->arena);
    dc_params_destroy(t->average);
    dc_params_destroy(t->params);
}

/* ---- memory, before it runs ---- */

/* floats: kept of each parameter. */
static dc_status plan_graphs(dc_backend *backend, dc_graph *training, dc_graph *evaluation, int batch, int floats,
                             dc_train_memory *memory)
{
    dc_plan *plans[2] = {NULL, NULL};
    dc_plan_options options = {.batch = batch, .training = true};
    DC_TRY(dc_plan_create(training, &backend->layout, &options, &plans[0]));
    options = (dc_plan_options){.batch = batch, .keep_losses = true};
    dc_status status = dc_plan_create(evaluation, &backend->layout, &options, &plans[1]);
    size_t steps[2] = {0, 0};
    for (int i = 0; i < 2 && status == DC_OK; i++)
        status = dc_backend_step_bytes(backend, plans[i], &steps[i]);
    if (status == DC_OK) {
        size_t a = plans[0]->arena_bytes, b = plans[1]->arena_bytes;
        memory->arena_bytes = a > b ? a : b;
        memory->step_bytes = steps[0] > steps[1] ? steps[0] : steps[1];
    }
    dc_plan_destroy(plans[0]);
    dc_plan_destroy(plans[1]);
    DC_TRY(status);
    dc_params *params;
    DC_TRY(dc_params_create(backend, &params));
    status = dc_params_add_graph(params, training);
    memory->model_bytes = (size_t)floats * params->count * sizeof(float);
    dc_params_destroy(params);
    return status;
}

dc_status dc_train_plan(dc_backend *backend, const dc_dataset *dataset, const dc_genotype *genotype,
                        const dc_train_options *options, int ranks, dc_train_memory *memory)
{
    dc_graph *training, *evaluation;
    DC_TRY(dc_train_graphs(genotype, options, &training, &evaluation));
    *memory = (dc_train_memory){0};
    const int piece = dc_gradients_piece(options->batch, ranks, options->micro_batch);
    const int floats = 3 + (options->ema_decay > 0) + (piece < dc_loader_local_share(options->batch, ranks));
    dc_status status = plan_graphs(backend, training, evaluation, piece, floats, memory);
    dc_graph_destroy(training);
    dc_graph_destroy(evaluation);
    DC_TRY(status);
    dc_loader_options loaders[] = {
        train_loader_options(options, backend, 0, ranks, NULL, 0),
        evaluation_loader_options(options, backend, 0, ranks, DC_SPLIT_TEST, NULL),
    };
    memory->data_bytes = dc_loader_bytes(dataset, &loaders[0]) + dc_loader_bytes(dataset, &loaders[1]);
    return DC_OK;
}
