/* Images/s and memory of a search step, each switch on and off, and of training steps, as searches and trainings do
 * them: loaders, augmentation, constraint, derivation and optimizers included.
 * usage: bench_steps [--json | --profile] [--threads N] [--row NAME]
 *
 * A search step takes a batch of validation images (alpha) and one of training images (weights); images/s counts one of
 * them. A step's time is the median after two steps of warm-up. Each row is measured in a process of its own, so that
 * its peak memory (RSS) is its own. */
#include "app/settings.h"
#include "base/clock.h"
#include "profile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { WARM_UP = 2, MIN_STEPS = 3, MAX_STEPS = 25, MAX_SECONDS = 15, TRAIN_IMAGES = 2048, MAX_CHANGES = 6 };

typedef struct row {
    const char *name, *title;
    const char *pytorch; /* arguments of tests/bench/pytorch_reference.py for the same step */
    bool search;
    int side; /* of the images */
    const char *changes[MAX_CHANGES];
} row;

#define SMALL_TARGET "target.channels=8", "target.cells=5", "target.batch=64", "target.auxiliary=no"
static const row rows[] = {
    {"dca-nas", "search, all four switches on", "search --sharing --bottleneck --derived-cells", true, 32, {NULL}},
    {"no-sharing", "  without sharing", "search --bottleneck --derived-cells", true, 32, {"search.sharing=no"}},
    {"no-bottleneck", "  without bottleneck", "search --sharing --derived-cells", true, 32, {"search.bottleneck=no"}},
    {"no-derived-cells",
     "  without derived cells",
     "search --sharing --bottleneck",
     true,
     32,
     {"search.derived_cells=no"}},
    {"no-constraint",
     "  without constraint",
     "search --sharing --bottleneck --derived-cells",
     true,
     32,
     {"constraint.enabled=no"}},
    {"darts",
     "search, all four off (DARTS)",
     "search",
     true,
     32,
     {"search.sharing=no", "search.bottleneck=no", "search.derived_cells=no", "constraint.enabled=no"}},
    {"cifar", "training, DARTS_V2, 36 channels, 20 cells, batch 96", "cifar", false, 32, {NULL}},
    {"small",
     "training, DARTS_V2, 8 channels, 5 cells, 28x28",
     "cifar --channels 8 --cells 5 --batch 64 --size 28 --no-auxiliary",
     false,
     28,
     {SMALL_TARGET}},
};
enum { N_ROWS = sizeof rows / sizeof rows[0] };

static void must(dc_status status)
{
    if (status == DC_OK)
        return;
    fprintf(stderr, "bench_steps: %s\n", dc_status_message());
    exit(1);
}

/* ---- watching the steps go by ---- */

typedef struct watch {
    double times[WARM_UP + MAX_STEPS]; /* ends of steps */
    int n;
    bool profile;
} watch;

/* Asked after each step. */
static dc_status step_done(void *context, bool *stop)
{
    watch *w = context;
    w->times[w->n++] = dc_clock_seconds();
    if (w->profile && w->n == WARM_UP)
        profile_reset();
    int measured = w->n - WARM_UP;
    *stop = measured == MAX_STEPS ||
            (measured >= MIN_STEPS && w->times[w->n - 1] - w->times[WARM_UP - 1] > (double)MAX_SECONDS);
    return DC_OK;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_step(const watch *w)
{
    double steps[MAX_STEPS];
    int n = w->n - WARM_UP;
    for (int i = 0; i < n; i++)
        steps[i] = w->times[WARM_UP + i] - w->times[WARM_UP + i - 1];
    qsort(steps, (size_t)n, sizeof steps[0], ascending);
    return n % 2 ? steps[n / 2] : (steps[n / 2 - 1] + steps[n / 2]) / 2;
}

/* ---- one row ---- */

/* Noise of ten classes; the file lives as long as it is open. */
static dc_dataset *make_dataset(int side)
{
    static const char *const classes[] = {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"};
    char path[64];
    snprintf(path, sizeof path, "/tmp/dcanas-bench-%ld.h5", (long)getpid());
    size_t bytes = (size_t)TRAIN_IMAGES * 3 * (size_t)side * (size_t)side;
    uint8_t *pixels = malloc(bytes);
    int32_t *labels = malloc(TRAIN_IMAGES * sizeof *labels);
    uint32_t state = 1;
    for (size_t i = 0; pixels && i < bytes; i++)
        pixels[i] = (uint8_t)((state = state * 1664525u + 1013904223u) >> 24);
    for (int i = 0; labels && i < TRAIN_IMAGES; i++)
        labels[i] = i % 10;
    dc_dataset_content content = {.name = "noise", .shape = {3, side, side}, .n_classes = 10, .classes = classes};
    for (int s = 0; s < DC_SPLIT_COUNT; s++)
        content.split[s] = (dc_images){TRAIN_IMAGES, pixels, labels};
    dc_dataset *dataset;
    must(dc_dataset_write(path, &content));
    must(dc_dataset_open(path, &dataset));
    unlink(path);
    free(pixels);
    free(labels);
    return dataset;
}

static size_t run_search(const dc_settings *settings, dc_backend *backend, const dc_dataset *dataset, watch *w)
{
    dc_cost_table tables[DC_METRICS];
    const dc_network_options network = dc_settings_network(settings, dataset);
    must(dc_cost_tables_make(&network, tables));
    const dc_limits limits = dc_cost_table_limits(&tables[DC_METRIC_PARAMS]);
    const dc_search_options options = dc_settings_search(settings, dataset);
    const dc_comm self = dc_comm_self();
    const dc_search_job job = {
        .name = "bench",
        .backend = backend,
        .comm = &self,
        .dataset = dataset,
        .options = &options,
        .targets = {settings->constrained ? 1 : 0, {&tables[DC_METRIC_PARAMS]}, {(limits.min + limits.max) / 2}},
        .tables = tables,
        .seed = 1,
        .checkpoint_interval_s = 1e9,
        .hooks = {.context = w, .stop = step_done}};
    dc_search_result result;
    dc_search_memory memory;
    must(dc_search_plan(backend, dataset, &options, 1, &memory));
    if (dc_search_run(&job, &result) != DC_INTERRUPTED)
        must(DC_ERR_INTERNAL);
    return memory.arena_bytes;
}

static size_t run_training(const dc_settings *settings, dc_backend *backend, const dc_dataset *dataset, watch *w)
{
    dc_genotype genotype;
    const dc_train_options options = dc_settings_train(settings, dataset);
    const dc_comm self = dc_comm_self();
    must(dc_genotype_lookup("DARTS_V2", &genotype));
    const dc_train_job job = {.name = "bench",
                              .backend = backend,
                              .comm = &self,
                              .dataset = dataset,
                              .evaluation_split = DC_SPLIT_TEST,
                              .genotype = &genotype,
                              .options = &options,
                              .seed = 1,
                              .checkpoint_interval_s = 1e9,
                              .hooks = {.context = w, .stop = step_done}};
    dc_train_result result;
    dc_train_memory memory;
    must(dc_train_plan(backend, dataset, &genotype, &options, 1, &memory));
    if (dc_train_run(&job, &result) != DC_INTERRUPTED)
        must(DC_ERR_INTERNAL);
    return memory.arena_bytes;
}

/* Prints the row's JSON line, or its profile. */
static void measure(const row *r, int threads, bool profile)
{
    dc_settings settings = {0};
    watch w = {.profile = profile};
    dc_backend *backend;
    must(dc_config_defaults(&dc_settings_schema, &settings));
    must(dc_config_set(&dc_settings_schema, "search.batch=64", &settings));
    must(dc_config_set(&dc_settings_schema, "search.alpha_warmup_epochs=0", &settings));
    for (int i = 0; i < MAX_CHANGES && r->changes[i]; i++)
        must(dc_config_set(&dc_settings_schema, r->changes[i], &settings));
    dc_dataset *dataset = make_dataset(r->side);
    must(dc_backend_create("cpu", threads, &backend));
    if (profile)
        profile_attach(backend);
    size_t arena = (r->search ? run_search : run_training)(&settings, backend, dataset, &w);
    double step_s = median_step(&w);
    int batch = r->search ? settings.search.batch : settings.target.batch;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    if (profile) {
        int steps = w.n - WARM_UP;
        double mean_s = (w.times[w.n - 1] - w.times[WARM_UP - 1]) / steps;
        printf("%s: %.1f ms a step, %s\n", r->title, 1e3 * mean_s, dc_backend_description(backend));
        profile_print(stdout, steps, mean_s);
    } else {
        printf("{\"row\": \"%s\", \"title\": \"%s\", \"pytorch\": \"%s\", \"device\": \"%s\", \"threads\": %d, "
               "\"batch\": %d, \"steps\": %d, \"step_s\": %.6f, \"images_per_s\": %.2f, \"arena_bytes\": %zu, "
               "\"peak_bytes\": %lld}\n",
               r->name, r->title, r->pytorch, dc_backend_description(backend), threads, batch, w.n - WARM_UP, step_s,
               batch / step_s, arena, (long long)usage.ru_maxrss * 1024);
    }
    dc_backend_destroy(backend);
    dc_dataset_close(dataset);
}

/* ---- all rows ---- */

static double number(const char *line, const char *key)
{
    char quoted[32];
    snprintf(quoted, sizeof quoted, "\"%s\": ", key);
    const char *found = strstr(line, quoted);
    return found ? atof(found + strlen(quoted)) : 0;
}

static void print_row(const row *r, const char *line, double first)
{
    double speed = number(line, "images_per_s");
    printf("%-52s %9.1f %10.1f %8.2f %9.0f %9.0f\n", r->title, 1e3 * number(line, "step_s"), speed, speed / first,
           number(line, "arena_bytes") / (1 << 20), number(line, "peak_bytes") / (1 << 20));
}

/* Runs this program for one row and passes on its output, or makes a line of the table of it. */
static int run_row(const char *program, const row *r, const char *mode, int threads, double *first)
{
    char command[1024], line[1024];
    snprintf(command, sizeof command, "'%s' %s --threads %d --row %s", program, mode, threads, r->name);
    fflush(stdout);
    FILE *output = popen(command, "r");
    while (output && fgets(line, sizeof line, output)) {
        if (*first == 0)
            *first = number(line, "images_per_s");
        if (*mode)
            fputs(line, stdout);
        else
            print_row(r, line, *first);
    }
    return output ? pclose(output) : 1;
}

int main(int argc, char **argv)
{
    const char *mode = "", *only = NULL;
    int threads = (int)sysconf(_SC_NPROCESSORS_ONLN), failed = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0 || strcmp(argv[i], "--profile") == 0)
            mode = argv[i];
        else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc)
            threads = atoi(argv[++i]);
        else if (strcmp(argv[i], "--row") == 0 && i + 1 < argc)
            only = argv[++i];
        else {
            fprintf(stderr, "usage: %s [--json | --profile] [--threads N] [--row NAME]\n", argv[0]);
            return 2;
        }
    }
    for (int i = 0; only && i < N_ROWS; i++)
        if (strcmp(rows[i].name, only) == 0) {
            measure(&rows[i], threads, strcmp(mode, "--profile") == 0);
            return 0;
        }
    if (!*mode)
        printf("%d threads; a search: 16 channels, 8 cells, batch 64; images of 3x32x32 if not said, 10 classes\n\n"
               "%-52s %9s %10s %8s %9s %9s\n",
               threads, "", "ms/step", "images/s", "ratio", "arena MiB", "RSS MiB");
    double first = 0;
    for (int i = 0; i < N_ROWS; i++)
        failed |= run_row(argv[0], &rows[i], mode, threads, &first);
    return failed != 0;
}
