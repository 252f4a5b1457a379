#include "app/pipeline.h"

#include "app/network_args.h"
#include "app/starts.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/state.h"
#include "base/units.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const dc_phase_names[DC_PHASES] = {"lookup graph", "search", "selection", "training"};

/* ---- paths ---- */

dc_status dc_pipeline_path(const dc_pipeline *p, const char *name, char path[DC_PATH_CHARS])
{
    return dc_path_join(p->folder, name, path);
}

dc_status dc_pipeline_own_path(const dc_pipeline *p, const char *name, char path[DC_PATH_CHARS])
{
    return dc_path_join(p->own, name, path);
}

dc_status dc_pipeline_folder(const dc_pipeline *p, const char *name, char path[DC_PATH_CHARS])
{
    dc_status status = dc_pipeline_path(p, name, path);
    if (status == DC_OK && p->world->rank == 0)
        status = dc_directory_create(path);
    return dc_comm_agree(p->world, status);
}

uint64_t dc_pipeline_seed(const dc_pipeline *p, const char *name, int i, int j)
{
    dc_hash hash;
    dc_hash_init(&hash);
    dc_hash_i64(&hash, p->settings.run.seed);
    dc_hash_text(&hash, name);
    dc_hash_i64(&hash, i);
    dc_hash_i64(&hash, j);
    return dc_hash_end(&hash);
}

/* ---- progress ---- */

static dc_status save_progress(const dc_pipeline *p)
{
    char path[DC_PATH_CHARS];
    dc_state *state;
    DC_TRY(dc_lock_check(p->lock));
    DC_TRY(dc_pipeline_own_path(p, "run.h5", path));
    DC_TRY(dc_state_create(path, &state));
    dc_state_put_u64(state, "dataset", p->dataset->hash);
    dc_state_put_doubles(state, "seconds", 1, (int64_t[]){DC_PHASES}, p->progress.seconds);
    dc_state_put_doubles(state, "target", 1, (int64_t[]){DC_METRICS}, p->progress.target);
    dc_state_put_i64(state, "lug_points", p->progress.lug_points);
    dc_state_put_i64(state, "lug_seeds", p->progress.lug_seeds);
    return dc_state_commit(state, true);
}

/* A new run's is written at once: it tells which data set the folder belongs to. */
static dc_status load_progress(dc_pipeline *p)
{
    char path[DC_PATH_CHARS];
    uint64_t dataset = 0;
    dc_state *state;
    DC_TRY(dc_pipeline_own_path(p, "run.h5", path));
    if (!dc_state_exists(path))
        return save_progress(p);
    DC_TRY(dc_state_open_newest(path, &state));
    if (dc_state_warning(state))
        dc_log_warn(p->log, "%s", dc_state_warning(state));
    dc_state_get_u64(state, "dataset", &dataset);
    dc_state_get_doubles(state, "seconds", 1, (int64_t[]){DC_PHASES}, p->progress.seconds);
    dc_state_get_doubles(state, "target", 1, (int64_t[]){DC_METRICS}, p->progress.target);
    dc_state_get_i64(state, "lug_points", &p->progress.lug_points);
    dc_state_get_i64(state, "lug_seeds", &p->progress.lug_seeds);
    DC_TRY(dc_state_close(state));
    if (dataset != p->dataset->hash)
        return dc_fail(DC_ERR_INPUT,
                       "%s holds a run on another data set than [data] file = %s (give another [run] name, or remove "
                       "the folder)",
                       p->folder, p->settings.data_file);
    return DC_OK;
}

dc_status dc_pipeline_save(const dc_pipeline *p)
{
    return dc_comm_agree(p->world, p->world->rank == 0 ? save_progress(p) : DC_OK);
}

void dc_pipeline_begin(dc_pipeline *p, dc_phase phase)
{
    p->phase_started_s = dc_clock_seconds();
    dc_watchdog_moved(p->world->watchdog, dc_phase_names[phase], 0);
    cJSON *event = p->events ? dc_event_create("phase") : NULL;
    if (event) {
        cJSON_AddStringToObject(event, "phase", dc_phase_names[phase]);
        if (dc_events_write(p->events, event) != DC_OK)
            dc_log_warn(p->log, "%s", dc_status_message());
    }
}

dc_status dc_pipeline_end(dc_pipeline *p, dc_phase phase, dc_status status)
{
    p->progress.seconds[phase] += dc_clock_seconds() - p->phase_started_s;
    status = dc_comm_agree(p->world, status);
    if (status != DC_OK && status != DC_INTERRUPTED)
        return status;
    char interruption[512];
    snprintf(interruption, sizeof interruption, "%s", dc_status_message());
    dc_status saved = dc_pipeline_save(p);
    return saved == DC_OK && status != DC_OK ? dc_fail(status, "%s", interruption) : saved;
}

/* ---- opening ---- */

/* Told before anything is made: each list of images that is trained on must hold a batch. */
static dc_status check_target_batch(const dc_pipeline *p)
{
    uint32_t n = p->dataset->split[DC_SPLIT_TRAIN].n;
    if ((uint32_t)p->settings.target.batch > n)
        return dc_fail(DC_ERR_INPUT, "[target] batch = %d is larger than the %u training images of %s",
                       p->settings.target.batch, n, p->settings.data_file);
    return DC_OK;
}

static dc_status check_search_batches(const dc_pipeline *p)
{
    const dc_search_options search = dc_settings_search(&p->settings, p->dataset);
    dc_indices train, validation;
    DC_TRY(dc_split_indices(p->dataset, 0, search.train, search.validation, &train, &validation));
    uint32_t n_train = train.n, n_validation = validation.n;
    dc_indices_clear(&train);
    dc_indices_clear(&validation);
    uint32_t fewest = n_train < n_validation ? n_train : n_validation;
    if ((uint32_t)search.batch > fewest)
        return dc_fail(DC_ERR_INPUT, "[search] batch = %d is larger than the %u images of its smaller part of %s",
                       search.batch, fewest, p->settings.data_file);
    if ((uint32_t)p->settings.target.batch > n_train)
        return dc_fail(DC_ERR_INPUT,
                       "[target] batch = %d is larger than the %u images of %s that candidates are trained on "
                       "(see [search] train_fraction, train_images)",
                       p->settings.target.batch, n_train, p->settings.data_file);
    return DC_OK;
}

static dc_status prepare_own(dc_pipeline *p, const char *config, const dc_args *args, bool searches)
{
    dc_settings *s = &p->settings;
    DC_TRY(dc_settings_load(config, args, s));
    DC_TRY(dc_dataset_open(s->data_file, &p->dataset));
    if (dc_dataset_set_image_size(p->dataset, s->image_size) != DC_OK)
        return dc_fail_within(DC_ERR_INPUT, "[data] image_size = %d", s->image_size);
    DC_TRY(check_target_batch(p));
    if (searches)
        DC_TRY(check_search_batches(p));
    p->threads = s->run.threads ? s->run.threads : p->world->cores;
    const dc_backend_options backend = {.threads = p->threads,
                                        .local_rank = p->world->local_rank,
                                        .precision = (dc_precision)s->run.precision,
                                        .autotune = s->run.autotune,
                                        .gpu = dc_args_value(args, "gpu")};
    DC_TRY(dc_backend_create(backend.gpu ? "cuda" : s->run.device, &backend, &p->backend));
    s->usual_decode_threads = dc_loading_threads(p->dataset, p->world->cores, p->backend->call->stage_batch != NULL);
    DC_TRY(dc_deriver_create(&p->deriver));
    dc_network_options network = dc_settings_network(s, p->dataset);
    DC_TRY(dc_cost_tables_make(&network, p->tables));
    for (int m = 0; m < DC_METRICS; m++)
        p->limits[m] = dc_cost_table_limits(&p->tables[m]);
    p->budgets = dc_settings_budgets(s, p->tables);
    DC_TRY(dc_budgets_check(p->deriver, &p->budgets));
    p->config_hash = dc_config_hash(&dc_settings_schema, s, NULL);
    dc_hash identity;
    dc_hash_init(&identity);
    dc_hash_u64(&identity, p->config_hash);
    dc_hash_u64(&identity, p->dataset->hash);
    p->identity = dc_hash_end(&identity);
    return DC_OK;
}

dc_status dc_pipeline_prepare(dc_pipeline *p, const dc_comm *world, const char *command, const char *config,
                              const dc_args *args, bool searches)
{
    memset(p, 0, sizeof *p);
    p->stage.fd = -1;
    p->world = world;
    p->command = command;
    p->searches = searches;
    DC_TRY(prepare_own(p, config, args, searches));
    DC_TRY(dc_path_join(p->settings.run.output, p->settings.run.name, p->folder));
    snprintf(p->own, sizeof p->own, "%s", p->folder);
    return DC_OK;
}

dc_status dc_pipeline_check_genotype(const dc_pipeline *p, const dc_genotype *genotype)
{
    const dc_network_options network = dc_settings_network(&p->settings, p->dataset);
    for (int m = 0; m < p->budgets.n; m++) {
        const char *name = dc_metric_name(p->budgets.table[m]->metric);
        const double cost = dc_cost_table_count(p->budgets.table[m], genotype);
        if (cost > p->budgets.limit[m])
            return dc_fail(
                DC_ERR_INPUT,
                "[budget] %s = %.0f: this genotype's %s network of %d channels and %d cells, for %d classes of "
                "%dx%dx%d images, has %.0f %s; raise the budget, make the network smaller, or search within it",
                name, p->budgets.limit[m], dc_network_kind_name(network.kind), network.channels, network.cells,
                network.classes, network.input.c, network.input.h, network.input.w, cost, name);
    }
    return DC_OK;
}

dc_status dc_pipeline_take_part(dc_pipeline *p, int part, int parts)
{
    char name[64];
    p->part = part;
    p->parts = parts;
    snprintf(name, sizeof name, "parts/%d-of-%d", part, parts);
    return dc_path_join(p->folder, name, p->own);
}

/* The configuration that made this folder, the run's or our own, if any, must be ours. */
static dc_status check_config(const dc_pipeline *p, const char *folder)
{
    char path[DC_PATH_CHARS];
    DC_TRY(dc_path_join(folder, "config.ini", path));
    if (!dc_file_exists(path))
        return DC_OK;
    dc_settings *earlier = dc_alloc_zeroed(sizeof *earlier);
    if (!earlier)
        return DC_ERR_MEMORY;
    dc_status status = dc_config_defaults(&dc_settings_schema, earlier);
    if (status == DC_OK)
        status = dc_config_load(&dc_settings_schema, path, earlier);
    if (status == DC_OK) {
        status = dc_config_compare(&dc_settings_schema, &p->settings, earlier, NULL);
        if (status != DC_OK)
            status = dc_fail_within(status,
                                    "%s holds a run of another configuration (give another [run] name, or remove "
                                    "the folder)",
                                    p->folder);
    }
    free(earlier);
    return status;
}

static dc_status keep_config(const dc_pipeline *p)
{
    char path[DC_PATH_CHARS], *text;
    DC_TRY(dc_pipeline_own_path(p, "config.ini", path));
    DC_TRY(dc_config_dump(&dc_settings_schema, &p->settings, true, &text));
    dc_status status = dc_file_replace_text(path, text);
    free(text);
    return status;
}

/* A folder that is refused is left as it was, but for its log. */
static dc_status open_folder(dc_pipeline *p)
{
    char path[DC_PATH_CHARS];
    DC_TRY(dc_directory_create(p->own));
    DC_TRY(dc_pipeline_own_path(p, "lock", path));
    DC_TRY(dc_lock_acquire(path, p->own, p->settings.run.lock_timeout_s, dc_comm_abort, &p->lock));
    DC_TRY(check_config(p, p->folder));
    DC_TRY(check_config(p, p->own));
    DC_TRY(dc_pipeline_own_path(p, "log.txt", path));
    DC_TRY(dc_log_open(0, p->world->size, dc_log_on_terminal(), path, &p->log));
    dc_log_set_interval(p->log, p->settings.run.log_interval_s);
    DC_TRY(load_progress(p));
    DC_TRY(dc_pipeline_own_path(p, "events.jsonl", path));
    DC_TRY(dc_events_open(path, &p->events));
    DC_TRY(dc_starts_begin(p));
    p->started = true;
    return keep_config(p);
}

/* Threads of a rank meet after every operation, searches of several ranks never: where nobody has set the threads, says
 * how many ranks of one thread would have a search of their own. */
static void suggest_ranks(const dc_pipeline *p)
{
    const dc_settings *s = &p->settings;
    const int64_t cores = (int64_t)p->world->size * p->threads;
    int64_t useful = s->constrained && p->budgets.n > 0 ? (int64_t)s->lug_points * s->lug_seeds : s->runs;
    useful = p->parts ? (useful + p->parts - 1) / p->parts : useful;
    useful *= s->ranks_per_search;
    useful = useful < cores ? useful : cores;
    if (p->searches && s->run.threads == 0 && useful > p->world->size)
        dc_log_info(p->log,
                    "%d rank%s of %d threads: %d ranks of one thread search faster (mpirun --bind-to none -np %d ...)",
                    p->world->size, p->world->size == 1 ? "" : "s", p->threads, (int)useful, (int)useful);
}

/* From here on the data set is its copy on this node, if there is one. Collective. */
static dc_status stage_data(dc_pipeline *p)
{
    const dc_settings *s = &p->settings;
    DC_TRY(dc_stage_open(p->world, s->data_stage, p->dataset, &p->stage));
    dc_dataset *copy = NULL;
    dc_status status = p->stage.staged ? dc_dataset_open(p->stage.path, &copy) : DC_OK;
    if (copy)
        status = dc_dataset_set_image_size(copy, s->image_size);
    DC_TRY(dc_comm_agree(p->world, status));
    if (copy) {
        dc_log_info(p->log, "%s is read from %s%s", s->data_file, p->stage.path,
                    p->stage.found ? ", which was there" : "");
        dc_dataset_close(p->dataset);
        p->dataset = copy;
    } else if (strcmp(s->data_stage, "auto") == 0)
        dc_log_info(p->log, "%s is read where it lies: on no network file system, or too large for this node's storage",
                    s->data_file);
    return DC_OK;
}

static void introduce(const dc_pipeline *p)
{
    const dc_dataset *d = p->dataset;
    const dc_settings *s = &p->settings;
    dc_log_info(p->log, "%s: %s, %s training and %s test images of %dx%dx%d, %d classes", s->run.name, d->name,
                dc_format_count(d->split[DC_SPLIT_TRAIN].n).s, dc_format_count(d->split[DC_SPLIT_TEST].n).s, d->shape.c,
                d->shape.h, d->shape.w, d->n_classes);
    dc_log_info(p->log, "%d rank%s, %s; output in %s", p->world->size, p->world->size == 1 ? "" : "s",
                dc_backend_description(p->backend), p->folder);
    for (int m = 0; m < DC_METRICS; m++)
        if (s->budget[m])
            dc_log_info(p->log, "budget: %s %s (the space holds networks of %s to %s)", dc_format_count(s->budget[m]).s,
                        dc_metric_name((dc_metric)m), dc_format_count((int64_t)p->limits[m].min).s,
                        dc_format_count((int64_t)p->limits[m].max).s);
    suggest_ranks(p);
}

/* Any rank may write: a search's checkpoint, a candidate's. */
static dc_status share_lock(dc_pipeline *p)
{
    char path[DC_PATH_CHARS];
    int64_t generation = p->lock ? dc_lock_generation(p->lock) : 0;
    DC_TRY(dc_comm_bcast(p->world, 0, &generation, sizeof generation));
    dc_status status = dc_pipeline_own_path(p, "lock", path);
    if (status == DC_OK && p->world->rank != 0)
        status = dc_lock_join(path, p->own, generation, &p->lock);
    return dc_comm_agree(p->world, status);
}

dc_status dc_pipeline_open(dc_pipeline *p)
{
    const dc_comm *world = p->world;
    if (p->settings.ranks_per_search > world->size)
        return dc_fail(DC_ERR_INPUT,
                       "[lug] ranks_per_search = %d, but the job has %d rank%s: start more (mpirun -np N)",
                       p->settings.ranks_per_search, world->size, world->size == 1 ? "" : "s");
    DC_TRY_ALL(world, world->rank == 0 ? open_folder(p) : dc_log_open(world->rank, world->size, false, NULL, &p->log));
    DC_TRY(dc_comm_bcast(world, 0, &p->progress, sizeof p->progress));
    DC_TRY(share_lock(p));
    /* before the data are copied, which may take longer than a start */
    if (p->settings.run.watchdog_s == 0)
        dc_watchdog_begun(world->watchdog);
    else
        DC_TRY(dc_comm_alone(
            world, dc_watchdog_start(world->watchdog, world->mpi, p->settings.run.watchdog_s, "[run] watchdog")));
    DC_TRY(stage_data(p));
    introduce(p);
    return DC_OK;
}

void dc_pipeline_close(dc_pipeline *p)
{
    dc_lug_clear(&p->lug);
    dc_events_close(p->events);
    dc_log_close(p->log);
    dc_lock_release(p->lock);
    dc_deriver_destroy(p->deriver);
    dc_backend_destroy(p->backend);
    dc_dataset_close(p->dataset);
    dc_stage_close(&p->stage);
}
