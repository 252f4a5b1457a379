/* A step without gaps: runs that are recorded as CUDA graphs and replayed, batches that are copied in meanwhile. */
#include "backend/cuda/cuda_internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- recording ---- */

/* What a recording has built in; what changes in every step is read from device memory (dck_moment). */
typedef struct run_key {
    const void *images, *labels, *parts;
    uint64_t seed, generation;
    int n_images, n_global;
    unsigned what;
    float momentum;
    bool training;
} run_key;

/* The first time a run is only run, so that cuDNN's plans are made and the workspace has grown; the second time it is
 * recorded, a graph for each part. Sums over ranks, between parts, are in no graph: NCCL wants ranks to record and to
 * replay a sum all alike, and its communicators neither end nor abort while a graph has one. */
typedef struct run {
    run_key key;
    bool known, whole; /* whole: recorded, to its end */
    int n_parts, capacity;
    cudaGraphExec_t *parts;
    uint64_t used;
} run;

/* A step has a forward and a backward; a last, smaller batch has others, and so have batches of a place that was given
 * up for a larger one. */
enum { N_RUNS = 8 };

struct dc_runs {
    run run[N_RUNS];
    run *open;      /* recorded or replayed now, else NULL */
    int next_part;  /* to be replayed */
    uint64_t clock; /* of use */
};

static run_key key_of(const dc_cuda_backend *b, const dc_step *step, unsigned what, const void *parts)
{
    run_key key;
    memset(&key, 0, sizeof key); /* compared as bytes */
    key.images = step->images.data;
    key.labels = step->labels;
    key.parts = parts;
    key.seed = step->seed;
    key.generation = b->generation;
    key.n_images = step->n_images;
    key.n_global = step->n_global;
    key.what = what;
    key.momentum = step->momentum;
    key.training = step->training;
    return key;
}

static void forget(run *r)
{
    for (int i = 0; i < r->n_parts; i++)
        cudaGraphExecDestroy(r->parts[i]);
    free(r->parts);
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

/* A recording belongs to this thread: what others do meanwhile (NCCL's, MPI's) is no part of it. */
static dc_status begin_recording(dc_cuda_backend *b)
{
    DC_CUDA_TRY(cudaStreamBeginCapture(b->stream, cudaStreamCaptureModeThreadLocal));
    b->recording = true;
    return DC_OK;
}

static void abandon_recording(dc_cuda_backend *b)
{
    cudaGraph_t graph = NULL;
    if (b->recording && cudaStreamEndCapture(b->stream, &graph) == cudaSuccess)
        cudaGraphDestroy(graph);
    b->recording = false;
}

static dc_status launch_next(dc_cuda_backend *b, dc_runs *runs)
{
    if (runs->next_part == runs->open->n_parts)
        return dc_fail(DC_ERR_INTERNAL, "a run has more than the %d parts that were recorded", runs->open->n_parts);
    DC_CUDA_TRY(cudaGraphLaunch(runs->open->parts[runs->next_part++], b->stream));
    return DC_OK;
}

static dc_status make_room(run *r)
{
    if (r->n_parts < r->capacity)
        return DC_OK;
    const int capacity = r->capacity ? 2 * r->capacity : 4;
    cudaGraphExec_t *grown = dc_realloc(r->parts, (size_t)capacity * sizeof(cudaGraphExec_t));
    if (!grown)
        return DC_ERR_MEMORY;
    r->parts = grown;
    r->capacity = capacity;
    return DC_OK;
}

static dc_status keep_part(run *r, cudaGraph_t graph)
{
    DC_TRY(make_room(r));
    DC_CUDA_TRY(cudaGraphInstantiate(&r->parts[r->n_parts], graph, 0));
    r->n_parts++;
    return DC_OK;
}

dc_status dc_cuda_open_run(dc_backend *backend, dc_runs **runs, const dc_step *step, unsigned what, const void *parts,
                           bool *replayed)
{
    dc_cuda_backend *b = cuda_of(backend);
    *replayed = false;
    if (!*runs && !(*runs = dc_alloc_zeroed(sizeof **runs)))
        return DC_ERR_MEMORY;
    DC_CUDA_TRY(dck_cuda_set_moment(&b->queue, b->moment, dc_cuda_moment(step)));
    const run_key key = key_of(b, step, what, parts);
    run *r = run_of(*runs, &key);
    r->used = ++(*runs)->clock;
    b->in_run = true;
    (*runs)->next_part = 0;
    (*runs)->open = r->known ? r : NULL;
    *replayed = r->whole;
    if (r->known)
        return r->whole ? launch_next(b, *runs) : begin_recording(b);
    r->key = key;
    r->known = true;
    return DC_OK;
}

/* What was recorded has not run yet: it does so now. */
dc_status dc_cuda_end_part(dc_backend *backend, dc_runs *runs)
{
    dc_cuda_backend *b = cuda_of(backend);
    cudaGraph_t graph = NULL;
    if (!b->recording)
        return DC_OK;
    b->recording = false;
    DC_CUDA_TRY(cudaStreamEndCapture(b->stream, &graph));
    const dc_status status = keep_part(runs->open, graph);
    cudaGraphDestroy(graph);
    return status == DC_OK ? launch_next(b, runs) : status;
}

dc_status dc_cuda_begin_part(dc_backend *backend, dc_runs *runs)
{
    if (!runs->open)
        return DC_OK;
    return runs->open->whole ? launch_next(cuda_of(backend), runs) : begin_recording(cuda_of(backend));
}

dc_status dc_cuda_close_run(dc_backend *backend, dc_runs *runs, dc_status status)
{
    run *r = runs->open;
    if (status == DC_OK)
        status = dc_cuda_end_part(backend, runs);
    else
        abandon_recording(cuda_of(backend));
    if (r && status == DC_OK && runs->next_part < r->n_parts)
        status = dc_fail(DC_ERR_INTERNAL, "a run ends before the last of its %d parts", r->n_parts);
    if (r && status == DC_OK)
        r->whole = true;
    else if (r)
        forget(r);
    runs->open = NULL;
    cuda_of(backend)->in_run = false;
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

/* Where the parts of a staged batch lie. */
typedef struct staging {
    size_t draws, table, labels, end;
} staging;

static staging staging_of(dc_shape shape, int n_images)
{
    const size_t n = (size_t)n_images, c = (size_t)shape.c;
    staging at;
    at.draws = dc_cuda_aligned(n * c * (size_t)shape.h * (size_t)shape.w);
    at.table = at.draws + dc_cuda_aligned(n * sizeof(dck_augment_draw));
    at.labels = at.table + dc_cuda_aligned(c * 256 * sizeof(float));
    at.end = at.labels + dc_cuda_aligned(n * sizeof(int32_t));
    return at;
}

/* Of the batch that is computed on. */
static size_t image_bytes_of(const dc_plan_layout *layout, dc_shape shape, int n_images)
{
    const size_t blocks = ((size_t)n_images + DCK_LANES - 1) / DCK_LANES;
    return dc_cuda_aligned(blocks * shaped(shape).stride * dc_plan_element_bytes(layout));
}

size_t dc_cuda_batch_bytes(const dc_plan_layout *layout, dc_shape shape, int n_images)
{
    const staging at = staging_of(shape, n_images);
    return DC_CUDA_STAGES * at.end + image_bytes_of(layout, shape, n_images) + (at.end - at.labels);
}

static void clear_stage(dc_cuda_stage *stage)
{
    cudaFreeHost(stage->pinned);
    cudaFree(stage->device);
    stage->pinned = stage->device = NULL;
    stage->capacity = 0;
}

void dc_cuda_stages_clear(dc_cuda_backend *b)
{
    for (int i = 0; i < DC_CUDA_STAGES; i++) {
        clear_stage(&b->stages[i]);
        if (b->stages[i].copied)
            cudaEventDestroy(b->stages[i].copied);
        if (b->stages[i].read)
            cudaEventDestroy(b->stages[i].read);
    }
    cudaFree(b->images);
    cudaFree(b->labels);
}

/* The stream has waited for all copies. */
static dc_status grow_stage(dc_cuda_backend *b, dc_cuda_stage *stage, size_t bytes)
{
    if (bytes <= stage->capacity)
        return DC_OK;
    DC_TRY(dc_cuda_wait(b));
    clear_stage(stage);
    DC_CUDA_TRY(cudaMallocHost(&stage->pinned, bytes));
    DC_TRY(dc_cuda_alloc(bytes, &stage->device));
    stage->capacity = bytes;
    return DC_OK;
}

static dc_status grow(dc_cuda_backend *b, void **memory, size_t *capacity, size_t bytes)
{
    if (bytes <= *capacity)
        return DC_OK;
    DC_TRY(dc_cuda_wait(b));
    cudaFree(*memory);
    *memory = NULL;
    *capacity = 0;
    DC_TRY(dc_cuda_alloc(bytes, memory));
    *capacity = bytes;
    return DC_OK;
}

/* On the stream, once the copy is through. */
static dc_status assemble(dc_cuda_backend *b, dc_cuda_stage *stage, dc_shape shape, int n_images, int pad)
{
    const staging at = staging_of(shape, n_images);
    const char *from = stage->device;
    dck_view y = shaped(shape);
    y.data = b->images;
    DC_CUDA_TRY(cudaStreamWaitEvent(b->stream, stage->copied, 0));
    DC_CUDA_TRY(dck_cuda_augment(&b->queue, (const uint8_t *)from, (const dck_augment_draw *)(from + at.draws),
                                 (const float *)(from + at.table), pad, y, n_images));
    DC_CUDA_TRY(cudaMemcpyAsync(b->labels, from + at.labels, (size_t)n_images * sizeof(int32_t),
                                cudaMemcpyDeviceToDevice, b->stream));
    DC_CUDA_TRY(cudaEventRecord(stage->read, b->stream));
    return DC_OK;
}

/* Bytes go to the device, a quarter of the batch's floats. The copy waits until what lay in its place has been read,
 * which is early in the step before the last; the host waits for nothing but the copy before the last. What steps
 * compute on is always in the same place, so that one recording suffices. */
dc_status dc_cuda_stage_batch(dc_backend *backend, dc_shape shape, int n_images, const dc_raw_images *pixels,
                              const int32_t *labels, const float **device_images, const int32_t **device_labels)
{
    dc_cuda_backend *b = cuda_of(backend);
    dc_cuda_stage *stage = &b->stages[b->next_stage];
    const size_t n = (size_t)n_images, c = (size_t)shape.c;
    const staging at = staging_of(shape, n_images);
    b->next_stage = (b->next_stage + 1) % DC_CUDA_STAGES;
    if (stage->started) /* behind steps that may wait for other ranks */
        DC_TRY(dc_cuda_wait_for(b, stage->copied));
    DC_TRY(grow_stage(b, stage, at.end));
    DC_TRY(grow(b, &b->images, &b->image_bytes, image_bytes_of(&backend->layout, shape, n_images)));
    DC_TRY(grow(b, &b->labels, &b->label_bytes, at.end - at.labels));
    char *to = stage->pinned;
    memcpy(to, pixels->bytes, n * c * (size_t)shape.h * (size_t)shape.w);
    memcpy(to + at.draws, pixels->draws, n * sizeof *pixels->draws);
    memcpy(to + at.table, pixels->table, c * 256 * sizeof *pixels->table);
    memcpy(to + at.labels, labels, n * sizeof *labels);
    if (stage->started)
        DC_CUDA_TRY(cudaStreamWaitEvent(b->copies, stage->read, 0));
    stage->started = true;
    DC_CUDA_TRY(cudaMemcpyAsync(stage->device, to, at.labels + n * sizeof *labels, cudaMemcpyHostToDevice, b->copies));
    DC_CUDA_TRY(cudaEventRecord(stage->copied, b->copies));
    DC_TRY(assemble(b, stage, shape, n_images, pixels->pad));
    *device_images = b->images;
    *device_labels = b->labels;
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
