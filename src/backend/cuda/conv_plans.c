#include "backend/cuda/conv_plans.h"

#include "backend/cuda/conv_graph.h"
#include "base/hash.h"
#include "cuda.h"

#include <cudnn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONFIGS = 64, TIMED = 6, ROUNDS = 3, ALIGNMENT = 256, BUCKETS = 1024, KEY_WORDS = 16 };

/* A convolution as it is looked up. */
typedef struct plan_key {
    uint64_t word[KEY_WORDS];
} plan_key;

/* An engine with its settings, and the plan made of it. */
typedef struct candidate {
    cudnnBackendDescriptor_t config, plan;
    size_t workspace_bytes;
    int engine;
} candidate;

struct dc_conv_plan {
    dc_conv_plan *next; /* in its bucket */
    plan_key key;
    const dc_conv_plans *owner;
    dc_conv_shape shape;
    dc_conv_direction direction;
    dc_descriptors graph;
    candidate chosen;
    size_t narrow_bytes; /* of the bfloat16 dw, in front of cuDNN's own workspace */
};

struct dc_conv_plans {
    cudnnHandle_t handle;                /* NULL where only a description of the device is there */
    dc_descriptors described;            /* the description */
    cudnnBackendDescriptor_t properties; /* it; NULL: the current device's */
    size_t workspace_limit;
    bool autotune;
    int n;
    size_t most_workspace_bytes;
    dc_conv_plan *buckets[BUCKETS];
};

static const char *const direction_names[DC_CONV_DIRECTIONS] = {"forward", "data gradient", "added data gradient",
                                                                "weight gradient"};

bool dc_conv_shape_sampled(const dc_conv_shape *shape, dc_conv_shape *dense)
{
    *dense = *shape;
    if (shape->kernel != 1 || (shape->stride == 1 && !shape->pad_begin && !shape->pad_end))
        return false;
    dense->in_h = shape->out_h;
    dense->in_w = shape->out_w;
    dense->stride = 1;
    dense->pad_begin = dense->pad_end = 0;
    dense->x_stride = (size_t)shape->in_c * shape->out_h * shape->out_w * DCK_LANES;
    return true;
}

/* "cuDNN ...: WHY", with the convolution. */
static dc_status fail_with(dc_status code, const dc_conv_plan *plan, const char *what, const char *why)
{
    const dc_conv_shape *s = &plan->shape;
    return dc_fail(code,
                   "cuDNN %s for the %s of a %dx%d convolution of %dx%dx%d to %dx%dx%d (stride %d, padding %d and %d, "
                   "dilation %d, %d images, %s): %s",
                   what, direction_names[plan->direction], s->kernel, s->kernel, s->in_c, s->in_h, s->in_w, s->out_c,
                   s->out_h, s->out_w, s->stride, s->pad_begin, s->pad_end, s->dilation, s->blocks * DCK_LANES,
                   dc_precision_names[s->precision], why);
}

static bool succeeded(cudnnStatus_t status, char why[DC_CUDNN_WHY])
{
    if (status != CUDNN_STATUS_SUCCESS)
        dc_cudnn_why(status, why);
    return status == CUDNN_STATUS_SUCCESS;
}

static void destroy_descriptor(cudnnBackendDescriptor_t *descriptor)
{
    if (*descriptor)
        cudnnBackendDestroyDescriptor(*descriptor);
    *descriptor = NULL;
}

static void candidate_clear(candidate *c)
{
    destroy_descriptor(&c->plan);
    destroy_descriptor(&c->config);
}

/* ---- engines ---- */

/* Whether an engine computes what is asked for: see the header. */
static bool engine_allowed(cudnnBackendDescriptor_t engine, dc_precision precision)
{
    cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    cudnnBackendBehaviorNote_t habits[CUDNN_BEHAVIOR_NOTE_TYPE_COUNT];
    int64_t n_notes = 0, n_habits = 0;
    if (cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                 CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &n_notes, notes) != CUDNN_STATUS_SUCCESS ||
        cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE,
                                 CUDNN_BEHAVIOR_NOTE_TYPE_COUNT, &n_habits, habits) != CUDNN_STATUS_SUCCESS)
        return false;
    for (int i = 0; i < n_habits && i < CUDNN_BEHAVIOR_NOTE_TYPE_COUNT; i++)
        if (habits[i] == CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION)
            return false;
    for (int i = 0; i < n_notes && i < CUDNN_NUMERICAL_NOTE_TYPE_COUNT; i++) {
        if (notes[i] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC ||
            notes[i] == CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION ||
            notes[i] == CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS)
            return false;
        if (notes[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE && precision == DC_PRECISION_F32)
            return false;
    }
    return true;
}

/* The number of the configuration's engine, -1 where it is not to be taken. */
static int engine_of(cudnnBackendDescriptor_t config, dc_precision precision)
{
    cudnnBackendDescriptor_t engine = NULL;
    int64_t n = 0, number = -1;
    if (cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine) != CUDNN_STATUS_SUCCESS)
        return -1;
    if (cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &n, &engine) !=
            CUDNN_STATUS_SUCCESS ||
        !engine_allowed(engine, precision) ||
        cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &n, &number) !=
            CUDNN_STATUS_SUCCESS)
        number = -1;
    cudnnBackendDestroyDescriptor(engine);
    return (int)number;
}

/* Makes the plan of c->config; false, with a reason and nothing made, where there is none within the limit. */
static bool candidate_plan(const dc_conv_plans *plans, candidate *c, char why[DC_CUDNN_WHY])
{
    int64_t bytes = 0, n = 0;
    if (!succeeded(cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &c->plan), why))
        return false;
    bool good = succeeded(cudnnBackendSetAttribute(c->plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
                                                   CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &c->config),
                          why);
    if (good && plans->handle)
        good = succeeded(
            cudnnBackendSetAttribute(c->plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &plans->handle),
            why);
    if (good && plans->properties)
        good = succeeded(cudnnBackendSetAttribute(c->plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP,
                                                  CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &plans->properties),
                         why);
    good = good && succeeded(cudnnBackendFinalize(c->plan), why) &&
           succeeded(cudnnBackendGetAttribute(c->plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1,
                                              &n, &bytes),
                     why);
    if (good && (uint64_t)bytes > plans->workspace_limit) {
        snprintf(why, DC_CUDNN_WHY, "an engine wants a workspace of %lld bytes, the limit is %zu", (long long)bytes,
                 plans->workspace_limit);
        good = false;
    }
    c->workspace_bytes = (size_t)bytes;
    if (!good)
        destroy_descriptor(&c->plan);
    return good;
}

/* Fills `configs` with what the heuristics propose, best first: owned by the caller. */
static int propose(const dc_conv_plans *plans, cudnnBackendDescriptor_t graph, cudnnBackendHeurMode_t mode,
                   cudnnBackendDescriptor_t configs[CONFIGS], char why[DC_CUDNN_WHY])
{
    dc_descriptors own = {0};
    cudnnBackendDescriptor_t heuristics = dc_descriptor_begin(&own, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    dc_descriptor_set(&own, heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                      &graph);
    dc_descriptor_set(&own, heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    if (plans->properties)
        dc_descriptor_set(&own, heuristics, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                          &plans->properties);
    dc_descriptor_end(&own, heuristics);
    bool good = own.error == CUDNN_STATUS_SUCCESS;
    if (!good)
        snprintf(why, DC_CUDNN_WHY, "%s", own.why);
    int made = 0;
    while (good && made < CONFIGS) {
        good = succeeded(cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &configs[made]), why);
        made += good;
    }
    int64_t n = 0;
    good = good && succeeded(cudnnBackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                                      CUDNN_TYPE_BACKEND_DESCRIPTOR, CONFIGS, &n, configs),
                             why);
    n = !good ? 0 : n < CONFIGS ? n : CONFIGS;
    while (made > n)
        destroy_descriptor(&configs[--made]);
    dc_descriptors_clear(&own);
    return (int)n;
}

/* Up to `limit` candidates that can be executed, in the order of the heuristics. */
static int find_candidates(const dc_conv_plans *plans, const dc_conv_plan *plan, cudnnBackendDescriptor_t graph,
                           int limit, candidate *found, char why[DC_CUDNN_WHY])
{
    static const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
    int n = 0;
    for (int m = 0; m < 2 && n == 0; m++) {
        cudnnBackendDescriptor_t configs[CONFIGS] = {NULL};
        int n_configs = propose(plans, graph, modes[m], configs, why);
        for (int i = 0; i < n_configs; i++) {
            candidate c = {.config = configs[i], .engine = -1};
            if (n < limit)
                c.engine = engine_of(c.config, plan->shape.precision);
            if (c.engine >= 0 && candidate_plan(plans, &c, why))
                found[n++] = c;
            else
                candidate_clear(&c);
        }
    }
    return n;
}

/* ---- execution ---- */

static dc_status execute(const dc_conv_plan *plan, const candidate *c, cudaStream_t stream, void *x, void *w, void *y,
                         void *workspace)
{
    const int64_t names[] = {DC_CONV_UID_X, DC_CONV_UID_W, DC_CONV_UID_Y};
    void *const pointers[] = {x, w, y};
    dc_descriptors own = {0};
    cudnnBackendDescriptor_t pack = dc_descriptor_begin(&own, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    dc_descriptor_set(&own, pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 3, names);
    dc_descriptor_set(&own, pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 3, pointers);
    dc_descriptor_set(&own, pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
    dc_descriptor_end(&own, pack);
    char why[DC_CUDNN_WHY];
    bool good = own.error == CUDNN_STATUS_SUCCESS;
    if (!good)
        memcpy(why, own.why, sizeof why);
    good = good && succeeded(cudnnSetStream(plan->owner->handle, stream), why) &&
           succeeded(cudnnBackendExecute(plan->owner->handle, c->plan, pack), why);
    dc_descriptors_clear(&own);
    return good ? DC_OK : fail_with(DC_ERR_DEVICE, plan, "does not execute its plan", why);
}

dc_status dc_conv_plan_execute(const dc_conv_plan *plan, cudaStream_t stream, void *x, void *w, void *y,
                               void *workspace, size_t workspace_bytes)
{
    if (!plan->owner->handle)
        return fail_with(DC_ERR_INTERNAL, plan, "cannot execute a plan", "it is for a device that is only described");
    if (workspace_bytes < dc_conv_plan_workspace_bytes(plan))
        return fail_with(DC_ERR_INTERNAL, plan, "lacks workspace", "less is given than the plan asks for");
    if (!plan->narrow_bytes)
        return execute(plan, &plan->chosen, stream, x, w, y, workspace);
    const dc_conv_shape *s = &plan->shape;
    DC_TRY(execute(plan, &plan->chosen, stream, x, workspace, y, (char *)workspace + plan->narrow_bytes));
    const dck_queue queue = {.stream = stream, .type = DCK_BF16, .multiprocessors = 1};
    cudaError_t error = dck_cuda_widen(&queue, workspace, w, (size_t)s->out_c * s->in_c * s->kernel * s->kernel);
    return error == cudaSuccess ? DC_OK : fail_with(DC_ERR_DEVICE, plan, "is followed by", cudaGetErrorString(error));
}

/* ---- timing ---- */

/* Memory for the operands of one convolution, cleared. */
typedef struct trial {
    void *x, *w, *y, *workspace;
    cudaStream_t stream;
    cudaEvent_t begin, end;
} trial;

static cudaError_t room(void **memory, size_t bytes, cudaStream_t stream)
{
    cudaError_t error = cudaMalloc(memory, bytes ? bytes : 1);
    return error == cudaSuccess ? cudaMemsetAsync(*memory, 0, bytes, stream) : error;
}

static cudaError_t trial_begin(trial *t, const dc_conv_shape *s, size_t workspace_bytes)
{
    const size_t element = s->precision == DC_PRECISION_BF16 ? 2 : 4, last = (size_t)s->blocks - 1;
    const size_t x = last * s->x_stride + (size_t)s->in_c * s->in_h * s->in_w * DCK_LANES;
    const size_t y = last * s->y_stride + (size_t)s->out_c * s->out_h * s->out_w * DCK_LANES;
    const size_t w = (size_t)s->out_c * s->in_c * s->kernel * s->kernel;
    cudaError_t error;
    if ((error = cudaStreamCreateWithFlags(&t->stream, cudaStreamNonBlocking)) == cudaSuccess &&
        (error = cudaEventCreate(&t->begin)) == cudaSuccess && (error = cudaEventCreate(&t->end)) == cudaSuccess &&
        (error = room(&t->x, x * element, t->stream)) == cudaSuccess &&
        (error = room(&t->w, w * element, t->stream)) == cudaSuccess &&
        (error = room(&t->y, y * element, t->stream)) == cudaSuccess)
        error = room(&t->workspace, workspace_bytes, t->stream);
    return error;
}

static void trial_end(trial *t)
{
    if (t->stream) {
        cudaStreamSynchronize(t->stream);
        cudaStreamDestroy(t->stream);
    }
    if (t->begin)
        cudaEventDestroy(t->begin);
    if (t->end)
        cudaEventDestroy(t->end);
    cudaFree(t->x);
    cudaFree(t->w);
    cudaFree(t->y);
    cudaFree(t->workspace);
}

/* Milliseconds of the fastest of several rounds. */
static dc_status time_candidate(const dc_conv_plan *plan, const candidate *c, const trial *t, float *best_ms)
{
    *best_ms = 1e30f;
    for (int round = 0; round <= ROUNDS; round++) { /* the first one warms up */
        float ms = 0;
        cudaError_t error = cudaEventRecord(t->begin, t->stream);
        DC_TRY(execute(plan, c, t->stream, t->x, t->w, t->y, t->workspace));
        if (error != cudaSuccess || (error = cudaEventRecord(t->end, t->stream)) != cudaSuccess ||
            (error = cudaEventSynchronize(t->end)) != cudaSuccess ||
            (error = cudaEventElapsedTime(&ms, t->begin, t->end)) != cudaSuccess)
            return fail_with(DC_ERR_DEVICE, plan, "is not timed", cudaGetErrorString(error));
        if (round && ms < *best_ms)
            *best_ms = ms;
    }
    return DC_OK;
}

/* The fastest one; the first one where there is no memory to try them. */
static dc_status fastest(const dc_conv_plan *plan, int n, const candidate *candidates, int *best)
{
    size_t workspace_bytes = 0;
    for (int i = 0; i < n; i++)
        if (candidates[i].workspace_bytes > workspace_bytes)
            workspace_bytes = candidates[i].workspace_bytes;
    *best = 0;
    trial t = {0};
    cudaError_t error = trial_begin(&t, &plan->shape, workspace_bytes);
    dc_status status = DC_OK;
    if (error == cudaErrorMemoryAllocation) {
        cudaGetLastError(); /* it is dealt with */
        n = 0;
    } else if (error != cudaSuccess) {
        status = fail_with(DC_ERR_DEVICE, plan, "is not timed", cudaGetErrorString(error));
    }
    float best_ms = 1e30f;
    for (int i = 0; i < n && status == DC_OK; i++) {
        float ms;
        status = time_candidate(plan, &candidates[i], &t, &ms);
        if (status == DC_OK && ms < best_ms) {
            best_ms = ms;
            *best = i;
        }
    }
    trial_end(&t);
    return status;
}

/* ---- the cache ---- */

static dc_status choose(const dc_conv_plans *plans, dc_conv_plan *plan)
{
    cudnnBackendDescriptor_t graph = dc_conv_graph_make(&plan->graph, plans->handle, &plan->shape, plan->direction);
    if (plan->graph.error != CUDNN_STATUS_SUCCESS)
        return fail_with(DC_ERR_DEVICE, plan, "rejects the graph", plan->graph.why);
    candidate found[TIMED];
    char why[DC_CUDNN_WHY] = "it proposes none that computes what is asked for";
    const int n = find_candidates(plans, plan, graph, plans->autotune ? TIMED : 1, found, why);
    if (n == 0)
        return fail_with(DC_ERR_DEVICE, plan, "has no engine", why);
    int best = 0;
    dc_status status = n > 1 ? fastest(plan, n, found, &best) : DC_OK;
    for (int i = 0; i < n; i++)
        if (i != best || status != DC_OK)
            candidate_clear(&found[i]);
    if (status == DC_OK)
        plan->chosen = found[best];
    return status;
}

static void plan_destroy(dc_conv_plan *plan)
{
    candidate_clear(&plan->chosen);
    dc_descriptors_clear(&plan->graph);
    free(plan);
}

static plan_key key_of(const dc_conv_shape *s, dc_conv_direction direction)
{
    return (plan_key){{(uint64_t)s->in_c, (uint64_t)s->out_c, (uint64_t)s->in_h, (uint64_t)s->in_w, (uint64_t)s->out_h,
                       (uint64_t)s->out_w, (uint64_t)s->kernel, (uint64_t)s->stride, (uint64_t)s->pad_begin,
                       (uint64_t)s->pad_end, (uint64_t)s->dilation, (uint64_t)s->blocks, s->x_stride, s->y_stride,
                       (uint64_t)s->precision, (uint64_t)direction}};
}

dc_status dc_conv_plans_get(dc_conv_plans *plans, const dc_conv_shape *shape, dc_conv_direction direction,
                            const dc_conv_plan **plan)
{
    const plan_key key = key_of(shape, direction);
    dc_conv_plan **bucket = &plans->buckets[dc_hash_of(&key, sizeof key) % BUCKETS];
    for (*plan = *bucket; *plan; *plan = (*plan)->next)
        if (!memcmp(&(*plan)->key, &key, sizeof key))
            return DC_OK;
    dc_conv_plan *made = dc_alloc_zeroed(sizeof *made);
    if (!made)
        return DC_ERR_MEMORY;
    made->key = key;
    made->owner = plans;
    made->shape = *shape;
    made->direction = direction;
    if (direction == DC_CONV_WEIGHTS && shape->precision == DC_PRECISION_BF16) {
        const size_t bytes = (size_t)shape->out_c * shape->in_c * shape->kernel * shape->kernel * 2;
        made->narrow_bytes = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }
    dc_status status = choose(plans, made);
    if (status != DC_OK) {
        plan_destroy(made);
        return status;
    }
    const size_t workspace_bytes = dc_conv_plan_workspace_bytes(made);
    if (workspace_bytes > plans->most_workspace_bytes)
        plans->most_workspace_bytes = workspace_bytes;
    plans->n++;
    made->next = *bucket;
    *plan = *bucket = made;
    return DC_OK;
}

dc_status dc_conv_plans_create(const dc_conv_options *options, dc_conv_plans **plans)
{
    *plans = NULL;
    dc_conv_plans *made = dc_alloc_zeroed(sizeof *made);
    if (!made)
        return DC_ERR_MEMORY;
    made->workspace_limit = options->workspace_limit;
    made->autotune = options->autotune && !options->device;
    char why[DC_CUDNN_WHY] = "";
    bool good = true;
    if (options->device) {
        dc_descriptors *all = &made->described;
        made->properties = dc_descriptor_begin(all, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
        dc_descriptor_set(all, made->properties, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                          (int64_t)strlen(options->device), options->device);
        dc_descriptor_end(all, made->properties);
        good = all->error == CUDNN_STATUS_SUCCESS;
        memcpy(why, all->why, sizeof why);
    } else {
        good = succeeded(cudnnCreate(&made->handle), why);
    }
    if (!good) {
        dc_conv_plans_destroy(made);
        return dc_fail(DC_ERR_DEVICE, "cuDNN cannot be used: %s", why);
    }
    *plans = made;
    return DC_OK;
}

void dc_conv_plans_destroy(dc_conv_plans *plans)
{
    if (!plans)
        return;
    for (int i = 0; i < BUCKETS; i++)
        for (dc_conv_plan *plan = plans->buckets[i], *next; plan; plan = next) {
            next = plan->next;
            plan_destroy(plan);
        }
    dc_descriptors_clear(&plans->described);
    if (plans->handle)
        cudnnDestroy(plans->handle);
    free(plans);
}

int dc_conv_plans_count(const dc_conv_plans *plans)
{
    return plans->n;
}

size_t dc_conv_plans_workspace_bytes(const dc_conv_plans *plans)
{
    return plans->most_workspace_bytes;
}

size_t dc_conv_plan_workspace_bytes(const dc_conv_plan *plan)
{
    return plan->narrow_bytes + plan->chosen.workspace_bytes;
}

int dc_conv_plan_engine(const dc_conv_plan *plan)
{
    return plan->chosen.engine;
}
