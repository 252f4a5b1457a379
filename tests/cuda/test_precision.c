/* Steps of searches and trainings in TF32 and bfloat16 follow those in float, on the emulated device and on a real one:
 * losses, gradients, updated weights; and bfloat16 halves a step's memory. (Operation by operation:
 * tests/unit/test_conformance.c.) */
#include "tests/cuda/device.h"
#include "tests/support/steps.h"

static dc_backend *gpu(dc_precision precision, bool autotune)
{
    dc_backend *backend;
    const dc_backend_options options = {.threads = 1, .precision = precision, .autotune = autotune};
    rig_ok(dc_backend_create("cuda", &options, &backend));
    assert_int_equal(autotune, strstr(dc_backend_description(backend), "autotuned") != NULL);
    return backend;
}

/* ---- batches ---- */

/* A batch is narrowed on its way to the device as a device narrows it: to the nearest, ties to even. */
static void a_staged_batch_is_rounded_to_the_nearest(void **state)
{
    (void)state;
    enum { C = 3, SIDE = 5, IMAGES = 16, N = C * SIDE * SIDE * IMAGES };
    static float staged[N], written[N], table[C][256];
    static uint8_t bytes[N];
    static int32_t labels[IMAGES];
    static const dck_augment_draw draws[IMAGES] = {{0}};
    dc_backend *b = gpu(DC_PRECISION_BF16, false);
    dc_view view = {.shape = {C, SIDE, SIDE}, .stride = N};
    void *memory;
    rig_ok(b->call->alloc(b, N * sizeof(float), &memory));
    for (int c = 0; c < C; c++)
        for (int k = 0; k < 256; k++) /* a third lies exactly between two neighbours */
            table[c][k] = k % 3 ? golden_draw(1, (size_t)(c * 256 + k)) * 6 : 1 + ((float)(k % 128) + 0.5f) / 128;
    for (int i = 0; i < N; i++) {
        bytes[i] = (uint8_t)(i * 7);
        written[i] = table[i / (SIDE * SIDE) % C][bytes[i]];
    }
    const float *images;
    const int32_t *device_labels;
    const dc_raw_images pixels = {bytes, draws, table[0], 0};
    rig_ok(b->call->stage_batch(b, view.shape, IMAGES, &pixels, labels, &images, &device_labels));
    view.data = (float *)images;
    rig_ok(b->call->read(b, view, IMAGES, staged));
    view.data = memory;
    rig_ok(b->call->write(b, view, IMAGES, written));
    rig_ok(b->call->read(b, view, IMAGES, written));
    assert_memory_equal(staged, written, sizeof written);
    b->call->release(b, memory, N * sizeof(float));
    dc_backend_destroy(b);
}

/* ---- steps ---- */

static void check_narrow(const char *what, const outcome *narrow, const outcome *plain, apart most)
{
    assert_true(plain->loss[STEPS - 1] < plain->loss[0]); /* it learns at all */
    check_follows(what, narrow, plain, most);
    print_message("# a step's memory: %zu bytes, in bf16 %zu\n", plain->arena_bytes, narrow->arena_bytes);
    assert_true((double)narrow->arena_bytes < 0.6 * (double)plain->arena_bytes); /* sums are as large as before */
}

static void a_search_follows_float(void **state)
{
    (void)state;
    outcome plain = outcome_of_search(gpu(DC_PRECISION_F32, false)),
            narrow = outcome_of_search(gpu(DC_PRECISION_BF16, false));
    check_narrow("search in bf16", &narrow, &plain, (apart){0.02, 0.3, 0.01});
    outcome_clear(&plain);
    outcome_clear(&narrow);
}

static void a_training_follows_float(void **state)
{
    (void)state;
    outcome plain = outcome_of_training(gpu(DC_PRECISION_F32, false)),
            tf32 = outcome_of_training(gpu(DC_PRECISION_TF32, false));
    outcome narrow = outcome_of_training(gpu(DC_PRECISION_BF16, false));
    check_follows("training in tf32", &tf32, &plain, (apart){0.01, 0.02, 0.005});
    assert_int_equal(tf32.arena_bytes, plain.arena_bytes);
    check_narrow("training in bf16", &narrow, &plain, (apart){0.02, 0.15, 0.01});
    outcome_clear(&plain);
    outcome_clear(&tf32);
    outcome_clear(&narrow);
}

/* Engines are timed while the networks' plans are made, between recorded runs, and what they compute is the same. */
static void a_training_with_timed_engines_is_the_same(void **state)
{
    (void)state;
    outcome plain = outcome_of_training(gpu(DC_PRECISION_BF16, false)),
            timed = outcome_of_training(gpu(DC_PRECISION_BF16, true));
    assert_int_equal(timed.arena_bytes, plain.arena_bytes);
    for (int i = 0; i < STEPS; i++)
        assert_true(fabs(timed.loss[i] - plain.loss[i]) <= 0.01 * plain.loss[i]);
    assert_true(difference(timed.values, plain.values, plain.n) <= 0.01);
    outcome_clear(&plain);
    outcome_clear(&timed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_staged_batch_is_rounded_to_the_nearest),
        cmocka_unit_test(a_search_follows_float),
        cmocka_unit_test(a_training_follows_float),
        cmocka_unit_test(a_training_with_timed_engines_is_the_same),
    };
    device_require();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
