/* Searches of a second, with every switch: they end the same way however often they are stopped. */
#include "search/search.h"
#include "tests/support/tiny_data.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

enum { EPOCHS = 3, WARMUP = 1, BATCH = 16, STEPS = 3, TOTAL = EPOCHS * STEPS };

typedef struct fixture {
    tiny_data data;
    dc_backend *backend;
    dc_comm comm;
    dc_cost_table tables[DC_METRICS];
    dc_search_options options;
    dc_search_job job;
    temp_path checkpoint, csv;
    int asked, stop_at;
} fixture;

static void must(dc_status status)
{
    if (status != DC_OK)
        fail_msg("%s", dc_status_message());
}

static dc_status stop(void *context, bool *answer)
{
    fixture *f = context;
    *answer = ++f->asked == f->stop_at;
    return DC_OK;
}

static void use_files(fixture *f, const char *name)
{
    char file[64];
    snprintf(file, sizeof file, "%s.h5", name);
    f->checkpoint = temp_dir_path(&f->data.dir, file);
    snprintf(file, sizeof file, "%s.csv", name);
    f->csv = temp_dir_path(&f->data.dir, file);
    f->job.checkpoint = f->checkpoint.s;
    f->job.csv = f->csv.s;
}

/* Holds the search to a share of the space's range, of each of the first n metrics. */
static void hold(fixture *f, int n, double share)
{
    f->job.targets.n = n;
    for (int m = 0; m < n; m++) {
        dc_limits limits = dc_cost_table_limits(&f->tables[m]);
        f->job.targets.table[m] = &f->tables[m];
        f->job.targets.limit[m] = limits.min + share * (limits.max - limits.min);
    }
}

static int setup(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    f->data = tiny_data_make();
    f->comm = dc_comm_self();
    must(dc_backend_create("cpu", &(dc_backend_options){.threads = 1}, &f->backend));
    const dc_network_options network = {
        .input = f->data.dataset->shape, .classes = TINY_CLASSES, .channels = 4, .cells = 3};
    must(dc_cost_tables_make(&network, f->tables));
    f->options = (dc_search_options){
        .supernet = {.input = f->data.dataset->shape,
                     .classes = TINY_CLASSES,
                     .channels = 4,
                     .cells = 4, /* the last one is derived */
                     .sharing = true,
                     .bottleneck = true,
                     .derived_cells = true,
                     .alpha_init = 1e-3f},
        .constrained = true,
        .constraint = {DC_ESTIMATE_DERIVED, 3, 4},
        .epochs = EPOCHS,
        .warmup_epochs = WARMUP,
        .batch = BATCH,
        .sgd = {.momentum = 0.9, .weight_decay = 3e-4, .clip = 5},
        .schedule = {.learning_rate = 0.1},
        .alpha = {.learning_rate = 0.3, .beta1 = 0.5, .beta2 = 0.999, .weight_decay = 1e-3}, /* it moves far */
        .train = {0.5, 0},
        .validation = {0.375, 0}, /* fewer: its loader goes round sooner than the epochs do */
        .augment = {.pad = 1},
    };
    f->job = (dc_search_job){.name = "search 3",
                             .backend = f->backend,
                             .comm = &f->comm,
                             .dataset = f->data.dataset,
                             .options = &f->options,
                             .tables = f->tables,
                             .seed = 5,
                             .identity = 99,
                             .checkpoint_interval_s = 1e9,
                             .hooks = {.context = f, .stop = stop}};
    hold(f, 2, 0.4);
    use_files(f, "whole");
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    dc_backend_destroy(f->backend);
    tiny_data_remove(&f->data);
    free(f);
    return 0;
}

static dc_status session(fixture *f, int stop_at, dc_search_result *result)
{
    f->asked = 0;
    f->stop_at = stop_at;
    memset(result, 0, sizeof *result);
    return dc_search_run(&f->job, result);
}

static void assert_same_result(dc_search_result a, dc_search_result b)
{
    a.seconds = b.seconds = 0;
    assert_memory_equal(a.alpha, b.alpha, sizeof a.alpha);
    assert_memory_equal(&a.genotype, &b.genotype, sizeof a.genotype);
    assert_memory_equal(a.derived_cost, b.derived_cost, sizeof a.derived_cost);
    assert_true(a.validation_loss == b.validation_loss && a.validation_accuracy == b.validation_accuracy);
    assert_memory_equal(a.entropy, b.entropy, sizeof a.entropy);
}

/* Weights, moments, alpha, multipliers: all but the seconds. */
static void assert_same_end(const fixture *f, const char *other)
{
    dc_params *stores[2];
    char file[64];
    snprintf(file, sizeof file, "%s.h5", other);
    const temp_path theirs = temp_dir_path(&f->data.dir, file);
    const char *paths[2] = {f->checkpoint.s, theirs.s};
    double lambda[2][DC_METRICS];
    for (int i = 0; i < 2; i++) {
        dc_graph *graph;
        dc_state *state;
        must(dc_supernet_build(&f->options.supernet, NULL, true, &graph));
        must(dc_params_create(f->backend, &stores[i]));
        must(dc_params_add_graph(stores[i], graph));
        must(dc_params_allocate(stores[i], 0));
        must(dc_state_open(paths[i], &state));
        must(dc_params_load(stores[i], state, "params", true));
        must(dc_state_get_doubles(state, "lambda", 1, (int64_t[]){DC_METRICS}, lambda[i]));
        must(dc_state_close(state));
        dc_graph_destroy(graph);
    }
    size_t bytes = stores[0]->count * sizeof(float);
    assert_memory_equal(stores[0]->values, stores[1]->values, bytes);
    assert_memory_equal(stores[0]->first, stores[1]->first, bytes);
    assert_memory_equal(stores[0]->second, stores[1]->second, bytes);
    assert_memory_equal(lambda[0], lambda[1], sizeof lambda[0]);
    dc_params_destroy(stores[0]);
    dc_params_destroy(stores[1]);
    snprintf(file, sizeof file, "%s.csv", other);
    assert_true(same_file(f->csv.s, temp_dir_path(&f->data.dir, file).s));
}

/* Rows of a table below its header, and the first number of each: 1, 2, 3, ... */
static int rows_in_order(const char *path)
{
    char line[1024];
    int n = 0;
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_non_null(fgets(line, sizeof line, file));
    while (fgets(line, sizeof line, file))
        assert_int_equal(atoi(line), ++n);
    fclose(file);
    return n;
}

/* ---- tests ---- */

static void stopped_anywhere_it_ends_the_same(void **state)
{
    fixture *f = *state;
    dc_search_result whole, result;
    must(session(f, 0, &whole));
    assert_int_equal(rows_in_order(f->csv.s), TOTAL);
    for (int every = 1; every <= STEPS + 1; every++) {
        char name[32];
        snprintf(name, sizeof name, "every-%d", every);
        use_files(f, name);
        int stops = 0;
        while (session(f, every, &result) != DC_OK) {
            assert_non_null(strstr(dc_status_message(), "saved"));
            assert_true(++stops < TOTAL);
        }
        assert_int_equal(stops, (TOTAL - 1) / every);
        assert_same_result(result, whole);
        assert_same_end(f, "whole");
    }
}

static void a_table_newer_than_the_checkpoint_is_cut(void **state)
{
    fixture *f = *state;
    dc_search_result whole, result;
    must(session(f, 0, &whole));
    use_files(f, "killed");
    assert_int_equal(session(f, STEPS + 1, &result), DC_INTERRUPTED);
    temp_path old = temp_dir_path(&f->data.dir, "old.h5");
    copy_file(f->checkpoint.s, old.s);
    must(session(f, 0, &result));
    copy_file(old.s, f->checkpoint.s);
    must(session(f, 0, &result));
    assert_same_result(result, whole);
    assert_same_end(f, "whole");
}

static void what_is_complete_is_not_done_again(void **state)
{
    fixture *f = *state;
    dc_search_result whole, result;
    must(session(f, 0, &whole));
    assert_int_equal(f->asked, TOTAL);
    must(session(f, 0, &result));
    assert_int_equal(f->asked, 0);
    assert_same_result(result, whole);
    assert_true(result.seconds == whole.seconds);
    f->job.identity++;
    assert_int_equal(session(f, 0, &result), DC_ERR_INPUT);
    assert_non_null(strstr(dc_status_message(), "whole.h5"));
    assert_non_null(strstr(dc_status_message(), "search 3"));
}

static void every_switch_works(void **state)
{
    fixture *f = *state;
    f->job.checkpoint = f->job.csv = NULL;
    for (int switches = 0; switches < 16; switches++)
        for (int metrics = 0; metrics <= DC_METRICS; metrics++) {
            dc_search_result result;
            f->options.supernet.sharing = switches & 1;
            f->options.supernet.bottleneck = switches & 2;
            f->options.supernet.derived_cells = switches & 4;
            f->options.constrained = switches & 8;
            hold(f, metrics, 0.4);
            must(session(f, 0, &result));
            assert_true(result.validation_loss > 0 && result.validation_loss < 10);
            for (int type = 0; type < DC_CELL_TYPES; type++)
                assert_true(result.entropy[type] > 0 && result.entropy[type] < log(8) + 1e-6);
            for (int m = 0; m < DC_METRICS; m++)
                assert_true(result.derived_cost[m] == dc_cost_table_count(&f->tables[m], &result.genotype));
        }
}

/* The alpha that a store of this seed starts with. */
static void initial_alpha(const fixture *f, dc_alpha alpha)
{
    static const char *const names[DC_CELL_TYPES] = {"alpha.normal", "alpha.reduce"};
    dc_graph *graph;
    dc_params *params;
    must(dc_supernet_build(&f->options.supernet, NULL, true, &graph));
    must(dc_params_create(f->backend, &params));
    must(dc_params_add_graph(params, graph));
    must(dc_params_allocate(params, f->job.seed));
    for (int type = 0; type < DC_CELL_TYPES; type++)
        must(dc_params_read(params, dc_params_find(params, names[type]), alpha[type][0]));
    dc_params_destroy(params);
    dc_graph_destroy(graph);
}

static void alpha_rests_while_it_warms_up(void **state)
{
    fixture *f = *state;
    dc_alpha start;
    dc_search_result result;
    initial_alpha(f, start);
    f->options.epochs = f->options.warmup_epochs = 2;
    use_files(f, "warm");
    must(session(f, 0, &result));
    assert_memory_equal(result.alpha, start, sizeof start);
    assert_true(result.validation_accuracy == 0); /* no validation image was drawn */
    f->options.epochs = 3;
    use_files(f, "moving");
    must(session(f, 0, &result));
    const float *a = &result.alpha[0][0][0], *b = &start[0][0][0];
    for (size_t i = 0; i < sizeof start / sizeof *a; i++)
        assert_true(a[i] != b[i]);
}

static void threads_change_no_bit(void **state)
{
    fixture *f = *state;
    dc_search_result one, two;
    must(session(f, 0, &one));
    dc_backend *backend, *single = f->backend;
    must(dc_backend_create("cpu", &(dc_backend_options){.threads = 2}, &backend));
    f->job.backend = backend;
    use_files(f, "threads");
    must(session(f, 0, &two));
    f->job.backend = single;
    dc_backend_destroy(backend);
    assert_same_result(one, two);
    assert_same_end(f, "whole");
}

static void the_weights_learn(void **state)
{
    fixture *f = *state;
    dc_search_result result;
    f->options.epochs = 20;
    f->options.warmup_epochs = 15;
    f->options.schedule.learning_rate = 0.05;
    f->options.alpha.learning_rate = 3e-3;
    f->options.supernet.derived_cells = false; /* those that have just changed know nothing yet */
    must(session(f, 0, &result));
    assert_true(result.validation_accuracy > 0.9); /* 0.25 by chance */
}

static void a_batch_that_is_too_large_is_refused(void **state)
{
    fixture *f = *state;
    dc_search_result result;
    f->options.batch = TINY_TRAIN / 2 + 1;
    assert_int_equal(session(f, 0, &result), DC_ERR_INPUT);
    assert_non_null(strstr(dc_status_message(), "[search] batch = 49"));
}

static void divergence_is_an_error(void **state)
{
    fixture *f = *state;
    dc_search_result result;
    f->options.sgd.clip = 0;
    f->options.schedule.learning_rate = 1e30;
    assert_int_equal(session(f, 0, &result), DC_ERR_INPUT);
    assert_non_null(strstr(dc_status_message(), "diverged"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(stopped_anywhere_it_ends_the_same),
        TEST(a_table_newer_than_the_checkpoint_is_cut),
        TEST(what_is_complete_is_not_done_again),
        TEST(every_switch_works),
        TEST(alpha_rests_while_it_warms_up),
        TEST(threads_change_no_bit),
        TEST(the_weights_learn),
        TEST(a_batch_that_is_too_large_is_refused),
        TEST(divergence_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
