#include "lug/candidates.h"

#include "base/files.h"
#include "base/hash.h"
#include "base/units.h"
#include "lug/crew.h"
#include "lug/searches.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- making ---- */

static dc_status add(dc_deriver *deriver, const dc_budgets *budgets, const dc_cost_table *tables,
                     const dc_lug_entry *entry, const char *origin, int *n, dc_candidate *list)
{
    dc_candidate *candidate = &list[*n];
    memset(candidate, 0, sizeof *candidate);
    snprintf(candidate->origin, sizeof candidate->origin, "%s", origin);
    candidate->accuracy = -1;
    dc_log_probability log_p;
    dc_log_probability_of_alpha(entry->alpha, log_p);
    DC_TRY(dc_derive(deriver, log_p, budgets, &candidate->genotype, NULL));
    for (int m = 0; m < DC_METRICS; m++)
        candidate->cost[m] = dc_cost_table_count(&tables[m], &candidate->genotype);
    for (int i = 0; i < *n; i++)
        if (dc_genotype_equal(&list[i].genotype, &candidate->genotype))
            return DC_OK;
    ++*n;
    return DC_OK;
}

/* Larger is the better choice of a lookup graph's entry. */
static double merit(const dc_budgets *budgets, const dc_lug_entry *entry)
{
    if (budgets->n == 0)
        return entry->validation_accuracy;
    double share = entry->derived_cost[budgets->table[0]->metric] / budgets->limit[0];
    return dc_budgets_fit(budgets, &entry->genotype) ? share : -share;
}

typedef struct ranked {
    double merit;
    const dc_lug_entry *entry;
} ranked;

static int by_merit(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->merit != y->merit)
        return x->merit > y->merit ? -1 : 1;
    return x->entry < y->entry ? -1 : x->entry > y->entry;
}

static dc_status add_from_lug(dc_deriver *deriver, const dc_budgets *budgets, const dc_cost_table *tables,
                              const dc_lug *lug, int most, int *n, dc_candidate *list)
{
    ranked *order = dc_alloc(((size_t)lug->n + 1) * sizeof *order);
    if (!order)
        return DC_ERR_MEMORY;
    for (int i = 0; i < lug->n; i++)
        order[i] = (ranked){merit(budgets, &lug->entries[i]), &lug->entries[i]};
    qsort(order, (size_t)lug->n, sizeof *order, by_merit);
    int first = *n;
    dc_status status = DC_OK;
    for (int i = 0; i < lug->n && *n - first < most && status == DC_OK; i++) {
        char origin[48];
        dc_search_point_name(order[i].entry->point, order[i].entry->seed_index, origin);
        status = add(deriver, budgets, tables, order[i].entry, origin, n, list);
    }
    free(order);
    return status;
}

dc_status dc_candidates_make(dc_deriver *deriver, const dc_budgets *budgets, const dc_cost_table *tables, int n_runs,
                             const dc_lug_entry *runs, const dc_lug *lug, int n_more, int *n, dc_candidate **candidates)
{
    *n = 0;
    dc_candidate *list = dc_alloc(((size_t)n_runs + (size_t)n_more + 1) * sizeof *list);
    if (!list)
        return DC_ERR_MEMORY;
    dc_status status = DC_OK;
    for (int i = 0; i < n_runs && status == DC_OK; i++) {
        char origin[48];
        snprintf(origin, sizeof origin, "run-%d", runs[i].seed_index);
        status = add(deriver, budgets, tables, &runs[i], origin, n, list);
    }
    if (status == DC_OK)
        status = add_from_lug(deriver, budgets, tables, lug, n_more, n, list);
    if (status != DC_OK) {
        free(list);
        return status;
    }
    *candidates = list;
    return DC_OK;
}

/* ---- training ---- */

typedef struct work {
    const dc_train_job *common;
    const char *directory;
    const dc_candidate *candidates;
} work;

/* What a short training gives back. */
typedef struct figures {
    double accuracy, seconds;
} figures;

static dc_status path_of(const work *w, const char *origin, const char *suffix, char path[DC_PATH_CHARS])
{
    char name[64];
    snprintf(name, sizeof name, "from-%s%s", origin, suffix);
    return dc_path_join(w->directory, name, path);
}

static dc_status train_one(void *context, int item, dc_farm_worker *worker)
{
    const work *w = context;
    const dc_candidate *candidate = &w->candidates[item];
    char checkpoint[DC_PATH_CHARS], csv[DC_PATH_CHARS];
    DC_TRY(path_of(w, candidate->origin, ".h5", checkpoint));
    DC_TRY(path_of(w, candidate->origin, ".csv", csv));
    dc_hash identity;
    dc_hash_init(&identity);
    dc_hash_u64(&identity, w->common->identity);
    dc_hash_u64(&identity, dc_genotype_hash(&candidate->genotype));
    dc_train_job job = *w->common;
    job.name = candidate->origin;
    job.comm = dc_farm_group(worker);
    job.genotype = &candidate->genotype;
    job.identity = dc_hash_end(&identity);
    job.checkpoint = checkpoint;
    job.csv = csv;
    job.log = NULL; /* the crew tells it all, whoever works */
    job.events = NULL;
    job.hooks = dc_crew_hooks(worker);
    dc_train_result result;
    DC_TRY(dc_train_run(&job, &result));
    figures f = {result.accuracy, result.seconds};
    char text[DC_FARM_TEXT];
    snprintf(text, sizeof text, "validation %.2f %%, %s parameters", 100 * f.accuracy,
             dc_format_count((int64_t)candidate->cost[DC_METRIC_PARAMS]).s);
    DC_TRY(dc_farm_progress(worker, 1, text));
    return dc_farm_result(worker, &f, sizeof f);
}

static const char *name_of(const void *context, int item)
{
    return ((const work *)context)->candidates[item].origin;
}

dc_status dc_candidates_train(const dc_comm *comm, const dc_train_job *common, const char *directory, int n,
                              dc_candidate *candidates)
{
    work w = {common, directory, candidates};
    dc_crew crew = {.log = common->log,
                    .events = common->events,
                    .heading = "candidates",
                    .n_items = n,
                    .ranks_per_item = 1,
                    .name = name_of,
                    .work = train_one,
                    .context = &w};
    dc_blobs results;
    DC_TRY(dc_crew_run(comm, &crew, &results));
    for (int i = 0; i < n; i++) {
        figures f;
        memcpy(&f, results.data + results.offsets[i], sizeof f);
        candidates[i].accuracy = f.accuracy;
        candidates[i].seconds = f.seconds;
    }
    dc_blobs_clear(&results);
    return DC_OK;
}

int dc_candidates_best(int n, const dc_candidate *candidates)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        if (candidates[i].accuracy > candidates[best].accuracy)
            best = i;
    return best;
}
