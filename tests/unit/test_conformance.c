/* Every backend computes every operation as the plain reference does, and the reference's gradients are those of finite
 * differences. Also: no kernel touches what is not its own, garbage in unused lanes reaches nothing, and the number of
 * threads changes no bit. */
#include "backend/cpu/cpu_backend.h"
#include "tests/support/reference_backend.h"
#include "tests/support/trial.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

static void must(dc_status status)
{
    if (status != DC_OK)
        fail_msg("%s", dc_status_message());
}

/* ---- cases: an operation with its attributes on a shape ---- */

typedef struct op_case {
    const char *name;
    dc_op op;
    dc_shape in;
    int a[6]; /* attributes, see build() */
    int batch, n_images;
} op_case;

/* CONV: out_c, kernel, stride, pad_begin and pad_end (as 16 * begin + end, offset by 8 each), dilation, groups.
 * Pools: kernel, stride, pad. LINEAR: out. BATCH_NORM: affine. ADD, MIX, CONCAT: inputs. ZERO: stride.
 * SOFTMAX: rows, columns. CROSS_ENTROPY: smoothing, weight, both in hundredths. DROPOUT: rate in hundredths. */
#define PAD(begin, end) (((begin) + 8) * 16 + (end) + 8)

static const op_case cases[] = {
    {"conv 1x1", DC_OP_CONV, {5, 7, 6}, {9, 1, 1, PAD(0, 0), 1, 1}, 20, 20},
    {"conv 1x1 wide", DC_OP_CONV, {19, 6, 5}, {34, 1, 1, PAD(0, 0), 1, 1}, 33, 33},
    {"conv 1x1 stride 2", DC_OP_CONV, {6, 8, 9}, {4, 1, 2, PAD(0, 0), 1, 1}, 16, 16},
    {"conv 1x1 shifted, even", DC_OP_CONV, {6, 8, 8}, {4, 1, 2, PAD(-1, 0), 1, 1}, 16, 16},
    {"conv 1x1 shifted, odd", DC_OP_CONV, {3, 7, 9}, {5, 1, 2, PAD(-1, 1), 1, 1}, 18, 18},
    {"conv 3x3 stem", DC_OP_CONV, {3, 10, 11}, {13, 3, 1, PAD(1, 1), 1, 1}, 17, 17},
    {"conv 3x3 stride 2", DC_OP_CONV, {8, 9, 8}, {8, 3, 2, PAD(1, 1), 1, 1}, 16, 16},
    {"conv 3x3 stride 2 dilation 2", DC_OP_CONV, {4, 9, 8}, {5, 3, 2, PAD(2, 2), 2, 1}, 17, 17},
    {"conv 2x2 stride 3", DC_OP_CONV, {4, 9, 8}, {5, 2, 3, PAD(0, 0), 1, 1}, 17, 17},
    {"conv 3x3 no padding", DC_OP_CONV, {4, 5, 6}, {6, 3, 1, PAD(0, 0), 1, 1}, 5, 5},
    {"conv 2x2 to one pixel", DC_OP_CONV, {12, 2, 2}, {20, 2, 1, PAD(0, 0), 1, 1}, 21, 21},
    {"conv 3x3 two groups", DC_OP_CONV, {6, 6, 5}, {4, 3, 1, PAD(1, 1), 1, 2}, 16, 16},
    {"conv 5x5 dilation 2", DC_OP_CONV, {2, 11, 10}, {3, 5, 1, PAD(4, 4), 2, 1}, 16, 16},
    {"conv 7x1 like", DC_OP_CONV, {3, 9, 9}, {2, 7, 3, PAD(3, 2), 1, 1}, 16, 16},
    {"depthwise 3x3", DC_OP_CONV, {4, 9, 8}, {4, 3, 1, PAD(1, 1), 1, 4}, 20, 20},
    {"depthwise 3x3 tiny", DC_OP_CONV, {5, 1, 2}, {5, 3, 1, PAD(1, 1), 1, 5}, 20, 20},
    {"depthwise 3x3 stride 2", DC_OP_CONV, {4, 9, 8}, {4, 3, 2, PAD(1, 1), 1, 4}, 33, 33},
    {"depthwise 5x5", DC_OP_CONV, {4, 8, 7}, {4, 5, 1, PAD(2, 2), 1, 4}, 17, 17},
    {"depthwise 5x5 stride 2", DC_OP_CONV, {3, 8, 7}, {3, 5, 2, PAD(2, 2), 1, 3}, 17, 17},
    {"dilated 3x3", DC_OP_CONV, {4, 8, 9}, {4, 3, 1, PAD(2, 2), 2, 4}, 16, 16},
    {"dilated 5x5", DC_OP_CONV, {4, 8, 9}, {4, 5, 1, PAD(4, 4), 2, 4}, 16, 16},
    {"dilated 5x5 stride 2", DC_OP_CONV, {4, 7, 8}, {4, 5, 2, PAD(4, 4), 2, 4}, 16, 16},
    {"dilated 5x5 on 4x4", DC_OP_CONV, {4, 4, 4}, {4, 5, 1, PAD(4, 4), 2, 4}, 16, 16},
    {"depthwise, two outputs a channel", DC_OP_CONV, {3, 6, 6}, {6, 3, 1, PAD(1, 1), 1, 3}, 16, 16},
    {"depthwise 7x7", DC_OP_CONV, {2, 9, 9}, {2, 7, 1, PAD(3, 3), 1, 2}, 16, 16},
    {"batch norm", DC_OP_BATCH_NORM, {5, 7, 6}, {1}, 33, 33},
    {"batch norm, not affine", DC_OP_BATCH_NORM, {4, 17, 19}, {0}, 20, 20},
    {"batch norm, one pixel", DC_OP_BATCH_NORM, {3, 1, 1}, {1}, 16, 16},
    {"relu", DC_OP_RELU, {5, 6, 7}, {0}, 20, 20},
    {"max pool 3x3", DC_OP_MAX_POOL, {4, 9, 8}, {3, 1, 1}, 20, 20},
    {"max pool 3x3 stride 2", DC_OP_MAX_POOL, {4, 9, 8}, {3, 2, 1}, 17, 17},
    {"max pool 3x3 no padding", DC_OP_MAX_POOL, {2, 7, 6}, {3, 1, 0}, 16, 16},
    {"max pool 3x3 one pixel", DC_OP_MAX_POOL, {2, 1, 1}, {3, 1, 1}, 16, 16},
    {"max pool 2x2 stride 2", DC_OP_MAX_POOL, {2, 7, 8}, {2, 2, 0}, 16, 16},
    {"max pool 5x5 stride 3", DC_OP_MAX_POOL, {2, 8, 11}, {5, 3, 2}, 16, 16},
    {"avg pool 3x3", DC_OP_AVG_POOL, {4, 9, 8}, {3, 1, 1}, 20, 20},
    {"avg pool 3x3 stride 2", DC_OP_AVG_POOL, {4, 9, 8}, {3, 2, 1}, 17, 17},
    {"avg pool 3x3 no padding", DC_OP_AVG_POOL, {2, 7, 6}, {3, 1, 0}, 16, 16},
    {"avg pool 3x3 much padding", DC_OP_AVG_POOL, {2, 4, 5}, {3, 1, 2}, 16, 16},
    {"avg pool 3x3 two pixels", DC_OP_AVG_POOL, {2, 2, 1}, {3, 1, 1}, 16, 16},
    {"avg pool 3x3 stride 3", DC_OP_AVG_POOL, {2, 8, 7}, {3, 3, 1}, 16, 16},
    {"avg pool 5x5 stride 3", DC_OP_AVG_POOL, {3, 8, 8}, {5, 3, 0}, 16, 16},
    {"avg pool 2x2 stride 2", DC_OP_AVG_POOL, {3, 8, 7}, {2, 2, 0}, 16, 16},
    {"global average pool", DC_OP_GLOBAL_AVG_POOL, {7, 5, 4}, {0}, 20, 20},
    {"linear", DC_OP_LINEAR, {7, 1, 1}, {10}, 20, 20},
    {"linear, spatial", DC_OP_LINEAR, {3, 3, 5}, {6}, 37, 37},
    {"add of one", DC_OP_ADD, {3, 5, 4}, {1}, 20, 20},
    {"add", DC_OP_ADD, {3, 5, 4}, {2}, 20, 20},
    {"add of five", DC_OP_ADD, {3, 15, 14}, {5}, 20, 20},
    {"softmax", DC_OP_SOFTMAX, {1, 1, 1}, {5, 8}, 16, 16},
    {"mix of one", DC_OP_MIX, {3, 5, 4}, {1}, 17, 17},
    {"mix", DC_OP_MIX, {4, 9, 8}, {8}, 20, 20},
    {"mix of eleven", DC_OP_MIX, {3, 19, 20}, {11}, 33, 33},
    {"concat", DC_OP_CONCAT, {3, 5, 4}, {4}, 20, 20},
    {"zero", DC_OP_ZERO, {3, 5, 4}, {1}, 20, 20},
    {"zero stride 2", DC_OP_ZERO, {3, 5, 4}, {2}, 20, 20},
    {"drop-path", DC_OP_DROP_PATH, {3, 5, 4}, {0}, 40, 40},
    {"dropout", DC_OP_DROPOUT, {3, 5, 3}, {40}, 40, 40},
    {"cross entropy", DC_OP_CROSS_ENTROPY, {10, 1, 1}, {0, 100}, 20, 20},
    {"cross entropy, smoothed", DC_OP_CROSS_ENTROPY, {7, 1, 1}, {10, 40}, 33, 33},
    {"cross entropy, two classes", DC_OP_CROSS_ENTROPY, {2, 1, 1}, {20, 100}, 5, 5},
};

enum { N_CASES = sizeof cases / sizeof *cases };

/* Inputs of several channels where the operation takes them: 1x1 convolutions of the graph's input make the shapes. */
static int build_many(dc_graph *g, const op_case *c)
{
    int x[DC_TRIAL_INPUTS], index[DC_TRIAL_INPUTS], n = c->a[0];
    for (int i = 0; i < n; i++) {
        char name[32];
        snprintf(name, sizeof name, "source.%d", i);
        int channels = c->op == DC_OP_CONCAT ? c->in.c + i : c->in.c;
        x[i] = dc_graph_conv(g, name, g->input, channels, 1, 1, 0, 0, 1, 1);
        index[i] = (3 * i + 1) % (n + 1);
    }
    if (n > 4)
        index[2] = index[4]; /* two features with one weight */
    if (c->op == DC_OP_ADD)
        return dc_graph_add(g, "node", n, x);
    if (c->op == DC_OP_CONCAT)
        return dc_graph_concat(g, "node", n, x);
    return dc_graph_mix(g, "node", dc_graph_softmax(g, "alpha", 1, n + 1, 1), n, x, index);
}

static int build(dc_graph *g, const op_case *c)
{
    const int *a = c->a;
    switch (c->op) {
    case DC_OP_CONV:
        return dc_graph_conv(g, "node", g->input, a[0], a[1], a[2], a[3] / 16 - 8, a[3] % 16 - 8, a[4], a[5]);
    case DC_OP_BATCH_NORM:
        return dc_graph_batch_norm(g, "node", g->input, a[0]);
    case DC_OP_RELU:
        return dc_graph_relu(g, "node", g->input);
    case DC_OP_MAX_POOL:
        return dc_graph_max_pool(g, "node", g->input, a[0], a[1], a[2]);
    case DC_OP_AVG_POOL:
        return dc_graph_avg_pool(g, "node", g->input, a[0], a[1], a[2]);
    case DC_OP_GLOBAL_AVG_POOL:
        return dc_graph_global_avg_pool(g, "node", g->input);
    case DC_OP_LINEAR:
        return dc_graph_linear(g, "node", g->input, a[0]);
    case DC_OP_SOFTMAX:
        return dc_graph_softmax(g, "node", a[0], a[1], 1);
    case DC_OP_ZERO:
        return dc_graph_zero(g, "node", g->input, a[0]);
    case DC_OP_DROP_PATH:
        return dc_graph_drop_path(g, "node", g->input);
    case DC_OP_DROPOUT:
        return dc_graph_dropout(g, "node", g->input, (float)a[0] / 100);
    case DC_OP_CROSS_ENTROPY:
        return dc_graph_cross_entropy(g, "node", g->input, (float)a[0] / 100, (float)a[1] / 100);
    default:
        return build_many(g, c);
    }
}

/* The case's graph and a training trial of it. */
static dc_trial trial_of(const op_case *c, dc_graph **g)
{
    *g = dc_graph_create(c->in);
    assert_non_null(*g);
    dc_trial t = {.graph = *g, .node = build(*g, c), .batch = c->batch, .want_inputs = true, .want_params = true};
    must(dc_graph_check(*g));
    t.step = (dc_step){.n_images = c->n_images,
                       .training = true,
                       .drop_path_rate = 0.3f,
                       .momentum = 0.1f,
                       .seed = 12345,
                       .index = 17,
                       .first_image = 1000};
    return t;
}

/* ---- comparison ---- */

/* By how much results may differ from the reference's, as a share of a tensor's largest magnitude. */
typedef struct tolerances {
    double values, products, gradients; /* of what belongs to images; of that of a convolution or linear layer; of dw of
                                           a dense convolution */
    double floats;                      /* of all else: statistics, losses, other gradients of parameters */
} tolerances;

/* TF32 rounds the factors of products to 11 bits. bfloat16 has 8: what is written is rounded once, a product's result
 * twice where a bias or what was there is added to it; also dw of a dense convolution is. */
static tolerances tolerances_of(dc_precision precision)
{
    const tolerances all[DC_PRECISIONS] = {[DC_PRECISION_F32] = {2e-5, 2e-5, 2e-5, 2e-5},
                                           [DC_PRECISION_TF32] = {2e-5, 1.0 / 1024, 1.0 / 1024, 2e-5},
                                           [DC_PRECISION_BF16] = {1.0 / 256, 1.0 / 128, 1.0 / 256, 2e-5}};
    return all[precision];
}

/* Largest difference against the largest magnitude. */
static void assert_close(const char *label, const char *what, const float *got, const float *wanted, size_t n,
                         double tolerance)
{
    double error = 0, size = 1e-3;
    size_t worst = 0;
    for (size_t i = 0; i < n; i++) {
        double difference = fabs((double)got[i] - (double)wanted[i]);
        if (!isfinite(difference))
            difference = INFINITY;
        if (difference > error) {
            error = difference;
            worst = i;
        }
        size = fmax(size, fabs((double)wanted[i]));
    }
    if (!(error <= tolerance * size))
        fail_msg("%s: %s differs by %g of %g at %zu of %zu: %.9g, not %.9g", label, what, error, size, worst, n,
                 (double)got[worst], (double)wanted[worst]);
}

static void assert_operands_close(const char *label, const dc_trial *t, const dc_operands *got,
                                  const dc_operands *wanted, dc_precision precision)
{
    const dc_graph *g = t->graph;
    const dc_node *node = &g->nodes[t->node];
    const tolerances most = tolerances_of(precision);
    const int in_c = node->n_inputs ? g->nodes[node->inputs[0]].shape.c : 0;
    const bool depthwise = in_c > 1 && node->attr.groups == in_c && node->shape.c == in_c;
    const bool dense = node->op == DC_OP_CONV && !depthwise;
    const bool product = dense || node->op == DC_OP_LINEAR;
    const double values = product ? most.products : most.values;
    assert_close(label, "output", got->y, wanted->y, got->n_y, node->batch_free ? most.floats : values);
    for (int i = 0; i < got->n_inputs; i++)
        assert_close(label, "input gradient", got->dx[i], wanted->dx[i], got->n_x[i],
                     g->nodes[node->inputs[i]].batch_free ? most.floats : values);
    for (int p = 0; p < got->n_params; p++) {
        const char *name = g->params[node->params[p]].name;
        assert_close(label, name, got->param[p], wanted->param[p], got->n_param[p], most.floats);
        assert_close(label, "parameter gradient", got->dparam[p], wanted->dparam[p], got->n_param[p],
                     dense                                       ? most.gradients
                     : product && precision == DC_PRECISION_TF32 ? most.products
                                                                 : most.floats);
    }
}

static void round_to_bf16(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
        memcpy(&x[i], &bits, sizeof bits);
    }
}

/* What a device holds in bfloat16 is given to the reference so, too. */
static void round_operands(dc_operands *o)
{
    for (int i = 0; i < o->n_inputs; i++) {
        round_to_bf16(o->x[i], o->n_x[i]);
        round_to_bf16(o->dx[i], o->n_x[i]);
    }
    round_to_bf16(o->dy, o->n_y);
    for (int p = 0; p < o->n_params; p++)
        round_to_bf16(o->param[p], o->n_param[p]);
}

static void assert_operands_identical(const char *label, const dc_operands *a, const dc_operands *b)
{
    bool same = !memcmp(a->y, b->y, a->n_y * sizeof(float));
    for (int i = 0; i < a->n_inputs; i++)
        same &= !memcmp(a->dx[i], b->dx[i], a->n_x[i] * sizeof(float));
    for (int p = 0; p < a->n_params; p++)
        same &= !memcmp(a->param[p], b->param[p], a->n_param[p] * sizeof(float)) &&
                !memcmp(a->dparam[p], b->dparam[p], a->n_param[p] * sizeof(float));
    if (!same)
        fail_msg("%s: results are not bitwise equal", label);
}

/* One trial on the backend against the reference. quantum > 0 rounds the inputs, which makes ties. */
static void assert_conforms(dc_backend *backend, dc_backend *reference, const dc_trial *t, const char *label,
                            float quantum, dc_precision precision)
{
    dc_operands *wanted = dc_operands_create(t, 42);
    assert_non_null(wanted);
    for (int i = 0; i < wanted->n_inputs && quantum > 0; i++)
        for (size_t k = 0; k < wanted->n_x[i]; k++)
            wanted->x[i][k] = roundf(wanted->x[i][k] / quantum) * quantum;
    if (precision == DC_PRECISION_BF16)
        round_operands(wanted);
    dc_operands *got = dc_operands_copy(wanted, t);
    assert_non_null(got);
    must(dc_trial_run(reference, t, wanted));
    dc_status status = dc_trial_run(backend, t, got);
    if (status != DC_OK)
        fail_msg("%s: %s", label, dc_status_message());
    assert_operands_close(label, t, got, wanted, precision);
    dc_operands_destroy(got);
    dc_operands_destroy(wanted);
}

/* ---- the backend against the reference ---- */

static void check_case(dc_backend *backend, dc_backend *reference, const op_case *c, dc_precision precision)
{
    dc_graph *g;
    const dc_trial whole = trial_of(c, &g);
    const char *isa = dc_backend_description(backend);
    char label[160];
    for (int variant = 0; variant < 8; variant++) {
        static const char *const names[] = {"",          "fewer images", "one block less", "accumulated",
                                            "inference", "only inputs",  "only params",    "ties"};
        dc_trial t = whole;
        if (variant == 1) {
            t.step.n_images = c->n_images > 3 ? c->n_images - 3 : 1;
            t.step.n_global = 2 * c->n_images;
        }
        if (variant == 2)
            t.batch += 16;
        t.accumulate = variant == 3;
        t.step.training = variant != 4;
        t.want_params = variant != 5;
        t.want_inputs = variant != 6;
        for (int relu = 0; relu <= (c->op == DC_OP_CONV); relu++) {
            t.relu_input = relu;
            snprintf(label, sizeof label, "%s, %s%s %s", isa, c->name, relu ? " after relu" : "", names[variant]);
            assert_conforms(backend, reference, &t, label, variant == 7 ? 0.5f : 0, precision);
        }
    }
    dc_graph_destroy(g);
}

static void check_backend(dc_backend *backend, dc_precision precision)
{
    dc_backend *reference;
    must(dc_reference_backend_create(&reference));
    for (int i = 0; i < N_CASES; i++)
        check_case(backend, reference, &cases[i], precision);
    dc_backend_destroy(reference);
    dc_backend_destroy(backend);
}

static void check_isa(const char *isa)
{
    static const dc_precision precisions[] = {DC_PRECISION_F32, DC_PRECISION_BF16};
    dc_backend *backend;
    for (int i = 0; i < 2; i++)
        if (getenv("DCANAS_TEST_DEVICE"))
            print_message("# %s: another device is tested\n", isa);
        else if (dc_cpu_backend_create_isa(isa, 2, precisions[i], &backend) == DC_OK)
            check_backend(backend, precisions[i]);
        else
            print_message("# this machine does not run %s: not tested\n", isa); /* skip() is a failure in TAP */
}

static void avx512_bf16_conforms(void **state)
{
    (void)state;
    check_isa("avx512_bf16");
}

static void avx512_conforms(void **state)
{
    (void)state;
    check_isa("avx512");
}

static void avx2_conforms(void **state)
{
    (void)state;
    check_isa("avx2");
}

static void portable_conforms(void **state)
{
    (void)state;
    check_isa("portable");
}

static void check_gpu(dc_precision precision)
{
    char what[192];
    dc_backend *backend;
    if (dc_backend_gpus(what, sizeof what) == 0 && !getenv("DCANAS_TEST_DEVICE")) {
        print_message("# not tested on a GPU: %s\n", what);
        return;
    }
    const dc_backend_options options = {.threads = 1, .precision = precision};
    must(dc_backend_create("cuda", &options, &backend));
    assert_non_null(strstr(dc_backend_description(backend), dc_precision_names[precision]));
    check_backend(backend, precision);
}

static void a_gpu_conforms(void **state)
{
    (void)state;
    check_gpu(DC_PRECISION_F32);
}

static void a_gpu_conforms_in_tf32(void **state)
{
    (void)state;
    check_gpu(DC_PRECISION_TF32);
}

static void a_gpu_conforms_in_bf16(void **state)
{
    (void)state;
    check_gpu(DC_PRECISION_BF16);
}

/* A batch norm of numbers far from zero keeps its digits. */
static void batch_norm_keeps_its_digits(void **state)
{
    (void)state;
    const op_case c = {"batch norm far from zero", DC_OP_BATCH_NORM, {2, 32, 32}, {1}, 32, 32};
    dc_graph *g;
    dc_trial t = trial_of(&c, &g);
    dc_backend *backend, *reference;
    must(dc_cpu_backend_create(1, DC_PRECISION_F32, &backend));
    must(dc_reference_backend_create(&reference));
    dc_operands *wanted = dc_operands_create(&t, 1);
    for (size_t i = 0; i < wanted->n_x[0]; i++)
        wanted->x[0][i] += 1000;
    dc_operands *got = dc_operands_copy(wanted, &t);
    must(dc_trial_run(reference, &t, wanted));
    must(dc_trial_run(backend, &t, got));
    assert_close(c.name, "output", got->y, wanted->y, got->n_y, 2e-4); /* 1000 has a step of 6e-5 itself */
    assert_close(c.name, "variance", got->param[1], wanted->param[1], got->n_param[1], 1e-6);
    dc_operands_destroy(got);
    dc_operands_destroy(wanted);
    dc_backend_destroy(reference);
    dc_backend_destroy(backend);
    dc_graph_destroy(g);
}

static void check_threads(dc_precision precision)
{
    dc_backend *backends[3];
    for (int i = 0; i < 3; i++)
        must(dc_cpu_backend_create(i + 1, precision, &backends[i]));
    for (int i = 0; i < N_CASES; i++) {
        op_case c = cases[i];
        c.batch = c.n_images = 75; /* large enough to be shared by threads */
        if (c.op != DC_OP_CROSS_ENTROPY && c.op != DC_OP_LINEAR)
            c.in.h += 12, c.in.w += 12;
        dc_graph *g;
        dc_trial t = trial_of(&c, &g);
        dc_operands *results[3];
        for (int k = 0; k < 3; k++) {
            results[k] = dc_operands_create(&t, 7);
            must(dc_trial_run(backends[k], &t, results[k]));
        }
        assert_operands_identical(c.name, results[0], results[1]);
        assert_operands_identical(c.name, results[0], results[2]);
        for (int k = 0; k < 3; k++)
            dc_operands_destroy(results[k]);
        dc_graph_destroy(g);
    }
    for (int i = 0; i < 3; i++)
        dc_backend_destroy(backends[i]);
}

static void threads_change_no_bit(void **state)
{
    (void)state;
    check_threads(DC_PRECISION_F32);
    check_threads(DC_PRECISION_BF16);
}

/* ---- the reference against finite differences ---- */

/* Distinct values, equally spaced and shuffled, none near zero: a small change crosses no kink. Returns the spacing. */
static double spread_values(float *x, size_t n, uint32_t step)
{
    uint32_t *order = malloc(n * sizeof *order);
    assert_non_null(order);
    dc_rng_permutation((dc_rng_key){99, 1}, step, (uint32_t)n, order);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(4 * ((double)order[i] + 0.5) / (double)(n + (n & 1)) - 2);
    free(order);
    return 4 / (double)(n + (n & 1));
}

/* What the gradients are of: the loss, or the sum of output * dy. */
static double objective(dc_backend *reference, const dc_trial *t, const dc_operands *at)
{
    dc_operands *o = dc_operands_copy(at, t);
    assert_non_null(o);
    must(dc_trial_run(reference, t, o));
    double sum = 0;
    if (t->graph->nodes[t->node].op == DC_OP_CROSS_ENTROPY)
        sum = (double)t->graph->nodes[t->node].attr.weight * (double)o->y[0];
    else
        for (size_t i = 0; i < o->n_y; i++)
            sum += (double)o->y[i] * (double)o->dy[i];
    dc_operands_destroy(o);
    return sum;
}

/* Some elements of one operand: the central difference against the gradient, relative to the largest gradient. */
static void check_differences(dc_backend *reference, const dc_trial *t, dc_operands *at, float *values, size_t n,
                              const float *gradient, double step, const char *label)
{
    double size = 1e-3;
    for (size_t i = 0; i < n; i++)
        size = fmax(size, fabs((double)gradient[i]));
    for (size_t i = 0; i < n; i += n / 7 + 1) {
        float before = values[i];
        values[i] = (float)((double)before + step);
        double up = objective(reference, t, at), high = values[i];
        values[i] = (float)((double)before - step);
        double down = objective(reference, t, at), low = values[i];
        values[i] = before;
        double slope = (up - down) / (high - low);
        if (!(fabs(slope - (double)gradient[i]) <= 0.01 * size))
            fail_msg("%s: element %zu: gradient %g, finite difference %g", label, i, (double)gradient[i], slope);
    }
}

static void gradients_are_those_of_finite_differences(void **state)
{
    (void)state;
    dc_backend *reference;
    must(dc_reference_backend_create(&reference));
    for (int i = 0; i < N_CASES; i++) {
        op_case c = cases[i];
        c.batch = 4;
        c.n_images = 3;
        dc_graph *g;
        dc_trial t = trial_of(&c, &g);
        dc_operands *at = dc_operands_create(&t, 5);
        double step = 1e-3;
        for (int k = 0; k < at->n_inputs; k++) {
            double spacing = spread_values(at->x[k], at->n_x[k], (uint32_t)k);
            memset(at->dx[k], 0, at->n_x[k] * sizeof(float));
            step = fmin(step, spacing / 4);
        }
        dc_operands *result = dc_operands_copy(at, &t);
        must(dc_trial_run(reference, &t, result));
        for (int k = 0; k < at->n_inputs; k++)
            check_differences(reference, &t, at, at->x[k], at->n_x[k], result->dx[k], step, c.name);
        for (int p = 0; p < at->n_params; p++)
            if (g->params[g->nodes[t.node].params[p]].role != DC_ROLE_STATE)
                check_differences(reference, &t, at, at->param[p], at->n_param[p], result->dparam[p], 1e-3, c.name);
        dc_operands_destroy(result);
        dc_operands_destroy(at);
        dc_graph_destroy(g);
    }
    dc_backend_destroy(reference);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_are_those_of_finite_differences),
        cmocka_unit_test(avx512_bf16_conforms),
        cmocka_unit_test(avx512_conforms),
        cmocka_unit_test(avx2_conforms),
        cmocka_unit_test(portable_conforms),
        cmocka_unit_test(a_gpu_conforms),
        cmocka_unit_test(a_gpu_conforms_in_tf32),
        cmocka_unit_test(a_gpu_conforms_in_bf16),
        cmocka_unit_test(batch_norm_keeps_its_digits),
        cmocka_unit_test(threads_change_no_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
