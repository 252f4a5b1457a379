/* How often the host waits for the device in the steps of a search and of a training. Of the emulated device alone: a
 * real one does not tell. */
#include "search/search.h"
#include "tests/cuda/device.h"
#include "tests/emulator/counts.h"
#include "tests/support/tiny_data.h"
#include "train/train.h"

/* The first steps prepare kernels and record, the last one ends with figures. */
enum { SEARCH_BATCH = 6, TRAIN_BATCH = 12, MAX_STEPS = 8, FIRST_STEPS = 4 };

#pragma weak emulator_waits

typedef struct fixture {
    tiny_data data;
    dc_backend *backend;
    dc_comm comm;
    int n;
    unsigned long waits[MAX_STEPS]; /* before the end of each step, since the start */
} fixture;

static void must(dc_status status)
{
    if (status != DC_OK)
        fail_msg("%s", dc_status_message());
}

/* The end of a step. */
static dc_status count(void *context, bool *stop)
{
    fixture *f = context;
    assert_true(f->n < MAX_STEPS);
    f->waits[f->n++] = emulator_waits(f->backend->call->stream(f->backend));
    *stop = false;
    return DC_OK;
}

static int setup(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    f->data = tiny_data_make();
    f->comm = dc_comm_self();
    must(dc_backend_create("cuda", &(dc_backend_options){.threads = 1}, &f->backend));
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

/* In every step between the first ones and the last the host has waited so often at most. */
static void assert_waits(const fixture *f, unsigned long waits)
{
    assert_int_equal(f->n, MAX_STEPS);
    for (int i = FIRST_STEPS; i < f->n - 1; i++)
        assert_in_range(f->waits[i] - f->waits[i - 1], 0, waits);
}

/* Alpha is waited for, once. */
static void search(fixture *f, bool derived_cells)
{
    const dc_search_options options = {.supernet = {.input = f->data.dataset->shape,
                                                    .classes = TINY_CLASSES,
                                                    .channels = 4,
                                                    .cells = 4,
                                                    .sharing = true,
                                                    .bottleneck = true,
                                                    .derived_cells = derived_cells,
                                                    .alpha_init = 1e-3f},
                                       .constrained = true,
                                       .constraint = {DC_ESTIMATE_DERIVED, 3, 4},
                                       .epochs = 1,
                                       .batch = SEARCH_BATCH,
                                       .sgd = {.momentum = 0.9, .clip = 5},
                                       .schedule = {.learning_rate = 0.01},
                                       .alpha = {.learning_rate = 1e-8, .beta1 = 0.5, .beta2 = 0.999},
                                       .train = {0.5, 0},
                                       .validation = {0.5, 0}};
    const dc_network_options network = {
        .input = f->data.dataset->shape, .classes = TINY_CLASSES, .channels = 4, .cells = 3};
    dc_cost_table tables[DC_METRICS];
    dc_search_result result;
    must(dc_cost_tables_make(&network, tables));
    const dc_limits limits = dc_cost_table_limits(&tables[0]);
    const dc_search_job job = {
        .name = "search",
        .backend = f->backend,
        .comm = &f->comm,
        .dataset = f->data.dataset,
        .options = &options,
        .tables = tables,
        .targets = {.n = 1, .table = {&tables[0]}, .limit = {limits.min + 0.4 * (limits.max - limits.min)}},
        .seed = 5,
        .checkpoint_interval_s = 1e9,
        .hooks = {.context = f, .stop = count}};
    must(dc_search_run(&job, &result));
    assert_waits(f, 1);
}

static void a_search_step_waits_for_alpha_alone(void **state)
{
    search(*state, false);
}

static void a_search_step_with_derived_cells_waits_for_alpha_alone(void **state)
{
    search(*state, true);
}

static void a_training_step_waits_for_nothing(void **state)
{
    fixture *f = *state;
    dc_genotype genotype;
    dc_train_result result;
    must(dc_genotype_lookup("DARTS_V2", &genotype));
    const dc_train_options options = {.network = {.kind = DC_NETWORK_CIFAR,
                                                  .input = f->data.dataset->shape,
                                                  .classes = TINY_CLASSES,
                                                  .channels = 4,
                                                  .cells = 3},
                                      .epochs = 1,
                                      .batch = TRAIN_BATCH,
                                      .sgd = {.momentum = 0.9, .clip = 5},
                                      .schedule = {.learning_rate = 0.01},
                                      .ema_decay = 0.99,
                                      .drop_path_rate = 0.2};
    const dc_train_job job = {.name = "training",
                              .backend = f->backend,
                              .comm = &f->comm,
                              .dataset = f->data.dataset,
                              .evaluation_split = DC_SPLIT_TEST,
                              .genotype = &genotype,
                              .options = &options,
                              .seed = 3,
                              .checkpoint_interval_s = 1e9,
                              .hooks = {.context = f, .stop = count}};
    must(dc_train_run(&job, &result));
    assert_waits(f, 0);
}

int main(void)
{
    device_require();
    if (!emulator_waits) {
        printf("1..0 # SKIP a real GPU does not tell how often it is waited for\n");
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_search_step_waits_for_alpha_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(a_search_step_with_derived_cells_waits_for_alpha_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(a_training_step_waits_for_nothing, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
