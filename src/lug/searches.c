#include "lug/searches.h"

#include "base/files.h"
#include "base/hash.h"
#include "base/signals.h"
#include "base/units.h"
#include "lug/board.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct work {
    const dc_searches *searches;
    const dc_search_spec *specs;
    dc_board *board;
} work;

/* ---- one search ---- */

static dc_status pass_progress(void *worker, double fraction, const char *text)
{
    return dc_farm_progress(worker, fraction, text);
}

static dc_status pass_stop(void *worker, bool *stop)
{
    return dc_farm_should_stop(worker, stop);
}

static uint64_t identity_of(const dc_searches *searches, const dc_search_spec *spec)
{
    dc_hash hash;
    dc_hash_init(&hash);
    dc_hash_u64(&hash, searches->identity);
    dc_hash_u64(&hash, spec->seed);
    dc_hash_bytes(&hash, spec->target, sizeof spec->target);
    return dc_hash_end(&hash);
}

static dc_budgets targets_of(const dc_search_job *job, const dc_search_spec *spec)
{
    dc_budgets targets = {0};
    for (int m = 0; m < DC_METRICS; m++)
        if (spec->target[m] > 0) {
            targets.table[targets.n] = &job->tables[m];
            targets.limit[targets.n++] = spec->target[m];
        }
    return targets;
}

static dc_status path_of(const dc_searches *searches, const dc_search_spec *spec, const char *suffix,
                         char path[DC_PATH_CHARS])
{
    char name[sizeof spec->name + 8];
    snprintf(name, sizeof name, "%s%s", spec->name, suffix);
    return dc_path_join(searches->directory, name, path);
}

static dc_lug_entry entry_of(const dc_search_spec *spec, const dc_search_result *result)
{
    dc_lug_entry entry;
    memset(&entry, 0, sizeof entry); /* its bytes travel as they are */
    entry.point = spec->point;
    entry.seed_index = spec->seed_index;
    entry.seed = spec->seed;
    memcpy(entry.target, spec->target, sizeof entry.target);
    memcpy(entry.alpha, result->alpha, sizeof entry.alpha);
    entry.genotype = result->genotype;
    memcpy(entry.derived_cost, result->derived_cost, sizeof entry.derived_cost);
    entry.validation_accuracy = result->validation_accuracy;
    entry.seconds = result->seconds;
    return entry;
}

static dc_status search_one(void *context, int item, dc_farm_worker *worker)
{
    const work *w = context;
    const dc_search_spec *spec = &w->specs[item];
    char checkpoint[DC_PATH_CHARS], csv[DC_PATH_CHARS];
    DC_TRY(path_of(w->searches, spec, ".h5", checkpoint));
    DC_TRY(path_of(w->searches, spec, ".csv", csv));
    dc_search_job job = *w->searches->common;
    job.name = spec->name;
    job.comm = dc_farm_group(worker);
    job.targets = targets_of(&job, spec);
    job.seed = spec->seed;
    job.identity = identity_of(w->searches, spec);
    job.checkpoint = checkpoint;
    job.csv = csv;
    job.hooks = (dc_hooks){worker, pass_progress, pass_stop};
    dc_search_result result;
    dc_status status = dc_search_run(&job, &result);
    if (status != DC_OK)
        return status == DC_INTERRUPTED ? status : dc_fail_within(status, "%s", spec->name);
    dc_lug_entry entry = entry_of(spec, &result);
    char text[DC_FARM_TEXT];
    snprintf(text, sizeof text, "validation %.1f %%, derives %s parameters, %s", 100 * entry.validation_accuracy,
             dc_format_count((int64_t)entry.derived_cost[DC_METRIC_PARAMS]).s, dc_format_duration(entry.seconds).s);
    DC_TRY(dc_farm_progress(worker, 1, text));
    return dc_farm_result(worker, &entry, sizeof entry);
}

/* ---- all of them ---- */

static void pass_news(void *context, const dc_farm_news *news)
{
    dc_board_news(((work *)context)->board, news);
}

static bool interrupted(void *context)
{
    (void)context;
    return dc_signals_received() != 0;
}

static dc_status open_board(work *w, int n)
{
    const char **names = dc_alloc(((size_t)n + 1) * sizeof *names);
    if (!names)
        return DC_ERR_MEMORY;
    for (int i = 0; i < n; i++)
        names[i] = w->specs[i].name;
    dc_status status = dc_board_create(w->searches->common->log, w->searches->heading, n, names, &w->board);
    free(names);
    return status;
}

dc_status dc_searches_run(const dc_searches *searches, int n, const dc_search_spec *specs, const bool *done,
                          dc_lug_entry *entries)
{
    work w = {searches, specs, NULL};
    DC_TRY_ALL(searches->comm, searches->comm->rank == 0 ? open_board(&w, n) : DC_OK);
    dc_farm farm = {.n_items = n,
                    .done = done,
                    .ranks_per_group = searches->ranks_per_search,
                    .work = search_one,
                    .news = pass_news,
                    .interrupted = interrupted,
                    .context = &w};
    dc_blobs results;
    dc_status status = dc_farm_run(searches->comm, &farm, &results);
    if (status == DC_OK) {
        for (int i = 0; i < n; i++)
            if (!done || !done[i])
                memcpy(&entries[i], results.data + results.offsets[i], sizeof entries[i]);
        dc_blobs_clear(&results);
    }
    dc_board_destroy(w.board);
    return status;
}
