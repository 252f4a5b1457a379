/* The real cuDNN plans every dense convolution of DARTS' and NAS-Bench-201's networks, in each direction and precision,
 * for GPUs that are only described to it: no GPU is needed. Linked with cuDNN itself, never with its emulation. */
#include "backend/cuda/conv_graph.h"
#include "backend/cuda/conv_plans.h"
#include "backend/cuda/described.h"
#include "graph/graph.h"
#include "search/supernet.h"
#include "space/network.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LANES = 16, MAX_SHAPES = 1000, WORKLOADS = 6, FIRST_JSON = 9 * 10000 + 8 * 100 };

/* ---- devices ---- */

static dc_conv_plans *plans_for(const dc_described_gpu *gpu, size_t workspace_limit)
{
    char json[DC_DESCRIPTION_CHARS];
    dc_described_gpu_json(gpu, json);
    const dc_conv_options options = {.device = json, .workspace_limit = workspace_limit, .autotune = true};
    dc_conv_plans *plans;
    if (dc_conv_plans_create(&options, &plans) != DC_OK)
        fail_msg("%s", dc_status_message());
    return plans;
}

/* ---- networks ---- */

typedef struct workload {
    const char *name;
    int n;
    dc_conv_shape shapes[MAX_SHAPES];
    bool wants_data[MAX_SHAPES]; /* the gradient of the input */
} workload;

/* Elements from one block of node's tensor to the next: it lies inside the concat that reads it. */
static size_t stride_of(const dc_graph *g, int node)
{
    dc_shape s = g->nodes[node].shape;
    for (int i = node + 1; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_inputs; k++)
            if (g->nodes[i].op == DC_OP_CONCAT && g->nodes[i].inputs[k] == node)
                s.c = g->nodes[i].shape.c;
    return (size_t)s.c * s.h * s.w * LANES;
}

/* Adds the dense convolutions of a graph, which is destroyed. */
static void add_graph(workload *work, dc_graph *g, int batch)
{
    for (int i = 0; i < g->n_nodes; i++) {
        const dc_node *node = &g->nodes[i];
        if (node->op != DC_OP_CONV || node->attr.groups != 1)
            continue;
        const dc_shape in = g->nodes[node->inputs[0]].shape;
        dc_conv_shape s = {.in_c = in.c,
                           .in_h = in.h,
                           .in_w = in.w,
                           .out_c = node->shape.c,
                           .out_h = node->shape.h,
                           .out_w = node->shape.w,
                           .kernel = node->attr.kernel,
                           .stride = node->attr.stride,
                           .pad_begin = node->attr.pad_begin,
                           .pad_end = node->attr.pad_end,
                           .dilation = node->attr.dilation,
                           .blocks = (batch + LANES - 1) / LANES,
                           .x_stride = stride_of(g, node->inputs[0]),
                           .y_stride = stride_of(g, i)};
        assert_true(work->n < MAX_SHAPES);
        dc_conv_shape_sampled(&s, &work->shapes[work->n]);
        work->wants_data[work->n++] = node->inputs[0] != g->input;
    }
    dc_graph_destroy(g);
}

static dc_genotype genotype_of(const char *name)
{
    dc_genotype genotype;
    assert_int_equal(dc_genotype_lookup(name, &genotype), DC_OK);
    return genotype;
}

static void add_target(workload *work, dc_network_kind kind, int batch)
{
    dc_network_options options = dc_network_defaults(kind);
    options.losses = true;
    for (int i = 0; dc_genotype_builtin_name(i); i++) {
        const dc_genotype genotype = genotype_of(dc_genotype_builtin_name(i));
        dc_graph *g;
        assert_int_equal(dc_network_build(&genotype, &options, &g), DC_OK);
        add_graph(work, g, batch);
        if (work->n > MAX_SHAPES - 200)
            break;
    }
}

static void add_supernet(workload *work, dc_network_kind kind, bool switches, bool derived, int batch)
{
    dc_supernet_options options = dc_supernet_defaults(kind);
    options.sharing = options.bottleneck = options.derived_cells = switches;
    const dc_genotype genotype = genotype_of("DARTS_V2");
    dc_graph *g;
    assert_int_equal(dc_supernet_build(&options, derived ? &genotype : NULL, true, &g), DC_OK);
    add_graph(work, g, batch);
}

/* A convolution that keeps the side, or with stride 2 halves it. */
static void add_conv(workload *work, int in_c, int out_c, int side, int kernel, int stride)
{
    const int out = side / stride, blocks = 256 / LANES;
    assert_true(work->n < MAX_SHAPES);
    work->shapes[work->n] = (dc_conv_shape){.in_c = in_c,
                                            .out_c = out_c,
                                            .in_h = side,
                                            .in_w = side,
                                            .out_h = out,
                                            .out_w = out,
                                            .kernel = kernel,
                                            .stride = stride,
                                            .pad_begin = kernel / 2,
                                            .pad_end = kernel / 2,
                                            .dilation = 1,
                                            .blocks = blocks,
                                            .x_stride = (size_t)in_c * side * side * LANES,
                                            .y_stride = (size_t)out_c * out * out * LANES};
    work->wants_data[work->n++] = in_c != 3;
}

/* NAS-Bench-201: a stem, cells of 1x1 and 3x3 convolutions at three sizes, residual blocks between them; of images of
 * 32x32 (CIFAR) and 16x16 (ImageNet-16-120). */
static void add_benchmark(workload *work, int side)
{
    add_conv(work, 3, 16, side, 3, 1);
    for (int channels = 16; channels <= 64; channels *= 2, side /= 2) {
        add_conv(work, channels, channels, side, 1, 1);
        add_conv(work, channels, channels, side, 3, 1);
        if (channels == 64)
            break;
        add_conv(work, channels, 2 * channels, side, 3, 2);
        add_conv(work, channels, 2 * channels, side / 2, 1, 1); /* after its average pool */
    }
}

static void collect(workload work[WORKLOADS])
{
    work[0] = (workload){.name = "supernet"};
    add_supernet(&work[0], DC_NETWORK_CIFAR, false, false, 64);
    work[1] = (workload){.name = "supernet, all switches"};
    add_supernet(&work[1], DC_NETWORK_CIFAR, true, false, 64);
    add_supernet(&work[1], DC_NETWORK_CIFAR, true, true, 256);
    work[2] = (workload){.name = "CIFAR target, C=36"};
    add_target(&work[2], DC_NETWORK_CIFAR, 96);
    work[3] = (workload){.name = "ImageNet target, C=48"};
    add_target(&work[3], DC_NETWORK_IMAGENET, 128);
    work[4] = (workload){.name = "ImageNet supernet"};
    add_supernet(&work[4], DC_NETWORK_IMAGENET, true, false, 128);
    add_supernet(&work[4], DC_NETWORK_IMAGENET, true, true, 128);
    work[5] = (workload){.name = "NAS-Bench-201"};
    add_benchmark(&work[5], 32);
    add_benchmark(&work[5], 16);
}

/* ---- tests ---- */

static void get(dc_conv_plans *plans, const dc_conv_shape *shape, dc_conv_direction direction)
{
    const dc_conv_plan *plan;
    if (dc_conv_plans_get(plans, shape, direction, &plan) != DC_OK)
        fail_msg("%s", dc_status_message());
}

static void test_all_is_planned(void **state)
{
    (void)state;
    static const char *const precisions[] = {"float", "TF32", "bf16"};
    workload *work = calloc(WORKLOADS, sizeof *work);
    assert_non_null(work);
    collect(work);
    printf("# %-16s%-7s%-24s%8s%16s\n", "device", "", "network", "plans", "workspace MiB");
    for (size_t d = 0; d < DC_DESCRIBED_GPUS; d++)
        for (int p = DC_PRECISION_F32; p <= DC_PRECISION_BF16; p++)
            for (int i = 0; i < WORKLOADS; i++) {
                dc_conv_plans *plans = plans_for(&dc_described_gpus[d], (size_t)1 << 30);
                assert_true(work[i].n >= 20);
                for (int k = 0; k < work[i].n; k++) {
                    dc_conv_shape shape = work[i].shapes[k];
                    shape.precision = (dc_precision)p;
                    for (int direction = 0; direction < DC_CONV_DIRECTIONS; direction++)
                        if (work[i].wants_data[k] || (direction != DC_CONV_DATA && direction != DC_CONV_DATA_ADD))
                            get(plans, &shape, (dc_conv_direction)direction);
                }
                printf("# %-16s%-7s%-24s%8d%16.1f\n", dc_described_gpus[d].name, precisions[p], work[i].name,
                       dc_conv_plans_count(plans), (double)dc_conv_plans_workspace_bytes(plans) / (1 << 20));
                dc_conv_plans_destroy(plans);
            }
    free(work);
}

static dc_conv_shape good_shape(void)
{
    return (dc_conv_shape){.in_c = 16,
                           .out_c = 32,
                           .in_h = 12,
                           .in_w = 9,
                           .out_h = 6,
                           .out_w = 5,
                           .kernel = 3,
                           .stride = 2,
                           .pad_begin = 1,
                           .pad_end = 1,
                           .dilation = 1,
                           .blocks = 3,
                           .x_stride = 16 * 12 * 9 * LANES,
                           .y_stride = 32 * 6 * 5 * LANES};
}

static void test_equal_ones_are_planned_once(void **state)
{
    (void)state;
    dc_conv_plans *plans = plans_for(&dc_described_gpus[0], (size_t)1 << 30);
    dc_conv_shape shape = good_shape();
    const dc_conv_plan *first, *again, *other;
    assert_int_equal(dc_conv_plans_get(plans, &shape, DC_CONV_FORWARD, &first), DC_OK);
    assert_int_equal(dc_conv_plans_get(plans, &shape, DC_CONV_FORWARD, &again), DC_OK);
    assert_ptr_equal(first, again);
    assert_int_equal(dc_conv_plans_get(plans, &shape, DC_CONV_WEIGHTS, &other), DC_OK);
    assert_ptr_not_equal(first, other);
    shape.x_stride *= 2;
    assert_int_equal(dc_conv_plans_get(plans, &shape, DC_CONV_FORWARD, &other), DC_OK);
    assert_ptr_not_equal(first, other);
    assert_int_equal(dc_conv_plans_count(plans), 3);
    char nothing[256] = "";
    assert_int_equal(dc_conv_plan_execute(first, NULL, nothing, nothing, nothing, nothing, SIZE_MAX), DC_ERR_INTERNAL);
    dc_conv_plans_destroy(plans);
}

/* The reason is cuDNN's own, and the message says which convolution it was. */
static void rejected(dc_conv_shape shape)
{
    for (int direction = 0; direction < DC_CONV_DIRECTIONS; direction++) {
        dc_conv_plans *plans = plans_for(&dc_described_gpus[1], (size_t)1 << 30);
        const dc_conv_plan *plan;
        assert_int_equal(dc_conv_plans_get(plans, &shape, (dc_conv_direction)direction, &plan), DC_ERR_DEVICE);
        assert_null(plan);
        assert_int_equal(dc_conv_plans_count(plans), 0);
        assert_non_null(strstr(dc_status_message(), "CUDNN_STATUS_"));
        assert_non_null(strstr(dc_status_message(), "convolution of 16x12x9 to "));
        dc_conv_plans_destroy(plans);
    }
}

static void test_wrong_ones_are_rejected(void **state)
{
    (void)state;
    dc_conv_shape shape = good_shape();
    shape.out_h++;
    rejected(shape);
    shape = good_shape();
    shape.out_w--;
    rejected(shape);
    shape = good_shape();
    shape.stride = 1;
    rejected(shape);
    shape = good_shape();
    shape.dilation = 3;
    rejected(shape);
    shape = good_shape();
    shape.out_c = 0;
    rejected(shape);
}

/* A graph whose weights have another number of input channels cannot be said by a dc_conv_shape. */
static void test_wrong_channels_are_rejected(void **state)
{
    (void)state;
    for (int w_channels = 15; w_channels <= 17; w_channels++) {
        dc_descriptors all = {0};
        const int64_t extents[3][4] = {{2, 16, 8, 8}, {32, w_channels, 1, 1}, {2, 32, 8, 8}}, alignment = 16;
        const int64_t rank = 2, zeros[2] = {0, 0}, ones[2] = {1, 1};
        const cudnnDataType_t type = CUDNN_DATA_FLOAT;
        const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
        const float alpha = 1, beta = 0;
        cudnnBackendDescriptor_t tensors[3], how, operation;
        for (int64_t i = 0; i < 3; i++) {
            const int64_t *e = extents[i], strides[4] = {e[1] * e[2] * e[3], e[2] * e[3], e[3], 1};
            tensors[i] = dc_descriptor_begin(&all, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
            dc_descriptor_set(&all, tensors[i], CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
            dc_descriptor_set(&all, tensors[i], CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, e);
            dc_descriptor_set(&all, tensors[i], CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides);
            dc_descriptor_set(&all, tensors[i], CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &i);
            dc_descriptor_set(&all, tensors[i], CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
            dc_descriptor_end(&all, tensors[i]);
        }
        how = dc_descriptor_begin(&all, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
        dc_descriptor_set(&all, how, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
        dc_descriptor_set(&all, how, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
        dc_descriptor_set(&all, how, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &rank);
        dc_descriptor_set(&all, how, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, zeros);
        dc_descriptor_set(&all, how, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, zeros);
        dc_descriptor_set(&all, how, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, ones);
        dc_descriptor_set(&all, how, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, ones);
        dc_descriptor_end(&all, how);
        operation = dc_descriptor_begin(&all, CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
        dc_descriptor_set(&all, operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                          &tensors[0]);
        dc_descriptor_set(&all, operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                          &tensors[1]);
        dc_descriptor_set(&all, operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                          &tensors[2]);
        dc_descriptor_set(&all, operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                          CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &how);
        dc_descriptor_set(&all, operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_FLOAT, 1, &alpha);
        dc_descriptor_set(&all, operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_FLOAT, 1, &beta);
        dc_descriptor_end(&all, operation);
        assert_int_equal(all.error == CUDNN_STATUS_SUCCESS, w_channels == 16);
        dc_descriptors_clear(&all);
    }
}

static void test_workspaces_are_limited(void **state)
{
    (void)state;
    dc_conv_shape shape = good_shape();
    shape.in_c = 128;
    shape.out_c = 256;
    shape.x_stride *= 8;
    shape.y_stride *= 8;
    shape.precision = DC_PRECISION_TF32;
    const dc_conv_plan *plan;
    dc_conv_plans *plans = plans_for(&dc_described_gpus[1], (size_t)1 << 30);
    assert_int_equal(dc_conv_plans_get(plans, &shape, DC_CONV_FORWARD, &plan), DC_OK);
    const size_t wanted = dc_conv_plan_workspace_bytes(plan);
    assert_true(wanted > 1024);
    assert_true(dc_conv_plan_engine(plan) >= 0);
    dc_conv_plans_destroy(plans);
    plans = plans_for(&dc_described_gpus[1], wanted - 1);
    assert_int_equal(dc_conv_plans_get(plans, &shape, DC_CONV_FORWARD, &plan), DC_OK);
    assert_true(dc_conv_plan_workspace_bytes(plan) < wanted);
    dc_conv_plans_destroy(plans);
}

static void test_a_device_must_be_described_well(void **state)
{
    (void)state;
    const dc_conv_options options = {.device = "{\"deviceVer\":", .workspace_limit = 1 << 20};
    dc_conv_plans *plans;
    assert_int_equal(dc_conv_plans_create(&options, &plans), DC_ERR_DEVICE);
    assert_null(plans);
}

int main(void)
{
    if (cudnnGetVersion() < FIRST_JSON) {
        printf("1..0 # SKIP cuDNN %zu plans for no described device\n", cudnnGetVersion());
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_is_planned),          cmocka_unit_test(test_equal_ones_are_planned_once),
        cmocka_unit_test(test_wrong_ones_are_rejected), cmocka_unit_test(test_wrong_channels_are_rejected),
        cmocka_unit_test(test_workspaces_are_limited),  cmocka_unit_test(test_a_device_must_be_described_well),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
