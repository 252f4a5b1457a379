/* What a search pays when alpha moves a derived cell, piece by piece, in milliseconds: median and longest of many
 * moves. Default search network (16 channels, 8 cells), batch 64, all switches on, a budget in the middle of the range.
 * usage: bench_setup [threads] */
#include "app/settings.h"
#include "base/clock.h"
#include "nn/model.h"
#include "search/supernet.h"
#include "space/derive.h"

#include <stdio.h>
#include <stdlib.h>

enum { MOVES = 60 };

typedef enum piece { DERIVE, BUILD, PLAN, MODEL, DESTROY, N_PIECES } piece;
static const char *const titles[N_PIECES] = {"derive within a budget", "build its graph", "(plan it, part of the next)",
                                             "plan, prepare, bind", "destroy an old one"};
static const double rebuild_target_ms = 2;

static void must(dc_status status)
{
    if (status == DC_OK)
        return;
    fprintf(stderr, "bench_setup: %s\n", dc_status_message());
    exit(1);
}

/* What a random alpha derives within the budgets. */
static void random_architecture(dc_deriver *deriver, const dc_budgets *budgets, uint32_t *state, dc_genotype *genotype)
{
    dc_alpha alpha;
    dc_log_probability log_p;
    for (int type = 0; type < DC_CELL_TYPES; type++)
        for (int edge = 0; edge < DC_CELL_EDGES; edge++)
            for (int op = 0; op < DC_DARTS_N_OPS; op++)
                alpha[type][edge][op] = (float)((*state = *state * 1664525u + 1013904223u) >> 8) / (float)(1 << 24);
    dc_log_probability_of_alpha(alpha, log_p);
    must(dc_derive(deriver, log_p, budgets, genotype, NULL));
}

static dc_params *all_params(dc_backend *backend, const dc_supernet_options *options)
{
    dc_graph *graph;
    dc_params *params;
    must(dc_supernet_build(options, NULL, true, &graph));
    must(dc_params_create(backend, &params));
    must(dc_params_add_graph(params, graph));
    must(dc_params_allocate(params, 1));
    dc_graph_destroy(graph);
    return params;
}

typedef struct bench {
    dc_backend *backend;
    dc_supernet_options options;
    dc_params *params;
    dc_step_arena arena;
    dc_deriver *deriver;
    dc_budgets budgets;
    uint32_t random;
    int batch;
    double ms[N_PIECES][MOVES];
} bench;

static void move(bench *b, int at)
{
    double t[N_PIECES + 1];
    dc_genotype derived;
    dc_graph *graph;
    dc_plan *plan;
    dc_model *model;
    const dc_plan_options options = {.batch = b->batch, .training = true};
    t[DERIVE] = dc_clock_seconds();
    random_architecture(b->deriver, &b->budgets, &b->random, &derived);
    t[BUILD] = dc_clock_seconds();
    must(dc_supernet_build(&b->options, &derived, true, &graph));
    t[PLAN] = dc_clock_seconds();
    must(dc_plan_create(graph, &b->backend->layout, &options, &plan));
    dc_plan_destroy(plan);
    t[MODEL] = dc_clock_seconds();
    must(dc_model_create(graph, &options, &b->arena, b->params, &model));
    t[DESTROY] = dc_clock_seconds();
    dc_model_destroy(model);
    t[N_PIECES] = dc_clock_seconds();
    for (int p = 0; p < N_PIECES; p++)
        b->ms[p][at] = 1e3 * (t[p + 1] - t[p]);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void report(const char *title, double *ms, double target)
{
    qsort(ms, MOVES, sizeof *ms, ascending);
    printf("  %-32s %8.3f %8.3f", title, ms[MOVES / 2], ms[MOVES - 1]);
    if (target > 0)
        printf("   target %g ms %s", target, ms[MOVES / 2] < target ? "met" : "MISSED");
    printf("\n");
}

int main(int argc, char **argv)
{
    dc_settings settings = {0};
    must(dc_config_defaults(&dc_settings_schema, &settings));
    const dc_dataset images = {.shape = {3, 32, 32}, .n_classes = 10};
    bench b = {.options = dc_settings_search(&settings, &images).supernet, .random = 1, .batch = 64};
    must(dc_backend_create("cpu", &(dc_backend_options){.threads = argc > 1 ? atoi(argv[1]) : 1}, &b.backend));
    b.arena.backend = b.backend;
    b.params = all_params(b.backend, &b.options);
    must(dc_deriver_create(&b.deriver));
    dc_cost_table tables[DC_METRICS];
    const dc_network_options network = dc_settings_network(&settings, &images);
    must(dc_cost_tables_make(&network, tables));
    const dc_limits limits = dc_cost_table_limits(&tables[DC_METRIC_PARAMS]);
    b.budgets = (dc_budgets){1, {&tables[DC_METRIC_PARAMS]}, {(limits.min + limits.max) / 2}};
    for (int pass = 0; pass < 2; pass++) { /* the first meets kernels and memory for the first time */
        b.random = 1;
        for (int i = 0; i < MOVES; i++)
            move(&b, i);
    }
    double rebuild[MOVES];
    for (int i = 0; i < MOVES; i++)
        rebuild[i] = b.ms[BUILD][i] + b.ms[MODEL][i] + b.ms[DESTROY][i];
    printf("\nA derived cell moves, ms: median, longest of %d\n", MOVES);
    for (int p = 0; p < N_PIECES; p++)
        report(titles[p], b.ms[p], 0);
    report("rebuild: build, plan, destroy", rebuild, rebuild_target_ms);
    dc_deriver_destroy(b.deriver);
    dc_step_arena_clear(&b.arena);
    dc_params_destroy(b.params);
    dc_backend_destroy(b.backend);
    return 0;
}
