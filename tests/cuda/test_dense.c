/* What cuDNN's and cuBLASLt's plans compute, against plain loops: dense convolutions and the classifier's products,
 * with both gradients, in ranges of channels. */
#include "tests/cuda/expect.h"

#include "backend/cuda/conv_plans.h"
#include "backend/cuda/linear_plans.h"
#include "graph/graph.h"

enum { WORKSPACE_LIMIT = 64 << 20 };

static const dc_precision precisions[] = {DC_PRECISION_F32, DC_PRECISION_TF32, DC_PRECISION_BF16};

static void ok(dc_status status)
{
    if (status != DC_OK)
        fail_msg("%s", dc_status_message());
}

/* ---- operands ---- */

/* x, w and y of an operation, and what becomes of one of them. */
typedef struct product {
    dc_precision precision;
    int blocks; /* in use */
    device_tensor x, y;
    float *w; /* on the host */
    size_t w_count;
    device_memory w_memory, dw_memory;
    expect of_x, of_w, of_y;
    dck_queue queue;
} product;

static dck_type type_of(dc_precision precision)
{
    return precision == DC_PRECISION_BF16 ? DCK_BF16 : DCK_F32;
}

static product product_create(dc_precision precision, int blocks, dc_shape x, dc_shape y, size_t w_count)
{
    const dck_type type = type_of(precision);
    product p = {.precision = precision, .blocks = blocks, .w_count = w_count};
    p.queue = device_queue_create(type);
    p.x = device_tensor_create(type, x.c, x.h, x.w);
    p.y = device_tensor_create(type, y.c, y.h, y.w);
    p.of_x = expect_create(p.x.view);
    p.of_y = expect_create(p.y.view);
    p.of_w = (expect){calloc(w_count, sizeof(double)), calloc(w_count, sizeof(double))};
    p.w = malloc(w_count * sizeof *p.w);
    uint16_t *narrow = malloc(w_count * sizeof *narrow);
    assert_true(p.of_w.value && p.of_w.size && p.w && narrow);
    for (size_t i = 0; i < w_count; i++) {
        p.w[i] = random_float();
        narrow[i] = device_bf16_of(p.w[i]);
        if (type == DCK_BF16)
            p.w[i] = device_float_of(narrow[i]);
    }
    p.w_memory = device_create_from(type == DCK_BF16 ? (void *)narrow : (void *)p.w, w_count * dck_type_bytes(type));
    p.dw_memory = device_create(w_count * sizeof(float));
    free(narrow);
    return p;
}

static void product_destroy(product *p)
{
    device_tensor_destroy(&p->x);
    device_tensor_destroy(&p->y);
    device_destroy(&p->w_memory);
    device_destroy(&p->dw_memory);
    expect_destroy(&p->of_x);
    expect_destroy(&p->of_w);
    expect_destroy(&p->of_y);
    free(p->w);
    device_queue_destroy(&p->queue);
}

/* One term of the three sums that w, x and y are in. */
static void add_term(product *p, size_t x, size_t w, size_t y)
{
    expect_add(p->of_y, y, (double)p->w[w] * host_at(&p->x, x));
    expect_add(p->of_x, x, (double)p->w[w] * host_at(&p->y, y));
    expect_add(p->of_w, w, host_at(&p->x, x) * host_at(&p->y, y));
}

static double tolerance(dc_precision precision, double right, double size)
{
    return device_tolerance(type_of(precision), right, size) + (precision == DC_PRECISION_TF32 ? size / 512 : 0);
}

/* was: the tensor before; it is added to if `adds`, and kept in blocks that are not in use. */
static void check_tensor(const product *p, device_tensor *t, expect right, const float *was, bool adds)
{
    device_tensor_get(t);
    const dck_view v = t->host.view;
    const size_t block = block_elements(v), first = (size_t)(v.data - t->host.all);
    size_t wrong = 0;
    for (size_t i = 0; i < BLOCKS * block; i++) {
        const float is = (float)host_at(t, i), old = was[first + i / block * v.stride + i % block];
        const double want = right.value[i] + (adds ? (double)old : 0);
        if (i / block >= (size_t)p->blocks)
            wrong += is != old;
        else
            wrong += !(fabs(is - want) <= tolerance(p->precision, want, right.size[i] + fabs((double)old)));
    }
    assert_int_equal(wrong, 0);
}

static float *copy_of(const device_tensor *t)
{
    float *copy = malloc(t->host.count * sizeof *copy);
    assert_non_null(copy);
    return memcpy(copy, t->host.all, t->host.count * sizeof *copy);
}

static void check_weights(const product *p)
{
    float *is = malloc(p->w_count * sizeof *is);
    assert_non_null(is);
    device_get(p->dw_memory, is);
    size_t wrong = 0;
    for (size_t i = 0; i < p->w_count; i++)
        wrong +=
            !(fabs((double)is[i] - p->of_w.value[i]) <= tolerance(p->precision, p->of_w.value[i], p->of_w.size[i]));
    free(is);
    assert_int_equal(wrong, 0);
}

enum { FORWARD, DATA, DATA_ADD, WEIGHTS, DIRECTIONS };

/* Executes a direction once with too little workspace, which changes nothing, then with enough. */
typedef dc_status execute(const void *plan, cudaStream_t stream, void *x, void *w, void *y, void *workspace,
                          size_t workspace_bytes);

static void check_direction(product *p, int direction, execute *run, const void *plan, size_t workspace_bytes)
{
    device_tensor *out = direction == FORWARD ? &p->y : &p->x;
    float *operand = copy_of(out);
    device_memory workspace = device_create(workspace_bytes);
    if (direction != WEIGHTS) {
        tensor_randomize(out->host); /* what it holds is written over, or added to */
        device_tensor_put(out);
    }
    float *was = copy_of(out);
    void *w = direction == WEIGHTS ? p->dw_memory.data : p->w_memory.data;
    if (workspace_bytes > 0)
        assert_int_equal(
            run(plan, p->queue.stream, p->x.view.data, w, p->y.view.data, workspace.data, workspace_bytes - 1),
            DC_ERR_INTERNAL);
    ok(run(plan, p->queue.stream, p->x.view.data, w, p->y.view.data, workspace.data, workspace_bytes));
    device_destroy(&workspace);
    if (direction == WEIGHTS)
        check_weights(p);
    else
        check_tensor(p, out, direction == FORWARD ? p->of_y : p->of_x, was, direction == DATA_ADD);
    memcpy(out->host.all, operand, out->host.count * sizeof *operand);
    device_tensor_put(out);
    free(operand);
    free(was);
}

/* ---- convolutions ---- */

typedef struct conv_case {
    int kernel, stride, pad, dilation, in_c, out_c, h, w, blocks;
} conv_case;

static const conv_case conv_cases[] = {
    {3, 1, 1, 1, 3, 5, 7, 6, 2},  {3, 2, 1, 1, 4, 6, 9, 8, 2}, {1, 1, 0, 1, 5, 7, 5, 3, 2},
    {1, 1, 0, 1, 16, 4, 4, 4, 1}, {2, 1, 0, 1, 6, 9, 2, 2, 1}, {3, 1, 2, 2, 2, 3, 8, 5, 2},
};

static dc_conv_shape conv_shape(const conv_case *c, dc_precision precision)
{
    const int window = c->dilation * (c->kernel - 1) + 1;
    return (dc_conv_shape){.in_c = c->in_c,
                           .out_c = c->out_c,
                           .in_h = c->h,
                           .in_w = c->w,
                           .out_h = (c->h + 2 * c->pad - window) / c->stride + 1,
                           .out_w = (c->w + 2 * c->pad - window) / c->stride + 1,
                           .kernel = c->kernel,
                           .stride = c->stride,
                           .pad_begin = c->pad,
                           .pad_end = c->pad,
                           .dilation = c->dilation,
                           .blocks = c->blocks,
                           .precision = precision};
}

/* The terms of one weight, which reads row y * stride + dy. */
static void add_conv_terms(product *p, const dc_conv_shape *s, int k, int c, int tap_y, int tap_x)
{
    const size_t w = (size_t)((k * s->in_c + c) * s->kernel + tap_y) * s->kernel + tap_x;
    for (int b = 0; b < s->blocks; b++)
        for (int y = 0; y < s->out_h; y++)
            for (int x = 0; x < s->out_w; x++) {
                const int from_y = y * s->stride - s->pad_begin + tap_y * s->dilation;
                const int from_x = x * s->stride - s->pad_begin + tap_x * s->dilation;
                if (from_y < 0 || from_x < 0 || from_y >= s->in_h || from_x >= s->in_w)
                    continue;
                for (int lane = 0; lane < DCK_LANES; lane++)
                    add_term(p, flat(p->x.host.view, b, c, from_y, from_x, lane), w,
                             flat(p->y.host.view, b, k, y, x, lane));
            }
}

static dc_status execute_conv(const void *plan, cudaStream_t stream, void *x, void *w, void *y, void *workspace,
                              size_t workspace_bytes)
{
    return dc_conv_plan_execute(plan, stream, x, w, y, workspace, workspace_bytes);
}

static void check_conv(dc_conv_plans *plans, const conv_case *c, dc_precision precision)
{
    static const dc_conv_direction directions[DIRECTIONS] = {DC_CONV_FORWARD, DC_CONV_DATA, DC_CONV_DATA_ADD,
                                                             DC_CONV_WEIGHTS};
    dc_conv_shape s = conv_shape(c, precision);
    product p = product_create(precision, s.blocks, (dc_shape){s.in_c, s.in_h, s.in_w},
                               (dc_shape){s.out_c, s.out_h, s.out_w}, (size_t)s.out_c * s.in_c * s.kernel * s.kernel);
    s.x_stride = p.x.view.stride;
    s.y_stride = p.y.view.stride;
    for (int k = 0; k < s.out_c; k++)
        for (int in = 0; in < s.in_c; in++)
            for (int tap = 0; tap < s.kernel * s.kernel; tap++)
                add_conv_terms(&p, &s, k, in, tap / s.kernel, tap % s.kernel);
    for (int d = 0; d < DIRECTIONS; d++) {
        const dc_conv_plan *plan;
        ok(dc_conv_plans_get(plans, &s, directions[d], &plan));
        check_direction(&p, d, execute_conv, plan, dc_conv_plan_workspace_bytes(plan));
    }
    product_destroy(&p);
}

static dc_conv_plans *conv_plans(bool autotune)
{
    const dc_conv_options options = {.workspace_limit = WORKSPACE_LIMIT, .autotune = autotune};
    dc_conv_plans *plans;
    ok(dc_conv_plans_create(&options, &plans));
    return plans;
}

static void check_convs(bool autotune)
{
    dc_conv_plans *plans = conv_plans(autotune);
    const size_t n = sizeof conv_cases / sizeof *conv_cases;
    for (size_t i = 0; i < n; i++)
        for (int p = 0; p < 3; p++)
            check_conv(plans, &conv_cases[i], precisions[p]);
    assert_int_equal(dc_conv_plans_count(plans), n * 3 * DIRECTIONS);
    dc_conv_plans_destroy(plans);
}

static void test_convolutions_match_loops(void **state)
{
    (void)state;
    check_convs(false);
}

static void test_timed_engines_match_loops(void **state)
{
    (void)state;
    check_convs(true);
}

/* Equal operands give equal bits, as often as they are computed. */
static void test_sums_do_not_vary(void **state)
{
    (void)state;
    dc_conv_plans *plans = conv_plans(false);
    dc_conv_shape s = conv_shape(&conv_cases[0], DC_PRECISION_TF32);
    product p = product_create(s.precision, s.blocks, (dc_shape){s.in_c, s.in_h, s.in_w},
                               (dc_shape){s.out_c, s.out_h, s.out_w}, (size_t)s.out_c * s.in_c * s.kernel * s.kernel);
    s.x_stride = p.x.view.stride;
    s.y_stride = p.y.view.stride;
    const dc_conv_plan *plan;
    ok(dc_conv_plans_get(plans, &s, DC_CONV_WEIGHTS, &plan));
    device_memory workspace = device_create(dc_conv_plan_workspace_bytes(plan));
    float *first = malloc(p.w_count * sizeof *first), *again = malloc(p.w_count * sizeof *again);
    assert_true(first && again);
    for (int i = 0; i < 4; i++) {
        ok(dc_conv_plan_execute(plan, p.queue.stream, p.x.view.data, p.dw_memory.data, p.y.view.data, workspace.data,
                                workspace.bytes));
        device_get(p.dw_memory, i == 0 ? first : again);
        if (i > 0)
            assert_memory_equal(first, again, p.w_count * sizeof *first);
    }
    free(first);
    free(again);
    device_destroy(&workspace);
    product_destroy(&p);
    dc_conv_plans_destroy(plans);
}

static void test_what_cannot_be_is_refused(void **state)
{
    (void)state;
    dc_conv_plans *plans = conv_plans(false);
    dc_conv_shape s = conv_shape(&conv_cases[1], DC_PRECISION_F32);
    s.x_stride = (size_t)s.in_c * s.in_h * s.in_w * DCK_LANES;
    s.y_stride = (size_t)s.out_c * s.out_h * s.out_w * DCK_LANES;
    s.out_w++;
    const dc_conv_plan *plan;
    assert_int_equal(dc_conv_plans_get(plans, &s, DC_CONV_FORWARD, &plan), DC_ERR_DEVICE);
    assert_non_null(strstr(dc_status_message(), "forward of a 3x3 convolution of 4x9x8 to 6x5x5"));
    assert_int_equal(dc_conv_plans_count(plans), 0);
    dc_conv_plans_destroy(plans);
}

static void test_strided_pointwise_ones_are_gathered_first(void **state)
{
    (void)state;
    dc_conv_shape s = {.in_c = 6,
                       .out_c = 4,
                       .in_h = 9,
                       .in_w = 7,
                       .out_h = 5,
                       .out_w = 4,
                       .kernel = 1,
                       .stride = 2,
                       .pad_begin = -1,
                       .pad_end = 1,
                       .dilation = 1,
                       .blocks = 2,
                       .x_stride = 99999,
                       .y_stride = 4 * 5 * 4 * DCK_LANES};
    dc_conv_shape dense;
    assert_true(dc_conv_shape_sampled(&s, &dense));
    assert_int_equal(dense.in_h, 5);
    assert_int_equal(dense.in_w, 4);
    assert_int_equal(dense.stride, 1);
    assert_int_equal(dense.pad_begin, 0);
    assert_int_equal(dense.pad_end, 0);
    assert_int_equal(dense.x_stride, 6 * 5 * 4 * DCK_LANES);
    assert_int_equal(dense.y_stride, s.y_stride);
    s = dense;
    s.x_stride = 12345;
    assert_false(dc_conv_shape_sampled(&s, &dense));
    assert_int_equal(dense.x_stride, 12345);
    s.kernel = 3;
    s.stride = 2;
    assert_false(dc_conv_shape_sampled(&s, &dense));
}

/* ---- the classifier ---- */

static dc_status execute_linear(const void *plan, cudaStream_t stream, void *x, void *w, void *y, void *workspace,
                                size_t workspace_bytes)
{
    return dc_linear_plan_execute(plan, stream, x, w, y, workspace, workspace_bytes);
}

static void check_linear(dc_linear_plans *plans, dc_shape in, int out, int blocks, dc_precision precision)
{
    static const dc_linear_direction directions[DIRECTIONS] = {DC_LINEAR_FORWARD, DC_LINEAR_DATA, DC_LINEAR_DATA_ADD,
                                                               DC_LINEAR_WEIGHTS};
    const int features = in.c * in.h * in.w;
    product p = product_create(precision, blocks, in, (dc_shape){out, 1, 1}, (size_t)features * out);
    const dc_linear_shape s = {features, out, blocks, p.x.view.stride, p.y.view.stride, precision};
    for (int k = 0; k < out; k++)
        for (int f = 0; f < features; f++)
            for (int b = 0; b < blocks; b++)
                for (int lane = 0; lane < DCK_LANES; lane++)
                    add_term(&p, flat(p.x.host.view, b, f / (in.h * in.w), f / in.w % in.h, f % in.w, lane),
                             (size_t)k * features + f, flat(p.y.host.view, b, k, 0, 0, lane));
    for (int d = 0; d < DIRECTIONS; d++) {
        const dc_linear_plan *plan, *again;
        ok(dc_linear_plans_get(plans, &s, directions[d], &plan));
        ok(dc_linear_plans_get(plans, &s, directions[d], &again));
        assert_ptr_equal(plan, again);
        check_direction(&p, d, execute_linear, plan, dc_linear_plan_workspace_bytes(plan));
    }
    product_destroy(&p);
}

static void test_linear_layers_match_loops(void **state)
{
    (void)state;
    for (int limit = 0; limit <= WORKSPACE_LIMIT; limit += WORKSPACE_LIMIT / 2) {
        dc_linear_plans *plans;
        ok(dc_linear_plans_create((size_t)limit / 1024, &plans));
        for (int p = 0; p < 3; p++) {
            check_linear(plans, (dc_shape){24, 1, 1}, 10, 2, precisions[p]);
            check_linear(plans, (dc_shape){3, 3, 5}, 7, 2, precisions[p]);
            check_linear(plans, (dc_shape){8, 1, 1}, 1, 1, precisions[p]);
        }
        dc_linear_plans_destroy(plans);
    }
}

int main(void)
{
    device_require();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_convolutions_match_loops),
        cmocka_unit_test(test_timed_engines_match_loops),
        cmocka_unit_test(test_sums_do_not_vary),
        cmocka_unit_test(test_what_cannot_be_is_refused),
        cmocka_unit_test(test_strided_pointwise_ones_are_gathered_first),
        cmocka_unit_test(test_linear_layers_match_loops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
