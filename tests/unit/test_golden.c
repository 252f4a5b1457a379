/* What PyTorch computed (tests/golden), dcanas computes: values, losses, gradients, updates, for every instruction set
 * that this machine runs. */
#include "tests/support/rig.h"

#include "nn/schedule.h"
#include "search/supernet.h"
#include "space/network.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const double tolerance = 1e-4;

enum { OP_BATCH = 18, OP_CHANNELS = 4, OP_CLASSES = 5, MOST_TESTS = 256 };

static const char *const isas[] = {"portable", "avx2", "avx512", "avx512_bf16", "cuda"};

static void check_number(const golden *g, const char *kind, const char *name, double x)
{
    float value = (float)x;
    golden_check(g, kind, name, &value, 1, tolerance);
}

/* ---- operations ---- */

typedef struct op_case op_case;
struct op_case {
    const char *name;
    int size;
    float smoothing;
    int (*build)(dc_graph *g, const op_case *c, int x);
    int out_c, kernel, stride, pad, dilation, groups;
    bool affine;
};

static int build_conv(dc_graph *g, const op_case *c, int x)
{
    return dc_graph_conv(g, "op", x, c->out_c, c->kernel, c->stride, c->pad, c->pad, c->dilation, c->groups);
}

static int build_relu_conv(dc_graph *g, const op_case *c, int x)
{
    int y = dc_graph_relu(g, "op.relu", x);
    return dc_graph_conv(g, "op.conv", y, c->out_c, c->kernel, c->stride, c->pad, c->pad, c->dilation, c->groups);
}

static int build_norm(dc_graph *g, const op_case *c, int x)
{
    return dc_graph_batch_norm(g, "op", x, c->affine);
}

static int build_relu(dc_graph *g, const op_case *c, int x)
{
    (void)c;
    return dc_graph_relu(g, "op", x);
}

static int build_max_pool(dc_graph *g, const op_case *c, int x)
{
    return dc_graph_max_pool(g, "op", x, c->kernel, c->stride, c->pad);
}

static int build_avg_pool(dc_graph *g, const op_case *c, int x)
{
    return dc_graph_avg_pool(g, "op", x, c->kernel, c->stride, c->pad);
}

static int build_global_pool(dc_graph *g, const op_case *c, int x)
{
    (void)c;
    return dc_graph_global_avg_pool(g, "op", x);
}

static int build_two(dc_graph *g, int x, int features[3])
{
    features[0] = dc_graph_conv(g, "op.a", x, OP_CHANNELS, 1, 1, 0, 0, 1, 1);
    return features[1] = dc_graph_conv(g, "op.b", x, OP_CHANNELS, 1, 1, 0, 0, 1, 1);
}

static int build_add(dc_graph *g, const op_case *c, int x)
{
    (void)c;
    int features[3];
    build_two(g, x, features);
    return dc_graph_add(g, "op", 2, features);
}

static int build_concat(dc_graph *g, const op_case *c, int x)
{
    (void)c;
    int features[3];
    build_two(g, x, features);
    features[2] = x;
    return dc_graph_concat(g, "op", 3, features);
}

/* The second feature stands in the mix twice. */
static int build_mix(dc_graph *g, const op_case *c, int x)
{
    (void)c;
    int features[3];
    features[2] = build_two(g, x, features);
    int softmax = dc_graph_softmax(g, "op.alpha", 2, 3, 1e-3f);
    return dc_graph_mix(g, "op", softmax, 3, features, (int[3]){3, 5, 1});
}

static int build_factorized_reduce(dc_graph *g, const op_case *c, int x)
{
    return dc_block_factorized_reduce(g, "op", x, c->out_c, c->affine);
}

static int build_sep_conv(dc_graph *g, const op_case *c, int x)
{
    return dc_block_sep_conv(g, "op", x, c->kernel, c->stride, c->affine);
}

static int build_dil_conv(dc_graph *g, const op_case *c, int x)
{
    return dc_block_dil_conv(g, "op", x, c->kernel, c->stride, c->affine);
}

#define BLOCKS(suffix, is_affine)                                                                                      \
    {"sep_conv_3x3_stride_1" suffix, 7, 0, build_sep_conv, 0, 3, 1, 0, 0, 0, is_affine},                               \
        {"sep_conv_3x3_stride_2" suffix, 7, 0, build_sep_conv, 0, 3, 2, 0, 0, 0, is_affine},                           \
        {"sep_conv_5x5_stride_1" suffix, 7, 0, build_sep_conv, 0, 5, 1, 0, 0, 0, is_affine},                           \
        {"sep_conv_5x5_stride_2" suffix, 7, 0, build_sep_conv, 0, 5, 2, 0, 0, 0, is_affine},                           \
        {"dil_conv_3x3_stride_1" suffix, 7, 0, build_dil_conv, 0, 3, 1, 0, 0, 0, is_affine},                           \
        {"dil_conv_3x3_stride_2" suffix, 7, 0, build_dil_conv, 0, 3, 2, 0, 0, 0, is_affine},                           \
        {"dil_conv_5x5_stride_1" suffix, 7, 0, build_dil_conv, 0, 5, 1, 0, 0, 0, is_affine},                           \
        {"dil_conv_5x5_stride_2" suffix, 7, 0, build_dil_conv, 0, 5, 2, 0, 0, 0, is_affine},                           \
    {                                                                                                                  \
        "factorized_reduce" suffix, 8, 0, build_factorized_reduce, 6, 0, 0, 0, 0, 0, is_affine                         \
    }

/* name, size, smoothing, builder, out_c, kernel, stride, pad, dilation, groups, affine */
static const op_case op_cases[] = {
    {"conv_1x1", 7, 0, build_conv, 6, 1, 1, 0, 1, 1, false},
    {"conv_3x3", 7, 0, build_conv, 6, 3, 1, 1, 1, 1, false},
    {"conv_3x3_stride_2", 7, 0, build_conv, 6, 3, 2, 1, 1, 1, false},
    {"conv_2x2", 7, 0, build_conv, 6, 2, 1, 0, 1, 1, false},
    {"conv_grouped", 7, 0, build_conv, 6, 3, 1, 1, 1, 2, false},
    {"conv_depthwise_3x3", 7, 0, build_conv, 4, 3, 1, 1, 1, 4, false},
    {"conv_depthwise_5x5_stride_2", 7, 0, build_conv, 4, 5, 2, 2, 1, 4, false},
    {"conv_dilated", 7, 0, build_conv, 6, 3, 1, 2, 2, 1, false},
    {"conv_depthwise_5x5_dilated", 7, 0, build_conv, 4, 5, 1, 4, 2, 4, false},
    {"conv_depthwise_3x3_dilated_stride_2", 7, 0, build_conv, 4, 3, 2, 2, 2, 4, false},
    {"relu_conv", 7, 0, build_relu_conv, 6, 3, 1, 1, 1, 1, false},
    {"batch_norm", 7, 0, build_norm, 0, 0, 0, 0, 0, 0, false},
    {"batch_norm_affine", 7, 0, build_norm, 0, 0, 0, 0, 0, 0, true},
    {"relu", 7, 0, build_relu, 0, 0, 0, 0, 0, 0, false},
    {"max_pool", 7, 0, build_max_pool, 0, 3, 1, 1, 0, 0, false},
    {"max_pool_stride_2", 7, 0, build_max_pool, 0, 3, 2, 1, 0, 0, false},
    {"avg_pool", 7, 0, build_avg_pool, 0, 3, 1, 1, 0, 0, false},
    {"avg_pool_stride_2", 7, 0, build_avg_pool, 0, 3, 2, 1, 0, 0, false},
    {"avg_pool_5x5_stride_3", 7, 0, build_avg_pool, 0, 5, 3, 0, 0, 0, false},
    {"global_avg_pool", 7, 0, build_global_pool, 0, 0, 0, 0, 0, 0, false},
    {"add", 7, 0, build_add, 0, 0, 0, 0, 0, 0, false},
    {"concat", 7, 0, build_concat, 0, 0, 0, 0, 0, 0, false},
    {"mix", 7, 0, build_mix, 0, 0, 0, 0, 0, 0, false},
    {"cross_entropy_smoothed", 3, 0.1f, build_conv, 6, 1, 1, 0, 1, 1, false},
    BLOCKS("", false),
    BLOCKS("_affine", true),
};

typedef struct op_graph {
    dc_graph *graph;
    int pre, op;
} op_graph;

/* images -> pre (1x1 convolution) -> op -> head (linear) -> cross entropy */
static op_graph build_op(const op_case *c)
{
    dc_graph *g = dc_graph_create((dc_shape){3, c->size, c->size});
    assert_non_null(g);
    int pre = dc_graph_conv(g, "pre", g->input, OP_CHANNELS, 1, 1, 0, 0, 1, 1);
    int op = c->build(g, c, pre);
    g->logits = dc_graph_linear(g, "head", op, OP_CLASSES);
    dc_graph_cross_entropy(g, "loss", g->logits, c->smoothing, 1);
    rig_ok(dc_graph_check(g));
    return (op_graph){g, pre, op};
}

static void seed_text(const golden *g, const char *prefix, char text[64])
{
    snprintf(text, 64, "%s%d", prefix, (int)golden_number(g, "seed", "images"));
}

static void check_op(const char *isa, const op_case *c)
{
    golden *g = golden_open("operations", c->name);
    op_graph training = build_op(c), inference = build_op(c);
    rig *r = rig_create(isa, training.graph, inference.graph, NULL, OP_BATCH, OP_CLASSES, training.op);
    char seed[64];
    seed_text(g, "", seed);
    rig_train(r, seed, DC_GRAD_WEIGHTS | DC_GRAD_ALPHA);
    rig_check_node(r, g, r->training, "value", "op", training.op);
    rig_check_node(r, g, r->training, "value", "head", training.graph->logits);
    check_number(g, "loss", "train", rig_metrics(r, r->training).loss);
    rig_check_node_grad(r, g, "pre", training.pre);
    rig_check_params(r, g, "grad", DC_ROLE_WEIGHT, tolerance);
    rig_check_params(r, g, "grad", DC_ROLE_ALPHA, tolerance);
    rig_check_params(r, g, "state", DC_ROLE_STATE, tolerance);
    rig_infer(r);
    rig_check_node(r, g, r->inference, "inference", "head", inference.graph->logits);
    check_number(g, "loss", "inference", rig_metrics(r, r->inference).loss);
    rig_destroy(r);
    golden_close(g);
}

/* ---- the target network ---- */

static dc_graph *build_target(void)
{
    dc_genotype genotype;
    rig_ok(dc_genotype_lookup("DARTS_V2", &genotype));
    dc_network_options options = dc_network_defaults(DC_NETWORK_CIFAR);
    options.channels = 4;
    options.cells = 5;
    options.losses = true;
    dc_graph *graph = NULL;
    rig_ok(dc_network_build(&genotype, &options, &graph));
    return graph;
}

static const dc_sgd_options darts_sgd = {.momentum = 0.9, .weight_decay = 3e-4, .clip = 5};

static void check_target(const char *isa)
{
    golden *g = golden_open("target", "cifar_darts_v2");
    dc_graph *graph = build_target(), *inference = build_target();
    int side = rig_node(graph, "auxiliary.classifier");
    rig *r = rig_create(isa, graph, inference, NULL, 5, 10, side);
    char seed[64];
    seed_text(g, "", seed);
    rig_train(r, seed, DC_GRAD_WEIGHTS);
    rig_check_node(r, g, r->training, "value", "logits", graph->logits);
    rig_check_node(r, g, r->training, "value", "auxiliary_logits", side);
    check_number(g, "loss", "train", rig_metrics(r, r->training).loss);
    check_number(g, "loss", "auxiliary", rig_metrics(r, r->training).auxiliary);
    rig_check_params(r, g, "grad", DC_ROLE_WEIGHT, tolerance);
    double norm = 0;
    rig_ok(dc_model_sgd(r->training, &darts_sgd, 0.025, &norm));
    check_number(g, "norm", "grad", norm);
    rig_check_params(r, g, "updated", DC_ROLE_WEIGHT, tolerance);
    rig_check_params(r, g, "state", DC_ROLE_STATE, tolerance);
    rig_infer(r);
    rig_check_node(r, g, r->inference, "inference", "logits", inference->logits);
    check_number(g, "loss", "inference", rig_metrics(r, r->inference).loss);
    rig_destroy(r);
    golden_close(g);
}

/* ---- supernet steps ---- */

typedef struct supernet_case {
    const char *file, *name;
    int channels, cells, size, batch;
    bool sharing, bottleneck, derived_cells;
} supernet_case;

static const supernet_case supernet_cases[] = {
    {"supernet", "darts", 4, 5, 16, 4, false, false, false}, {"cells", "darts", 4, 3, 8, 6, false, false, false},
    {"cells", "shared", 4, 3, 8, 6, true, false, false},     {"cells", "narrow", 8, 3, 8, 6, false, true, false},
    {"cells", "derived", 8, 5, 8, 6, true, true, true},
};

static void check_supernet(const char *isa, const supernet_case *c)
{
    golden *g = golden_open(c->file, c->name);
    dc_supernet_options options = dc_supernet_defaults(DC_NETWORK_CIFAR);
    options.input = (dc_shape){3, c->size, c->size};
    options.channels = c->channels;
    options.cells = c->cells;
    options.sharing = c->sharing;
    options.bottleneck = c->bottleneck;
    options.derived_cells = c->derived_cells;
    dc_genotype genotype;
    rig_ok(dc_genotype_lookup("DARTS_V2", &genotype));
    dc_graph *all = NULL, *graph = NULL;
    rig_ok(dc_supernet_build(&options, NULL, true, &all));
    rig_ok(dc_supernet_build(&options, c->derived_cells ? &genotype : NULL, true, &graph));
    rig *r = rig_create(isa, graph, NULL, all, c->batch, 10, -1);

    char seed[64];
    seed_text(g, "validation.", seed);
    rig_train(r, seed, DC_GRAD_ALPHA);
    rig_check_node(r, g, r->training, "value", "logits.validation", graph->logits);
    check_number(g, "loss", "validation", rig_metrics(r, r->training).loss);
    rig_check_params(r, g, "grad", DC_ROLE_ALPHA, tolerance);
    dc_adam adam = {
        .learning_rate = 3e-4f, .beta1 = 0.5f, .beta2 = 0.999f, .epsilon = 1e-8f, .weight_decay = 1e-3f, .step = 1};
    rig_ok(r->backend->call->adam(r->backend, r->training->n_alpha, r->training->alpha, &adam));
    rig_check_params(r, g, "updated", DC_ROLE_ALPHA, tolerance);

    seed_text(g, "train.", seed);
    rig_train(r, seed, DC_GRAD_WEIGHTS);
    rig_check_node(r, g, r->training, "value", "logits.train", graph->logits);
    check_number(g, "loss", "train", rig_metrics(r, r->training).loss);
    rig_check_params(r, g, "grad", DC_ROLE_WEIGHT, tolerance);
    double norm = 0;
    rig_ok(dc_model_sgd(r->training, &darts_sgd, 0.025, &norm));
    check_number(g, "norm", "grad", norm);
    rig_check_params(r, g, "updated", DC_ROLE_WEIGHT, tolerance);
    rig_check_params(r, g, "state", DC_ROLE_STATE, tolerance);
    rig_destroy(r);
    dc_graph_destroy(all);
    golden_close(g);
}

/* ---- optimizers and schedules ---- */

enum { OPTIMIZER_COUNT = 37, OPTIMIZER_STEPS = 5 };

static void check_optimizer(const char *isa, const char *name)
{
    golden *g = golden_open("optimizers", name);
    dc_backend *backend = rig_backend(isa);
    size_t bytes = OPTIMIZER_COUNT * sizeof(float);
    void *memory[4];
    for (int i = 0; i < 4; i++)
        rig_ok(backend->call->alloc(backend, bytes, &memory[i]));
    dc_segment segment = {memory[0], memory[1], memory[2], memory[3], OPTIMIZER_COUNT};
    float host[OPTIMIZER_COUNT];
    for (size_t i = 0; i < OPTIMIZER_COUNT; i++)
        host[i] = golden_draw(dc_rng_stream("value"), i);
    rig_ok(backend->call->copy_in(backend, segment.value, host, bytes));
    bool plain = strcmp(name, "sgd_plain") == 0;
    dc_sgd sgd = {.learning_rate = 0.1f,
                  .momentum = plain ? 0 : 0.9f,
                  .weight_decay = plain ? 0 : 1e-2f,
                  .nesterov = strcmp(name, "sgd_nesterov") == 0};
    dc_adam adam = {.learning_rate = 0.1f, .beta1 = 0.5f, .beta2 = 0.999f, .epsilon = 1e-8f, .weight_decay = 1e-2f};
    for (uint32_t step = 1; step <= OPTIMIZER_STEPS; step++) {
        char text[32];
        snprintf(text, sizeof text, "grad.%u", step);
        for (size_t i = 0; i < OPTIMIZER_COUNT; i++)
            host[i] = golden_draw(dc_rng_stream(text), i);
        rig_ok(backend->call->copy_in(backend, segment.grad, host, bytes));
        adam.step = step;
        if (strcmp(name, "adam") == 0)
            rig_ok(backend->call->adam(backend, 1, &segment, &adam));
        else
            rig_ok(backend->call->sgd(backend, 1, &segment, &sgd, NULL));
        rig_ok(backend->call->copy_out(backend, host, segment.value, bytes));
        snprintf(text, sizeof text, "step.%u", step);
        golden_check(g, "updated", text, host, OPTIMIZER_COUNT, 1e-6);
    }
    for (int i = 0; i < 4; i++)
        backend->call->release(backend, memory[i], bytes);
    dc_backend_destroy(backend);
    golden_close(g);
}

static void check_schedule(const char *name, dc_schedule_kind kind)
{
    enum { EPOCHS = 20 };
    golden *g = golden_open("schedules", name);
    for (int warm = 0; warm < 2; warm++) {
        dc_schedule schedule = {.kind = kind,
                                .learning_rate = 0.4,
                                .minimum = 0.01,
                                .epochs = EPOCHS,
                                .warmup_epochs = warm ? 4 : 0,
                                .step_epochs = 3,
                                .decay = 0.5};
        float rates[EPOCHS];
        for (int epoch = 0; epoch < EPOCHS; epoch++)
            rates[epoch] = (float)dc_schedule_rate(&schedule, epoch);
        golden_check(g, "rate", warm ? "warmup" : "plain", rates, EPOCHS, 1e-6);
    }
    golden_close(g);
}

static void schedules(void **state)
{
    (void)state;
    check_schedule("cosine", DC_SCHEDULE_COSINE);
    check_schedule("linear", DC_SCHEDULE_LINEAR);
    check_schedule("step", DC_SCHEDULE_STEP);
}

/* ---- one test for each case and instruction set ---- */

typedef struct work {
    const char *isa;
    const op_case *op;
    const supernet_case *supernet;
    const char *optimizer;
    char name[96];
} work;

static void run(void **state)
{
    const work *w = *state;
    if (w->op)
        check_op(w->isa, w->op);
    else if (w->supernet)
        check_supernet(w->isa, w->supernet);
    else if (w->optimizer)
        check_optimizer(w->isa, w->optimizer);
    else
        check_target(w->isa);
}

static void add(struct CMUnitTest *tests, work *all, int *n, work w, const char *what)
{
    if (*n == MOST_TESTS)
        abort();
    work *mine = &all[*n];
    *mine = w;
    snprintf(mine->name, sizeof mine->name, "%s on %s", what, w.isa);
    tests[(*n)++] = (struct CMUnitTest){mine->name, run, NULL, NULL, mine};
}

int main(void)
{
    static struct CMUnitTest tests[MOST_TESTS];
    static work all[MOST_TESTS];
    static const char *const optimizers[] = {"sgd", "sgd_nesterov", "sgd_plain", "adam"};
    int n = 0;
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
        if (!rig_runs(isas[i]))
            continue;
        for (size_t k = 0; k < sizeof op_cases / sizeof *op_cases; k++)
            add(tests, all, &n, (work){.isa = isas[i], .op = &op_cases[k]}, op_cases[k].name);
        for (size_t k = 0; k < sizeof optimizers / sizeof *optimizers; k++)
            add(tests, all, &n, (work){.isa = isas[i], .optimizer = optimizers[k]}, optimizers[k]);
        add(tests, all, &n, (work){.isa = isas[i]}, "CIFAR target network");
        for (size_t k = 0; k < sizeof supernet_cases / sizeof *supernet_cases; k++) {
            const supernet_case *c = &supernet_cases[k];
            char what[64];
            snprintf(what, sizeof what, "step of %s %s", c->file, c->name);
            add(tests, all, &n, (work){.isa = isas[i], .supernet = c}, what);
        }
    }
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(schedules);
    return _cmocka_run_group_tests("golden", tests, (size_t)n, NULL, NULL);
}
