/* What a checkpoint costs: the file of a CIFAR search, and of the trainings of the CIFAR and ImageNet networks
 * (DARTS_V2, with auxiliary head and momentum), written as a run writes it (hash, fsync, rename; the predecessor is
 * verified and kept), as a share of the default interval between two. usage: bench_checkpoint [folder to write in]
 * (default: the present one; what counts is its file system) */
#include "app/settings.h"
#include "base/clock.h"
#include "base/files.h"
#include "search/supernet.h"
#include "train/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WRITES = 9 };

static const double target_percent = 1;

static void must(dc_status status)
{
    if (status == DC_OK)
        return;
    fprintf(stderr, "bench_checkpoint: %s\n", dc_status_message());
    exit(1);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void put_nothing(void *context, dc_state *state)
{
    (void)context;
    dc_state_put_i64(state, "step", 1);
}

static void measure(const char *title, dc_backend *backend, dc_graph *graph, const char *path, double interval_s)
{
    double s[WRITES];
    struct stat info;
    char previous[DC_PATH_CHARS + 16];
    dc_params *params;
    must(dc_params_create(backend, &params));
    must(dc_params_add_graph(params, graph));
    must(dc_params_allocate(params, 1));
    const dc_checkpoint checkpoint = {.path = path, .name = title, .params = params, .put = put_nothing};
    for (int i = -2; i < WRITES; i++) { /* the first two have no predecessor to verify, or none to replace */
        double began = dc_clock_seconds();
        must(dc_checkpoint_write(&checkpoint));
        if (i >= 0)
            s[i] = dc_clock_seconds() - began;
    }
    qsort(s, WRITES, sizeof *s, ascending);
    double percent = 100 * s[WRITES / 2] / interval_s;
    stat(path, &info);
    printf("  %-16s %8.1f MiB %10.1f ms %10.1f ms %10.4f %%   target %g %% %s\n", title,
           (double)info.st_size / (1 << 20), 1e3 * s[WRITES / 2], 1e3 * s[WRITES - 1], percent, target_percent,
           percent < target_percent ? "met" : "MISSED");
    snprintf(previous, sizeof previous, "%s.previous", path);
    unlink(path);
    unlink(previous);
    dc_params_destroy(params);
    dc_graph_destroy(graph);
}

int main(int argc, char **argv)
{
    char path[DC_PATH_CHARS];
    dc_settings settings = {0};
    dc_backend *backend;
    dc_genotype genotype;
    dc_graph *graph;
    must(dc_config_defaults(&dc_settings_schema, &settings));
    must(dc_path_join(argc > 1 ? argv[1] : ".", "bench_checkpoint.h5", path));
    must(dc_backend_create("cpu", &(dc_backend_options){.threads = 1}, &backend));
    must(dc_genotype_lookup("DARTS_V2", &genotype));
    const dc_dataset images = {.shape = {3, 32, 32}, .n_classes = 10};
    const double interval_s = settings.checkpoint_interval_s;
    printf("\nA checkpoint, of every %g s: size, median and longest of %d, share of the time\n", interval_s, WRITES);
    const dc_supernet_options supernet = dc_settings_search(&settings, &images).supernet;
    must(dc_supernet_build(&supernet, NULL, true, &graph));
    measure("CIFAR search", backend, graph, path, interval_s);
    static const dc_network_kind kinds[] = {DC_NETWORK_CIFAR, DC_NETWORK_IMAGENET};
    static const char *const titles[] = {"CIFAR network", "ImageNet network"};
    for (int i = 0; i < 2; i++) {
        dc_network_options network = dc_network_defaults(kinds[i]);
        network.losses = network.drop_path = true;
        must(dc_network_build(&genotype, &network, &graph));
        measure(titles[i], backend, graph, path, interval_s);
    }
    dc_backend_destroy(backend);
    return 0;
}
