/* The memory that a plan tells is what the work then allocates: searches, through all architectures that alpha may
 * derive, and trainings. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rng.h"
#include "search/searcher.h"
#include "tests/support/temp_dir.h"
#include "train/trainer.h"

enum { SIDE = 8, CLASSES = 4, IMAGES = 96, BATCH = 20 };

typedef struct bench {
    temp_dir dir;
    dc_dataset *dataset;
    dc_backend *backend;
    dc_comm self;
    dc_network_options network;
    dc_cost_table tables[DC_METRICS];
} bench;

static int set_up(void **state)
{
    static bench b;
    static uint8_t pixels[IMAGES * SIDE * SIDE];
    static int32_t labels[IMAGES];
    for (int i = 0; i < IMAGES; i++)
        labels[i] = i % CLASSES;
    const dc_dataset_content content = {.name = "blank",
                                        .shape = {1, SIDE, SIDE},
                                        .n_classes = CLASSES,
                                        .classes = (const char *const[]){"a", "b", "c", "d"},
                                        .split = {{.n = IMAGES, .pixels = pixels, .labels = labels},
                                                  {.n = IMAGES, .pixels = pixels, .labels = labels}}};
    pixels[0] = 255;
    b.dir = temp_dir_make();
    b.self = dc_comm_self();
    temp_path path = temp_dir_path(&b.dir, "blank.h5");
    assert_int_equal(dc_dataset_write(path.s, &content), DC_OK);
    assert_int_equal(dc_dataset_open(path.s, &b.dataset), DC_OK);
    assert_int_equal(dc_backend_create("cpu", &(dc_backend_options){.threads = 1}, &b.backend), DC_OK);
    b.network = (dc_network_options){.kind = DC_NETWORK_CIFAR,
                                     .input = {1, SIDE, SIDE},
                                     .classes = CLASSES,
                                     .channels = 8,
                                     .cells = 5,
                                     .auxiliary = true,
                                     .auxiliary_weight = 0.4f};
    assert_int_equal(dc_cost_tables_make(&b.network, b.tables), DC_OK);
    *state = &b;
    return 0;
}

static int tear_down(void **state)
{
    bench *b = *state;
    dc_backend_destroy(b->backend);
    dc_dataset_close(b->dataset);
    temp_dir_remove(&b->dir);
    return 0;
}

static void draw_alpha(dc_searcher *s, uint32_t n)
{
    for (int type = 0; type < DC_CELL_TYPES; type++) {
        float alpha[DC_CELL_EDGES * DC_DARTS_N_OPS];
        for (int i = 0; i < DC_CELL_EDGES * DC_DARTS_N_OPS; i++)
            alpha[i] = 4 * dc_rng_uniform((dc_rng_key){.seed = 1, .stream = (uint64_t)type}, n, (uint64_t)i);
        assert_int_equal(dc_params_write(s->params, s->alpha_item[type], alpha), DC_OK);
    }
}

/* The arena is as planned from the beginning and never grows, whatever is derived. */
static void check_search(bench *b, bool sharing, bool bottleneck, bool derived_cells)
{
    const dc_search_options options = {.supernet = {.kind = DC_NETWORK_CIFAR,
                                                    .input = {1, SIDE, SIDE},
                                                    .classes = CLASSES,
                                                    .channels = 8,
                                                    .cells = 5,
                                                    .sharing = sharing,
                                                    .bottleneck = bottleneck,
                                                    .derived_cells = derived_cells,
                                                    .alpha_init = 1e-3f},
                                       .epochs = 2,
                                       .warmup_epochs = 1,
                                       .batch = BATCH,
                                       .train = {.fraction = 0.5},
                                       .validation = {.fraction = 0.5}};
    const dc_search_job job = {.name = "search",
                               .backend = b->backend,
                               .comm = &b->self,
                               .dataset = b->dataset,
                               .options = &options,
                               .tables = b->tables,
                               .seed = 1};
    dc_search_memory memory;
    assert_int_equal(dc_search_plan(b->backend, b->dataset, &options, 1, &memory), DC_OK);
    dc_searcher s = {.job = &job};
    assert_int_equal(dc_searcher_open(&s), DC_OK);
    assert_true(memory.arena_bytes > 0);
    assert_int_equal(s.arena.bytes, memory.arena_bytes);
    assert_int_equal(4 * s.params->count * sizeof(float), memory.model_bytes);
    size_t largest = 0;
    for (uint32_t n = 0; n < (derived_cells ? 60 : 1); n++) {
        draw_alpha(&s, n);
        assert_int_equal(dc_searcher_choose_supernet(&s), DC_OK);
        size_t bytes = dc_executor_plan(s.model->executor)->arena_bytes;
        largest = bytes > largest ? bytes : largest;
        assert_int_equal(s.arena.bytes, memory.arena_bytes);
    }
    assert_true(derived_cells ? largest <= memory.arena_bytes : largest == memory.arena_bytes);
    dc_searcher_close(&s);
}

static void test_searches(void **state)
{
    for (int i = 0; i < 8; i++)
        check_search(*state, i & 1, i & 2, i & 4);
}

static void check_training(bench *b, const char *name, double drop_path_rate)
{
    dc_genotype genotype;
    assert_int_equal(dc_genotype_lookup(name, &genotype), DC_OK);
    const dc_train_options options = {
        .network = b->network, .epochs = 1, .batch = BATCH, .drop_path_rate = drop_path_rate};
    const dc_train_job job = {.name = "training",
                              .backend = b->backend,
                              .comm = &b->self,
                              .dataset = b->dataset,
                              .evaluation_split = DC_SPLIT_TEST,
                              .genotype = &genotype,
                              .options = &options,
                              .seed = 1};
    dc_train_memory memory, quarter;
    assert_int_equal(dc_train_plan(b->backend, b->dataset, &genotype, &options, 1, &memory), DC_OK);
    assert_int_equal(dc_train_plan(b->backend, b->dataset, &genotype, &options, 4, &quarter), DC_OK);
    assert_true(quarter.arena_bytes < memory.arena_bytes);
    dc_trainer t = {.job = &job};
    assert_int_equal(dc_trainer_open(&t), DC_OK);
    assert_int_equal(t.arena.bytes, memory.arena_bytes);
    assert_int_equal(3 * t.params->count * sizeof(float), memory.model_bytes);
    dc_trainer_close(&t);
}

static void test_trainings(void **state)
{
    static const char *const names[] = {"DARTS_V1", "DARTS_V2", "PC_DARTS_cifar", "PDARTS", "SNAS"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        check_training(*state, names[i], 0);
        check_training(*state, names[i], 0.2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_searches), cmocka_unit_test(test_trainings)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
