/* Runs a planned graph on a backend: forward, backward, metrics. A step allocates nothing.
 *
 * The arena is lent by the caller (dc_arena below) so that the plans of one job, which never run at once, share it. */
#ifndef DC_BACKEND_EXECUTOR_H
#define DC_BACKEND_EXECUTOR_H

#include "backend/backend.h"

/* Step-lifetime device memory that several executors share; grows when an executor needs more. */
typedef struct dc_step_arena {
    dc_backend *backend;
    void *memory;
    size_t bytes;
} dc_step_arena;

dc_status dc_step_arena_reserve(dc_step_arena *arena, size_t bytes);
void dc_step_arena_clear(dc_step_arena *arena);

typedef struct dc_executor dc_executor;

/* The graph must outlive the executor. Prepares every kernel. */
dc_status dc_executor_create(const dc_graph *graph, const dc_plan_options *options, dc_step_arena *arena,
                             dc_executor **executor);
void dc_executor_destroy(dc_executor *executor);

const dc_plan *dc_executor_plan(const dc_executor *executor);

/* values, grads: for each graph param its device memory; grads[i] NULL for DC_ROLE_STATE and in inference. Copied. */
void dc_executor_bind(dc_executor *executor, float *const *values, float *const *grads);

dc_status dc_executor_forward(dc_executor *executor, const dc_step *step);

/* For reductions that overlap the rest of backward. */
typedef struct dc_grad_hook {
    /* Called during backward, in the nodes' order, when the parameter gradients of `node` are complete, or will be with
     * what is enqueued by now. Sets *starts where `start` is to be called before the next node's: for the same backward
     * of the same graph after the same nodes each time. */
    dc_status (*done)(void *context, const dc_graph *graph, int node, bool *starts);
    dc_status (*start)(void *context);
    void *context;
} dc_grad_hook;

/* After forward of the same step with training = true. what: DC_GRAD_WEIGHTS | DC_GRAD_ALPHA; only those gradients are
 * computed, and each is overwritten (with zeros where no loss depends on the parameter). hook may be NULL. */
dc_status dc_executor_backward(dc_executor *executor, const dc_step *step, unsigned what, const dc_grad_hook *hook);

typedef struct dc_metrics {
    double loss;      /* sum over images of the main loss (mean * n), without the auxiliary head's */
    double auxiliary; /* same of the auxiliary head's, unweighted */
    int64_t n, top1, top5;
} dc_metrics;

/* Adds the last forward's figures to *metrics, on a device that computes on its own at the latest when the backend's
 * sync returns: *metrics must live until then, and be read after it. */
dc_status dc_executor_metrics(dc_executor *executor, dc_metrics *metrics);

/* For tests: a node's value or gradient of the last step as NCHW (batch-free: plain). The value must have been kept
 * (dc_plan_options.keep) or lie untouched. */
dc_status dc_executor_read(dc_executor *executor, int node, int n_images, float *values);
dc_status dc_executor_read_grad(dc_executor *executor, int node, int n_images, float *values);

#endif
