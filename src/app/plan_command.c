#include "app/plan_command.h"

#include "app/json.h"
#include "app/phases.h"
#include "base/units.h"
#include "graph/cost.h"

static const dc_option options[] = {
    {"set", "SECTION.KEY=VALUE", "changes one key of the configuration; may be repeated"},
    {"device", "auto|cpu|cuda", "what is to compute: [run] device"},
    {"precision", "float|tf32|bf16", "in what: [run] precision"},
    {"genotype", "GENOTYPE", "plans only the training of this architecture: a name, a text or a file"},
    {"gpu", "a100|h100|b200", "plans for such a GPU, which need not be here"},
    {"ranks", "N", "ranks that the run will have (default: those that this command is started with)"},
    {"json", NULL, "prints JSON"},
};

static const dc_command command = {
    "plan",
    "CONFIG",
    1,
    1,
    options,
    sizeof options / sizeof *options,
    "tells a run's memory and work before it is started",
    "Memory is that of one rank: the arena of a step (exactly what will be allocated; for a search with derived\n"
    "cells that of the heaviest architecture), the model (weights, gradients, optimizer state), on a GPU what\n"
    "libraries work in and batches on their way, and the loaders' buffers, which are the host's. What CUDA and\n"
    "NCCL keep for themselves, some hundred MiB, comes on top. The data set itself is mapped and shared by the ranks "
    "of a machine. Work counts the\n"
    "multiply-accumulates of convolutions and linear layers, a backward as twice its forward."};

/* One phase: memory of a rank, steps of one item, items, and multiply-accumulates of all of them. */
typedef struct phase_plan {
    const char *name;
    size_t arena_bytes, model_bytes, step_bytes, data_bytes;
    int64_t items, steps;
    double macs;
} phase_plan;

static int64_t steps_of(int64_t images, int batch, bool drop_last)
{
    return drop_last ? images / batch : (images + batch - 1) / batch;
}

static dc_status list_sizes(const dc_pipeline *p, const dc_search_options *o, int64_t *train, int64_t *validation)
{
    dc_indices a, b;
    DC_TRY(dc_split_indices(p->dataset, 0, o->train, o->validation, &a, &b));
    *train = a.n;
    *validation = b.n;
    dc_indices_clear(&a);
    dc_indices_clear(&b);
    return DC_OK;
}

static dc_status supernet_macs(const dc_search_options *o, int64_t *macs)
{
    dc_graph *graph;
    dc_genotype derived;
    DC_TRY(dc_genotype_lookup("DARTS_V2", &derived)); /* a typical one: the derived cells' share is small */
    DC_TRY(dc_supernet_build(&o->supernet, &derived, true, &graph));
    *macs = dc_graph_cost(graph).macs;
    dc_graph_destroy(graph);
    return DC_OK;
}

static dc_status plan_searches(const dc_pipeline *p, int64_t items, const char *name, phase_plan *plan)
{
    const dc_search_options o = dc_settings_search(&p->settings, p->dataset);
    dc_search_memory memory;
    int64_t train = 0, validation = 0, macs = 0;
    DC_TRY(dc_search_plan(p->backend, p->dataset, &o, p->settings.ranks_per_search, &memory));
    DC_TRY(list_sizes(p, &o, &train, &validation));
    DC_TRY(supernet_macs(&o, &macs));
    int64_t steps = steps_of(train, o.batch, true);
    int64_t alpha_steps = steps * (o.epochs - o.warmup_epochs);
    *plan = (phase_plan){name,
                         memory.arena_bytes,
                         memory.model_bytes,
                         memory.step_bytes,
                         memory.data_bytes,
                         items,
                         steps * o.epochs,
                         3.0 * (double)macs * o.batch * (double)(steps * o.epochs + alpha_steps) * (double)items};
    return DC_OK;
}

/* The largest network within the budget stands for the one that will be found: sep_conv_5x5 everywhere is the heaviest
 * of the space, and the budget's share of it scales the work. */
static dc_status heaviest_within_budget(const dc_pipeline *p, dc_genotype *genotype)
{
    dc_log_probability flat;
    for (int t = 0; t < DC_CELL_TYPES; t++)
        for (int e = 0; e < DC_CELL_EDGES; e++)
            for (int k = 0; k < DC_DARTS_N_OPS; k++)
                flat[t][e][k] = p->tables[DC_METRIC_MACS].cost[t][e][k] / p->limits[DC_METRIC_MACS].max;
    return dc_derive(p->deriver, flat, &p->budgets, genotype, NULL);
}

static dc_status plan_training(const dc_pipeline *p, const dc_genotype *genotype, const dc_train_options *o, int ranks,
                               int64_t items, int64_t images, const char *name, phase_plan *plan)
{
    dc_train_memory memory;
    DC_TRY(dc_train_plan(p->backend, p->dataset, genotype, o, ranks, &memory));
    double macs = dc_cost_table_count(&p->tables[DC_METRIC_MACS], genotype);
    int64_t steps = steps_of(images, o->batch, false);
    *plan = (phase_plan){name,
                         memory.arena_bytes,
                         memory.model_bytes,
                         memory.step_bytes,
                         memory.data_bytes,
                         items,
                         steps * o->epochs,
                         3.0 * macs * (double)images * o->epochs * (double)items};
    return DC_OK;
}

/* Of the target network. */
static dc_status plan_target(const dc_pipeline *p, const dc_genotype *genotype, int ranks, phase_plan *plan)
{
    const dc_train_options whole = dc_settings_train(&p->settings, p->dataset);
    return plan_training(p, genotype, &whole, ranks, 1, p->dataset->split[DC_SPLIT_TRAIN].n,
                         dc_phase_names[DC_PHASE_TRAIN], plan);
}

static dc_status plan_phases(const dc_pipeline *p, int ranks, phase_plan *phases, int *n)
{
    dc_genotype heaviest;
    const dc_settings *s = &p->settings;
    const dc_search_options search = dc_settings_search(s, p->dataset);
    int64_t train = 0, validation = 0;
    *n = 0;
    if (dc_pipeline_constrained(p))
        DC_TRY(plan_searches(p, (int64_t)s->lug_points * s->lug_seeds, dc_phase_names[DC_PHASE_LUG], &phases[(*n)++]));
    DC_TRY(plan_searches(p, s->runs, dc_phase_names[DC_PHASE_SEARCH], &phases[(*n)++]));
    DC_TRY(list_sizes(p, &search, &train, &validation));
    const dc_train_options brief = dc_settings_select(s, p->dataset);
    DC_TRY(heaviest_within_budget(p, &heaviest));
    DC_TRY(plan_training(p, &heaviest, &brief, 1, s->runs + s->select_candidates, train,
                         dc_phase_names[DC_PHASE_SELECT], &phases[(*n)++]));
    return plan_target(p, &heaviest, ranks, &phases[(*n)++]);
}

static dc_status plan_genotype(const dc_pipeline *p, const char *text, int ranks, phase_plan *phases, int *n)
{
    dc_genotype genotype;
    DC_TRY(dc_genotype_lookup(text, &genotype));
    DC_TRY(dc_pipeline_check_genotype(p, &genotype));
    *n = 1;
    return plan_target(p, &genotype, ranks, phases);
}

/* Of the device. */
static size_t total_bytes(const phase_plan *plan, bool own_memory)
{
    return plan->arena_bytes + plan->model_bytes + plan->step_bytes + (own_memory ? 0 : plan->data_bytes);
}

static void print_phase(const phase_plan *f, bool own_memory, FILE *out)
{
    fprintf(out, "  %-13s %10s %10s", f->name, dc_format_bytes((double)f->arena_bytes).s,
            dc_format_bytes((double)f->model_bytes).s);
    if (own_memory)
        fprintf(out, " %10s %10s %10s", dc_format_bytes((double)f->step_bytes).s,
                dc_format_bytes((double)total_bytes(f, true)).s, dc_format_bytes((double)f->data_bytes).s);
    else
        fprintf(out, " %10s %10s", dc_format_bytes((double)f->data_bytes).s,
                dc_format_bytes((double)total_bytes(f, false)).s);
    fprintf(out, " %7lld %9lld %10s\n", (long long)f->items, (long long)f->steps, dc_format_count_short(f->macs).s);
}

static void print_text(const dc_backend *backend, const phase_plan *phases, int n, int ranks, FILE *out)
{
    const bool own_memory = backend->call->memory != NULL;
    fprintf(out, "%d rank%s, %s; memory of each\n\n", ranks, ranks == 1 ? "" : "s", dc_backend_description(backend));
    fprintf(out, "  %-13s %10s %10s", "phase", "arena", "model");
    if (own_memory)
        fprintf(out, " %10s %10s %10s", "steps'", "together", "host's");
    else
        fprintf(out, " %10s %10s", "loaders", "together");
    fprintf(out, " %7s %9s %10s\n", "items", "steps", "MACs");
    size_t most = 0;
    double macs = 0;
    for (int i = 0; i < n; i++) {
        print_phase(&phases[i], own_memory, out);
        const size_t bytes = total_bytes(&phases[i], own_memory);
        most = bytes > most ? bytes : most;
        macs += phases[i].macs;
    }
    fprintf(out, "\n  a rank needs %s%s at most; the whole run %s multiply-accumulates\n",
            dc_format_bytes((double)most).s, own_memory ? " of its GPU" : "", dc_format_count_short(macs).s);
    fprintf(out, n > 1 ? "  (steps: of one item; selection and training: of the largest network within the budget)\n"
                       : "  (of the given architecture)\n");
}

static dc_status print_json(const phase_plan *phases, int n, int ranks, const char *device, FILE *out)
{
    cJSON *root = cJSON_CreateObject();
    cJSON_AddNumberToObject(root, "ranks", ranks);
    cJSON_AddStringToObject(root, "device", device);
    cJSON *list = cJSON_AddArrayToObject(root, "phases");
    for (int i = 0; i < n; i++) {
        cJSON *item = cJSON_CreateObject();
        cJSON_AddStringToObject(item, "name", phases[i].name);
        cJSON_AddNumberToObject(item, "arena_bytes", (double)phases[i].arena_bytes);
        cJSON_AddNumberToObject(item, "model_bytes", (double)phases[i].model_bytes);
        cJSON_AddNumberToObject(item, "step_bytes", (double)phases[i].step_bytes);
        cJSON_AddNumberToObject(item, "loader_bytes", (double)phases[i].data_bytes);
        cJSON_AddNumberToObject(item, "items", (double)phases[i].items);
        cJSON_AddNumberToObject(item, "steps", (double)phases[i].steps);
        cJSON_AddNumberToObject(item, "macs", phases[i].macs);
        cJSON_AddItemToArray(list, item);
    }
    return dc_json_print(root, out);
}

static dc_status plan(const dc_comm *world, const dc_args *args, FILE *out)
{
    int ranks = world->size, n = 0;
    DC_TRY(dc_args_int(args, "ranks", 1, 1000000, &ranks));
    dc_pipeline pipeline;
    phase_plan phases[DC_PHASES];
    const char *genotype = dc_args_value(args, "genotype");
    dc_status status = dc_pipeline_prepare(&pipeline, world, command.name, dc_args_at(args, 0), args, !genotype);
    if (status == DC_OK)
        status = genotype ? plan_genotype(&pipeline, genotype, ranks, phases, &n)
                          : plan_phases(&pipeline, ranks, phases, &n);
    if (status == DC_OK && dc_args_has(args, "json"))
        status = print_json(phases, n, ranks, dc_backend_description(pipeline.backend), out);
    else if (status == DC_OK)
        print_text(pipeline.backend, phases, n, ranks, out);
    dc_pipeline_close(&pipeline);
    return status;
}

dc_status dc_plan_command(const dc_comm *world, int argc, char *const *argv, FILE *out)
{
    if (world->rank != 0)
        return DC_OK;
    dc_args *args;
    DC_TRY(dc_args_parse(&command, argc, argv, &args));
    dc_status status = DC_OK;
    if (dc_args_has(args, "help"))
        dc_args_print_help("dcanas", &command, out);
    else
        status = plan(world, args, out);
    dc_args_destroy(args);
    return status;
}
