#include "search/searcher.h"

#include "train/checkpoint.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const alpha_names[DC_CELL_TYPES] = {"alpha.normal", "alpha.reduce"};

/* ---- alpha ---- */

static void take_alpha(void *context, const float *values)
{
    memcpy(context, values, sizeof(dc_alpha) / DC_CELL_TYPES);
}

dc_status dc_searcher_alpha_moved(dc_searcher *s)
{
    s->alpha_moves = true;
    s->alpha_step = s->at.step;
    for (int type = 0; type < DC_CELL_TYPES; type++) {
        const dc_stored_param *item = &s->params->items[s->alpha_item[type]];
        DC_TRY(dc_backend_copy_out_later(s->backend, s->params->values + item->offset, item->param.count, take_alpha,
                                         s->alpha[type]));
    }
    return DC_OK;
}

/* Derived sizes come in steps of whole operations: while alpha hovers at a target, the size jumps to and fro by a tenth
 * of it or more. Of the last third of alpha's steps the search therefore keeps the alpha whose derived network uses the
 * targets best without exceeding one. Without targets, or when none fits, the last alpha counts. */
static void keep_alpha(dc_searcher *s)
{
    const int64_t first = (int64_t)s->steps * s->job->options->warmup_epochs;
    if (!s->job->options->constrained || s->job->targets.n == 0 ||
        s->alpha_step < first + (s->total_steps - first) * 2 / 3)
        return;
    dc_log_probability log_p;
    dc_genotype genotype;
    dc_log_probability_of_alpha(s->alpha, log_p);
    dc_derive_darts(log_p, &genotype);
    double share = 0;
    for (int m = 0; m < s->job->targets.n; m++)
        share = fmax(share, dc_cost_table_count(s->job->targets.table[m], &genotype) / s->job->targets.limit[m]);
    if (share <= 1 && share >= s->at.kept_share) {
        memcpy(s->at.kept, s->alpha, sizeof s->alpha);
        s->at.kept_share = share;
    }
}

dc_status dc_searcher_settle(dc_searcher *s)
{
    if (!s->alpha_moves)
        return DC_OK;
    DC_TRY(dc_backend_await(s->backend, s->alpha[DC_CELL_TYPES - 1])); /* the others come before it */
    s->alpha_moves = false;
    keep_alpha(s);
    return DC_OK;
}

/* ---- supernets ---- */

/* The place of a genotype in the cache: where it is, else an empty one, else the one that was used longest ago. */
static dc_cached_supernet *cache_place(dc_searcher *s, const dc_genotype *derived)
{
    dc_cached_supernet *place = &s->supernets[0];
    for (int i = 0; i < DC_CACHED_SUPERNETS; i++) {
        dc_cached_supernet *cached = &s->supernets[i];
        if (cached->model && dc_genotype_equal(&cached->derived, derived))
            return cached;
        if (place->model && (!cached->model || cached->used < place->used))
            place = cached;
    }
    dc_model_destroy(place->model);
    place->model = NULL;
    place->derived = *derived;
    return place;
}

static dc_status use_supernet(dc_searcher *s, const dc_genotype *derived)
{
    dc_cached_supernet *place = cache_place(s, derived);
    if (!place->model) {
        const dc_search_options *o = s->job->options;
        dc_graph *graph;
        DC_TRY(dc_supernet_build(&o->supernet, o->supernet.derived_cells ? derived : NULL, true, &graph));
        dc_plan_options plan = {.batch = s->gradients.piece, .training = true};
        DC_TRY(dc_model_create(graph, &plan, &s->arena, s->params, &place->model));
    }
    place->used = s->at.step;
    s->model = place->model;
    return DC_OK;
}

dc_status dc_searcher_choose_supernet(dc_searcher *s)
{
    dc_genotype derived = {0};
    if (s->job->options->supernet.derived_cells) {
        dc_log_probability log_p;
        dc_log_probability_of_alpha(s->alpha, log_p);
        DC_TRY(dc_derive(s->deriver, log_p, &s->job->targets, &derived, NULL));
    } else if (s->model) {
        return DC_OK;
    }
    return use_supernet(s, &derived);
}

/* Every parameter of every supernet that may come, so that exchanging graphs moves no memory. */
static dc_status build_params(dc_searcher *s)
{
    dc_graph *graph;
    DC_TRY(dc_supernet_build(&s->job->options->supernet, NULL, true, &graph));
    dc_status status = dc_params_create(s->backend, &s->params);
    if (status == DC_OK)
        status = dc_params_add_graph(s->params, graph);
    if (status == DC_OK)
        status = dc_params_allocate(s->params, s->job->seed);
    const dc_search_options *o = s->job->options;
    if (status == DC_OK)
        status = dc_gradients_init(&s->gradients, s->params, o->batch, s->job->comm->size, o->micro_batch);
    dc_graph_destroy(graph);
    DC_TRY(status);
    for (int type = 0; type < DC_CELL_TYPES; type++) {
        s->alpha_item[type] = dc_params_find(s->params, alpha_names[type]);
        if (s->alpha_item[type] < 0)
            return dc_fail(DC_ERR_INTERNAL, "the supernet has no %s", alpha_names[type]);
    }
    return DC_OK;
}

/* ---- data ---- */

static dc_loader_options loader_options(const dc_search_options *o, const dc_backend *backend, int rank, int size,
                                        const dc_indices *images, uint64_t seed)
{
    return (dc_loader_options){.split = DC_SPLIT_TRAIN,
                               .indices = images,
                               .batch = o->batch,
                               .rank = rank,
                               .size = size,
                               .lane = backend->layout.lane,
                               .as_pixels = backend->call->stage_batch != NULL,
                               .seed = seed,
                               .shuffle = true,
                               .drop_last = true,
                               .repeat = true,
                               .augment = o->augment,
                               .loading = o->loading};
}

static dc_status build_loaders(dc_searcher *s)
{
    const dc_search_job *job = s->job;
    const dc_search_options *o = job->options;
    DC_TRY(dc_split_indices(job->dataset, job->seed, o->train, o->validation, &s->train_images, &s->validation_images));
    const uint32_t smaller = s->train_images.n < s->validation_images.n ? s->train_images.n : s->validation_images.n;
    if (smaller < (uint32_t)o->batch)
        return dc_fail(DC_ERR_INPUT, "[search] batch = %d is larger than the %u images of its smaller part of %s",
                       o->batch, smaller, job->dataset->path);
    int rank = job->comm->rank, size = job->comm->size;
    if (o->batch < size)
        return dc_fail(DC_ERR_INPUT,
                       "[search] batch = %d is less than the %d ranks of a search ([lug] ranks_per_search)", o->batch,
                       size);
    dc_loader_options train = loader_options(o, s->backend, rank, size, &s->train_images, job->seed);
    dc_loader_options validation = loader_options(o, s->backend, rank, size, &s->validation_images, job->seed + 1);
    DC_TRY(dc_loader_create(job->dataset, &train, &s->train_loader));
    DC_TRY(dc_loader_create(job->dataset, &validation, &s->validation_loader));
    s->steps = dc_loader_steps(s->train_loader);
    s->total_steps = (int64_t)s->steps * o->epochs;
    return DC_OK;
}

/* Validation batches are drawn only in steps that move alpha. */
static dc_status position_loaders(dc_searcher *s)
{
    int64_t first_alpha_step = (int64_t)s->steps * s->job->options->warmup_epochs;
    int64_t drawn = s->at.step > first_alpha_step ? s->at.step - first_alpha_step : 0;
    int64_t per_epoch = dc_loader_steps(s->validation_loader);
    DC_TRY(
        dc_loader_begin_epoch(s->train_loader, (uint32_t)(s->at.step / s->steps), (uint32_t)(s->at.step % s->steps)));
    return dc_loader_begin_epoch(s->validation_loader, (uint32_t)(drawn / per_epoch), (uint32_t)(drawn % per_epoch));
}

/* ---- checkpoint ---- */

static const int64_t alpha_dims[] = {DC_CELL_TYPES, DC_CELL_EDGES, DC_DARTS_N_OPS};

/* What differs from rank to rank: the metrics of the running epoch. */
enum { N_OWN = 2 * DC_METRICS_NUMBERS };

/* What is being written: the search, and every rank's own part. */
typedef struct written {
    const dc_searcher *searcher;
    const dc_blobs *ranks;
} written;

static void put_state(void *context, dc_state *state)
{
    const written *w = context;
    const dc_searcher *s = w->searcher;
    const dc_search_position *at = &s->at;
    dc_state_put_about(state, "step=%lld steps=%lld seconds=%.3f accuracy=%.6f", (long long)at->step,
                       (long long)s->total_steps, at->seconds, at->validation_accuracy);
    dc_state_put_i64(state, "step", at->step);
    dc_state_put_i64(state, "steps", s->total_steps);
    dc_state_put(state, "ranks", DC_STATE_DOUBLE, 2, (int64_t[]){w->ranks->n, N_OWN}, w->ranks->data);
    const double figures[] = {at->validation_loss, at->validation_accuracy, at->train_loss, at->train_accuracy,
                              at->seconds};
    dc_state_put_doubles(state, "figures", 1, (int64_t[]){5}, figures);
    double multipliers[DC_METRICS] = {0};
    for (int m = 0; m < s->constraint.n_metrics; m++)
        multipliers[m] = s->constraint.metrics[m].lambda;
    dc_state_put_doubles(state, "lambda", 1, (int64_t[]){DC_METRICS}, multipliers);
    dc_state_put_floats(state, "kept_alpha", 3, alpha_dims, at->kept[0][0]);
    dc_state_put_double(state, "kept_share", at->kept_share);
}

static dc_status get_own(dc_searcher *s, dc_state *state)
{
    const dc_comm *comm = s->job->comm;
    double *ranks = dc_alloc((size_t)comm->size * N_OWN * sizeof *ranks);
    if (!ranks)
        return DC_ERR_MEMORY;
    dc_status status = dc_state_get_doubles(state, "ranks", 2, (int64_t[]){comm->size, N_OWN}, ranks);
    if (status == DC_OK) {
        s->at.training = dc_metrics_unpack(ranks + comm->rank * N_OWN);
        s->at.validation = dc_metrics_unpack(ranks + comm->rank * N_OWN + DC_METRICS_NUMBERS);
    }
    free(ranks);
    return status;
}

static dc_status get_state(void *context, dc_state *state)
{
    dc_searcher *s = context;
    double figures[5], multipliers[DC_METRICS];
    DC_TRY(dc_state_get_i64(state, "step", &s->at.step));
    DC_TRY(get_own(s, state));
    DC_TRY(dc_state_get_doubles(state, "figures", 1, (int64_t[]){5}, figures));
    DC_TRY(dc_state_get_doubles(state, "lambda", 1, (int64_t[]){DC_METRICS}, multipliers));
    DC_TRY(dc_state_get_floats(state, "kept_alpha", 3, alpha_dims, s->at.kept[0][0]));
    DC_TRY(dc_state_get_double(state, "kept_share", &s->at.kept_share));
    s->at.validation_loss = figures[0];
    s->at.validation_accuracy = figures[1];
    s->at.train_loss = figures[2];
    s->at.train_accuracy = figures[3];
    s->at.seconds = figures[4];
    for (int m = 0; m < s->constraint.n_metrics; m++)
        s->constraint.metrics[m].lambda = multipliers[m];
    return DC_OK;
}

static dc_checkpoint checkpoint_of(const dc_searcher *s, void *context)
{
    return (dc_checkpoint){.path = s->job->checkpoint,
                           .name = s->job->name,
                           .identity = s->job->identity,
                           .params = s->params,
                           .put = put_state,
                           .get = get_state,
                           .context = context,
                           .table = s->csv,
                           .lock = s->job->lock};
}

dc_status dc_searcher_save(dc_searcher *s)
{
    const dc_comm *comm = s->job->comm;
    s->at.seconds += dc_pace_saved(&s->pace);
    if (!s->job->checkpoint)
        return DC_OK;
    double own[N_OWN];
    DC_TRY(dc_comm_alone(comm, s->backend->call->sync(s->backend))); /* the metrics are complete */
    DC_TRY(dc_comm_alone(comm, dc_searcher_settle(s)));
    dc_metrics_pack(&s->at.training, own);
    dc_metrics_pack(&s->at.validation, own + DC_METRICS_NUMBERS);
    dc_blobs ranks;
    DC_TRY(dc_comm_gather(comm, own, sizeof own, &ranks));
    written w = {s, &ranks};
    const dc_checkpoint checkpoint = checkpoint_of(s, &w);
    dc_status status = comm->rank == 0 ? dc_checkpoint_write(&checkpoint) : DC_OK;
    dc_blobs_clear(&ranks);
    return dc_comm_agree(comm, status);
}

/* ---- life ---- */

static dc_status open_trace(dc_searcher *s)
{
    if (!s->job->csv || s->job->comm->rank != 0)
        return DC_OK;
    return dc_csv_open(s->job->csv,
                       "step,epoch,learning_rate,train_loss,train_accuracy,validation_loss,validation_accuracy,"
                       "entropy_normal,entropy_reduce,skips_normal,skips_reduce,params,macs,"
                       "k_over_target,lambda,effective,k_over_target_2,lambda_2,effective_2",
                       s->at.step > 0 ? s->at.step : -1, &s->csv);
}

static dc_status open_own(dc_searcher *s)
{
    DC_TRY(build_loaders(s));
    DC_TRY(build_params(s));
    DC_TRY(dc_deriver_create(&s->deriver));
    dc_constraint_init(&s->constraint, &s->job->options->constraint, &s->job->targets,
                       s->total_steps - (int64_t)s->steps * s->job->options->warmup_epochs);
    const dc_checkpoint checkpoint = checkpoint_of(s, s);
    DC_TRY(dc_checkpoint_resume(&checkpoint, s->job->comm->rank == 0, s->job->log));
    for (int type = 0; type < DC_CELL_TYPES; type++)
        DC_TRY(dc_params_read(s->params, s->alpha_item[type], s->alpha[type][0]));
    DC_TRY(position_loaders(s));
    return open_trace(s);
}

static dc_status check_memory(const dc_search_job *job, dc_search_memory *memory)
{
    DC_TRY(dc_search_plan(job->backend, job->dataset, job->options, job->comm->size, memory));
    return dc_backend_check_memory(job->backend, memory->arena_bytes + memory->model_bytes + memory->step_bytes,
                                   "a search", "[search]");
}

dc_status dc_searcher_open(dc_searcher *s)
{
    const dc_search_job *job = s->job;
    s->backend = job->backend;
    s->arena.backend = job->backend;
    s->schedule = job->options->schedule;
    s->schedule.epochs = job->options->epochs;
    dc_search_memory memory;
    DC_TRY_ALL(job->comm, check_memory(job, &memory));
    DC_TRY_ALL(job->comm, open_own(s));
    DC_TRY(dc_pace_agree_on_start(job->comm, s->at.step, job->name));
    DC_TRY(dc_reducer_create(job->comm, s->params, &s->reducer));
    dc_status status = dc_step_arena_reserve(&s->arena, memory.arena_bytes);
    if (status == DC_OK)
        status = dc_searcher_choose_supernet(s);
    DC_TRY_ALL(job->comm, status);
    dc_pace_start(&s->pace, job->comm, &job->hooks, job->checkpoint_interval_s,
                  (double)s->at.step / (double)s->total_steps);
    return DC_OK;
}

void dc_searcher_close(dc_searcher *s)
{
    s->backend->call->sync(s->backend); /* no metrics are still to come */
    dc_csv_close(s->csv);
    dc_reducer_destroy(s->reducer);
    dc_deriver_destroy(s->deriver);
    dc_loader_destroy(s->train_loader);
    dc_loader_destroy(s->validation_loader);
    for (int i = 0; i < DC_CACHED_SUPERNETS; i++)
        dc_model_destroy(s->supernets[i].model);
    dc_gradients_clear(&s->gradients);
    dc_step_arena_clear(&s->arena);
    dc_params_destroy(s->params);
    dc_indices_clear(&s->train_images);
    dc_indices_clear(&s->validation_images);
}

/* ---- memory, before it runs ---- */

/* Different (source, operation) pairs throughout, of the operations that keep the most tensors: no derived cell keeps
 * more. */
static dc_genotype heaviest_genotype(void)
{
    static const dc_choice heaviest[DC_CELL_KEPT] = {
        {DC_DARTS_SEP_CONV_5X5, 0}, {DC_DARTS_SEP_CONV_5X5, 1}, {DC_DARTS_SEP_CONV_3X3, 0}, {DC_DARTS_SEP_CONV_3X3, 1},
        {DC_DARTS_SEP_CONV_5X5, 2}, {DC_DARTS_SEP_CONV_5X5, 3}, {DC_DARTS_SEP_CONV_3X3, 3}, {DC_DARTS_SEP_CONV_5X5, 4}};
    dc_genotype genotype = {.concat = {0x3c, 0x3c}};
    for (int type = 0; type < DC_CELL_TYPES; type++)
        memcpy(genotype.cell[type], heaviest, sizeof heaviest);
    return genotype;
}

/* batch: that is computed at once; floats: kept of each parameter. */
static dc_status plan_supernet(dc_backend *backend, const dc_search_options *options, const dc_genotype *derived,
                               int batch, int floats, dc_search_memory *memory)
{
    dc_graph *graph;
    DC_TRY(dc_supernet_build(&options->supernet, derived, true, &graph));
    dc_plan_options plan_options = {.batch = batch, .training = true};
    dc_plan *plan = NULL;
    dc_params *params = NULL;
    dc_status status = dc_plan_create(graph, &backend->layout, &plan_options, &plan);
    if (status == DC_OK)
        status = dc_params_create(backend, &params);
    if (status == DC_OK)
        status = dc_params_add_graph(params, graph);
    if (status == DC_OK)
        status = dc_backend_step_bytes(backend, plan, &memory->step_bytes);
    if (status == DC_OK) {
        memory->arena_bytes = plan->arena_bytes;
        memory->model_bytes = (size_t)floats * params->count * sizeof(float);
    }
    dc_params_destroy(params);
    dc_plan_destroy(plan);
    dc_graph_destroy(graph);
    return status;
}

dc_status dc_search_plan(dc_backend *backend, const dc_dataset *dataset, const dc_search_options *options, int ranks,
                         dc_search_memory *memory)
{
    dc_search_memory union_memory = {0};
    const dc_genotype heaviest = heaviest_genotype();
    const int piece = dc_gradients_piece(options->batch, ranks, options->micro_batch);
    const int floats = 4 + (piece < dc_loader_local_share(options->batch, ranks));
    *memory = (dc_search_memory){0};
    DC_TRY(plan_supernet(backend, options, NULL, piece, floats, &union_memory));
    DC_TRY(plan_supernet(backend, options, &heaviest, piece, floats, memory));
    if (options->supernet.derived_cells) /* the gaps between tensors that do not fit depend on the architecture */
        memory->arena_bytes += memory->arena_bytes / 6;
    memory->model_bytes = union_memory.model_bytes;
    dc_loader_options loader = loader_options(options, backend, 0, ranks, NULL, 0);
    memory->data_bytes = 2 * dc_loader_bytes(dataset, &loader);
    return DC_OK;
}
