/* Trainings of a second: they learn, and end the same way however often they are stopped. */
#include "base/state.h"
#include "tests/support/tiny_data.h"
#include "train/statistics.h"
#include "train/trainer.h"
#include "train/weights.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <math.h>

enum { EPOCHS = 3, BATCH = 40, STEPS = 3 }; /* the last batch of an epoch is partial */

typedef struct fixture {
    tiny_data data;
    dc_backend *backend;
    dc_comm comm;
    dc_genotype genotype;
    dc_train_options options;
    dc_train_job job;
    temp_path checkpoint, best, last, csv;
    int asked, stop_at; /* questions of hooks.stop in this session; 0: never stops */
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

/* The files of a training of this name. */
static void use_files(fixture *f, const char *name)
{
    char file[64];
    struct {
        const char *suffix;
        temp_path *path;
    } all[] = {{"checkpoint.h5", &f->checkpoint}, {"best.h5", &f->best}, {"last.h5", &f->last}, {"csv", &f->csv}};
    for (int i = 0; i < 4; i++) {
        snprintf(file, sizeof file, "%s.%s", name, all[i].suffix);
        *all[i].path = temp_dir_path(&f->data.dir, file);
    }
    f->job.checkpoint = f->checkpoint.s;
    f->job.best = f->best.s;
    f->job.last = f->last.s;
    f->job.csv = f->csv.s;
}

static int setup(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    f->data = tiny_data_make();
    f->comm = dc_comm_self();
    must(dc_backend_create("cpu", &(dc_backend_options){.threads = 1}, &f->backend));
    must(dc_genotype_lookup("DARTS_V2", &f->genotype));
    f->options = (dc_train_options){.network = {.kind = DC_NETWORK_CIFAR,
                                                .input = f->data.dataset->shape,
                                                .classes = TINY_CLASSES,
                                                .channels = 4,
                                                .cells = 3,
                                                .auxiliary = true,
                                                .auxiliary_weight = 0.4f,
                                                .dropout = 0.1f},
                                    .epochs = EPOCHS,
                                    .batch = BATCH,
                                    .sgd = {.momentum = 0.9, .weight_decay = 3e-4, .clip = 5},
                                    .schedule = {.learning_rate = 0.05},
                                    .drop_path_rate = 0.2,
                                    .augment = {.pad = 1, .cutout = 2}};
    f->job = (dc_train_job){.name = "training",
                            .backend = f->backend,
                            .comm = &f->comm,
                            .dataset = f->data.dataset,
                            .evaluation_split = DC_SPLIT_TEST,
                            .genotype = &f->genotype,
                            .options = &f->options,
                            .seed = 3,
                            .identity = 77,
                            .checkpoint_interval_s = 1e9,
                            .hooks = {.context = f, .stop = stop}};
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

static dc_status session(fixture *f, int stop_at, dc_train_result *result)
{
    f->asked = 0;
    f->stop_at = stop_at;
    return dc_train_run(&f->job, result);
}

static void assert_same_result(dc_train_result a, dc_train_result b)
{
    a.seconds = b.seconds = 0;
    assert_memory_equal(&a, &b, sizeof a);
}

/* The present files against those of the training "whole". */
static void assert_same_files(const fixture *f)
{
    assert_true(same_file(f->best.s, temp_dir_path(&f->data.dir, "whole.best.h5").s));
    assert_true(same_file(f->last.s, temp_dir_path(&f->data.dir, "whole.last.h5").s));
    assert_true(same_file(f->csv.s, temp_dir_path(&f->data.dir, "whole.csv").s));
}

static void it_learns(void **state)
{
    fixture *f = *state;
    dc_train_result result;
    f->options.epochs = 12;
    f->options.drop_path_rate = 0;
    must(session(f, 0, &result));
    assert_true(result.train_loss < 0.5);
    assert_true(result.best_accuracy > 0.9);
    assert_true(result.accuracy <= result.best_accuracy && result.best_epoch < 12);
    assert_int_equal(result.evaluated, TINY_TEST);
    assert_true(result.top5 == 1); /* of 4 classes */
}

static void check_stopped_anywhere(fixture *f)
{
    dc_train_result whole, result;
    memset(&whole, 0, sizeof whole);
    must(session(f, 0, &whole));
    for (int every = 1; every <= STEPS + 1; every++) {
        char name[32];
        snprintf(name, sizeof name, "every-%d", every);
        use_files(f, name);
        int stops = 0;
        while (session(f, every, &result) != DC_OK) {
            assert_non_null(strstr(dc_status_message(), "saved"));
            assert_true(++stops <= EPOCHS * STEPS);
        }
        assert_true(stops >= EPOCHS * STEPS / every - 1 && stops > 0);
        assert_same_result(result, whole);
        assert_same_files(f);
    }
}

static void stopped_anywhere_it_ends_the_same(void **state)
{
    check_stopped_anywhere(*state);
}

static void so_it_does_with_averages_and_pieces(void **state)
{
    fixture *f = *state;
    f->options.ema_decay = 0.8;
    f->options.micro_batch = 16;
    check_stopped_anywhere(f);
}

/* An array of a state file, allocated: floats below `name`. */
static float *floats_of(const char *path, const char *name, int64_t *count)
{
    dc_state *state;
    int64_t dims[DC_STATE_MAX_RANK];
    must(dc_state_open_newest(path, &state));
    must(dc_state_shape(state, name, NULL, NULL, dims));
    *count = dims[0];
    float *floats = malloc((size_t)*count * sizeof *floats);
    assert_non_null(floats);
    must(dc_state_get_floats(state, name, 1, count, floats));
    dc_state_abandon(state);
    return floats;
}

/* The average after every step, of the weights after every step, and what is kept at the end is the average. */
static void averages_follow_the_weights(void **state)
{
    fixture *f = *state;
    dc_train_result result;
    int64_t count = 0;
    float *before = NULL;
    f->options.ema_decay = 0.3; /* of the first steps' 1/10, 2/11, ... the last are larger */
    for (int step = 0; step < EPOCHS * STEPS; step++) {
        assert_int_equal(session(f, 1, &result), DC_INTERRUPTED);
        float *weights = floats_of(f->checkpoint.s, "params/values", &count);
        float *average = floats_of(f->checkpoint.s, "average/values", &count);
        const double warm = (1.0 + step) / (10.0 + step), decay = warm < 0.3 ? warm : 0.3;
        double moved = 0;
        for (int64_t i = 0; before && i < count; i++) {
            const double right = decay * (double)before[i] + (1 - decay) * (double)weights[i];
            assert_true(fabs((double)average[i] - right) <= 1e-6 * (1 + fabs(right)));
            moved += fabs((double)average[i] - (double)weights[i]);
        }
        assert_true(!before || moved > 1e-3);
        free(before);
        free(weights);
        before = average;
    }
    must(session(f, 0, &result));
    float *last = floats_of(f->last.s, "params/values", &count);
    float *average = floats_of(f->checkpoint.s, "average/values", &count);
    assert_memory_equal(last, average, (size_t)count * sizeof *last);
    free(before);
    free(last);
    free(average);
}

/* What is to be evaluated of a checkpoint: the average, with the mean of the ranks' statistics. */
static void a_checkpoint_is_evaluated_as_the_training_would(void **state)
{
    fixture *f = *state;
    dc_train_result result;
    int64_t count = 0;
    dc_state *file;
    dc_graph *training, *evaluation;
    dc_params *params;
    must(dc_train_graphs(&f->genotype, &f->options, &training, &evaluation));
    must(dc_params_create(f->backend, &params));
    must(dc_params_add_graph(params, training));
    must(dc_params_allocate(params, 1));
    for (int averaged = 0; averaged < 2; averaged++) {
        use_files(f, averaged ? "averaged" : "plain");
        f->options.ema_decay = averaged ? 0.5 : 0;
        assert_int_equal(session(f, STEPS - 1, &result), DC_INTERRUPTED);
        must(dc_state_open_newest(f->checkpoint.s, &file));
        must(dc_weights_load(file, params));
        must(dc_state_close(file));
        float *right = floats_of(f->checkpoint.s, averaged ? "average/values" : "params/values", &count);
        assert_int_equal(count, params->count);
        assert_memory_equal(params->values, right, params->count * sizeof *right);
        free(right);
    }
    dc_params_destroy(params);
    dc_graph_destroy(training);
    dc_graph_destroy(evaluation);
}

static void statistics_of_ranks_have_a_mean(void **state)
{
    fixture *f = *state;
    enum { RANKS = 3 };
    dc_graph *graph = dc_graph_create((dc_shape){2, 4, 4});
    dc_params *params;
    must(dc_params_create(f->backend, &params));
    dc_graph_batch_norm(graph, "norm", graph->input, true);
    must(dc_params_add_graph(params, graph));
    const size_t n = dc_statistics_count(params), row = dc_statistics_row_bytes(params, true);
    assert_int_equal(n, 4);
    unsigned char rows[RANKS * 256];
    assert_true(RANKS * row <= sizeof rows);
    for (int r = 0; r < RANKS; r++)
        for (size_t i = 0; i < 2 * n; i++) { /* the trained ones differ, the averages are the same on all ranks */
            const float value = i < n ? (float)i + (float)r : 0.1f * (float)i;
            memcpy(rows + (size_t)r * row + row - (2 * n - i) * sizeof value, &value, sizeof value);
        }
    float mean[4];
    dc_statistics_mean(params, rows, RANKS, row, false, mean);
    for (size_t i = 0; i < n; i++)
        assert_true(mean[i] == (float)i + 1);
    dc_statistics_mean(params, rows, RANKS, row, true, mean);
    for (size_t i = 0; i < n; i++)
        assert_true(mean[i] == 0.1f * (float)(n + i));
    dc_params_destroy(params);
    dc_graph_destroy(graph);
}

/* A kill after files of an epoch were written, but before the checkpoint: the old checkpoint beside newer files. */
static void files_newer_than_the_checkpoint_are_made_again(void **state)
{
    fixture *f = *state;
    dc_train_result whole, result;
    must(session(f, 0, &whole));
    use_files(f, "killed");
    for (int step = STEPS - 1; step < EPOCHS * STEPS; step += STEPS - 1) { /* within, at the end, at the beginning */
        temp_path old = temp_dir_path(&f->data.dir, "old.h5");
        assert_int_equal(session(f, step, &result), DC_INTERRUPTED);
        copy_file(f->checkpoint.s, old.s);
        must(session(f, 0, &result));
        copy_file(old.s, f->checkpoint.s);
        must(session(f, 0, &result));
        assert_same_result(result, whole);
        assert_same_files(f);
        unlink(f->checkpoint.s);
        unlink(temp_dir_path(&f->data.dir, "killed.checkpoint.h5.previous").s);
    }
}

static void what_is_complete_is_not_done_again(void **state)
{
    fixture *f = *state;
    dc_train_result whole, result;
    must(session(f, 0, &whole));
    assert_int_equal(f->asked, EPOCHS * STEPS);
    must(session(f, 0, &result));
    assert_int_equal(f->asked, 0);
    assert_true(result.seconds == whole.seconds);
    assert_same_result(result, whole);
}

static void another_s_checkpoint_is_refused(void **state)
{
    fixture *f = *state;
    dc_train_result result;
    must(session(f, 0, &result));
    f->job.identity++;
    assert_int_equal(session(f, 0, &result), DC_ERR_INPUT);
    assert_non_null(strstr(dc_status_message(), "whole.checkpoint.h5"));
    f->job.identity--;
    f->options.network.channels = 6; /* a mistake of ours: the identity does not tell */
    assert_int_equal(session(f, 0, &result), DC_ERR_INPUT);
    assert_non_null(strstr(dc_status_message(), "another network"));
}

static void threads_change_no_bit(void **state)
{
    fixture *f = *state;
    dc_train_result one, two;
    must(session(f, 0, &one));
    dc_backend *backend;
    must(dc_backend_create("cpu", &(dc_backend_options){.threads = 2}, &backend));
    f->job.backend = backend;
    use_files(f, "threads");
    must(session(f, 0, &two));
    dc_backend_destroy(backend);
    assert_same_result(one, two);
    assert_same_files(f);
}

static void a_damaged_checkpoint_falls_back(void **state)
{
    fixture *f = *state;
    dc_train_result whole, result;
    must(session(f, 0, &whole));
    use_files(f, "damaged");
    assert_int_equal(session(f, STEPS + 1, &result), DC_INTERRUPTED);
    assert_int_equal(session(f, 1, &result), DC_INTERRUPTED);
    temp_file_write(f->checkpoint.s, "no state", 8);
    must(session(f, 0, &result));
    assert_same_result(result, whole);
    assert_same_files(f);
}

static void a_node_that_nothing_reads_trains(void **state)
{
    fixture *f = *state;
    dc_train_result result;
    f->genotype.concat[DC_CELL_NORMAL] = f->genotype.concat[DC_CELL_REDUCE] = 1u << 2 | 1u << 3;
    must(session(f, 0, &result));
    assert_true(result.train_loss > 0 && result.train_loss < 3);
}

static void divergence_is_an_error(void **state)
{
    fixture *f = *state;
    dc_train_result result;
    f->options.sgd.clip = 0;
    f->options.schedule.learning_rate = 1e30;
    assert_int_equal(session(f, 0, &result), DC_ERR_INPUT);
    assert_non_null(strstr(dc_status_message(), "diverged"));
    assert_non_null(strstr(dc_status_message(), "learning_rate"));
}

static void without_files_nothing_is_written(void **state)
{
    fixture *f = *state;
    dc_train_result result;
    f->job.checkpoint = f->job.best = f->job.last = f->job.csv = NULL;
    must(session(f, 0, &result));
    assert_int_equal(temp_dir_count(f->data.dir.path), 1);
    assert_int_equal(session(f, 1, &result), DC_INTERRUPTED);
    assert_null(strstr(dc_status_message(), "saved"));
}

/* Nothing is lost when opening fails half-way (the sanitizers look). */
static void an_opening_that_fails_leaves_nothing(void **state)
{
    fixture *f = *state;
    dc_train_result result;
    f->options.batch = TINY_TRAIN + 1; /* the loader refuses, after the models are built */
    assert_int_equal(session(f, 0, &result), DC_ERR_INPUT);
    f->options.batch = BATCH;
    f->options.network.cells = 1;
    assert_int_equal(session(f, 0, &result), DC_ERR_INPUT);
    f->options.network.cells = 3;
    temp_file_write(f->csv.s, "a,table,of,another,program\n1,2,3,4,5\n", 37);
    assert_int_equal(session(f, STEPS, &result), DC_INTERRUPTED);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(it_learns),
        TEST(stopped_anywhere_it_ends_the_same),
        TEST(so_it_does_with_averages_and_pieces),
        TEST(averages_follow_the_weights),
        TEST(a_checkpoint_is_evaluated_as_the_training_would),
        TEST(statistics_of_ranks_have_a_mean),
        TEST(files_newer_than_the_checkpoint_are_made_again),
        TEST(what_is_complete_is_not_done_again),
        TEST(another_s_checkpoint_is_refused),
        TEST(threads_change_no_bit),
        TEST(a_damaged_checkpoint_falls_back),
        TEST(a_node_that_nothing_reads_trains),
        TEST(divergence_is_an_error),
        TEST(without_files_nothing_is_written),
        TEST(an_opening_that_fails_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
