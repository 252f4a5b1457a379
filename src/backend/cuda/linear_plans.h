/* The classifier's products by cuBLASLt: y[out][16] = w[out][features] x[features][16] for each block of images, and
 * both gradients. Plans are algorithms, proposed by its heuristics and cached. (Unlike cuDNN, cuBLASLt cannot be asked
 * without a GPU: only executing tests hold this.)
 *
 * Its matrices are stored by columns, ours by rows, so that it is told of the transposes: y' = x' w', where x' is
 * [16][features] of leading dimension 16 and w' [features][out] of leading dimension `features`. The gradient of w sums
 * over blocks, whose distance is any: one product after the other adds to it, in the blocks' order.
 *
 * Collective: no. One cache belongs to one thread. */
#ifndef DC_BACKEND_CUDA_LINEAR_PLANS_H
#define DC_BACKEND_CUDA_LINEAR_PLANS_H

#include "backend/precision.h"
#include "base/status.h"

#include <cuda_runtime_api.h>
#include <stddef.h>

typedef struct dc_linear_shape {
    int features, out, blocks;
    size_t x_stride, y_stride; /* elements from one block to the next */
    dc_precision precision;
} dc_linear_shape;

typedef enum dc_linear_direction {
    DC_LINEAR_FORWARD,  /* y = w x */
    DC_LINEAR_DATA,     /* dx = w^T dy */
    DC_LINEAR_DATA_ADD, /* dx += ... */
    DC_LINEAR_WEIGHTS,  /* dw = sum over images of dy x^T; always float */
    DC_LINEAR_DIRECTIONS
} dc_linear_direction;

typedef struct dc_linear_plans dc_linear_plans; /* the cache, owner of its plans */
typedef struct dc_linear_plan dc_linear_plan;

/* workspace_limit: bytes that a plan may ask for. DC_ERR_DEVICE with cuBLASLt's reason. */
dc_status dc_linear_plans_create(size_t workspace_limit, dc_linear_plans **plans);
void dc_linear_plans_destroy(dc_linear_plans *plans);

/* The cached or a new plan, valid as long as the cache. DC_ERR_DEVICE where there is no algorithm. */
dc_status dc_linear_plans_get(dc_linear_plans *plans, const dc_linear_shape *shape, dc_linear_direction direction,
                              const dc_linear_plan **plan);

size_t dc_linear_plan_workspace_bytes(const dc_linear_plan *plan);

/* Enqueues on stream; x, w, y: operands or results (dx, dw, dy in their places), 16-byte aligned device memory. w:
 * bfloat16 in DC_PRECISION_BF16; dw: float. workspace: 256-byte aligned; DC_ERR_INTERNAL if it is less than the
 * plan's. */
dc_status dc_linear_plan_execute(const dc_linear_plan *plan, cudaStream_t stream, void *x, void *w, void *y,
                                 void *workspace, size_t workspace_bytes);

#endif
