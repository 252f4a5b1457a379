#include "app/bench_data_command.h"

#include "app/json.h"
#include "app/settings.h"
#include "base/clock.h"
#include "base/signals.h"
#include "base/units.h"
#include "data/loader.h"
#include "kernels.h"

#include <string.h>
#include <sys/resource.h>
#include <time.h>

static const dc_option options[] = {
    {"set", "SECTION.KEY=VALUE", "changes one key; may be repeated"},
    {"search", NULL, "loads as the search does (default: as the training of the network)"},
    {"step", "TIME", "each batch is used for so long, as if a step computed on it (default 0)"},
    {"time", "TIME", "how long to measure (default 10s)"},
    {"json", NULL, "prints JSON"},
};

static const dc_command command = {
    "bench-data",
    "CONFIG",
    1,
    1,
    options,
    sizeof options / sizeof *options,
    "measures how fast batches are made ready, without computing on them",
    "Every rank loads its share of the training batches, augmented as the configuration says, with [data]\n"
    "decode_threads threads; where that is 0, with as many as it has cores. `images/s of a core` is by the processor\n"
    "time that was used, which other programs on the same cores hardly change. With --step `data wait` is the share\n"
    "of the time that a step of this length would wait for its data.",
};

typedef struct bench {
    const dc_comm *world;
    dc_settings settings;
    dc_dataset *dataset;
    dc_loader *loader;
    int threads;
    double step_s, limit_s;
    double images, steps, seconds, cpu_s, wait_s; /* of this rank; images, cpu_s later of all */
} bench;

static dc_status prepare(bench *b, const dc_args *args)
{
    dc_settings *s = &b->settings;
    if (dc_args_has(args, "step"))
        DC_TRY(dc_parse_duration(dc_args_value(args, "step"), &b->step_s));
    if (dc_args_has(args, "time"))
        DC_TRY(dc_parse_duration(dc_args_value(args, "time"), &b->limit_s));
    DC_TRY(dc_settings_load(dc_args_at(args, 0), args, s));
    DC_TRY(dc_dataset_open(s->data_file, &b->dataset));
    if (dc_dataset_set_image_size(b->dataset, s->image_size) != DC_OK)
        return dc_fail_within(DC_ERR_INPUT, "[data] image_size = %d", s->image_size);
    s->usual_decode_threads = b->world->cores;
    const dc_train_options train = dc_settings_train(s, b->dataset);
    const dc_search_options search = dc_settings_search(s, b->dataset);
    const bool searches = dc_args_has(args, "search");
    const dc_loader_options loader = {.split = DC_SPLIT_TRAIN,
                                      .batch = searches ? search.batch : train.batch,
                                      .rank = b->world->rank,
                                      .size = b->world->size,
                                      .lane = DCK_LANES,
                                      .seed = (uint64_t)s->run.seed,
                                      .shuffle = true,
                                      .repeat = true,
                                      .augment = searches ? search.augment : train.augment,
                                      .loading = train.loading};
    b->threads = train.loading.threads;
    return dc_loader_create(b->dataset, &loader, &b->loader);
}

static double cpu_seconds(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           1e-6 * (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
}

/* From the first batch on, so that what comes once is not counted. */
static dc_status measure(bench *b)
{
    const dc_batch *batch;
    DC_TRY(dc_loader_begin_epoch(b->loader, 0, 0));
    DC_TRY(dc_loader_next(b->loader, &batch));
    const double begun_s = dc_clock_seconds(), cpu_s = cpu_seconds(), wait_s = dc_loader_wait_seconds(b->loader);
    const struct timespec pause = {(time_t)b->step_s, (long)((b->step_s - (double)(time_t)b->step_s) * 1e9)};
    do {
        if (b->step_s > 0)
            nanosleep(&pause, NULL);
        DC_TRY(dc_loader_next(b->loader, &batch));
        b->images += batch->n_images;
        b->steps++;
        b->seconds = dc_clock_seconds() - begun_s;
    } while (b->seconds < b->limit_s && !dc_signals_received());
    b->cpu_s = cpu_seconds() - cpu_s;
    b->wait_s = dc_loader_wait_seconds(b->loader) - wait_s;
    return DC_OK;
}

static dc_status print(const bench *b, bool json, FILE *out)
{
    const double rate = b->images / b->seconds, of_core = b->images / b->cpu_s, wait = b->wait_s / b->seconds;
    if (json) {
        cJSON *root = cJSON_CreateObject();
        cJSON_AddStringToObject(root, "data", b->dataset->path);
        cJSON_AddNumberToObject(root, "image_size", b->dataset->shape.h);
        cJSON_AddNumberToObject(root, "ranks", b->world->size);
        cJSON_AddNumberToObject(root, "decode_threads", b->threads);
        cJSON_AddNumberToObject(root, "images", b->images);
        cJSON_AddNumberToObject(root, "seconds", b->seconds);
        cJSON_AddNumberToObject(root, "images_per_second", rate);
        cJSON_AddNumberToObject(root, "images_per_core_second", of_core);
        cJSON_AddNumberToObject(root, "data_wait", wait);
        return dc_json_print(root, out);
    }
    fprintf(out, "%s: %s images of %dx%d, %d rank%s of %d thread%s\n", b->dataset->name,
            dc_format_count((int64_t)b->images).s, b->dataset->shape.h, b->dataset->shape.w, b->world->size,
            b->world->size == 1 ? "" : "s", b->threads, b->threads == 1 ? "" : "s");
    fprintf(out, "  images/s            %10.0f\n", rate);
    fprintf(out, "  images/s of a core  %10.0f\n", of_core);
    if (b->step_s > 0)
        fprintf(out, "  data wait           %10.1f %%  of steps of %g s\n", 100 * wait, b->step_s);
    return DC_OK;
}

/* Collective. */
static dc_status run(bench *b, const dc_args *args, FILE *out)
{
    DC_TRY_ALL(b->world, prepare(b, args));
    DC_TRY(dc_comm_barrier(b->world));
    DC_TRY_ALL(b->world, measure(b));
    double sums[] = {b->images, b->cpu_s};
    DC_TRY(dc_comm_sum_doubles(b->world, sums, 2));
    b->images = sums[0];
    b->cpu_s = sums[1];
    return b->world->rank == 0 ? print(b, dc_args_has(args, "json"), out) : DC_OK;
}

dc_status dc_bench_data_command(const dc_comm *world, int argc, char *const *argv, FILE *out)
{
    dc_args *args;
    DC_TRY_ALL(world, dc_args_parse(&command, argc, argv, &args));
    dc_status status = DC_OK;
    if (!dc_args_has(args, "help")) {
        bench b = {.world = world, .limit_s = 10};
        status = run(&b, args, out);
        dc_loader_destroy(b.loader);
        dc_dataset_close(b.dataset);
    } else if (world->rank == 0)
        dc_args_print_help("dcanas", &command, out);
    dc_args_destroy(args);
    return status;
}
