#include "lug/searches.h"

#include "base/clock.h"
#include "base/files.h"
#include "base/hash.h"
#include "base/units.h"
#include "lug/crew.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUMMARY_CHARS = 256 };

/* What rank 0 saw of a search's lock: whether its owner still lives. */
typedef struct sign {
    int64_t before; /* the generation before anybody here made this search */
    int64_t beat;
    double since_s; /* when the beat was first seen */
} sign;

typedef struct work {
    const dc_searches *searches;
    const dc_search_spec *specs;
    sign *signs; /* rank 0's */
} work;

/* ---- one search ---- */

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
    char name[sizeof spec->name + 16];
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

/* One line: what it was held to and what it derives, of the first constrained metric (or parameters). */
static void summarise(const dc_search_job *job, const dc_lug_entry *entry, const dc_search_result *result,
                      char text[SUMMARY_CHARS])
{
    int skips = result->skips[DC_CELL_NORMAL] + result->skips[DC_CELL_REDUCE];
    dc_metric metric = job->targets.n ? job->targets.table[0]->metric : DC_METRIC_PARAMS;
    char held[64] = "";
    if (job->targets.n)
        snprintf(held, sizeof held, "held to %s, ", dc_format_count((int64_t)entry->target[metric]).s);
    snprintf(text, SUMMARY_CHARS, "%sderives %s %s, %d of 16 operations are skips, validation %.1f %%, %s%s", held,
             dc_format_count((int64_t)entry->derived_cost[metric]).s, dc_metric_name(metric), skips,
             100 * entry->validation_accuracy, dc_format_duration(entry->seconds).s,
             result->steps_made ? "" : ", made before");
}

/* The group's first rank owns the search, the others may ask for it. Collective over the group; dc_lock_release is
 * legal after any outcome. */
static dc_status lock_search(const work *w, const dc_search_spec *spec, const dc_comm *group, dc_lock **lock)
{
    char path[DC_PATH_CHARS], what[DC_PATH_CHARS];
    *lock = NULL;
    dc_status status = path_of(w->searches, spec, ".lock", path);
    if (status == DC_OK)
        status = path_of(w->searches, spec, "", what);
    if (status == DC_OK && group->rank == 0)
        status = dc_lock_acquire(path, what, w->searches->lock_timeout_s, dc_comm_abort, lock);
    DC_TRY_ALL(group, status);
    int64_t generation = *lock ? dc_lock_generation(*lock) : 0;
    DC_TRY(dc_comm_bcast(group, 0, &generation, sizeof generation));
    if (group->rank != 0)
        status = dc_lock_join(path, what, generation, lock);
    return dc_comm_agree(group, status);
}

static dc_status search_locked(const work *w, const dc_search_spec *spec, dc_farm_worker *worker, const dc_lock *lock)
{
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
    job.lock = lock;
    job.csv = csv;
    job.log = NULL; /* the crew tells it all, whoever works */
    job.events = NULL;
    job.hooks = dc_crew_hooks(worker);
    dc_search_result result;
    DC_TRY(dc_search_run(&job, &result));
    dc_lug_entry entry = entry_of(spec, &result);
    char text[SUMMARY_CHARS];
    summarise(&job, &entry, &result, text);
    DC_TRY(dc_farm_progress(worker, 1, text));
    return dc_farm_result(worker, &entry, sizeof entry);
}

static dc_status search_one(void *context, int item, dc_farm_worker *worker)
{
    const work *w = context;
    dc_lock *lock;
    dc_status status = lock_search(w, &w->specs[item], dc_farm_group(worker), &lock);
    if (status == DC_OK)
        status = search_locked(w, &w->specs[item], worker, lock);
    dc_lock_release(lock);
    return status;
}

/* ---- the dead ---- */

static dc_lock_view look(const work *w, int item)
{
    char path[DC_PATH_CHARS];
    return path_of(w->searches, &w->specs[item], ".lock", path) == DC_OK ? dc_lock_look(path) : (dc_lock_view){0};
}

/* A rank that made this search and died left its lock: at once known on this machine, elsewhere by its silence. */
static bool lost(void *context, int item)
{
    const work *w = context;
    sign *s = &w->signs[item];
    const dc_lock_view view = look(w, item);
    const double now = dc_clock_seconds();
    if (view.generation <= s->before || view.life == DC_LOCK_FREE || view.life == DC_LOCK_LIVES)
        return false;
    if (view.beat != s->beat || s->since_s == 0) {
        s->beat = view.beat;
        s->since_s = now;
    }
    bool dead = view.life == DC_LOCK_DEAD || now - s->since_s > w->searches->lock_timeout_s;
    if (dead)
        *s = (sign){.before = view.generation};
    return dead;
}

/* ---- all of them ---- */

void dc_search_point_name(int point, int seed_index, char name[DC_SEARCH_NAME_CHARS])
{
    snprintf(name, DC_SEARCH_NAME_CHARS, "point-%03d-seed-%d", point, seed_index);
}

static const char *name_of(const void *context, int item)
{
    return ((const work *)context)->specs[item].name;
}

static dc_status run_crew(const dc_searches *searches, int n, const bool *done, work *w, dc_blobs *results)
{
    if (searches->comm->rank == 0) {
        w->signs = dc_alloc_zeroed((size_t)n * sizeof *w->signs);
        for (int i = 0; i < n && w->signs; i++)
            if (!done || !done[i])
                w->signs[i].before = look(w, i).generation;
    }
    DC_TRY_ALL(searches->comm, searches->comm->rank != 0 || w->signs ? DC_OK : DC_ERR_MEMORY);
    const dc_crew crew = {.log = searches->common->log,
                          .events = searches->common->events,
                          .heading = searches->heading,
                          .n_items = n,
                          .ranks_per_item = searches->ranks_per_search,
                          .done = done,
                          .name = name_of,
                          .work = search_one,
                          .lost = lost,
                          .context = w};
    return dc_crew_run(searches->comm, &crew, results);
}

dc_status dc_searches_run(const dc_searches *searches, int n, const dc_search_spec *specs, const bool *done,
                          dc_lug_entry *entries)
{
    work w = {.searches = searches, .specs = specs};
    dc_blobs results;
    dc_status status = run_crew(searches, n, done, &w, &results);
    free(w.signs);
    DC_TRY(status);
    for (int i = 0; i < n; i++)
        if (!done || !done[i])
            memcpy(&entries[i], results.data + results.offsets[i], sizeof entries[i]);
    dc_blobs_clear(&results);
    return DC_OK;
}
