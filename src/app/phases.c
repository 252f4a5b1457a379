#include "app/phases.h"

#include "app/network_args.h"
#include "base/hash.h"
#include "base/signals.h"
#include "base/state.h"
#include "base/units.h"
#include "lug/fit.h"
#include "lug/searches.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool dc_pipeline_constrained(const dc_pipeline *p)
{
    return p->settings.constrained && p->budgets.n > 0;
}

static dc_search_job common_search_job(const dc_pipeline *p, const dc_search_options *options)
{
    return (dc_search_job){.backend = p->backend,
                           .dataset = p->dataset,
                           .options = options,
                           .tables = p->tables,
                           .checkpoint_interval_s = p->settings.checkpoint_interval_s,
                           .log = p->log,
                           .events = p->events};
}

/* ---- the lookup graph ---- */

static dc_lug_identity lug_identity(const dc_pipeline *p)
{
    const dc_dataset *d = p->dataset;
    const dc_settings *s = &p->settings;
    dc_lug_identity id;
    memset(&id, 0, sizeof id);
    snprintf(id.text[DC_LUG_DATASET], sizeof id.text[0], "%s, %u training images of %dx%dx%d", d->name,
             d->split[DC_SPLIT_TRAIN].n, d->shape.c, d->shape.h, d->shape.w);
    id.hash[DC_LUG_DATASET] = d->hash;
    snprintf(id.text[DC_LUG_SPACE], sizeof id.text[0], "darts, %s network, %d channels, %d cells, %dx%dx%d, %d classes",
             dc_network_kind_name((dc_network_kind)s->network), s->target.channels, s->target.cells, d->shape.c,
             d->shape.h, d->shape.w, d->n_classes);
    id.hash[DC_LUG_SPACE] = dc_hash_of(id.text[DC_LUG_SPACE], strlen(id.text[DC_LUG_SPACE]));
    char metrics[64] = "";
    for (int m = 0; m < p->budgets.n; m++)
        snprintf(metrics + strlen(metrics), sizeof metrics - strlen(metrics), "%s%s", m ? " and " : "",
                 dc_metric_name(p->budgets.table[m]->metric));
    snprintf(id.text[DC_LUG_RECIPE], sizeof id.text[0],
             "search of %d cells, %d channels, %d epochs, batch %d, in %s, estimate %s, held to %s", s->search.cells,
             s->search.channels, s->search.epochs, s->search.batch, dc_precision_names[s->run.precision],
             dc_estimate_name((dc_estimate)s->estimate), metrics);
    dc_settings recipe = *s;
    recipe.runs = 0; /* searches after the lookup are none of its business */
    dc_hash hash;
    dc_hash_init(&hash);
    dc_hash_u64(&hash, dc_config_hash(&dc_settings_schema, &recipe, "search|constraint"));
    dc_hash_i64(&hash, s->ranks_per_search);
    dc_hash_text(&hash, dc_precision_names[s->run.precision]);
    dc_hash_double(&hash, s->lug_lowest); /* they move the points */
    dc_hash_double(&hash, s->lug_highest);
    dc_hash_text(&hash, metrics);
    id.hash[DC_LUG_RECIPE] = dc_hash_end(&hash);
    return id;
}

static dc_status lug_path(const dc_pipeline *p, char path[DC_PATH_CHARS])
{
    if (!*p->settings.lug_file)
        return dc_pipeline_path(p, "lug.h5", path);
    if (snprintf(path, DC_PATH_CHARS, "%s", p->settings.lug_file) >= DC_PATH_CHARS)
        return dc_fail(DC_ERR_INPUT, "[lug] file: the path is too long");
    return DC_OK;
}

static dc_status load_lug(dc_pipeline *p, const char *path)
{
    dc_lug_identity id = lug_identity(p);
    dc_lug_clear(&p->lug);
    dc_lug_init(&p->lug, &id);
    if (!dc_state_exists(path))
        return DC_OK;
    dc_lug loaded;
    DC_TRY(dc_lug_load(&loaded, path, p->log));
    dc_status status = dc_lug_identity_check(&loaded.identity, &id, path);
    if (status != DC_OK) {
        dc_lug_clear(&loaded);
        return status;
    }
    p->lug = loaded;
    return DC_OK;
}

/* Every (point, seed) of this job's part; done: what the graph already holds. Returns how many. */
static int lug_specs(const dc_pipeline *p, dc_search_spec *specs, bool *done)
{
    int seeds = p->settings.lug_seeds, searches = p->settings.lug_points * seeds, n = 0;
    for (int i = p->parts ? p->part - 1 : 0; i < searches; i += p->parts ? p->parts : 1) {
        dc_search_spec *spec = &specs[n];
        memset(spec, 0, sizeof *spec);
        spec->point = i / seeds;
        spec->seed_index = i % seeds;
        spec->seed = dc_pipeline_seed(p, "lug", spec->point, spec->seed_index);
        dc_search_point_name(spec->point, spec->seed_index, spec->name);
        for (int m = 0; m < p->budgets.n; m++) {
            const dc_limits *limits = &p->limits[p->budgets.table[m]->metric];
            double range = limits->max - limits->min;
            spec->target[p->budgets.table[m]->metric] =
                dc_lug_point(limits->min + p->settings.lug_lowest * range,
                             limits->min + p->settings.lug_highest * range, spec->point);
        }
        done[n++] = dc_lug_find(&p->lug, spec->point, spec->seed_index) != NULL;
    }
    return n;
}

/* The graph now holds what the checkpoints held. */
static void remove_checkpoints(const char *directory, int n, const dc_search_spec *specs)
{
    char path[DC_PATH_CHARS + 64];
    static const char *const suffixes[] = {".h5", ".h5.previous", ".lock", ".lock.beat"};
    for (int i = 0; i < n; i++)
        for (size_t k = 0; k < sizeof suffixes / sizeof *suffixes; k++) {
            snprintf(path, sizeof path, "%s/%s%s", directory, specs[i].name, suffixes[k]);
            unlink(path);
        }
}

static dc_status extend_lug(dc_pipeline *p, const char *path, dc_search_spec *specs, bool *done, dc_lug_entry *entries)
{
    char directory[DC_PATH_CHARS];
    int n = lug_specs(p, specs, done), left = 0;
    for (int i = 0; i < n; i++)
        left += !done[i];
    if (p->parts)
        dc_log_info(p->log, "lookup graph: part %d of %d has %d left to do", p->part, p->parts, left);
    else
        dc_log_info(p->log, "lookup graph: %d searches, %d to do", n, left);
    if (left == 0)
        return DC_OK;
    DC_TRY(dc_pipeline_folder(p, "searches", directory));
    const dc_search_options options = dc_settings_search(&p->settings, p->dataset);
    const dc_search_job common = common_search_job(p, &options);
    const dc_searches searches = {p->world,  p->settings.ranks_per_search,  &common, p->identity, "lookup graph",
                                  directory, p->settings.run.lock_timeout_s};
    DC_TRY(dc_searches_run(&searches, n, specs, done, entries));
    dc_status status = DC_OK;
    if (p->parts) /* a job that finds all parts' checkpoints gathers them */
        return DC_OK;
    for (int i = 0; i < n && status == DC_OK; i++)
        if (!done[i])
            status = dc_lug_add(&p->lug, &entries[i]);
    if (status == DC_OK && p->world->rank == 0) {
        status = dc_lock_check(p->lock);
        if (status == DC_OK)
            status = dc_lug_save(&p->lug, path);
        if (status == DC_OK)
            remove_checkpoints(directory, n, specs);
    }
    return dc_comm_agree(p->world, status);
}

dc_status dc_phase_load_lug(dc_pipeline *p)
{
    char path[DC_PATH_CHARS];
    dc_status status = lug_path(p, path);
    if (status == DC_OK)
        status = load_lug(p, path);
    return dc_comm_agree(p->world, status);
}

/* Told before hours of searches, not after. */
static dc_status check_writable(const char *path)
{
    const dc_status status = dc_file_check_writable(path);
    return status == DC_OK ? DC_OK : dc_fail_within(status, "[lug] file");
}

static dc_status build_lug(dc_pipeline *p)
{
    char path[DC_PATH_CHARS];
    int n = p->settings.lug_points * p->settings.lug_seeds;
    DC_TRY(dc_phase_load_lug(p));
    DC_TRY(lug_path(p, path));
    DC_TRY_ALL(p->world, p->world->rank == 0 ? check_writable(path) : DC_OK);
    dc_search_spec *specs = dc_alloc((size_t)n * sizeof *specs);
    bool *done = dc_alloc_zeroed((size_t)n);
    dc_lug_entry *entries = dc_alloc_zeroed((size_t)n * sizeof *entries);
    dc_status status = dc_comm_agree(p->world, specs && done && entries ? DC_OK : DC_ERR_MEMORY);
    if (status == DC_OK)
        status = extend_lug(p, path, specs, done, entries);
    free(specs);
    free(done);
    free(entries);
    return status;
}

dc_status dc_phase_lug(dc_pipeline *p)
{
    if (!dc_pipeline_constrained(p)) {
        dc_log_info(p->log, "no [budget] (or [constraint] enabled = no): no lookup graph is needed");
        return DC_OK;
    }
    dc_pipeline_begin(p, DC_PHASE_LUG);
    return dc_pipeline_end(p, DC_PHASE_LUG, build_lug(p));
}

/* ---- the searches at the target ---- */

/* K' for each budget. A lookup graph that has no search for a metric leaves K' = K, and says so. */
static dc_status look_up(dc_pipeline *p)
{
    for (int m = 0; m < p->budgets.n; m++) {
        dc_metric metric = p->budgets.table[m]->metric;
        double budget = p->budgets.limit[m];
        dc_lug_fit fit;
        dc_status status = p->lug.n ? dc_lug_fit_make(&p->lug, metric, &fit) : DC_ERR_INPUT;
        if (status == DC_ERR_INPUT) {
            dc_log_warn(p->log,
                        "no lookup graph for %s: the search is held to the budget itself (run `dcanas lug` "
                        "first for a better target)",
                        dc_metric_name(metric));
            p->progress.target[metric] = budget;
            continue;
        }
        DC_TRY(status);
        dc_lug_lookup lookup = dc_lug_fit_lookup(&fit, budget);
        dc_lug_fit_clear(&fit);
        if (*lookup.warning)
            dc_log_warn(p->log, "%s", lookup.warning);
        p->progress.target[metric] = lookup.target;
    }
    for (int i = 0; i < p->lug.n; i++) {
        const dc_lug_entry *entry = &p->lug.entries[i];
        if (p->progress.lug_points <= entry->point)
            p->progress.lug_points = entry->point + 1;
        if (p->progress.lug_seeds <= entry->seed_index)
            p->progress.lug_seeds = entry->seed_index + 1;
    }
    return DC_OK;
}

/* Chosen once, and kept at once: the searches' checkpoints belong to these targets, whatever becomes of the graph. */
static dc_status choose_targets(dc_pipeline *p)
{
    bool chosen = false;
    for (int m = 0; m < DC_METRICS; m++)
        chosen |= p->progress.target[m] > 0;
    if (!dc_pipeline_constrained(p))
        return DC_OK;
    if (!chosen) {
        DC_TRY_ALL(p->world, p->world->rank == 0 ? look_up(p) : DC_OK);
        DC_TRY(dc_comm_bcast(p->world, 0, &p->progress, sizeof p->progress));
        DC_TRY(dc_pipeline_save(p));
    }
    for (int m = 0; m < p->budgets.n; m++) {
        dc_metric metric = p->budgets.table[m]->metric;
        dc_log_info(p->log, "%s: for a budget of %s the search is held to %s%s", dc_metric_name(metric),
                    dc_format_count((int64_t)p->budgets.limit[m]).s,
                    dc_format_count((int64_t)p->progress.target[metric]).s, chosen ? ", as before the restart" : "");
    }
    return DC_OK;
}

static dc_status search_at_target(dc_pipeline *p, dc_lug_entry *runs)
{
    char directory[DC_PATH_CHARS];
    int n = p->settings.runs;
    DC_TRY(choose_targets(p));
    DC_TRY(dc_pipeline_folder(p, "searches", directory));
    dc_search_spec *specs = dc_alloc_zeroed((size_t)n * sizeof *specs);
    DC_TRY_ALL(p->world, specs ? DC_OK : DC_ERR_MEMORY);
    for (int i = 0; i < n; i++) {
        specs[i].seed = dc_pipeline_seed(p, "run", i, 0);
        specs[i].seed_index = i;
        memcpy(specs[i].target, p->progress.target, sizeof specs[i].target);
        snprintf(specs[i].name, sizeof specs[i].name, "run-%d", i);
    }
    const dc_search_options options = dc_settings_search(&p->settings, p->dataset);
    const dc_search_job common = common_search_job(p, &options);
    const dc_searches searches = {p->world,  p->settings.ranks_per_search,  &common, p->identity, "search",
                                  directory, p->settings.run.lock_timeout_s};
    dc_status status = dc_searches_run(&searches, n, specs, NULL, runs);
    free(specs);
    return status;
}

dc_status dc_phase_search(dc_pipeline *p, dc_lug_entry **runs)
{
    *runs = dc_alloc_zeroed((size_t)p->settings.runs * sizeof **runs);
    DC_TRY_ALL(p->world, *runs ? DC_OK : DC_ERR_MEMORY);
    dc_pipeline_begin(p, DC_PHASE_SEARCH);
    dc_status status = dc_pipeline_end(p, DC_PHASE_SEARCH, search_at_target(p, *runs));
    if (status != DC_OK) {
        free(*runs);
        *runs = NULL;
    }
    return status;
}

/* ---- the candidates ---- */

static dc_status train_candidates(dc_pipeline *p, const dc_indices *train, const dc_indices *validation, int n,
                                  dc_candidate *candidates)
{
    char directory[DC_PATH_CHARS];
    DC_TRY(dc_pipeline_folder(p, "candidates", directory));
    const dc_train_options options = dc_settings_select(&p->settings, p->dataset);
    const dc_train_job common = {.backend = p->backend,
                                 .dataset = p->dataset,
                                 .train = train,
                                 .evaluation_split = DC_SPLIT_TRAIN,
                                 .evaluation = validation,
                                 .options = &options,
                                 .seed = dc_pipeline_seed(p, "select", 0, 0),
                                 .identity = p->identity,
                                 .checkpoint_interval_s = p->settings.checkpoint_interval_s,
                                 .lock = p->lock,
                                 .log = p->log,
                                 .events = p->events};
    return dc_candidates_train(p->world, &common, directory, n, candidates);
}

/* The graph as the lookup saw it: one that was extended since would change the candidates of a finished run. */
static dc_status make_candidates(dc_pipeline *p, const dc_lug_entry *runs, int *n, dc_candidate **candidates)
{
    dc_lug seen;
    dc_lug_init(&seen, &p->lug.identity);
    dc_status status = DC_OK;
    for (int i = 0; i < p->lug.n && status == DC_OK; i++)
        if (p->lug.entries[i].point < p->progress.lug_points && p->lug.entries[i].seed_index < p->progress.lug_seeds)
            status = dc_lug_add(&seen, &p->lug.entries[i]);
    if (status == DC_OK)
        status = dc_candidates_make(p->deriver, &p->budgets, p->tables, p->settings.runs, runs, &seen,
                                    p->settings.select_candidates, n, candidates);
    dc_lug_clear(&seen);
    return status;
}

static dc_status select_best(dc_pipeline *p, const dc_lug_entry *runs, int *n, dc_candidate **candidates)
{
    dc_status status = make_candidates(p, runs, n, candidates);
    dc_indices train = {0}, validation = {0};
    if (status == DC_OK) {
        const dc_search_options search = dc_settings_search(&p->settings, p->dataset);
        status = dc_split_indices(p->dataset, dc_pipeline_seed(p, "select", 0, 0), search.train, search.validation,
                                  &train, &validation);
    }
    status = dc_comm_agree(p->world, status);
    if (status == DC_OK)
        status = train_candidates(p, &train, &validation, *n, *candidates);
    dc_indices_clear(&train);
    dc_indices_clear(&validation);
    return status;
}

dc_status dc_phase_select(dc_pipeline *p, const dc_lug_entry *runs, int *n, dc_candidate **candidates, int *best)
{
    *candidates = NULL;
    dc_pipeline_begin(p, DC_PHASE_SELECT);
    dc_status status = dc_pipeline_end(p, DC_PHASE_SELECT, select_best(p, runs, n, candidates));
    if (status != DC_OK) {
        free(*candidates);
        *candidates = NULL;
        return status;
    }
    *best = dc_candidates_best(*n, *candidates);
    return DC_OK;
}

/* ---- the target network ---- */

static dc_status show_progress(void *context, double fraction, const char *text)
{
    dc_pipeline *p = context;
    (void)fraction;
    if (p->world->rank == 0 && dc_log_status_due(p->log)) {
        char line[256];
        snprintf(line, sizeof line, "training: %s", text);
        dc_log_status(p->log, 1, (const char *const[]){line});
    }
    return DC_OK;
}

static dc_status signalled(void *context, bool *stop)
{
    (void)context;
    *stop = dc_signals_received() != 0;
    return DC_OK;
}

static dc_status write_genotype(const dc_pipeline *p, const dc_genotype *genotype)
{
    char path[DC_PATH_CHARS], text[DC_GENOTYPE_CHARS + 1];
    DC_TRY(dc_lock_check(p->lock));
    DC_TRY(dc_pipeline_path(p, "genotype.txt", path));
    dc_genotype_format(genotype, text);
    strcat(text, "\n"); /* DC_GENOTYPE_CHARS holds the text with its end; one more is ours */
    return dc_file_replace_text(path, text);
}

dc_status dc_phase_keep_genotype(dc_pipeline *p, const dc_genotype *genotype)
{
    return dc_comm_agree(p->world, p->world->rank == 0 ? write_genotype(p, genotype) : DC_OK);
}

static dc_status train_target(dc_pipeline *p, const dc_genotype *genotype, dc_train_result *result)
{
    char folder[DC_PATH_CHARS], checkpoint[DC_PATH_CHARS], best[DC_PATH_CHARS], last[DC_PATH_CHARS], csv[DC_PATH_CHARS];
    DC_TRY(dc_pipeline_folder(p, "training", folder));
    DC_TRY(dc_path_join(folder, "checkpoint.h5", checkpoint));
    /* a folder that has a training has its genotype too; another one's training will be refused, and leaves it */
    bool begun = p->world->rank == 0 && dc_state_exists(checkpoint);
    DC_TRY_ALL(p->world, p->world->rank == 0 && !begun ? write_genotype(p, genotype) : DC_OK);
    DC_TRY(dc_path_join(folder, "best.h5", best));
    DC_TRY(dc_path_join(folder, "last.h5", last));
    DC_TRY(dc_path_join(folder, "epochs.csv", csv));
    dc_hash identity;
    dc_hash_init(&identity);
    dc_hash_u64(&identity, p->identity);
    dc_hash_u64(&identity, dc_genotype_hash(genotype));
    const dc_train_options options = dc_settings_train(&p->settings, p->dataset);
    const dc_train_job job = {.name = "training",
                              .backend = p->backend,
                              .comm = p->world,
                              .dataset = p->dataset,
                              .evaluation_split = DC_SPLIT_TEST,
                              .genotype = genotype,
                              .options = &options,
                              .seed = dc_pipeline_seed(p, "train", 0, 0),
                              .identity = dc_hash_end(&identity),
                              .checkpoint = checkpoint,
                              .best = best,
                              .last = last,
                              .checkpoint_interval_s = p->settings.checkpoint_interval_s,
                              .lock = p->lock,
                              .csv = csv,
                              .log = p->log,
                              .events = p->events,
                              .hooks = {p, show_progress, signalled}};
    dc_status status = dc_train_run(&job, result);
    dc_log_status(p->log, 0, NULL);
    return status;
}

dc_status dc_phase_train(dc_pipeline *p, const dc_genotype *genotype, dc_train_result *result)
{
    dc_pipeline_begin(p, DC_PHASE_TRAIN);
    return dc_pipeline_end(p, DC_PHASE_TRAIN, train_target(p, genotype, result));
}
