/* A step without gaps: runs that are recorded as CUDA graphs and replayed, batches that are copied in meanwhile. */
#include "backend/cuda/cuda_internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- recording ---- */

/* What a recording has built in; what changes in every step is read from device memory (dck_moment). */
typedef struct run_key {
    const void *images, *labels;
    uint64_t seed, generation;
    int n_images, n_global;
    uint32_t first_image;
    unsigned what;
    float momentum;
    bool training;
} run_key;

/* The first time a run is only run, so that cuDNN's plans are made and the workspace has grown; the second time it is
 * recorded. */
typedef struct run {
    run_key key;
    bool known;
    cudaGraphExec_t graph; /* NULL: not recorded yet */
    uint64_t used;
} run;

/* Batches alternate between two places, and a step has a forward and a backward; a last, smaller batch comes to that.
 */
enum { N_RUNS = 8 };

struct dc_runs {
    run run[N_RUNS];
    run *open;      /* the one that is recorded now, else NULL */
    uint64_t clock; /* of use */
};

static run_key key_of(const dc_cuda_backend *b, const dc_step *step, unsigned what)
{
    run_key key;
    memset(&key, 0, sizeof key); /* compared as bytes */
    key.images = step->images.data;
    key.labels = step->labels;
    key.seed = step->seed;
    key.generation = b->generation;
    key.n_images = step->n_images;
    key.n_global = step->n_global;
    key.first_image = step->first_image;
    key.what = what;
    key.momentum = step->momentum;
    key.training = step->training;
    return key;
}

static void forget(run *r)
{
    if (r->graph)
        cudaGraphExecDestroy(r->graph);
    memset(r, 0, sizeof *r);
}

/* The run of this key, known or taking the place of the one that was not used for longest. */
static run *run_of(dc_runs *runs, const run_key *key)
{
    run *oldest = &runs->run[0];
    for (int i = 0; i < N_RUNS; i++) {
        run *r = &runs->run[i];
        if (r->known && !memcmp(&r->key, key, sizeof *key))
            return r;
        if (r->used < oldest->used)
            oldest = r;
    }
    forget(oldest);
    return oldest;
}

dc_status dc_cuda_open_run(dc_backend *backend, dc_runs **runs, const dc_step *step, unsigned what, bool recordable,
                           bool *replayed)
{
    dc_cuda_backend *b = cuda_of(backend);
    *replayed = false;
    if (!*runs && !(*runs = dc_alloc_zeroed(sizeof **runs)))
        return DC_ERR_MEMORY;
    DC_CUDA_TRY(dck_cuda_set_moment(&b->queue, b->moment, (dck_moment){step->index, step->drop_path_rate}));
    b->in_run = true;
    if (!recordable)
        return DC_OK;
    const run_key key = key_of(b, step, what);
    run *r = run_of(*runs, &key);
    r->used = ++(*runs)->clock;
    if (r->graph) {
        DC_CUDA_TRY(cudaGraphLaunch(r->graph, b->stream));
        *replayed = true;
        b->in_run = false;
        return DC_OK;
    }
    if (r->known) {
        DC_CUDA_TRY(cudaStreamBeginCapture(b->stream, cudaStreamCaptureModeThreadLocal));
        (*runs)->open = r;
        b->recording = true;
    }
    r->key = key;
    r->known = true;
    return DC_OK;
}

dc_status dc_cuda_close_run(dc_backend *backend, dc_runs *runs, dc_status status)
{
    dc_cuda_backend *b = cuda_of(backend);
    run *r = runs->open;
    runs->open = NULL;
    b->in_run = b->recording = false;
    if (!r)
        return status;
    cudaGraph_t graph = NULL;
    cudaError_t code = cudaStreamEndCapture(b->stream, &graph);
    if (status == DC_OK && code == cudaSuccess) {
        code = cudaGraphInstantiate(&r->graph, graph, 0);
        if (code == cudaSuccess)
            code = cudaGraphLaunch(r->graph, b->stream);
    }
    if (graph)
        cudaGraphDestroy(graph);
    if (status == DC_OK && code != cudaSuccess)
        return dc_cuda_error(code, "cudaGraphInstantiate");
    return status;
}

void dc_cuda_destroy_runs(dc_backend *backend, dc_runs *runs)
{
    if (!runs)
        return;
    cudaStreamSynchronize(cuda_of(backend)->stream);
    for (int i = 0; i < N_RUNS; i++)
        forget(&runs->run[i]);
    free(runs);
}

/* ---- batches ---- */

static void clear_stage(dc_cuda_stage *stage)
{
    cudaFreeHost(stage->pinned);
    cudaFree(stage->device);
    stage->pinned = stage->device = NULL;
    stage->image_bytes = stage->label_bytes = 0;
}

void dc_cuda_stages_clear(dc_cuda_backend *b)
{
    for (int i = 0; i < DC_CUDA_STAGES; i++) {
        clear_stage(&b->stages[i]);
        if (b->stages[i].copied)
            cudaEventDestroy(b->stages[i].copied);
    }
}

static dc_status grow_stage(dc_cuda_backend *b, dc_cuda_stage *stage, size_t image_bytes, size_t label_bytes)
{
    if (image_bytes <= stage->image_bytes && label_bytes <= stage->label_bytes)
        return DC_OK;
    DC_CUDA_TRY(cudaStreamSynchronize(b->copies));
    DC_TRY(dc_cuda_wait(b));
    clear_stage(stage);
    DC_CUDA_TRY(cudaMallocHost(&stage->pinned, image_bytes + label_bytes));
    DC_TRY(dc_cuda_alloc(image_bytes + label_bytes, &stage->device));
    stage->image_bytes = image_bytes;
    stage->label_bytes = label_bytes;
    return DC_OK;
}

/* To bfloat16, the nearest, ties to even; pixels are finite. */
static void narrow(const float *x, size_t n, uint16_t *y)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        y[i] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    }
}

/* The copy waits until the device has read what lay there before; the device's next step waits for the copy; the host
 * waits for neither, but for the copy before the last. */
dc_status dc_cuda_stage_batch(dc_backend *backend, const float *images, size_t n_floats, const int32_t *labels,
                              size_t n_labels, const float **device_images, const int32_t **device_labels)
{
    dc_cuda_backend *b = cuda_of(backend);
    dc_cuda_stage *stage = &b->stages[b->next_stage];
    const size_t image_bytes = dc_cuda_aligned(n_floats * dc_plan_element_bytes(&backend->layout));
    const size_t label_bytes = dc_cuda_aligned(n_labels * sizeof *labels);
    b->next_stage = (b->next_stage + 1) % DC_CUDA_STAGES;
    if (stage->started)
        DC_CUDA_TRY(cudaEventSynchronize(stage->copied));
    DC_TRY(grow_stage(b, stage, image_bytes, label_bytes));
    char *pinned = stage->pinned, *device = stage->device;
    if (backend->layout.narrow)
        narrow(images, n_floats, (uint16_t *)pinned);
    else
        memcpy(pinned, images, n_floats * sizeof *images);
    memcpy(pinned + stage->image_bytes, labels, n_labels * sizeof *labels);
    /* What was computed since the staging before may read this place; it was enqueued before `computed` was recorded
     * then only if it is older. */
    DC_CUDA_TRY(cudaStreamWaitEvent(b->copies, b->computed, 0));
    DC_CUDA_TRY(cudaEventRecord(b->computed, b->stream));
    DC_CUDA_TRY(cudaMemcpyAsync(device, pinned, stage->image_bytes + n_labels * sizeof *labels, cudaMemcpyHostToDevice,
                                b->copies));
    DC_CUDA_TRY(cudaEventRecord(stage->copied, b->copies));
    DC_CUDA_TRY(cudaStreamWaitEvent(b->stream, stage->copied, 0));
    stage->started = true;
    *device_images = (const float *)device;
    *device_labels = (const int32_t *)(device + stage->image_bytes);
    return DC_OK;
}

/* ---- figures that come back ---- */

dc_status dc_cuda_later_init(dc_cuda_later *later)
{
    DC_CUDA_TRY(cudaMallocHost((void **)&later->pinned, DC_CUDA_LATER * sizeof *later->pinned));
    for (int i = 0; i < DC_CUDA_LATER; i++)
        DC_CUDA_TRY(cudaEventCreateWithFlags(&later->arrived[i], cudaEventDisableTiming));
    return DC_OK;
}

void dc_cuda_later_clear(dc_cuda_later *later)
{
    cudaFreeHost(later->pinned);
    for (int i = 0; i < DC_CUDA_LATER; i++)
        if (later->arrived[i])
            cudaEventDestroy(later->arrived[i]);
}

static void take_first(dc_cuda_later *later)
{
    const int i = later->first;
    later->first = (i + 1) % DC_CUDA_LATER;
    later->n--;
    later->take[i](later->context[i], later->pinned[i]);
}

void dc_cuda_take_later(dc_cuda_backend *b)
{
    while (b->later.n > 0)
        take_first(&b->later);
}

dc_status dc_cuda_copy_out_later(dc_backend *backend, const float *device, size_t count, dc_take take, void *context)
{
    dc_cuda_backend *b = cuda_of(backend);
    dc_cuda_later *later = &b->later;
    if (later->n == DC_CUDA_LATER) {
        DC_TRY(dc_cuda_wait_for(b, later->arrived[later->first]));
        take_first(later);
    }
    const int i = (later->first + later->n++) % DC_CUDA_LATER;
    later->take[i] = take;
    later->context[i] = context;
    DC_CUDA_TRY(cudaMemcpyAsync(later->pinned[i], device, count * sizeof *device, cudaMemcpyDeviceToHost, b->stream));
    DC_CUDA_TRY(cudaEventRecord(later->arrived[i], b->stream));
    return DC_OK;
}

dc_status dc_cuda_await(dc_backend *backend, const void *context)
{
    dc_cuda_backend *b = cuda_of(backend);
    dc_cuda_later *later = &b->later;
    int n = later->n; /* up to the last of this context */
    while (n > 0 && later->context[(later->first + n - 1) % DC_CUDA_LATER] != context)
        n--;
    if (n == 0)
        return DC_OK;
    DC_TRY(dc_cuda_wait_for(b, later->arrived[(later->first + n - 1) % DC_CUDA_LATER]));
    for (; n > 0; n--)
        take_first(later);
    return DC_OK;
}
