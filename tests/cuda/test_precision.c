/* Steps of searches and trainings in TF32 and bfloat16 follow those in float, on the emulated device and on a real one:
 * losses, gradients, updated weights; and bfloat16 halves a step's memory. (Operation by operation:
 * tests/unit/test_conformance.c.) */
#include "tests/cuda/device.h"
#include "tests/support/rig.h"

#include "search/supernet.h"
#include "space/network.h"

enum { BATCH = 16, CLASSES = 10, STEPS = 2 };

/* What a few steps leave behind. */
typedef struct outcome {
    double loss[STEPS], validation[STEPS]; /* of the weights' and of alpha's batches */
    double inference;                      /* loss with running statistics, after all steps; 0: not asked for */
    size_t arena_bytes;
    int n; /* of the parameters, and of their first gradients */
    float *values, *grads;
} outcome;

static void outcome_clear(outcome *o)
{
    free(o->values);
    free(o->grads);
}

/* |a - b| / |b| */
static double difference(const float *a, const float *b, int n)
{
    double apart = 0, size = 0;
    for (int i = 0; i < n; i++) {
        apart += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        size += (double)b[i] * (double)b[i];
    }
    return sqrt(apart / size);
}

static dc_backend *gpu(dc_precision precision, bool autotune)
{
    dc_backend *backend;
    const dc_backend_options options = {.threads = 1, .precision = precision, .autotune = autotune};
    rig_ok(dc_backend_create("cuda", &options, &backend));
    assert_int_equal(autotune, strstr(dc_backend_description(backend), "autotuned") != NULL);
    return backend;
}

static float *copy_of(rig *r, const float *device)
{
    float *host = malloc(r->params->count * sizeof *host);
    assert_non_null(host);
    rig_ok(r->backend->call->copy_out(r->backend, host, device, r->params->count * sizeof *host));
    return host;
}

static double train_step(rig *r)
{
    static const dc_sgd_options sgd = {.momentum = 0.9, .weight_decay = 3e-4, .clip = 5};
    rig_train(r, "precision.train", DC_GRAD_WEIGHTS);
    const double loss = rig_metrics(r, r->training).loss;
    rig_ok(dc_model_sgd(r->training, &sgd, 0.05, NULL));
    return loss;
}

static double alpha_step(rig *r, int step)
{
    const dc_adam adam = {.learning_rate = 0.01f,
                          .beta1 = 0.5f,
                          .beta2 = 0.999f,
                          .epsilon = 1e-8f,
                          .weight_decay = 1e-3f,
                          .step = (uint32_t)step + 1};
    rig_train(r, "precision.validation", DC_GRAD_ALPHA);
    const double loss = rig_metrics(r, r->training).loss;
    rig_ok(r->backend->call->adam(r->backend, r->training->n_alpha, r->training->alpha, &adam));
    return loss;
}

/* With alpha: a search's steps. The rig is destroyed. */
static outcome run_steps(rig *r, bool alpha)
{
    outcome o = {.n = (int)r->params->count, .arena_bytes = dc_executor_plan(r->training->executor)->arena_bytes};
    for (int i = 0; i < STEPS; i++) {
        if (alpha)
            o.validation[i] = alpha_step(r, i);
        o.loss[i] = train_step(r);
        if (i == 0)
            o.grads = copy_of(r, r->params->grads);
    }
    if (r->inference) {
        rig_infer(r);
        o.inference = rig_metrics(r, r->inference).loss;
    }
    o.values = copy_of(r, r->params->values);
    rig_destroy(r);
    return o;
}

static outcome search(dc_precision precision)
{
    dc_supernet_options options = dc_supernet_defaults(DC_NETWORK_CIFAR);
    options.input = (dc_shape){3, 8, 8};
    options.channels = 4;
    options.cells = 3;
    dc_genotype genotype;
    dc_graph *all, *graph;
    rig_ok(dc_genotype_lookup("DARTS_V2", &genotype));
    rig_ok(dc_supernet_build(&options, NULL, true, &all));
    rig_ok(dc_supernet_build(&options, &genotype, true, &graph));
    const outcome o = run_steps(rig_create_on(gpu(precision, false), graph, NULL, all, BATCH, CLASSES, -1), true);
    dc_graph_destroy(all);
    return o;
}

static outcome train(dc_precision precision, bool autotune)
{
    dc_network_options options = dc_network_defaults(DC_NETWORK_CIFAR);
    options.input = (dc_shape){3, 8, 8};
    options.channels = 4;
    options.cells = 3;
    options.auxiliary = false;
    options.losses = true;
    dc_genotype genotype;
    dc_graph *training, *inference;
    rig_ok(dc_genotype_lookup("DARTS_V2", &genotype));
    rig_ok(dc_network_build(&genotype, &options, &training));
    rig_ok(dc_network_build(&genotype, &options, &inference));
    return run_steps(rig_create_on(gpu(precision, autotune), training, inference, NULL, BATCH, CLASSES, -1), false);
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

/* By how much results may be apart from float's, relative. */
typedef struct apart {
    double loss, grads, values;
} apart;

static void check_follows(const char *what, const outcome *is, const outcome *right, apart most)
{
    const double grads = difference(is->grads, right->grads, is->n);
    const double values = difference(is->values, right->values, is->n);
    print_message("# %s: gradients %.2g, weights %.2g apart; losses", what, grads, values);
    for (int i = 0; i < STEPS; i++)
        print_message(" %.4f/%.4f", is->loss[i], right->loss[i]);
    print_message("\n");
    assert_int_equal(is->n, right->n);
    assert_true(grads > 0 && grads <= most.grads);
    assert_true(values > 0 && values <= most.values);
    for (int i = 0; i < STEPS; i++) {
        assert_true(fabs(is->loss[i] - right->loss[i]) <= most.loss * right->loss[i]);
        assert_true(fabs(is->validation[i] - right->validation[i]) <= most.loss * right->validation[i]);
    }
    assert_true(fabs(is->inference - right->inference) <= most.loss * right->inference);
}

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
    outcome plain = search(DC_PRECISION_F32), narrow = search(DC_PRECISION_BF16);
    check_narrow("search in bf16", &narrow, &plain, (apart){0.02, 0.3, 0.01});
    outcome_clear(&plain);
    outcome_clear(&narrow);
}

static void a_training_follows_float(void **state)
{
    (void)state;
    outcome plain = train(DC_PRECISION_F32, false), tf32 = train(DC_PRECISION_TF32, false);
    outcome narrow = train(DC_PRECISION_BF16, false);
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
    outcome plain = train(DC_PRECISION_BF16, false), timed = train(DC_PRECISION_BF16, true);
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
