#include "backend/cuda/cuda_internal.h"

#include "backend/cuda/described.h"
#include "base/clock.h"

#include <cublasLt.h>
#include <cudnn.h>
#include <nccl.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* What a plan of cuDNN's may ask for: engines that copy large tensors into another layout want as much again. */
static const size_t WORKSPACE_LIMIT = (size_t)512 << 20;

/* ---- memory ---- */

dc_status dc_cuda_alloc(size_t bytes, void **memory)
{
    const cudaError_t code = cudaMalloc(memory, bytes ? bytes : 1);
    if (code == cudaErrorMemoryAllocation) {
        dc_cuda_error(code, "cudaMalloc");
        return dc_fail_within(DC_ERR_MEMORY, "%zu MiB are needed at once", (bytes >> 20) + 1);
    }
    if (code != cudaSuccess)
        return dc_cuda_error(code, "cudaMalloc");
    return DC_OK;
}

static dc_status cuda_alloc(dc_backend *backend, size_t bytes, void **memory)
{
    DC_TRY(dc_cuda_alloc(bytes, memory));
    DC_CUDA_TRY(cudaMemsetAsync(*memory, 0, bytes, cuda_of(backend)->stream));
    return DC_OK;
}

static void cuda_release(dc_backend *backend, void *memory, size_t bytes)
{
    (void)bytes;
    cuda_of(backend)->generation++; /* another allocation may get this address */
    cudaFree(memory);
}

dc_status dc_cuda_workspace(dc_cuda_backend *b, size_t bytes, void **workspace)
{
    if (bytes > b->workspace_bytes) {
        if (b->recording)
            return dc_fail(DC_ERR_INTERNAL, "workspace grows from %zu to %zu bytes in a recording", b->workspace_bytes,
                           bytes);
        DC_TRY(dc_cuda_wait(b));
        cudaFree(b->workspace);
        b->workspace = NULL;
        b->workspace_bytes = 0;
        b->generation++;
        DC_TRY(dc_cuda_alloc(bytes, &b->workspace));
        b->workspace_bytes = bytes;
    }
    *workspace = b->workspace;
    return DC_OK;
}

/* Of an event, or (NULL) of the stream. */
static cudaError_t query(const dc_cuda_backend *b, cudaEvent_t event)
{
    return event ? cudaEventQuery(event) : cudaStreamQuery(b->stream);
}

/* Asleep in short naps where somebody watches. */
dc_status dc_cuda_wait_for(dc_cuda_backend *b, cudaEvent_t event)
{
    const dc_watch *watch = &b->base.watch;
    const double start = dc_clock_seconds();
    while (watch->check && query(b, event) == cudaErrorNotReady) {
        DC_TRY(watch->check(watch->context, dc_clock_seconds() - start));
        nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
    }
    DC_CUDA_TRY(event ? cudaEventSynchronize(event) : cudaStreamSynchronize(b->stream));
    return DC_OK;
}

dc_status dc_cuda_wait(dc_cuda_backend *b)
{
    const dc_status status = dc_cuda_wait_for(b, NULL);
    if (status == DC_OK)
        dc_cuda_take_later(b);
    b->later.n = 0; /* after a failure nobody is left to take them */
    return status;
}

static dc_status cuda_copy_in(dc_backend *backend, void *device, const void *host, size_t bytes)
{
    DC_CUDA_TRY(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, cuda_of(backend)->stream));
    return dc_cuda_wait(cuda_of(backend)); /* host is the caller's again */
}

static dc_status cuda_copy_out(dc_backend *backend, void *host, const void *device, size_t bytes)
{
    DC_CUDA_TRY(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, cuda_of(backend)->stream));
    return dc_cuda_wait(cuda_of(backend));
}

static dc_status cuda_fill_zero(dc_backend *backend, void *device, size_t bytes)
{
    DC_CUDA_TRY(cudaMemsetAsync(device, 0, bytes, cuda_of(backend)->stream));
    return DC_OK;
}

static dc_status cuda_sync(dc_backend *backend)
{
    return dc_cuda_wait(cuda_of(backend));
}

static size_t image_floats(dc_view view)
{
    return (size_t)view.shape.c * (size_t)view.shape.h * (size_t)view.shape.w;
}

static dc_status cuda_write(dc_backend *backend, dc_view view, int n_images, const float *nchw)
{
    dc_cuda_backend *b = cuda_of(backend);
    const size_t bytes = (size_t)n_images * image_floats(view) * sizeof *nchw;
    void *plain = NULL;
    DC_TRY(dc_cuda_workspace(b, bytes, &plain));
    DC_TRY(cuda_copy_in(backend, plain, nchw, bytes));
    DC_CUDA_TRY(dck_cuda_from_nchw(&b->queue, plain, n_images, lanes(view)));
    return DC_OK;
}

static dc_status cuda_read(dc_backend *backend, dc_view view, int n_images, float *nchw)
{
    dc_cuda_backend *b = cuda_of(backend);
    const size_t bytes = (size_t)n_images * image_floats(view) * sizeof *nchw;
    void *plain = NULL;
    DC_TRY(dc_cuda_workspace(b, bytes, &plain));
    DC_CUDA_TRY(dck_cuda_to_nchw(&b->queue, lanes(view), n_images, plain));
    return cuda_copy_out(backend, nchw, plain, bytes);
}

/* ---- kernels ---- */

static dc_status cuda_prepare(dc_backend *backend, const dc_graph *graph, int node, int batch, bool relu_input,
                              dc_kernel **kernel)
{
    return dc_kernels_prepare(&cuda_of(backend)->prepared, graph, node, batch, relu_input, kernel);
}

/* A call on its own is no run, which would have set the moment. */
static dc_status set_moment(dc_cuda_backend *b, const dc_step *step)
{
    if (!b->in_run)
        DC_CUDA_TRY(dck_cuda_set_moment(&b->queue, b->moment, dc_cuda_moment(step)));
    return DC_OK;
}

static dc_status cuda_forward(dc_backend *backend, const dc_kernel *kernel, const dc_kernel_args *args)
{
    DC_TRY(set_moment(cuda_of(backend), args->step));
    return dc_cuda_ops[kernel->op].forward(cuda_of(backend), kernel, args);
}

static dc_status cuda_backward(dc_backend *backend, const dc_kernel *kernel, const dc_kernel_args *args)
{
    DC_TRY(set_moment(cuda_of(backend), args->step));
    return dc_cuda_ops[kernel->op].backward(cuda_of(backend), kernel, args);
}

static void cuda_extra(const void *context, const dc_graph *graph, int node, int batch, bool relu_input,
                       size_t *saved_bytes, size_t *forward_scratch_bytes, size_t *backward_scratch_bytes)
{
    dc_kernel kernel;
    dc_cuda_extra extra = {0};
    dc_kernel_describe(graph, node, batch, relu_input, &kernel);
    if (dc_cuda_ops[kernel.op].extra)
        dc_cuda_ops[kernel.op].extra(context, &kernel, &extra);
    *saved_bytes = extra.saved_bytes;
    *forward_scratch_bytes = extra.forward_scratch_bytes;
    *backward_scratch_bytes = extra.backward_scratch_bytes;
}

static bool cuda_reads_deferred(const void *context, const dc_graph *graph, int node, bool relu_input)
{
    (void)context;
    dc_kernel kernel;
    dc_kernel_describe(graph, node, 1, relu_input, &kernel);
    return kernel.op != DC_OP_CONV || dc_cuda_conv_reads_deferred(&kernel);
}

static void *cuda_stream(dc_backend *backend)
{
    return cuda_of(backend)->stream;
}

/* ---- making ---- */

static void cuda_destroy(dc_backend *backend)
{
    dc_cuda_backend *b = cuda_of(backend);
    if (b->stream)
        cudaStreamSynchronize(b->stream);
    dc_conv_plans_destroy(b->convs);
    dc_linear_plans_destroy(b->linears);
    dc_cuda_tables_clear(b);
    dc_cuda_stages_clear(b);
    dc_cuda_later_clear(&b->later);
    cudaFreeHost(b->seen_sum);
    cudaFree(b->sums);
    cudaFree(b->moment);
    cudaFree(b->workspace);
    if (b->copies)
        cudaStreamDestroy(b->copies);
    if (b->stream)
        cudaStreamDestroy(b->stream);
    dc_kernels_clear(&b->prepared);
    free(b);
}

static const dc_backend_interface interface = {
    .name = "cuda",
    .destroy = cuda_destroy,
    .alloc = cuda_alloc,
    .release = cuda_release,
    .copy_in = cuda_copy_in,
    .copy_out = cuda_copy_out,
    .fill_zero = cuda_fill_zero,
    .sync = cuda_sync,
    .prepare = cuda_prepare,
    .forward = cuda_forward,
    .backward = cuda_backward,
    .write = cuda_write,
    .read = cuda_read,
    .sgd = dc_cuda_sgd,
    .adam = dc_cuda_adam,
    .blend = dc_cuda_blend,
    .add = dc_cuda_add,
    .stream = cuda_stream,
    .open_run = dc_cuda_open_run,
    .end_part = dc_cuda_end_part,
    .begin_part = dc_cuda_begin_part,
    .close_run = dc_cuda_close_run,
    .destroy_runs = dc_cuda_destroy_runs,
    .stage_batch = dc_cuda_stage_batch,
    .copy_out_later = dc_cuda_copy_out_later,
    .await = dc_cuda_await,
    .step_bytes = dc_cuda_step_bytes,
    .memory = dc_cuda_memory,
};

int dc_cuda_devices(char *why, size_t size)
{
    int n = 0;
    const cudaError_t code = cudaGetDeviceCount(&n);
    if (code == cudaSuccess && n > 0)
        return n;
    if (code == cudaErrorInsufficientDriver) { /* also the answer where there is no driver at all */
        int driver = 0;
        cudaDriverGetVersion(&driver);
        snprintf(why, size, driver ? "the NVIDIA driver is too old (CUDA %d.%d)" : "no NVIDIA driver", driver / 1000,
                 driver / 10 % 100);
    } else {
        snprintf(why, size, "%s", code == cudaSuccess ? "the driver shows none" : cudaGetErrorString(code));
    }
    cudaGetLastError();
    return 0;
}

void dc_cuda_versions(char *text, size_t size)
{
    int cuda = 0, nccl = 0;
    const size_t cudnn = cudnnGetVersion(), cublas = cublasLtGetVersion();
    cudaRuntimeGetVersion(&cuda);
    ncclGetVersion(&nccl);
    snprintf(text, size, "CUDA %d.%d, cuDNN %zu.%zu.%zu, cuBLASLt %zu.%zu.%zu, NCCL %d.%d.%d", cuda / 1000,
             cuda / 10 % 100, cudnn / 10000, cudnn / 100 % 100, cudnn % 100, cublas / 10000, cublas / 100 % 100,
             cublas % 100, nccl / 10000, nccl / 100 % 100, nccl % 100);
}

static dc_status open_device(dc_cuda_backend *b, const dc_backend_options *options)
{
    struct cudaDeviceProp properties;
    const size_t sums = dck_cuda_sum_squares_scratch_bytes() + sizeof(double) + sizeof(float);
    DC_CUDA_TRY(cudaSetDevice(b->device));
    DC_CUDA_TRY(cudaGetDeviceProperties(&properties, b->device));
    DC_CUDA_TRY(cudaStreamCreateWithFlags(&b->stream, cudaStreamNonBlocking));
    DC_CUDA_TRY(cudaStreamCreateWithFlags(&b->copies, cudaStreamNonBlocking));
    for (int i = 0; i < DC_CUDA_STAGES; i++) {
        DC_CUDA_TRY(cudaEventCreateWithFlags(&b->stages[i].copied, cudaEventDisableTiming));
        DC_CUDA_TRY(cudaEventCreateWithFlags(&b->stages[i].read, cudaEventDisableTiming));
    }
    DC_TRY(dc_cuda_later_init(&b->later));
    DC_TRY(dc_cuda_alloc(sizeof *b->moment, (void **)&b->moment));
    DC_TRY(dc_cuda_alloc(sums, &b->sums));
    DC_CUDA_TRY(cudaMallocHost((void **)&b->seen_sum, sizeof *b->seen_sum));
    *b->seen_sum = 0;
    b->queue = (dck_queue){.stream = b->stream,
                           .type = b->base.layout.narrow ? DCK_BF16 : DCK_F32,
                           .multiprocessors = properties.multiProcessorCount};
    snprintf(b->base.description, sizeof b->base.description, "cuda, %.80s (GPU %d, compute capability %d.%d), %s%s",
             properties.name, b->device, properties.major, properties.minor, dc_precision_names[b->precision],
             options->autotune ? ", autotuned" : "");
    const dc_conv_options plans = {.workspace_limit = WORKSPACE_LIMIT, .autotune = options->autotune};
    DC_TRY(dc_conv_plans_create(&plans, &b->convs));
    return dc_linear_plans_create(DC_CUDA_LINEAR_WORKSPACE, &b->linears);
}

/* For plans: cuDNN's part of it, and nothing that would need a driver. */
static dc_status describe_device(dc_cuda_backend *b, const dc_described_gpu *gpu)
{
    char json[DC_DESCRIPTION_CHARS];
    dc_described_gpu_json(gpu, json);
    b->described_bytes = (size_t)gpu->memory_bytes;
    snprintf(b->base.description, sizeof b->base.description, "cuda, %s as described (no GPU is used), %s", gpu->name,
             dc_precision_names[b->precision]);
    const dc_conv_options plans = {.device = json, .workspace_limit = WORKSPACE_LIMIT};
    return dc_conv_plans_create(&plans, &b->convs);
}

dc_status dc_cuda_backend_create(const dc_backend_options *options, dc_backend **backend)
{
    char why[128];
    const dc_described_gpu *described = NULL;
    if (options->gpu)
        DC_TRY(dc_described_gpu_find(options->gpu, &described));
    const int n = described ? 1 : dc_cuda_devices(why, sizeof why);
    if (n == 0)
        return dc_fail(DC_ERR_INPUT, "device 'cuda': no GPU here: %s", why);
    dc_cuda_backend *b = dc_alloc_zeroed(sizeof *b);
    if (!b)
        return DC_ERR_MEMORY;
    b->device = options->local_rank % n;
    b->precision = options->precision;
    b->base.call = &interface;
    b->base.layout = (dc_plan_layout){.lane = DCK_LANES,
                                      .narrow = b->precision == DC_PRECISION_BF16,
                                      .folds_relu = true,
                                      .concat_views = true,
                                      .reads_deferred = cuda_reads_deferred,
                                      .extra = cuda_extra,
                                      .context = b};
    const dc_status status = described ? describe_device(b, described) : open_device(b, options);
    if (status != DC_OK) {
        cuda_destroy(&b->base);
        return status;
    }
    *backend = &b->base;
    return DC_OK;
}
