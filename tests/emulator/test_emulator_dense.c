/* What the emulated cuDNN and cuBLASLt make of mistakes of who calls them: each is caught, or seen in the numbers. */
#include "cases.h"

#include "backend/cuda/conv_graph.h"
#include "backend/cuda/conv_plans.h"
#include "backend/cuda/linear_plans.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* y = 2 where all of x and w is 1. */
enum {
    LANES = 16,
    IN = 2,
    OUT = 3,
    SIDE = 2,
    PLANE = SIDE * SIDE * LANES,
    X = IN * PLANE,
    Y = OUT * PLANE,
    W = IN * OUT
};

#define REQUIRE_OK(call)                                                                                               \
    do {                                                                                                               \
        if ((call) != DC_OK)                                                                                           \
            return 3;                                                                                                  \
    } while (0)

static float *ones(size_t n)
{
    float *values = malloc(n * sizeof *values);
    for (size_t i = 0; i < n; i++)
        values[i] = 1;
    float *p = device_floats(values, n);
    free(values);
    return p;
}

/* The convolution, with its operands in device memory of their own. */
typedef struct rig {
    dc_conv_plans *plans;
    const dc_conv_plan *plan;
    float *x, *w, *y;
    void *workspace;
    size_t bytes; /* of workspace, as the plan says */
    cudaStream_t stream;
} rig;

static dc_conv_shape shape_of(dc_precision precision)
{
    return (dc_conv_shape){.in_c = IN,
                           .out_c = OUT,
                           .in_h = SIDE,
                           .in_w = SIDE,
                           .out_h = SIDE,
                           .out_w = SIDE,
                           .kernel = 1,
                           .stride = 1,
                           .dilation = 1,
                           .blocks = 1,
                           .x_stride = X,
                           .y_stride = Y,
                           .precision = precision};
}

static int rig_create(rig *r, dc_conv_direction direction, dc_precision precision)
{
    const dc_conv_shape shape = shape_of(precision);
    const dc_conv_options options = {.workspace_limit = 1 << 20};
    REQUIRE_OK(dc_conv_plans_create(&options, &r->plans));
    REQUIRE_OK(dc_conv_plans_get(r->plans, &shape, direction, &r->plan));
    r->bytes = dc_conv_plan_workspace_bytes(r->plan);
    r->stream = new_stream();
    r->x = ones(X);
    r->w = ones(W);
    r->y = ones(Y);
    REQUIRE(cudaMalloc(&r->workspace, r->bytes));
    return 0;
}

static int rig_execute(const rig *r)
{
    REQUIRE_OK(dc_conv_plan_execute(r->plan, r->stream, r->x, r->w, r->y, r->workspace, r->bytes));
    REQUIRE(cudaStreamSynchronize(r->stream));
    return 0;
}

#define RIG(r, direction)                                                                                              \
    rig r;                                                                                                             \
    if (rig_create(&r, direction, DC_PRECISION_F32) != 0)                                                              \
    return 2

static int right_convolution(void)
{
    RIG(r, DC_CONV_FORWARD);
    return rig_execute(&r) != 0 || !device_holds(r.y, Y, IN, 0);
}

static int right_weights(void)
{
    RIG(r, DC_CONV_WEIGHTS);
    return rig_execute(&r) != 0 || !device_holds(r.w, W, PLANE, 0);
}

static int small_workspace(void)
{
    RIG(r, DC_CONV_FORWARD);
    REQUIRE(cudaMalloc(&r.workspace, r.bytes - 1));
    return rig_execute(&r);
}

static int freed_workspace(void)
{
    RIG(r, DC_CONV_FORWARD);
    REQUIRE(cudaFree(r.workspace));
    return rig_execute(&r);
}

static int small_output(void)
{
    RIG(r, DC_CONV_FORWARD);
    r.y = ones(Y - 1);
    return rig_execute(&r);
}

static int small_weights(void)
{
    RIG(r, DC_CONV_WEIGHTS);
    r.w = ones(W - 1);
    return rig_execute(&r);
}

static int host_input(void)
{
    RIG(r, DC_CONV_FORWARD);
    r.x = malloc(X * sizeof *r.x);
    return rig_execute(&r);
}

static int shifted_input(void)
{
    RIG(r, DC_CONV_FORWARD);
    r.x = ones(X + 1) + 1;
    return rig_execute(&r);
}

/* What is not written before is not a number after. */
static int fresh_input(void)
{
    RIG(r, DC_CONV_FORWARD);
    r.x = device_floats(NULL, X);
    return rig_execute(&r) != 0 || !device_holds(r.y, Y, IN, 0);
}

/* The weights come by another stream. */
static int weights_by_another_stream(bool waits)
{
    RIG(r, DC_CONV_FORWARD);
    cudaStream_t other = new_stream();
    cudaEvent_t event;
    float *late = device_floats(NULL, W);
    REQUIRE(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    REQUIRE(cudaMemcpyAsync(late, r.w, W * sizeof *late, cudaMemcpyDeviceToDevice, other));
    REQUIRE(cudaEventRecord(event, other));
    if (waits)
        REQUIRE(cudaStreamWaitEvent(r.stream, event, 0));
    r.w = late;
    return rig_execute(&r) != 0 || !device_holds(r.y, Y, IN, 0);
}

static int weights_not_waited_for(void)
{
    return weights_by_another_stream(false);
}

static int weights_waited_for(void)
{
    return weights_by_another_stream(true);
}

static int captured(void)
{
    RIG(r, DC_CONV_DATA_ADD);
    cudaGraph_t graph;
    cudaGraphExec_t step;
    REQUIRE(cudaStreamBeginCapture(r.stream, cudaStreamCaptureModeGlobal));
    REQUIRE_OK(dc_conv_plan_execute(r.plan, r.stream, r.x, r.w, r.y, r.workspace, r.bytes));
    REQUIRE(cudaStreamEndCapture(r.stream, &graph));
    REQUIRE(cudaGraphInstantiate(&step, graph, 0));
    for (int i = 0; i < 3; i++)
        REQUIRE(cudaGraphLaunch(step, r.stream));
    REQUIRE(cudaStreamSynchronize(r.stream));
    return !device_holds(r.x, X, 1 + 3 * OUT, 0);
}

/* What a step needs has to be planned before it is recorded. */
static int planned_in_a_capture(void)
{
    RIG(r, DC_CONV_FORWARD);
    const dc_conv_shape shape = shape_of(DC_PRECISION_F32);
    REQUIRE(cudaStreamBeginCapture(r.stream, cudaStreamCaptureModeThreadLocal));
    REQUIRE_OK(dc_conv_plans_get(r.plans, &shape, DC_CONV_DATA, &r.plan));
    return 0;
}

/* 1 + 2^-12 is 1 for TF32. */
static int precision_of(dc_precision precision, float right)
{
    rig r;
    if (rig_create(&r, DC_CONV_FORWARD, precision) != 0)
        return 2;
    float fine[X];
    for (int i = 0; i < X; i++)
        fine[i] = 1 + 0x1p-12f;
    r.x = device_floats(fine, X);
    return rig_execute(&r) != 0 || !device_holds(r.y, Y, right, 0);
}

static int float_is_not_rounded(void)
{
    return precision_of(DC_PRECISION_F32, IN * (1 + 0x1p-12f));
}

static int tf32_is_rounded(void)
{
    return precision_of(DC_PRECISION_TF32, IN);
}

/* ---- linear ---- */

static int linear(size_t short_of, bool host)
{
    const dc_linear_shape shape = {.features = 8, .out = 4, .blocks = 1, .x_stride = 8 * LANES, .y_stride = 4 * LANES};
    dc_linear_plans *plans;
    const dc_linear_plan *plan;
    REQUIRE_OK(dc_linear_plans_create(1 << 20, &plans));
    REQUIRE_OK(dc_linear_plans_get(plans, &shape, DC_LINEAR_FORWARD, &plan));
    const size_t bytes = dc_linear_plan_workspace_bytes(plan);
    float *x = ones(8 * LANES), *w = ones(8 * 4), *y = ones(4 * LANES);
    void *workspace;
    REQUIRE(cudaMalloc(&workspace, bytes - short_of));
    cudaStream_t stream = new_stream();
    REQUIRE_OK(dc_linear_plan_execute(plan, stream, host ? malloc(8 * LANES * sizeof *x) : x, w, y, workspace, bytes));
    REQUIRE(cudaStreamSynchronize(stream));
    return !device_holds(y, 4 * LANES, 8, 0);
}

static int right_linear(void)
{
    return linear(0, false);
}

static int linear_small_workspace(void)
{
    return linear(1, false);
}

static int linear_host_input(void)
{
    return linear(0, true);
}

static int linear_planned_in_a_capture(void)
{
    REQUIRE(cudaStreamBeginCapture(new_stream(), cudaStreamCaptureModeThreadLocal));
    return linear(0, false);
}

/* ---- tests ---- */

static void test_what_is_right_passes(void **state)
{
    (void)state;
    always_right(right_convolution);
    always_right(right_weights);
    always_right(weights_waited_for);
    always_right(captured);
    always_right(float_is_not_rounded);
    always_right(tf32_is_rounded);
    always_right(right_linear);
}

static void test_memory_is_checked(void **state)
{
    (void)state;
    always_caught(small_workspace, "cudnnBackendExecute: workspace is not");
    always_caught(freed_workspace, "cudnnBackendExecute: workspace is not");
    always_caught(small_output, "cudnnBackendExecute: y is not");
    always_caught(small_weights, "cudnnBackendExecute: w is not");
    always_caught(host_input, "cudnnBackendExecute: x is not");
    always_caught(shifted_input, "cudnnBackendExecute: x is not aligned");
    always_caught(linear_small_workspace, "cublasLtMatmul: workspace is not");
    always_caught(linear_host_input, "cublasLtMatmul: A is not");
}

static void test_plans_are_made_before_they_are_captured(void **state)
{
    (void)state;
    always_caught(planned_in_a_capture, "cudnnBackendFinalize: a plan is made while");
    always_caught(linear_planned_in_a_capture, "cublasLtMatmulAlgoGetHeuristic: a plan is made while");
}

static void test_order_is_seen_in_the_numbers(void **state)
{
    (void)state;
    always_wrong(fresh_input);
    sometimes_wrong(weights_not_waited_for);
}

/* The engine chosen within a workspace limit, -1: none. */
static int engine_within(size_t limit, dc_precision precision)
{
    const dc_conv_shape shape = shape_of(precision);
    const dc_conv_options options = {.workspace_limit = limit};
    dc_conv_plans *plans;
    const dc_conv_plan *plan;
    assert_int_equal(dc_conv_plans_create(&options, &plans), DC_OK);
    int engine = -1;
    if (dc_conv_plans_get(plans, &shape, DC_CONV_FORWARD, &plan) == DC_OK) {
        engine = dc_conv_plan_engine(plan);
        assert_true(dc_conv_plan_workspace_bytes(plan) <= limit);
    }
    dc_conv_plans_destroy(plans);
    return engine;
}

/* See the engines in cudnn.cpp: those that vary, that fail or that are compiled at run time are passed over, and so is
 * TF32 where it is not wanted. */
static void test_the_first_engine_that_will_do_is_taken(void **state)
{
    (void)state;
    assert_int_equal(engine_within(1 << 20, DC_PRECISION_TF32), 3);
    assert_int_equal(engine_within(2000, DC_PRECISION_TF32), 2);
    assert_int_equal(engine_within(600, DC_PRECISION_TF32), 4);
    assert_int_equal(engine_within(300, DC_PRECISION_TF32), 1); /* of the fallback mode */
    assert_int_equal(engine_within(1 << 20, DC_PRECISION_F32), 2);
    assert_int_equal(engine_within(600, DC_PRECISION_F32), 1);
    assert_int_equal(engine_within(1 << 20, DC_PRECISION_BF16), 3);
    assert_int_equal(engine_within(200, DC_PRECISION_F32), -1);
    assert_non_null(strstr(dc_status_message(), "the limit is 200"));
}

static void test_attributes_are_checked(void **state)
{
    (void)state;
    const int64_t sizes[5] = {1, 2, 3, 4, 5};
    const cudnnDataType_t type = CUDNN_DATA_FLOAT;
    cudnnBackendDescriptor_t d;
    assert_int_equal(cudnnBackendCreateDescriptor(CUDNN_BACKEND_TENSOR_DESCRIPTOR, &d), CUDNN_STATUS_SUCCESS);
    assert_int_not_equal(cudnnBackendSetAttribute(d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_FLOAT, 4, sizes), 0);
    assert_int_not_equal(cudnnBackendSetAttribute(d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 3, sizes), 0);
    assert_int_not_equal(cudnnBackendSetAttribute(d, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, sizes), 0);
    assert_int_equal(cudnnBackendSetAttribute(d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type), 0);
    assert_int_equal(cudnnBackendSetAttribute(d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, sizes), 0);
    assert_int_equal(cudnnBackendSetAttribute(d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 5, sizes), 0);
    assert_int_equal(cudnnBackendSetAttribute(d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, sizes), 0);
    assert_int_not_equal(cudnnBackendFinalize(d), 0); /* the alignment is not set */
    assert_int_equal(cudnnBackendSetAttribute(d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, sizes), 0);
    assert_int_not_equal(cudnnBackendFinalize(d), 0); /* more strides than dimensions */
    assert_int_equal(cudnnBackendSetAttribute(d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, sizes), 0);
    assert_int_equal(cudnnBackendFinalize(d), 0);
    assert_int_not_equal(cudnnBackendSetAttribute(d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, sizes), 0);
    assert_int_equal(cudnnBackendDestroyDescriptor(d), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_right_passes),
        cmocka_unit_test(test_memory_is_checked),
        cmocka_unit_test(test_plans_are_made_before_they_are_captured),
        cmocka_unit_test(test_order_is_seen_in_the_numbers),
        cmocka_unit_test(test_the_first_engine_that_will_do_is_taken),
        cmocka_unit_test(test_attributes_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
