/* Images/s and memory of a search step, each switch on and off, and of training steps, as searches and trainings do
 * them: loaders, augmentation, constraint, derivation and optimizers included.
 * usage: bench_steps [--json | --profile | --shapes] [--threads N] [--seconds S] [--row NAME] [--device cuda]
 * [--precision P]
 *
 * A search step takes a batch of validation images (alpha) and one of training images (weights); images/s counts one of
 * them. A step's time is the median after two steps of warm-up, of at most 25 steps in about S seconds (15), 3 at the
 * least. Start is the time from the opened data set to the first step. The floor is the time that the step would take
 * if each of its operations ran at this machine's peak in float (work.h). On a GPU, which has no floor here
 * (bench_gpu_kernels has those of its kernels), a step's time is the mean from when it is idle until it is idle again.
 * Under mpirun all ranks do the row together, with N threads each. Each row is measured in a process of its own, so
 * that its peak memory (RSS) is its own, beside the plan's: arena, model and loaders. */
#include "app/settings.h"
#include "base/clock.h"
#include "base/spin.h"
#include "profile.h"
#include "work.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    WARM_UP = 2,
    GPU_WARM_UP = 6 /* in which it records */,
    MIN_STEPS = 3,
    MAX_STEPS = 25,
    MAX_CHANGES = 6,
    LINE_CHARS = 2048
};

typedef struct row {
    const char *name, *title;
    const char *pytorch; /* arguments of tests/bench/pytorch_reference.py for the same step */
    bool search;
    int side, classes, images; /* of the data: square images of noise */
    const char *changes[MAX_CHANGES];
} row;

#define SMALL_TARGET "target.channels=8", "target.cells=5", "target.batch=64", "target.auxiliary=no"
#define IMAGENET_TARGET                                                                                                \
    "space.network=imagenet", "target.channels=48", "target.cells=14", "target.batch=32", "target.label_smoothing=0.1"
static const row rows[] = {
    {"dca-nas",
     "search, all four switches on",
     "search --sharing --bottleneck --derived-cells",
     true,
     32,
     10,
     2048,
     {NULL}},
    {"no-sharing",
     "  without sharing",
     "search --bottleneck --derived-cells",
     true,
     32,
     10,
     2048,
     {"search.sharing=no"}},
    {"no-bottleneck",
     "  without bottleneck",
     "search --sharing --derived-cells",
     true,
     32,
     10,
     2048,
     {"search.bottleneck=no"}},
    {"no-derived-cells",
     "  without derived cells",
     "search --sharing --bottleneck",
     true,
     32,
     10,
     2048,
     {"search.derived_cells=no"}},
    {"no-constraint",
     "  without constraint",
     "search --sharing --bottleneck --derived-cells",
     true,
     32,
     10,
     2048,
     {"constraint.enabled=no"}},
    {"darts",
     "search, all four off (DARTS)",
     "search",
     true,
     32,
     10,
     2048,
     {"search.sharing=no", "search.bottleneck=no", "search.derived_cells=no", "constraint.enabled=no"}},
    {"cifar", "training, DARTS_V2, 36 channels, 20 cells, batch 96", "cifar", false, 32, 10, 2048, {NULL}},
    {"imagenet",
     "training, DARTS_V2, 48 channels, 14 cells, 224x224",
     "imagenet --batch 32",
     false,
     224,
     1000,
     256,
     {IMAGENET_TARGET}},
    {"small",
     "training, DARTS_V2, 8 channels, 5 cells, 28x28",
     "cifar --channels 8 --cells 5 --batch 64 --size 28 --no-auxiliary",
     false,
     28,
     10,
     2048,
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
    double start, times[GPU_WARM_UP + MAX_STEPS]; /* ends of steps */
    int n, warm_up;
    double seconds;
    bool profile;
    dc_backend *gpu; /* NULL: none computes */
} watch;

/* Asked after each step. */
static dc_status step_done(void *context, bool *stop)
{
    watch *w = context;
    if (w->gpu && w->n + 1 == w->warm_up)
        DC_TRY(w->gpu->call->sync(w->gpu));
    w->times[w->n++] = dc_clock_seconds();
    if (w->profile && w->n == w->warm_up)
        profile_reset();
    int measured = w->n - w->warm_up;
    *stop =
        measured == MAX_STEPS || (measured >= MIN_STEPS && w->times[w->n - 1] - w->times[w->warm_up - 1] > w->seconds);
    if (*stop && w->gpu) {
        DC_TRY(w->gpu->call->sync(w->gpu));
        w->times[w->n - 1] = dc_clock_seconds();
    }
    return DC_OK;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double mean_step(const watch *w)
{
    return (w->times[w->n - 1] - w->times[w->warm_up - 1]) / (w->n - w->warm_up);
}

static double median_step(const watch *w)
{
    double steps[MAX_STEPS];
    int n = w->n - w->warm_up;
    for (int i = 0; i < n; i++)
        steps[i] = w->times[w->warm_up + i] - w->times[w->warm_up + i - 1];
    qsort(steps, (size_t)n, sizeof steps[0], ascending);
    return n % 2 ? steps[n / 2] : (steps[n / 2 - 1] + steps[n / 2]) / 2;
}

/* ---- one row ---- */

/* Noise; the file lives as long as it is open. */
static dc_dataset *make_dataset(const row *r)
{
    enum { NAME_CHARS = 12 };
    char path[64], (*names)[NAME_CHARS] = calloc((size_t)r->classes, sizeof *names);
    const char **classes = malloc((size_t)r->classes * sizeof *classes);
    size_t bytes = (size_t)r->images * 3 * (size_t)r->side * (size_t)r->side;
    uint8_t *pixels = malloc(bytes);
    int32_t *labels = malloc((size_t)r->images * sizeof *labels);
    if (!names || !classes || !pixels || !labels)
        must(dc_fail(DC_ERR_MEMORY, "no memory for %d images", r->images));
    for (int i = 0; i < r->classes; i++) {
        snprintf(names[i], NAME_CHARS, "%d", i);
        classes[i] = names[i];
    }
    uint32_t state = 1;
    for (size_t i = 0; i < bytes; i++)
        pixels[i] = (uint8_t)((state = state * 1664525u + 1013904223u) >> 24);
    for (int i = 0; i < r->images; i++)
        labels[i] = i % r->classes;
    dc_dataset_content content = {
        .name = "noise", .shape = {3, r->side, r->side}, .n_classes = r->classes, .classes = classes};
    for (int s = 0; s < DC_SPLIT_COUNT; s++)
        content.split[s] = (dc_images){.n = (uint32_t)r->images, .pixels = pixels, .labels = labels};
    dc_dataset *dataset;
    snprintf(path, sizeof path, "/tmp/dcanas-bench-%ld.h5", (long)getpid());
    must(dc_dataset_write(path, &content));
    must(dc_dataset_open(path, &dataset));
    unlink(path);
    free(names);
    free(classes);
    free(pixels);
    free(labels);
    return dataset;
}

/* Returns the plan's bytes, as does the next. */
static size_t run_search(const dc_settings *settings, dc_backend *backend, const dc_comm *world,
                         const dc_dataset *dataset, watch *w)
{
    dc_cost_table tables[DC_METRICS];
    const dc_network_options network = dc_settings_network(settings, dataset);
    must(dc_cost_tables_make(&network, tables));
    const dc_limits limits = dc_cost_table_limits(&tables[DC_METRIC_PARAMS]);
    const dc_search_options options = dc_settings_search(settings, dataset);
    const dc_search_job job = {
        .name = "bench",
        .backend = backend,
        .comm = world,
        .dataset = dataset,
        .options = &options,
        .targets = {settings->constrained ? 1 : 0, {&tables[DC_METRIC_PARAMS]}, {(limits.min + limits.max) / 2}},
        .tables = tables,
        .seed = 1,
        .checkpoint_interval_s = 1e9,
        .hooks = {.context = w, .stop = step_done}};
    dc_search_result result;
    dc_search_memory memory;
    must(dc_search_plan(backend, dataset, &options, world->size, &memory));
    if (dc_search_run(&job, &result) != DC_INTERRUPTED)
        must(DC_ERR_INTERNAL);
    return memory.arena_bytes + memory.model_bytes + memory.data_bytes;
}

static size_t run_training(const dc_settings *settings, dc_backend *backend, const dc_comm *world,
                           const dc_dataset *dataset, watch *w)
{
    dc_genotype genotype;
    const dc_train_options options = dc_settings_train(settings, dataset);
    must(dc_genotype_lookup("DARTS_V2", &genotype));
    const dc_train_job job = {.name = "bench",
                              .backend = backend,
                              .comm = world,
                              .dataset = dataset,
                              .evaluation_split = DC_SPLIT_TEST,
                              .genotype = &genotype,
                              .options = &options,
                              .seed = 1,
                              .checkpoint_interval_s = 1e9,
                              .hooks = {.context = w, .stop = step_done}};
    dc_train_result result;
    dc_train_memory memory;
    must(dc_train_plan(backend, dataset, &genotype, &options, world->size, &memory));
    if (dc_train_run(&job, &result) != DC_INTERRUPTED)
        must(DC_ERR_INTERNAL);
    return memory.arena_bytes + memory.model_bytes + memory.data_bytes;
}

static void print_profile(const row *r, const dc_backend *backend, const watch *w)
{
    printf("%s: %.1f ms a step, %s\n", r->title, 1e3 * mean_step(w), dc_backend_description(backend));
    profile_print(stdout, w->n - w->warm_up, mean_step(w));
}

static void print_json(const row *r, const dc_backend *backend, const watch *w, int ranks, int threads, int batch,
                       size_t plan_bytes)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage); /* before the ceilings take memory */
    double step_s = w->gpu ? mean_step(w) : median_step(w);
    work least = w->gpu ? (work){0} : work_measure(threads);
    printf(
        "{\"row\": \"%s\", \"title\": \"%s\", \"pytorch\": \"%s\", \"device\": \"%s\", \"ranks\": %d, \"threads\": %d, "
        "\"batch\": %d, \"steps\": %d, \"step_s\": %.6f, \"images_per_s\": %.2f, \"start_s\": %.3f, "
        "\"plan_bytes\": %zu, \"peak_bytes\": %lld, \"flops\": %.4g, \"moved_bytes\": %.4g, "
        "\"peak_flops\": %.4g, \"peak_bandwidth\": %.4g, \"floor_s\": %.6f}\n",
        r->name, r->title, r->pytorch, dc_backend_description(backend), ranks, threads, batch, w->n - w->warm_up,
        step_s, batch / step_s, w->times[0] - w->start - (w->gpu ? 0 : step_s), plan_bytes,
        (long long)usage.ru_maxrss * 1024, least.flops, least.bytes, least.peak_flops, least.peak_bytes, least.floor_s);
}

/* Prints the row's JSON line, or its profile. */
static void measure(const row *r, const dc_comm *world, const char *device, dc_backend_options options, double seconds,
                    const char *mode)
{
    bool shapes = strcmp(mode, "--shapes") == 0, profile = shapes || strcmp(mode, "--profile") == 0;
    dc_settings settings = {0};
    watch w = {.warm_up = WARM_UP, .seconds = seconds, .profile = profile};
    dc_backend *backend;
    options.local_rank = world->local_rank;
    must(dc_config_defaults(&dc_settings_schema, &settings));
    must(dc_config_set(&dc_settings_schema, "search.batch=64", &settings));
    must(dc_config_set(&dc_settings_schema, "search.alpha_warmup_epochs=0", &settings));
    for (int i = 0; i < MAX_CHANGES && r->changes[i]; i++)
        must(dc_config_set(&dc_settings_schema, r->changes[i], &settings));
    dc_dataset *dataset = make_dataset(r);
    w.start = dc_clock_seconds();
    must(dc_backend_create(device, &options, &backend));
    if (backend->call->sync && backend->call->stream) {
        w.gpu = backend;
        w.warm_up = GPU_WARM_UP;
    }
    if (profile)
        profile_attach(backend, shapes);
    else
        work_attach(backend, r->search);
    size_t plan_bytes = (r->search ? run_search : run_training)(&settings, backend, world, dataset, &w);
    if (world->rank == 0 && profile)
        print_profile(r, backend, &w);
    else if (world->rank == 0)
        print_json(r, backend, &w, world->size, options.threads,
                   r->search ? settings.search.batch : settings.target.batch, plan_bytes);
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
    double speed = number(line, "images_per_s"), step_s = number(line, "step_s");
    printf("%-52s %9.1f %9.1f %6.2f %8.1f %5.0f%% %9.0f %9.0f %6.0f\n", r->title, 1e3 * step_s, speed, speed / first,
           1e3 * number(line, "floor_s"), 100 * number(line, "floor_s") / step_s,
           number(line, "plan_bytes") / (1 << 20), number(line, "peak_bytes") / (1 << 20),
           1e3 * number(line, "start_s"));
}

static void print_ceilings(const char *line)
{
    printf("\nThe floor: each operation at %.0f GFLOP/s or %.1f GB/s, measured now, whichever takes longer. Targets: "
           "half of "
           "the\nfloor's speed with all switches on; a start below 1000 ms.\n",
           1e-9 * number(line, "peak_flops"), 1e-9 * number(line, "peak_bandwidth"));
}

/* Runs this program for one row and passes on its output, or makes a line of the table of it. */
static int run_row(const char *command, const row *r, bool table, double *first, char line[LINE_CHARS])
{
    fflush(stdout);
    FILE *output = popen(command, "r");
    while (output && fgets(line, LINE_CHARS, output)) {
        if (*first == 0)
            *first = number(line, "images_per_s");
        if (table)
            print_row(r, line, *first);
        else
            fputs(line, stdout);
    }
    return output ? pclose(output) : 1;
}

static int run_rows(const char *program, const char *mode, const char *device, const dc_backend_options *options,
                    double seconds)
{
    char command[1024], line[LINE_CHARS] = "";
    bool table = !*mode;
    int failed = 0;
    double first = 0;
    if (table)
        printf("%s, %d threads; a search: 16 channels, 8 cells, batch 64; images of 3x32x32 if not said, 10 classes\n\n"
               "%-52s %9s %9s %6s %8s %6s %9s %9s %6s\n%-52s %9s %9s %6s %8s %6s %9s %9s %6s\n",
               device, options->threads, "", "step", "images/s", "ratio", "floor", "floor/", "plan", "RSS", "start", "",
               "ms", "", "", "ms", "step", "MiB", "MiB", "ms");
    for (int i = 0; i < N_ROWS; i++) {
        snprintf(command, sizeof command, "'%s' %s --device %s --precision %s --threads %d --seconds %g --row %s",
                 program, mode, device, dc_precision_names[options->precision], options->threads, seconds,
                 rows[i].name);
        failed |= run_row(command, &rows[i], table, &first, line);
    }
    if (table && number(line, "floor_s") > 0)
        print_ceilings(line);
    return failed;
}

static const row *find_row(const char *name)
{
    for (int i = 0; i < N_ROWS; i++)
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    fprintf(stderr, "bench_steps: no row '%s'; rows:", name);
    for (int i = 0; i < N_ROWS; i++)
        fprintf(stderr, " %s", rows[i].name);
    fprintf(stderr, "\n");
    exit(2);
}

int main(int argc, char **argv)
{
    dc_spin_briefly(argv);
    const char *mode = "", *only = NULL, *device = "cpu";
    dc_backend_options options = {.threads = (int)sysconf(_SC_NPROCESSORS_ONLN)};
    double seconds = 15;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0 || strcmp(argv[i], "--profile") == 0 || strcmp(argv[i], "--shapes") == 0)
            mode = argv[i];
        else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc)
            options.threads = atoi(argv[++i]);
        else if (strcmp(argv[i], "--device") == 0 && i + 1 < argc)
            device = argv[++i];
        else if (strcmp(argv[i], "--precision") == 0 && i + 1 < argc)
            must(dc_precision_parse(argv[++i], &options.precision));
        else if (strcmp(argv[i], "--seconds") == 0 && i + 1 < argc)
            seconds = atof(argv[++i]);
        else if (strcmp(argv[i], "--row") == 0 && i + 1 < argc)
            only = argv[++i];
        else {
            fprintf(stderr,
                    "usage: %s [--json | --profile | --shapes] [--threads N] [--seconds S] [--row NAME] [--device D] "
                    "[--precision P]\n",
                    argv[0]);
            return 2;
        }
    }
    if (!only)
        return run_rows(argv[0], mode, device, &options, seconds) != 0;
    dc_comm world;
    must(dc_comm_init(&argc, &argv, &world));
    dc_watchdog_begun(world.watchdog);
    measure(find_row(only), &world, device, options, seconds, mode);
    dc_comm_finalize(&world);
    return 0;
}
