#include "app/plan_command.h"

#include "app/calibrate.h"
#include "app/json.h"
#include "app/phases.h"
#include "base/units.h"
#include "graph/cost.h"

#include <math.h>
#include <sys/stat.h>

static const dc_option options[] = {
    {"set", "SECTION.KEY=VALUE", "changes one key of the configuration; may be repeated"},
    {"device", "auto|cpu|cuda", "what is to compute: [run] device"},
    {"precision", "float|tf32|bf16", "in what ([run] precision; default float; tf32 needs a GPU)"},
    {"genotype", "GENOTYPE", "plans only the training of this architecture: a name, a text or a file"},
    {"gpu", "a100|h100|b200", "plans for such a GPU, which need not be here"},
    {"ranks", "N", "ranks that the run will have (default: those that this command is started with)"},
    {"measure", NULL, "makes some seconds of steps on this machine and estimates the time of the run"},
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
    "NCCL keep for themselves, some hundred MiB, comes on top. The data set itself is mapped and shared by the ranks\n"
    "of a machine. Work counts the multiply-accumulates of convolutions and linear layers, a backward as twice its\n"
    "forward. Checkpoints are those of one item; a run keeps the newest and the one before. --measure makes steps on\n"
    "one rank with as many threads as this command has (run.threads, or the cores that it may run on): start it on\n"
    "such cores as a rank will have. The estimate counts no communication, and takes the largest network within the\n"
    "budget for the one to come."};

/* One phase: memory of a rank, steps of one item, items, and multiply-accumulates of all of them. */
typedef struct phase_plan {
    const char *name;
    size_t arena_bytes, model_bytes, step_bytes, data_bytes;
    size_t checkpoint_bytes; /* of one item */
    int64_t items, steps;
    double macs;
    int side_by_side;       /* items, or ranks of the one item, that work at the same time */
    double evaluation_macs; /* of all items, forward only: not in macs */
    double seconds;         /* estimated; negative: not measured */
    double step_s;          /* measured */
} phase_plan;

enum { CALIBRATION_SECONDS = 5 }; /* of each kind of step */

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

/* Items side by side end together when there are as many as workers, else in rounds. */
static void set_time(phase_plan *plan, const dc_speed *speed)
{
    double work_s = (plan->macs + plan->evaluation_macs) * speed->seconds_per_mac;
    double rounds = plan->items > 1 && plan->side_by_side < plan->items
                        ? ceil((double)plan->items / plan->side_by_side) / (double)plan->items
                        : 1.0 / plan->side_by_side;
    plan->seconds = work_s * rounds;
    plan->step_s = speed->step_s;
}

static dc_status plan_searches(const dc_pipeline *p, int64_t items, int ranks, bool measure, const char *name,
                               phase_plan *plan)
{
    const int per_search = p->settings.ranks_per_search;
    const dc_search_options o = dc_settings_search(&p->settings, p->dataset);
    dc_search_memory memory;
    int64_t train = 0, validation = 0, macs = 0;
    DC_TRY(dc_search_plan(p->backend, p->dataset, &o, p->settings.ranks_per_search, &memory));
    DC_TRY(list_sizes(p, &o, &train, &validation));
    DC_TRY(supernet_macs(&o, &macs));
    int64_t steps = steps_of(train, o.batch, true);
    int64_t alpha_steps = steps * (o.epochs - o.warmup_epochs);
    *plan = (phase_plan){
        .name = name,
        .arena_bytes = memory.arena_bytes,
        .model_bytes = memory.model_bytes,
        .step_bytes = memory.step_bytes,
        .data_bytes = memory.data_bytes,
        .checkpoint_bytes = memory.model_bytes / 2, /* weights and momentum; not gradients */
        .items = items,
        .steps = steps * o.epochs,
        .macs = 3.0 * (double)macs * o.batch * (double)(steps * o.epochs + alpha_steps) * (double)items,
        .side_by_side = (int)(ranks < items * per_search ? ranks / per_search * per_search : items * per_search),
        .seconds = -1};
    dc_speed speed;
    if (measure) {
        DC_TRY(dc_calibrate_search(p, &o, (double)macs, CALIBRATION_SECONDS, &speed));
        set_time(plan, &speed);
    }
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

/* A training of `images`, evaluated on others after each epoch; ranks: that share one item; workers: items at a time.
 */
typedef struct training_plan {
    const char *name;
    const dc_genotype *genotype;
    const dc_train_options *options;
    int ranks, workers;
    int64_t items, images, evaluated;
} training_plan;

static dc_status plan_training(const dc_pipeline *p, const training_plan *t, bool measure, phase_plan *plan)
{
    const dc_train_options *o = t->options;
    dc_train_memory memory;
    DC_TRY(dc_train_plan(p->backend, p->dataset, t->genotype, o, t->ranks, &memory));
    double macs = dc_cost_table_count(&p->tables[DC_METRIC_MACS], t->genotype);
    int64_t steps = steps_of(t->images, o->batch, false);
    *plan = (phase_plan){.name = t->name,
                         .arena_bytes = memory.arena_bytes,
                         .model_bytes = memory.model_bytes,
                         .step_bytes = memory.step_bytes,
                         .data_bytes = memory.data_bytes,
                         .checkpoint_bytes = memory.model_bytes / 3 * 2, /* not the gradients */
                         .items = t->items,
                         .steps = steps * o->epochs,
                         .macs = 3.0 * macs * (double)t->images * o->epochs * (double)t->items,
                         .side_by_side = t->ranks > 1 ? t->ranks : t->workers,
                         .evaluation_macs = macs * (double)t->evaluated * o->epochs * (double)t->items,
                         .seconds = -1};
    dc_speed speed;
    if (measure) {
        dc_train_options share = *o;
        share.batch = dc_loader_local_share(o->batch, t->ranks);
        DC_TRY(dc_calibrate_training(p, &share, t->genotype, macs, CALIBRATION_SECONDS, &speed));
        set_time(plan, &speed);
    }
    return DC_OK;
}

/* Of the target network. */
static dc_status plan_target(const dc_pipeline *p, const dc_genotype *genotype, int ranks, bool measure,
                             phase_plan *plan)
{
    const dc_train_options whole = dc_settings_train(&p->settings, p->dataset);
    const training_plan t = {.name = dc_phase_names[DC_PHASE_TRAIN],
                             .genotype = genotype,
                             .options = &whole,
                             .ranks = ranks,
                             .workers = 1,
                             .items = 1,
                             .images = p->dataset->split[DC_SPLIT_TRAIN].n,
                             .evaluated = p->dataset->split[DC_SPLIT_TEST].n};
    return plan_training(p, &t, measure, plan);
}

static dc_status plan_phases(const dc_pipeline *p, int ranks, bool measure, phase_plan *phases, int *n)
{
    dc_genotype heaviest;
    const dc_settings *s = &p->settings;
    const dc_search_options search = dc_settings_search(s, p->dataset);
    int64_t train = 0, validation = 0;
    *n = 0;
    if (dc_pipeline_constrained(p))
        DC_TRY(plan_searches(p, (int64_t)s->lug_points * s->lug_seeds, ranks, measure, dc_phase_names[DC_PHASE_LUG],
                             &phases[(*n)++]));
    DC_TRY(plan_searches(p, s->runs, ranks, measure, dc_phase_names[DC_PHASE_SEARCH], &phases[(*n)++]));
    DC_TRY(list_sizes(p, &search, &train, &validation));
    const dc_train_options brief = dc_settings_select(s, p->dataset);
    DC_TRY(heaviest_within_budget(p, &heaviest));
    const int64_t candidates = s->runs + s->select_candidates;
    const training_plan t = {.name = dc_phase_names[DC_PHASE_SELECT],
                             .genotype = &heaviest,
                             .options = &brief,
                             .ranks = 1,
                             .workers = (int)(ranks < candidates ? ranks : candidates),
                             .items = candidates,
                             .images = train,
                             .evaluated = validation};
    DC_TRY(plan_training(p, &t, measure, &phases[(*n)++]));
    return plan_target(p, &heaviest, ranks, measure, &phases[(*n)++]);
}

static dc_status plan_genotype(const dc_pipeline *p, const char *text, int ranks, bool measure, phase_plan *phases,
                               int *n)
{
    dc_genotype genotype;
    DC_TRY(dc_genotype_lookup(text, &genotype));
    DC_TRY(dc_pipeline_check_genotype(p, &genotype));
    *n = 1;
    return plan_target(p, &genotype, ranks, measure, phases);
}

/* Of the device. */
static size_t total_bytes(const phase_plan *plan, bool own_memory)
{
    return plan->arena_bytes + plan->model_bytes + plan->step_bytes + (own_memory ? 0 : plan->data_bytes);
}

/* What a job has to ask for. */
typedef struct request {
    double memory_bytes; /* of one rank on the host, with what its libraries take */
    double seconds;      /* of the run, estimated; negative: not measured */
    int signal_s;        /* how long before its end the job must hear of it */
} request;

/* A stop takes a step and two checkpoints: the newest search's or training's, and what the others save. */
static request request_of(const phase_plan *phases, int n, bool own_memory)
{
    static const double slow_disk_bytes_s = 20 << 20, mib = 1 << 20;
    request r = {.memory_bytes = (own_memory ? 3072 : 256) * mib}; /* what MPI, HDF5 and CUDA's libraries take */
    double most = 0, step_s = 0, checkpoint = 0;
    for (int i = 0; i < n; i++) {
        const phase_plan *f = &phases[i];
        most = fmax(most, (double)(own_memory ? f->data_bytes : total_bytes(f, false)));
        step_s = fmax(step_s, f->step_s);
        checkpoint = fmax(checkpoint, (double)f->checkpoint_bytes);
        r.seconds = f->seconds < 0 || r.seconds < 0 ? -1 : r.seconds + f->seconds;
    }
    r.memory_bytes += most;
    double stop_s = 2 * step_s + 2 * checkpoint / slow_disk_bytes_s + 30;
    r.signal_s = stop_s < 120 ? 120 : 60 * (int)ceil(stop_s / 60);
    return r;
}

/* A quarter more than estimated, in steps of ten minutes. */
static void print_request(const request *r, int ranks, double data_bytes, double interval_s, FILE *out)
{
    const double gib = 1 << 30;
    fprintf(out, "\n  for sbatch\n");
    fprintf(out, "    --ntasks=%d\n", ranks);
    fprintf(out, "    --mem=%.0fG      all ranks on one machine; on k machines a k-th\n",
            ceil((r->memory_bytes * ranks + data_bytes) / gib));
    if (r->seconds >= 0) {
        long minutes = 10 * (long)ceil((1.25 * r->seconds + interval_s) / 600);
        fprintf(out, "    --time=%ld-%02ld:%02ld:00   or less: a job that is requeued goes on where it was\n",
                minutes / 1440, minutes / 60 % 24, minutes % 60);
    } else {
        fprintf(out, "    --time=...   `dcanas plan --measure` on such a machine estimates it\n");
    }
    fprintf(out, "    --signal=B:USR1@%d --requeue --open-mode=append\n", r->signal_s);
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
    fprintf(out, " %7lld %9lld %10s %10s", (long long)f->items, (long long)f->steps, dc_format_count_short(f->macs).s,
            dc_format_bytes((double)f->checkpoint_bytes).s);
    if (f->seconds >= 0)
        fprintf(out, " %10s", dc_format_duration(f->seconds).s);
    fprintf(out, "\n");
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
    fprintf(out, " %7s %9s %10s %10s%s\n", "items", "steps", "MACs", "checkpoint",
            phases[0].seconds < 0 ? "" : "       time");
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

static dc_status print_json(const dc_backend *backend, const phase_plan *phases, int n, int ranks, FILE *out)
{
    cJSON *root = cJSON_CreateObject();
    cJSON_AddNumberToObject(root, "ranks", ranks);
    cJSON_AddStringToObject(root, "device", dc_backend_description(backend));
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
        cJSON_AddNumberToObject(item, "checkpoint_bytes", (double)phases[i].checkpoint_bytes);
        if (phases[i].seconds >= 0)
            cJSON_AddNumberToObject(item, "seconds", phases[i].seconds);
        cJSON_AddItemToArray(list, item);
    }
    const request r = request_of(phases, n, backend->call->memory != NULL);
    cJSON_AddNumberToObject(root, "memory_bytes", r.memory_bytes);
    if (r.seconds >= 0)
        cJSON_AddNumberToObject(root, "seconds", r.seconds);
    cJSON_AddNumberToObject(root, "signal_seconds", r.signal_s);
    return dc_json_print(root, out);
}

/* Of the data set, which the ranks of a machine share. */
static double data_bytes(const dc_pipeline *p)
{
    struct stat info;
    return stat(p->dataset->path, &info) == 0 ? (double)info.st_size : 0;
}

static dc_status plan(const dc_comm *world, const dc_args *args, FILE *out)
{
    int ranks = world->size, n = 0;
    DC_TRY(dc_args_int(args, "ranks", 1, 1000000, &ranks));
    dc_pipeline pipeline;
    phase_plan phases[DC_PHASES];
    const char *genotype = dc_args_value(args, "genotype");
    const bool measure = dc_args_has(args, "measure");
    if (measure && dc_args_has(args, "gpu"))
        return dc_fail(DC_ERR_INPUT, "plan: --measure makes steps, for which a GPU must be here: without --gpu");
    dc_status status = dc_pipeline_prepare(&pipeline, world, command.name, dc_args_at(args, 0), args, !genotype);
    if (status == DC_OK)
        status = genotype ? plan_genotype(&pipeline, genotype, ranks, measure, phases, &n)
                          : plan_phases(&pipeline, ranks, measure, phases, &n);
    if (status == DC_OK && dc_args_has(args, "json"))
        status = print_json(pipeline.backend, phases, n, ranks, out);
    else if (status == DC_OK) {
        const bool own_memory = pipeline.backend->call->memory != NULL;
        const request r = request_of(phases, n, own_memory);
        print_text(pipeline.backend, phases, n, ranks, out);
        print_request(&r, ranks, data_bytes(&pipeline), pipeline.settings.checkpoint_interval_s, out);
    }
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
