#include "app/result.h"

#include "base/units.h"
#include "lug/fit.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- result.json ---- */

static void add_hash(cJSON *object, const char *name, uint64_t hash)
{
    char text[17];
    snprintf(text, sizeof text, "%016" PRIx64, hash);
    cJSON_AddStringToObject(object, name, text);
}

static bool fits(const dc_pipeline *p, const dc_genotype *genotype)
{
    return dc_budgets_fit(&p->budgets, genotype);
}

static void add_sizes(const dc_pipeline *p, const dc_outcome *o, cJSON *root)
{
    cJSON *budget = cJSON_AddObjectToObject(root, "budget");
    for (int m = 0; m < DC_METRICS; m++)
        if (p->settings.budget[m])
            cJSON_AddNumberToObject(budget, dc_metric_name((dc_metric)m), (double)p->settings.budget[m]);
    cJSON *target = cJSON_AddObjectToObject(root, "search_target");
    for (int m = 0; m < DC_METRICS; m++)
        if (p->progress.target[m] > 0)
            cJSON_AddNumberToObject(target, dc_metric_name((dc_metric)m), p->progress.target[m]);
    for (int m = 0; m < DC_METRICS; m++)
        cJSON_AddNumberToObject(root, dc_metric_name((dc_metric)m), dc_cost_table_count(&p->tables[m], o->genotype));
    cJSON_AddBoolToObject(root, "fits", fits(p, o->genotype));
}

static void add_candidates(const dc_outcome *o, cJSON *root)
{
    cJSON_AddNumberToObject(root, "validation_accuracy", o->candidates[o->best].accuracy);
    cJSON_AddStringToObject(root, "chosen_from", o->candidates[o->best].origin);
    cJSON *list = cJSON_AddArrayToObject(root, "candidates");
    for (int i = 0; i < o->n_candidates; i++) {
        cJSON *item = cJSON_CreateObject();
        cJSON_AddStringToObject(item, "from", o->candidates[i].origin);
        for (int m = 0; m < DC_METRICS; m++)
            cJSON_AddNumberToObject(item, dc_metric_name((dc_metric)m), o->candidates[i].cost[m]);
        cJSON_AddNumberToObject(item, "validation_accuracy", o->candidates[i].accuracy);
        cJSON_AddItemToArray(list, item);
    }
}

/* What an earlier job has searched in this folder, and this one only trained, keeps what the search had told of it. */
static void keep_candidates(const char *path, const char *genotype, cJSON *root)
{
    static const char *const names[] = {"validation_accuracy", "chosen_from", "candidates"};
    char *text;
    if (!dc_file_exists(path) || dc_file_read(path, &text, NULL) != DC_OK)
        return;
    cJSON *earlier = cJSON_Parse(text);
    free(text);
    const cJSON *its = cJSON_GetObjectItem(earlier, "genotype");
    bool same = cJSON_IsString(its) && strcmp(its->valuestring, genotype) == 0;
    for (size_t i = 0; same && i < sizeof names / sizeof *names; i++) {
        cJSON *item = cJSON_DetachItemFromObject(earlier, names[i]);
        if (item)
            cJSON_AddItemToObject(root, names[i], item);
    }
    cJSON_Delete(earlier);
}

static void add_training(const dc_train_result *t, cJSON *root)
{
    cJSON_AddNumberToObject(root, "test_accuracy", t->accuracy);
    cJSON_AddNumberToObject(root, "test_top5", t->top5);
    cJSON_AddNumberToObject(root, "test_loss", t->loss);
    cJSON_AddNumberToObject(root, "test_images", (double)t->evaluated);
    cJSON_AddNumberToObject(root, "best_test_accuracy", t->best_accuracy);
    cJSON_AddNumberToObject(root, "best_epoch", t->best_epoch + 1);
    cJSON_AddNumberToObject(root, "train_accuracy", t->train_accuracy);
    cJSON_AddNumberToObject(root, "train_loss", t->train_loss);
}

static void add_origin(const dc_pipeline *p, cJSON *root)
{
    cJSON_AddNumberToObject(root, "seed", (double)p->settings.run.seed);
    cJSON *seeds = cJSON_AddArrayToObject(root, "search_seeds");
    for (int i = 0; i < p->settings.runs; i++) {
        char text[24];
        snprintf(text, sizeof text, "%" PRIu64, dc_pipeline_seed(p, "run", i, 0));
        cJSON_AddItemToArray(seeds, cJSON_CreateString(text));
    }
    add_hash(root, "config_hash", p->config_hash);
    add_hash(root, "dataset_hash", p->dataset->hash);
    cJSON_AddStringToObject(root, "dataset", p->dataset->name);
    cJSON_AddNumberToObject(root, "ranks", p->world->size);
    dc_version_add(root);
    cJSON_AddStringToObject(root, "device", dc_backend_description(p->backend));
    cJSON *seconds = cJSON_AddObjectToObject(root, "seconds");
    for (int i = 0; i < DC_PHASES; i++)
        cJSON_AddNumberToObject(seconds, dc_phase_names[i], p->progress.seconds[i]);
}

dc_status dc_result_write(const dc_pipeline *p, const dc_outcome *o)
{
    char path[DC_PATH_CHARS], genotype[DC_GENOTYPE_CHARS];
    DC_TRY(dc_lock_check(p->lock));
    DC_TRY(dc_pipeline_path(p, "result.json", path));
    cJSON *root = cJSON_CreateObject();
    dc_genotype_format(o->genotype, genotype);
    cJSON_AddStringToObject(root, "name", p->settings.run.name);
    cJSON_AddStringToObject(root, "genotype", genotype);
    add_sizes(p, o, root);
    if (o->n_candidates > 0)
        add_candidates(o, root);
    else
        keep_candidates(path, genotype, root);
    if (o->training)
        add_training(o->training, root);
    add_origin(p, root);
    char *text = cJSON_Print(root);
    cJSON_Delete(root);
    if (!text)
        return dc_fail(DC_ERR_MEMORY, "out of memory while %s was written", path);
    dc_status status = dc_file_replace_text(path, text);
    free(text);
    return status;
}

/* ---- the summary ---- */

static int by_target(const void *a, const void *b)
{
    const dc_lug_entry *x = *(const dc_lug_entry *const *)a, *y = *(const dc_lug_entry *const *)b;
    for (int m = 0; m < DC_METRICS; m++)
        if (x->target[m] != y->target[m])
            return x->target[m] < y->target[m] ? -1 : 1;
    return x->seed_index - y->seed_index;
}

void dc_lug_print(const dc_pipeline *p, FILE *out)
{
    const dc_lug_entry **order = dc_alloc(((size_t)p->lug.n + 1) * sizeof *order);
    if (!order || p->lug.n == 0) {
        free(order);
        return;
    }
    for (int i = 0; i < p->lug.n; i++)
        order[i] = &p->lug.entries[i];
    qsort(order, (size_t)p->lug.n, sizeof *order, by_target);
    fprintf(out, "Lookup graph: what a search that is held to a size really derives\n\n");
    for (int m = 0; m < p->budgets.n; m++) {
        const char *name = dc_metric_name(p->budgets.table[m]->metric);
        fprintf(out, "  %9s held to  %9s derived", name, name);
    }
    fprintf(out, "   validation    time\n");
    for (int i = 0; i < p->lug.n; i++) {
        for (int m = 0; m < p->budgets.n; m++) {
            dc_metric metric = p->budgets.table[m]->metric;
            fprintf(out, "  %17s  %17s", dc_format_count((int64_t)order[i]->target[metric]).s,
                    dc_format_count((int64_t)order[i]->derived_cost[metric]).s);
        }
        fprintf(out, "   %8.1f %%  %6s\n", 100 * order[i]->validation_accuracy,
                dc_format_duration(order[i]->seconds).s);
    }
    fprintf(out, "\n");
    free(order);
    for (int m = 0; m < p->budgets.n; m++) {
        dc_lug_quality q;
        dc_metric metric = p->budgets.table[m]->metric;
        if (dc_lug_quality_of(&p->lug, metric, &q) == DC_OK && q.n_bound > 1)
            fprintf(
                out,
                "  %s: over the %d of %d searches whose target bound, rank correlation %.2f, median deviation of the\n"
                "  derived size from its target %.1f %%\n\n",
                dc_metric_name(metric), q.n_bound, q.n, q.rank_correlation, 100 * q.median_deviation);
    }
}

static void print_cell(const dc_genotype *genotype, dc_cell_type type, FILE *out)
{
    fprintf(out, "  %s\n", type == DC_CELL_NORMAL ? "normal cell" : "reduction cell");
    for (int node = 0; node < DC_CELL_NODES; node++) {
        const dc_choice *c = &genotype->cell[type][2 * node];
        fprintf(out, "    node %d =", node);
        for (int k = 0; k < 2; k++) {
            char source[32];
            if (c[k].source < DC_CELL_INPUTS)
                snprintf(source, sizeof source, "input %d", c[k].source);
            else
                snprintf(source, sizeof source, "node %d", c[k].source - DC_CELL_INPUTS);
            fprintf(out, "%s %s(%s)", k ? " +" : "", dc_darts_op_name(c[k].op), source);
        }
        fprintf(out, "\n");
    }
}

static void print_sizes(const dc_pipeline *p, const dc_outcome *o, FILE *out)
{
    for (int m = 0; m < DC_METRICS; m++) {
        double cost = dc_cost_table_count(&p->tables[m], o->genotype);
        fprintf(out, "  %-9s %15s", dc_metric_name((dc_metric)m), dc_format_count((int64_t)cost).s);
        if (p->settings.budget[m])
            fprintf(out, "  of a budget of %s (%.1f %%): %s", dc_format_count(p->settings.budget[m]).s,
                    100 * cost / (double)p->settings.budget[m],
                    cost <= (double)p->settings.budget[m] ? "fits" : "DOES NOT FIT");
        fprintf(out, "\n");
    }
}

static void print_candidates(const dc_outcome *o, FILE *out)
{
    fprintf(out, "Candidates within the budget, after a short training each\n\n");
    for (int i = 0; i < o->n_candidates; i++)
        fprintf(out, "  %-20s %15s params   validation %6.2f %%%s\n", o->candidates[i].origin,
                dc_format_count((int64_t)o->candidates[i].cost[DC_METRIC_PARAMS]).s, 100 * o->candidates[i].accuracy,
                i == o->best ? "   <- chosen" : "");
    fprintf(out, "\n");
}

static void print_end(const dc_pipeline *p, const dc_outcome *o, FILE *out)
{
    const char *f = p->folder;
    fprintf(out, "Files\n\n");
    fprintf(out, "  %s/result.json          all of this, for machines\n", f);
    fprintf(out, "  %s/genotype.txt         the architecture\n", f);
    if (o->training)
        fprintf(out, "  %s/training/best.h5     the trained weights (last.h5: of the last epoch)\n", f);
    const char *given = p->settings.lug_file, *folder = *given ? "" : f, *lug = *given ? given : "/lug.h5";
    if (p->lug.n)
        fprintf(out, "  %s%s               the lookup graph: serves other budgets in the same metrics\n", folder, lug);
    char precision[32] = "";
    if (p->settings.run.precision != DC_PRECISION_F32)
        snprintf(precision, sizeof precision, " --precision %s", dc_precision_names[p->settings.run.precision]);
    fprintf(out, "\nWhat to try next\n\n");
    if (p->settings.budget[DC_METRIC_PARAMS] && p->lug.n > 0)
        fprintf(out,
                "  another budget with the same lookup graph:\n    mpirun -np %d dcanas run CONFIG%s --set "
                "run.name=smaller --set budget.params=%" PRId64 " --set lug.file=%s%s\n",
                p->world->size, precision,
                (p->settings.budget[DC_METRIC_PARAMS] + (int64_t)p->limits[DC_METRIC_PARAMS].min) / 2, folder, lug);
    fprintf(out,
            "  a longer training of this architecture:\n    mpirun -np %d dcanas train CONFIG%s --genotype "
            "%s/genotype.txt --set run.name=longer --set target.epochs=%d\n",
            p->world->size, precision, f, 4 * p->settings.target.epochs);
    if (o->training)
        fprintf(out, "  the accuracy of each class:\n    dcanas eval %s/training/best.h5 %s%s\n", f,
                p->settings.data_file, precision);
}

dc_status dc_summary_print(const dc_pipeline *p, const dc_outcome *o, FILE *out)
{
    fprintf(out, "\n");
    dc_lug_print(p, out);
    if (o->n_candidates > 0)
        print_candidates(o, out);
    fprintf(out, "The network\n\n");
    print_cell(o->genotype, DC_CELL_NORMAL, out);
    print_cell(o->genotype, DC_CELL_REDUCE, out);
    fprintf(out, "\n");
    print_sizes(p, o, out);
    if (o->training)
        fprintf(out, "  accuracy  %13.2f %%  on the %lld test images (best epoch %.2f %%), top 5 %.2f %%\n",
                100 * o->training->accuracy, (long long)o->training->evaluated, 100 * o->training->best_accuracy,
                100 * o->training->top5);
    fprintf(out, "\nTime");
    for (int i = 0; i < DC_PHASES; i++)
        if (p->progress.seconds[i] > 0)
            fprintf(out, "  %s %s", dc_phase_names[i], dc_format_duration(p->progress.seconds[i]).s);
    fprintf(out, "\n\n");
    print_end(p, o, out);
    return fflush(out) == 0 ? DC_OK : dc_fail(DC_ERR_IO, "standard output: cannot write the summary");
}
