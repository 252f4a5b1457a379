/* Times the kernels of a GPU beside the bytes that each must move: bench_gpu_kernels [float|bf16] [words that a row's
 * name must contain]
 *
 * A row: time of one call (the median of several, each of enough calls in a row to hide their launches), GB/s of the
 * tensors that must be read or written at least once, and its share of what this GPU's memory gives, measured on the
 * spot by copies within it. Batch 128; tensors are larger than its cache where channels and sides allow. */
#include "backend/cuda/conv_plans.h"
#include "cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCKS = 8, IMAGES = BLOCKS * DCK_LANES, FEATURES = 8, VIEWS = 2 * FEATURES + 2, ROUNDS = 7, CALLS = 20 };

static const size_t POOL_BYTES = (size_t)3 << 30, SCRATCH_BYTES = (size_t)64 << 20, COPY_BYTES = (size_t)512 << 20;

typedef struct bench {
    dck_queue queue;
    cudaEvent_t begin, end;
    char *pool;
    float *scratch, *weights; /* of one float each and more, all of them ones */
    double bytes_per_s;
    size_t pool_bytes;
    dc_conv_plans *plans;
} bench;

static void check(cudaError_t error, const char *what)
{
    if (error == cudaSuccess)
        return;
    fprintf(stderr, "bench_gpu_kernels: %s: %s\n", what, cudaGetErrorString(error));
    exit(1);
}

#define CHECK(call) check((call), #call)

static void check_status(dc_status status)
{
    if (status == DC_OK)
        return;
    fprintf(stderr, "bench_gpu_kernels: %s\n", dc_status_message());
    exit(1);
}

/* What a row calls: views x[VIEWS] of the same shape, but that x[1] is of half the side where the row has stride 2. */
typedef cudaError_t (*kernel_call)(bench *b, const dck_view *x);

/* ---- rows ---- */

static dck_conv depthwise(int kernel, int dilation, dck_view x)
{
    const int pad = kernel / 2 * dilation;
    return (dck_conv){.kernel = kernel,
                      .stride = 1,
                      .pad_begin = pad,
                      .pad_end = pad,
                      .dilation = dilation,
                      .groups = x.c,
                      .relu = true};
}

static cudaError_t depthwise_forward(bench *b, const dck_view *x)
{
    const dck_conv k = depthwise(3, 1, x[0]);
    return dck_cuda_depthwise_forward(&b->queue, &k, x[0], b->weights, x[1], IMAGES);
}

static cudaError_t depthwise_dilated(bench *b, const dck_view *x)
{
    const dck_conv k = depthwise(5, 2, x[0]);
    return dck_cuda_depthwise_forward(&b->queue, &k, x[0], b->weights, x[1], IMAGES);
}

static cudaError_t depthwise_data(bench *b, const dck_view *x)
{
    const dck_conv k = depthwise(5, 1, x[0]);
    return dck_cuda_depthwise_backward_data(&b->queue, &k, x[0], b->weights, x[1], x[2], false, IMAGES);
}

static cudaError_t depthwise_weights(bench *b, const dck_view *x)
{
    const dck_conv k = depthwise(5, 1, x[0]);
    return dck_cuda_depthwise_backward_weights(&b->queue, &k, x[0], x[1], b->weights, IMAGES, b->scratch);
}

static dck_norm norm_of(bench *b, dck_view x)
{
    float *saved = b->weights + 4096;
    return (dck_norm){
        .epsilon = 1e-5f, .momentum = 0.1f, .saved = saved + 2 * x.c, .mean = saved, .variance = saved + x.c};
}

static cudaError_t norm_forward(bench *b, const dck_view *x)
{
    const dck_norm k = norm_of(b, x[0]);
    return dck_cuda_norm_forward(&b->queue, &k, x[0], x[1], IMAGES, true, b->scratch);
}

static cudaError_t norm_measure(bench *b, const dck_view *x)
{
    const dck_norm k = norm_of(b, x[0]);
    return dck_cuda_norm_measure(&b->queue, &k, x[0], b->weights + 8192, IMAGES, true, b->scratch);
}

static cudaError_t norm_backward(bench *b, const dck_view *x)
{
    const dck_norm k = norm_of(b, x[0]);
    return dck_cuda_norm_backward(&b->queue, &k, x[0], x[1], x[2], false, NULL, NULL, IMAGES, b->scratch);
}

static cudaError_t max_forward(bench *b, const dck_view *x)
{
    return dck_cuda_max_pool_forward(&b->queue, &(dck_pool){3, 1, 1}, x[0], x[1], IMAGES);
}

static cudaError_t max_backward(bench *b, const dck_view *x)
{
    return dck_cuda_max_pool_backward(&b->queue, &(dck_pool){3, 1, 1}, x[0], x[1], x[2], x[3], false, IMAGES);
}

static cudaError_t avg_forward(bench *b, const dck_view *x)
{
    return dck_cuda_avg_pool_forward(&b->queue, &(dck_pool){3, 1, 1}, x[0], x[1], IMAGES);
}

static cudaError_t avg_backward(bench *b, const dck_view *x)
{
    return dck_cuda_avg_pool_backward(&b->queue, &(dck_pool){3, 1, 1}, x[0], x[1], false, IMAGES);
}

static const int feature_index[FEATURES] = {0, 1, 2, 3, 4, 5, 6, 7};
static const bool nothing_added[FEATURES];

static cudaError_t mix_forward(bench *b, const dck_view *x)
{
    return dck_cuda_mix_forward(&b->queue, FEATURES, x, b->weights, feature_index, x[FEATURES], false, IMAGES);
}

/* Of features that are seen through their batch norms. */
static cudaError_t deferred_mix_forward(bench *b, const dck_view *x)
{
    dck_view seen[FEATURES];
    for (int i = 0; i < FEATURES; i++) {
        seen[i] = x[i];
        seen[i].affine = b->weights + 8192;
    }
    return mix_forward(
        b, (const dck_view[]){seen[0], seen[1], seen[2], seen[3], seen[4], seen[5], seen[6], seen[7], x[FEATURES]});
}

static cudaError_t mix_backward(bench *b, const dck_view *x)
{
    return dck_cuda_mix_backward(&b->queue, FEATURES, x, b->weights, feature_index, x[FEATURES], x + FEATURES + 1,
                                 nothing_added, b->weights + 64, IMAGES, b->scratch);
}

static cudaError_t relu_forward(bench *b, const dck_view *x)
{
    return dck_cuda_relu_forward(&b->queue, x[0], x[1], IMAGES);
}

/* cuDNN's, for comparison: the same tensors through a 1x1 convolution. */
static cudaError_t dense(bench *b, const dck_view *x, dc_conv_direction direction)
{
    const dc_conv_plan *plan;
    const dc_conv_shape shape = {.in_c = x[0].c,
                                 .out_c = x[0].c,
                                 .in_h = x[0].h,
                                 .in_w = x[0].w,
                                 .out_h = x[0].h,
                                 .out_w = x[0].w,
                                 .kernel = 1,
                                 .stride = 1,
                                 .dilation = 1,
                                 .blocks = BLOCKS,
                                 .x_stride = x[0].stride,
                                 .y_stride = x[0].stride,
                                 .precision = b->queue.type == DCK_BF16 ? DC_PRECISION_BF16 : DC_PRECISION_F32};
    check_status(dc_conv_plans_get(b->plans, &shape, direction, &plan));
    check_status(
        dc_conv_plan_execute(plan, b->queue.stream, x[0].data, b->weights, x[1].data, b->scratch, SCRATCH_BYTES));
    return cudaSuccess;
}

static cudaError_t dense_forward(bench *b, const dck_view *x)
{
    return dense(b, x, DC_CONV_FORWARD);
}

static cudaError_t dense_data(bench *b, const dck_view *x)
{
    return dense(b, x, DC_CONV_DATA);
}

static cudaError_t dense_weights(bench *b, const dck_view *x)
{
    return dense(b, x, DC_CONV_WEIGHTS);
}

/* tensors: read or written once by a call */
static const struct row {
    const char *name;
    kernel_call call;
    int tensors;
} rows[] = {
    {"depthwise 3x3 forward", depthwise_forward, 2},
    {"depthwise 5x5 dilation 2 forward", depthwise_dilated, 2},
    {"depthwise 5x5 data gradient", depthwise_data, 3},
    {"depthwise 5x5 weight gradient", depthwise_weights, 2},
    {"batch norm, deferred", norm_measure, 1},
    {"batch norm forward", norm_forward, 3},
    {"batch norm backward", norm_backward, 5},
    {"max pool 3x3 forward", max_forward, 2},
    {"max pool 3x3 backward", max_backward, 4},
    {"avg pool 3x3 forward", avg_forward, 2},
    {"avg pool 3x3 backward", avg_backward, 2},
    {"mix of 8 forward", mix_forward, FEATURES + 1},
    {"mix of 8 through batch norms forward", deferred_mix_forward, FEATURES + 1},
    {"mix of 8 backward", mix_backward, 2 * FEATURES + 1},
    {"relu forward", relu_forward, 2},
    {"1x1 by cuDNN forward", dense_forward, 2},
    {"1x1 by cuDNN data gradient", dense_data, 2},
    {"1x1 by cuDNN weight gradient", dense_weights, 2},
};

/* ---- measuring ---- */

static int compare(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Milliseconds of one call, after one of warm-up. */
static double time_of(bench *b, kernel_call call, const dck_view *x)
{
    float times[ROUNDS];
    CHECK(call(b, x));
    for (int round = 0; round < ROUNDS; round++) {
        CHECK(cudaEventRecord(b->begin, b->queue.stream));
        for (int i = 0; i < CALLS; i++)
            CHECK(call(b, x));
        CHECK(cudaEventRecord(b->end, b->queue.stream));
        CHECK(cudaEventSynchronize(b->end));
        CHECK(cudaEventElapsedTime(&times[round], b->begin, b->end));
    }
    qsort(times, ROUNDS, sizeof *times, compare);
    return (double)times[ROUNDS / 2] / CALLS;
}

static cudaError_t copy(bench *b, const dck_view *x)
{
    (void)x;
    const size_t bytes = COPY_BYTES < b->pool_bytes / 2 ? COPY_BYTES : b->pool_bytes / 2;
    return cudaMemcpyAsync(b->pool + bytes, b->pool, bytes, cudaMemcpyDeviceToDevice, b->queue.stream);
}

static void measure_memory(bench *b)
{
    const size_t bytes = COPY_BYTES < b->pool_bytes / 2 ? COPY_BYTES : b->pool_bytes / 2;
    b->bytes_per_s = 2 * (double)bytes / (time_of(b, copy, NULL) * 1e-3);
    printf("memory: %.0f GB/s, by copies of %zu MiB\n\n", b->bytes_per_s * 1e-9, bytes >> 20);
}

static void run_row(bench *b, const struct row *row, int channels, int side)
{
    dck_view x[VIEWS];
    const size_t stride = (size_t)channels * (size_t)side * (size_t)side * DCK_LANES;
    const size_t bytes = BLOCKS * stride * dck_type_bytes(b->queue.type);
    if (VIEWS * bytes > b->pool_bytes)
        return;
    for (int i = 0; i < VIEWS; i++)
        x[i] = (dck_view){(float *)(void *)(b->pool + (size_t)i * bytes), channels, side, side, stride, NULL};
    const double ms = time_of(b, row->call, x), rate = row->tensors * (double)bytes / (ms * 1e-3);
    printf("%-34s %4d %3dx%-3d %9.1f us %8.0f GB/s %6.0f %%\n", row->name, channels, side, side, 1e3 * ms, rate * 1e-9,
           100 * rate / b->bytes_per_s);
}

static void open_device(bench *b)
{
    struct cudaDeviceProp properties;
    size_t free_bytes, total;
    const dc_conv_options options = {.workspace_limit = SCRATCH_BYTES};
    CHECK(cudaGetDeviceProperties(&properties, 0));
    CHECK(cudaStreamCreateWithFlags(&b->queue.stream, cudaStreamNonBlocking));
    CHECK(cudaEventCreate(&b->begin));
    CHECK(cudaEventCreate(&b->end));
    CHECK(cudaMalloc((void **)&b->scratch, SCRATCH_BYTES));
    CHECK(cudaMalloc((void **)&b->weights, SCRATCH_BYTES));
    CHECK(cudaMemGetInfo(&free_bytes, &total));
    b->pool_bytes = POOL_BYTES < free_bytes / 2 ? POOL_BYTES : free_bytes / 2;
    CHECK(cudaMalloc((void **)&b->pool, b->pool_bytes));
    CHECK(cudaMemsetAsync(b->pool, 0, b->pool_bytes, b->queue.stream));
    CHECK(cudaMemsetAsync(b->weights, 0, SCRATCH_BYTES, b->queue.stream));
    CHECK(cudaMemsetAsync(b->scratch, 0, SCRATCH_BYTES, b->queue.stream));
    check_status(dc_conv_plans_create(&options, &b->plans));
    b->queue.multiprocessors = properties.multiProcessorCount;
    printf("%s, %s\n", properties.name, b->queue.type == DCK_BF16 ? "bf16" : "float");
}

int main(int argc, char **argv)
{
    static const int shapes[][2] = {{4, 32}, {16, 32}, {36, 32}, {64, 8}, {48, 28}};
    int devices = 0;
    bench b = {.queue.type = argc > 1 && !strcmp(argv[1], "bf16") ? DCK_BF16 : DCK_F32};
    const char *only = argc > 2 ? argv[2] : "";
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
        printf("************ no GPU here: its kernels are not timed ************\n");
        return 0;
    }
    open_device(&b);
    measure_memory(&b);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (size_t k = 0; k < sizeof shapes / sizeof *shapes && strstr(rows[i].name, only); k++)
            run_row(&b, &rows[i], shapes[k][0], shapes[k][1]);
    dc_conv_plans_destroy(b.plans);
    return 0;
}
