/* What a plan says of a GPU's memory is what a training and a search then take, and too little of it is told before. */
#include "backend/cuda/cuda_internal.h"
#include "search/search.h"
#include "tests/support/tiny_data.h"
#include "train/train.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { BATCH = 32 };

typedef struct fixture {
    tiny_data data;
    dc_backend *backend;
    dc_comm comm;
    size_t free_before, least_free;
} fixture;

static void must(dc_status status)
{
    if (status != DC_OK)
        fail_msg("%s", dc_status_message());
}

static size_t free_now(void)
{
    size_t free_bytes, total;
    assert_int_equal(cudaMemGetInfo(&free_bytes, &total), cudaSuccess);
    return free_bytes;
}

/* Asked at every step: nothing is allocated or given back within one. */
static dc_status look(void *context, bool *stop)
{
    fixture *f = context;
    const size_t now = free_now();
    f->least_free = now < f->least_free ? now : f->least_free;
    *stop = false;
    return DC_OK;
}

static int setup(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    f->data = tiny_data_make();
    f->comm = dc_comm_self();
    must(dc_backend_create("cuda", &(dc_backend_options){.threads = 1}, &f->backend));
    f->free_before = f->least_free = free_now();
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

/* The plan counts all that cuBLASLt may ask for, and a little more for tables. */
static void assert_taken(const fixture *f, size_t arena_bytes, size_t model_bytes, size_t step_bytes)
{
    const size_t taken = f->free_before - f->least_free, planned = arena_bytes + model_bytes + step_bytes;
    print_message("# %zu bytes are taken of %zu planned\n", taken, planned);
    assert_true(taken <= planned);
    assert_true(taken + DC_CUDA_LINEAR_WORKSPACE + (2 << 20) >= planned);
    assert_true(cuda_of(f->backend)->workspace_bytes <= step_bytes);
}

static dc_train_options train_options(const fixture *f, int channels)
{
    return (dc_train_options){.network = {.kind = DC_NETWORK_CIFAR,
                                          .input = f->data.dataset->shape,
                                          .classes = TINY_CLASSES,
                                          .channels = channels,
                                          .cells = 3},
                              .epochs = 1,
                              .batch = BATCH,
                              .sgd = {.momentum = 0.9},
                              .schedule = {.learning_rate = 0.05}};
}

static dc_train_job train_job(fixture *f, const dc_genotype *genotype, const dc_train_options *options,
                              const dc_indices *evaluation)
{
    return (dc_train_job){.name = "training",
                          .backend = f->backend,
                          .comm = &f->comm,
                          .dataset = f->data.dataset,
                          .evaluation_split = DC_SPLIT_TEST,
                          .evaluation = evaluation,
                          .genotype = genotype,
                          .options = options,
                          .hooks = {.context = f, .stop = look}};
}

/* cuDNN's plans are all made with the memory plan, where every batch is whole. */
static void a_training_takes_what_is_planned(void **state)
{
    fixture *f = *state;
    uint32_t images[BATCH];
    dc_genotype genotype;
    dc_train_memory memory;
    dc_train_result result;
    for (uint32_t i = 0; i < BATCH; i++)
        images[i] = i;
    const dc_indices evaluation = {.n = BATCH, .items = images};
    const dc_train_options options = train_options(f, 12);
    const dc_train_job job = train_job(f, &genotype, &options, &evaluation);
    must(dc_genotype_lookup("DARTS_V2", &genotype));
    must(dc_train_plan(f->backend, f->data.dataset, &genotype, &options, 1, &memory));
    const int planned = dc_conv_plans_count(cuda_of(f->backend)->convs);
    print_message("# %d plans of cuDNN's\n", planned);
    assert_true(planned > 5);
    must(dc_train_run(&job, &result));
    assert_taken(f, memory.arena_bytes, memory.model_bytes, memory.step_bytes);
    assert_int_equal(dc_conv_plans_count(cuda_of(f->backend)->convs), planned);
}

static void a_search_takes_what_is_planned(void **state)
{
    fixture *f = *state;
    dc_search_memory memory;
    dc_search_result result;
    dc_cost_table tables[DC_METRICS];
    const dc_network_options network = {
        .input = f->data.dataset->shape, .classes = TINY_CLASSES, .channels = 4, .cells = 3};
    must(dc_cost_tables_make(&network, tables));
    const dc_search_options options = {.supernet = {.input = f->data.dataset->shape,
                                                    .classes = TINY_CLASSES,
                                                    .channels = 16,
                                                    .cells = 3,
                                                    .sharing = true,
                                                    .bottleneck = true,
                                                    .derived_cells = true,
                                                    .alpha_init = 1e-3f},
                                       .epochs = 1,
                                       .batch = 16,
                                       .schedule = {.learning_rate = 0.1},
                                       .alpha = {.learning_rate = 0.1, .beta1 = 0.5, .beta2 = 0.999},
                                       .train = {0.34, 0},
                                       .validation = {0.34, 0}};
    const dc_search_job job = {.name = "search",
                               .backend = f->backend,
                               .comm = &f->comm,
                               .dataset = f->data.dataset,
                               .options = &options,
                               .tables = tables,
                               .hooks = {.context = f, .stop = look}};
    must(dc_search_plan(f->backend, f->data.dataset, &options, 1, &memory));
    must(dc_search_run(&job, &result));
    assert_taken(f, memory.arena_bytes, memory.model_bytes, memory.step_bytes);
}

static void assert_told(const char *wanted)
{
    if (!strstr(dc_status_message(), wanted) || strchr(dc_status_message(), '\n'))
        fail_msg("not one line with \"%s\": %s", wanted, dc_status_message());
}

/* Somebody else has left 4 MiB less than are needed. */
static void too_little_is_told_before_the_first_step(void **state)
{
    fixture *f = *state;
    dc_genotype genotype;
    dc_train_memory memory;
    dc_train_result result;
    const dc_train_options options = train_options(f, 12);
    const dc_train_job job = train_job(f, &genotype, &options, NULL);
    must(dc_genotype_lookup("DARTS_V2", &genotype));
    must(dc_train_plan(f->backend, f->data.dataset, &genotype, &options, 1, &memory));
    const size_t needed = memory.arena_bytes + memory.model_bytes + memory.step_bytes;
    void *others, *more;
    assert_int_equal(cudaMalloc(&others, free_now() - needed + (4 << 20)), cudaSuccess);
    f->least_free = SIZE_MAX;
    assert_int_equal(dc_train_run(&job, &result), DC_ERR_MEMORY);
    char text[64];
    snprintf(text, sizeof text, "a training needs %zu bytes", needed);
    assert_told(text);
    assert_told("lower [target] batch, channels or cells");
    assert_true(f->least_free == SIZE_MAX); /* no step was made */
    /* one that nobody foresaw */
    assert_int_equal(f->backend->call->alloc(f->backend, 2 * needed, &more), DC_ERR_MEMORY);
    assert_told("out of memory on the GPU");
    assert_told("MiB are needed at once");
    assert_int_equal(cudaFree(others), cudaSuccess);
    must(dc_train_run(&job, &result)); /* nothing is left of the failures */
}

int main(void)
{
    setenv("EMULATED_MEMORY_MIB", "256", 1); /* of which one of these tests takes almost all */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_training_takes_what_is_planned, setup, teardown),
        cmocka_unit_test_setup_teardown(a_search_takes_what_is_planned, setup, teardown),
        cmocka_unit_test_setup_teardown(too_little_is_told_before_the_first_step, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
