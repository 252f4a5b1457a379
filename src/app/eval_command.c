#include "app/eval_command.h"

#include "app/json.h"
#include "base/args.h"
#include "base/files.h"
#include "base/units.h"
#include "train/evaluate.h"
#include "train/weights.h"

#include <stdlib.h>
#include <string.h>

static const dc_option options[] = {
    {"split", "test|train", "which images (default test)"},
    {"batch", "N", "images in a step of each rank (default 64)"},
    {"device", "auto|cpu|cuda", "what computes (default auto: a GPU when there is one)"},
    {"precision", "float|tf32|bf16", "in what (default float; tf32 needs a GPU)"},
    {"threads", "N", "threads of each rank (default: the cores shared out)"},
    {"confusion", "FILE.csv",
     "writes a table: of each class its images, accuracy, and how often it is taken for which"},
    {"json", NULL, "prints JSON"},
};

static const dc_command command = {
    "eval",
    "WEIGHTS DATASET",
    2,
    2,
    options,
    sizeof options / sizeof *options,
    "evaluates trained weights on a data set",
    "WEIGHTS is training/best.h5, last.h5 or checkpoint.h5 of a run, DATASET a file that `dcanas data import` made.\n"
    "Under mpirun the ranks share the images; each counts once, and the figures are the same for any number of ranks."};

typedef struct evaluation {
    const dc_comm *world;
    dc_dataset *dataset;
    dc_backend *backend;
    dc_params *params;
    dc_step_arena arena;
    dc_model *model;
    dc_loader *loader;
    dc_split split;
    dc_precision precision;
    dc_metrics metrics;
    int64_t *confusion; /* [true class][predicted class] */
    dc_network_options network;
    dc_genotype genotype;
} evaluation;

static dc_status load_model(evaluation *e, const char *path, int batch)
{
    dc_state *state;
    DC_TRY(dc_state_open_newest(path, &state));
    dc_status status = DC_OK;
    if (!dc_state_has(state, "network/genotype"))
        status =
            dc_fail(DC_ERR_INPUT,
                    "%s holds no trained network: training/best.h5, last.h5 or checkpoint.h5 of a run expected", path);
    if (status == DC_OK)
        status = dc_network_get(state, &e->network, &e->genotype);
    dc_dataset *d = e->dataset;
    dc_shape in = e->network.input;
    if (status == DC_OK && d->storage == DC_STORAGE_JPEG) /* any size can be made of pictures */
        status = dc_dataset_set_image_size(d, in.h);
    if (status == DC_OK &&
        (in.c != d->shape.c || in.h != d->shape.h || in.w != d->shape.w || e->network.classes != d->n_classes))
        status =
            dc_fail(DC_ERR_INPUT, "%s is a network for %d classes of %dx%dx%d, %s has %d classes of %dx%dx%d", path,
                    e->network.classes, in.c, in.h, in.w, d->path, d->n_classes, d->shape.c, d->shape.h, d->shape.w);
    dc_graph *stored = NULL, *graph = NULL; /* the parameters that the file has; what is evaluated */
    if (status == DC_OK)
        status = dc_network_build(&e->genotype, &e->network, &stored);
    if (status == DC_OK)
        status = dc_params_create(e->backend, &e->params);
    if (status == DC_OK)
        status = dc_params_add_graph(e->params, stored);
    if (status == DC_OK)
        status = dc_params_allocate(e->params, 0);
    if (status == DC_OK)
        status = dc_weights_load(state, e->params);
    dc_graph_destroy(stored);
    dc_network_options network = e->network;
    network.auxiliary = false;
    network.dropout = 0;
    network.losses = true;
    if (status == DC_OK)
        status = dc_network_build(&e->genotype, &network, &graph);
    dc_plan_options plan = {.batch = batch, .keep_losses = true};
    if (status == DC_OK)
        status = dc_model_create(graph, &plan, &e->arena, e->params, &e->model);
    if (status != DC_OK) {
        dc_state_abandon(state);
        return status;
    }
    return dc_state_close(state);
}

static dc_status prepare(evaluation *e, const dc_args *args)
{
    int batch = 64;
    int threads = e->world->cores;
    const char *split = dc_args_value(args, "split");
    if (split && strcmp(split, "test") != 0 && strcmp(split, "train") != 0)
        return dc_fail(DC_ERR_INPUT, "eval: --split %s: test or train", split);
    e->split = split && strcmp(split, "train") == 0 ? DC_SPLIT_TRAIN : DC_SPLIT_TEST;
    DC_TRY(dc_args_int(args, "batch", 1, 65536, &batch));
    DC_TRY(dc_args_int(args, "threads", 1, 1024, &threads));
    if (dc_args_has(args, "confusion") && e->world->rank == 0)
        DC_TRY(dc_file_check_writable(dc_args_value(args, "confusion"))); /* told before the work, not after */
    DC_TRY(dc_dataset_open(dc_args_at(args, 1), &e->dataset));
    const char *device = dc_args_value(args, "device"), *precision = dc_args_value(args, "precision");
    dc_backend_options backend = {.threads = threads, .local_rank = e->world->local_rank};
    if (precision)
        DC_TRY(dc_precision_parse(precision, &e->precision));
    backend.precision = e->precision;
    DC_TRY(dc_backend_create(device ? device : "auto", &backend, &e->backend));
    e->arena.backend = e->backend;
    DC_TRY(load_model(e, dc_args_at(args, 0), batch));
    e->confusion = dc_alloc_zeroed((size_t)e->network.classes * (size_t)e->network.classes * sizeof *e->confusion);
    if (!e->confusion)
        return DC_ERR_MEMORY;
    const dc_loader_options loader = {
        .split = e->split,
        .batch = batch * e->world->size,
        .rank = e->world->rank,
        .size = e->world->size,
        .lane = e->backend->layout.lane,
        .as_pixels = e->backend->call->stage_batch != NULL,
        .loading.threads = dc_loading_threads(e->dataset, e->world->cores, e->backend->call->stage_batch != NULL)};
    return dc_loader_create(e->dataset, &loader, &e->loader);
}

/* ---- what is printed ---- */

static double share(int64_t a, int64_t b)
{
    return b ? (double)a / (double)b : 0;
}

static void class_counts(const evaluation *e, int class, int64_t *right, int64_t *all)
{
    int n = e->network.classes;
    *all = 0;
    for (int k = 0; k < n; k++)
        *all += e->confusion[(size_t) class * (size_t)n + (size_t)k];
    *right = e->confusion[(size_t) class * (size_t)n + (size_t) class];
}

static dc_status print_json(const evaluation *e, FILE *out)
{
    const dc_metrics *m = &e->metrics;
    cJSON *root = cJSON_CreateObject();
    cJSON_AddNumberToObject(root, "images", (double)m->n);
    cJSON_AddStringToObject(root, "precision", dc_precision_names[e->precision]);
    cJSON_AddNumberToObject(root, "loss", m->n ? m->loss / (double)m->n : 0);
    cJSON_AddNumberToObject(root, "accuracy", share(m->top1, m->n));
    cJSON_AddNumberToObject(root, "top5", share(m->top5, m->n));
    cJSON *classes = cJSON_AddArrayToObject(root, "classes"), *confusion = cJSON_AddArrayToObject(root, "confusion");
    for (int c = 0; c < e->network.classes; c++) {
        int64_t right, all;
        class_counts(e, c, &right, &all);
        cJSON *item = cJSON_CreateObject(), *row = cJSON_CreateArray();
        cJSON_AddStringToObject(item, "name", e->dataset->classes[c]);
        cJSON_AddNumberToObject(item, "images", (double)all);
        cJSON_AddNumberToObject(item, "accuracy", share(right, all));
        cJSON_AddItemToArray(classes, item);
        for (int k = 0; k < e->network.classes; k++)
            cJSON_AddItemToArray(row, cJSON_CreateNumber((double)e->confusion[c * e->network.classes + k]));
        cJSON_AddItemToArray(confusion, row);
    }
    return dc_json_print(root, out);
}

static void print_text(const evaluation *e, FILE *out)
{
    const dc_metrics *m = &e->metrics;
    fprintf(out, "%s images  %15s   computed in %s\n", dc_split_name(e->split), dc_format_count(m->n).s,
            dc_precision_names[e->precision]);
    fprintf(out, "loss         %15.4f\n", m->n ? m->loss / (double)m->n : 0);
    fprintf(out, "accuracy     %13.2f %%\n", 100 * share(m->top1, m->n));
    fprintf(out, "top 5        %13.2f %%\n\n", 100 * share(m->top5, m->n));
    for (int c = 0; c < e->network.classes; c++) {
        int64_t right, all, most = 0;
        int wrong = -1;
        class_counts(e, c, &right, &all);
        for (int k = 0; k < e->network.classes; k++)
            if (k != c && e->confusion[c * e->network.classes + k] > most) {
                most = e->confusion[c * e->network.classes + k];
                wrong = k;
            }
        fprintf(out, "  %-24s %7.2f %%", e->dataset->classes[c], 100 * share(right, all));
        if (wrong >= 0)
            fprintf(out, "   most often mistaken for %s (%lld)", e->dataset->classes[wrong], (long long)most);
        fprintf(out, "\n");
    }
}

/* A name as a field of a table: in quotes where it needs them. */
static void print_name(FILE *out, const char *name)
{
    if (!strpbrk(name, ",\"\n")) {
        fputs(name, out);
        return;
    }
    fputc('"', out);
    for (; *name; name++) {
        if (*name == '"')
            fputc('"', out);
        fputc(*name, out);
    }
    fputc('"', out);
}

static void print_table(const evaluation *e, FILE *out)
{
    const int n = e->network.classes;
    fprintf(out, "class,images,accuracy");
    for (int c = 0; c < n; c++) {
        fputc(',', out);
        print_name(out, e->dataset->classes[c]);
    }
    fputc('\n', out);
    for (int c = 0; c < n; c++) {
        int64_t right, all;
        class_counts(e, c, &right, &all);
        print_name(out, e->dataset->classes[c]);
        fprintf(out, ",%lld,%.6f", (long long)all, share(right, all));
        for (int k = 0; k < n; k++)
            fprintf(out, ",%lld", (long long)e->confusion[(size_t)c * (size_t)n + (size_t)k]);
        fputc('\n', out);
    }
}

static dc_status write_table(const evaluation *e, const char *path)
{
    char *text = NULL;
    size_t size = 0;
    FILE *memory = open_memstream(&text, &size);
    if (!memory)
        return dc_fail(DC_ERR_MEMORY, "out of memory: no room for the table of %s", path);
    print_table(e, memory);
    dc_status status = fclose(memory) == 0 ? dc_file_replace(path, text, size)
                                           : dc_fail(DC_ERR_MEMORY, "out of memory: no room for the table of %s", path);
    free(text);
    return status;
}

static dc_status evaluate(evaluation *e, const dc_args *args, FILE *out)
{
    DC_TRY_ALL(e->world, prepare(e, args));
    DC_TRY(dc_evaluate(e->model, e->loader, e->world, e->confusion, &e->metrics));
    if (e->world->rank != 0)
        return DC_OK;
    if (dc_args_has(args, "confusion"))
        DC_TRY(write_table(e, dc_args_value(args, "confusion")));
    if (dc_args_has(args, "json"))
        return print_json(e, out);
    print_text(e, out);
    return DC_OK;
}

dc_status dc_eval_command(const dc_comm *world, int argc, char *const *argv, FILE *out)
{
    dc_args *args;
    DC_TRY_ALL(world, dc_args_parse(&command, argc, argv, &args));
    if (dc_args_has(args, "help")) {
        if (world->rank == 0)
            dc_args_print_help("dcanas", &command, out);
        dc_args_destroy(args);
        return DC_OK;
    }
    DC_TRY(dc_comm_watch(world));
    dc_watchdog_moved(world->watchdog, "the evaluation", 0);
    evaluation e = {.world = world};
    dc_status status = evaluate(&e, args, out);
    dc_loader_destroy(e.loader);
    dc_model_destroy(e.model);
    dc_step_arena_clear(&e.arena);
    dc_params_destroy(e.params);
    dc_backend_destroy(e.backend);
    dc_dataset_close(e.dataset);
    free(e.confusion);
    dc_args_destroy(args);
    return status;
}
