/* Dense convolutions by cuDNN's graph (backend) API: plans of engines, chosen once and cached.
 *
 * In our layout x[block][C][H][W][16] (kernels/cuda.h) a convolution is, for cuDNN, a 3-D one of a packed NCDHW tensor
 * with N = blocks, D = H, H = W, W = 16 lanes, and a filter of k x k x 1; a 1x1 convolution of stride 1 is a 2-D one of
 * NCHW with H = h w, W = 16. Ranges of channels are strides between blocks. (A MATMUL operation would do for the
 * latter, but its engines are all compiled at run time, seconds each, and none forms the sum over blocks that dw
 * needs.)
 *
 * Engines that sum in an order that varies from run to run are never taken; those that round factors to TF32 only where
 * that is asked for; those that are compiled at run time never, as they cost seconds a plan. A relu on load is left to
 * other kernels: cuDNN 9.19 offers a pointwise operation before a convolution only in engines that are compiled at run
 * time, and these do not compile for our strides (NVRTC fails), though they do for NHWC.
 *
 * Collective: no. One cache belongs to one thread. */
#ifndef DC_BACKEND_CUDA_CONV_PLANS_H
#define DC_BACKEND_CUDA_CONV_PLANS_H

#include "backend/precision.h"
#include "base/status.h"

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct dc_conv_shape {
    int in_c, out_c, in_h, in_w, out_h, out_w;
    int kernel, stride, pad_begin, pad_end, dilation; /* pads not negative; padding not summed */
    int blocks;
    size_t x_stride, y_stride; /* elements from one block to the next */
    dc_precision precision;
} dc_conv_shape;

typedef enum dc_conv_direction {
    DC_CONV_FORWARD,  /* y = w * x */
    DC_CONV_DATA,     /* dx = transpose of w * dy; places that no window reads become zero */
    DC_CONV_DATA_ADD, /* dx += ... */
    DC_CONV_WEIGHTS,  /* dw = sum over images of dy x; always float */
    DC_CONV_DIRECTIONS
} dc_conv_direction;

typedef struct dc_conv_options {
    const char *device; /* JSON of the device to plan for, which need not be there: nothing can be executed then; NULL:
                           the current device */
    size_t workspace_limit; /* bytes a plan may ask for */
    bool autotune; /* time the first engines on the device and keep the fastest: results may then differ from one run to
                      the next, and from rank to rank, by rounding; needs memory for operands while it plans */
} dc_conv_options;

typedef struct dc_conv_plans dc_conv_plans; /* the cache, owner of its plans */
typedef struct dc_conv_plan dc_conv_plan;

/* A 1x1 convolution that reads elsewhere than where it writes (stride, pads) is done on a gathered operand
 * (dck_cuda_sample_forward): true, and *dense is the convolution of that operand, packed. Else false, *dense = *shape.
 */
bool dc_conv_shape_sampled(const dc_conv_shape *shape, dc_conv_shape *dense);

/* DC_ERR_DEVICE with cuDNN's reason. options->device is read before the call returns. */
dc_status dc_conv_plans_create(const dc_conv_options *options, dc_conv_plans **plans);
void dc_conv_plans_destroy(dc_conv_plans *plans);

/* The cached or a new plan, valid as long as the cache. DC_ERR_DEVICE where cuDNN has no engine within the limit, with
 * its reason and the shape. */
dc_status dc_conv_plans_get(dc_conv_plans *plans, const dc_conv_shape *shape, dc_conv_direction direction,
                            const dc_conv_plan **plan);

/* Plans made so far, and the largest workspace among them. */
int dc_conv_plans_count(const dc_conv_plans *plans);
size_t dc_conv_plans_workspace_bytes(const dc_conv_plans *plans);

size_t dc_conv_plan_workspace_bytes(const dc_conv_plan *plan);
int dc_conv_plan_engine(const dc_conv_plan *plan); /* cuDNN's number of it */

/* Enqueues on stream; x, w, y: the operands or, for what is computed, the results (dx, dw, dy in their places), device
 * memory, 16-byte aligned. w: bfloat16 in DC_PRECISION_BF16; dw: float. (cuDNN plans no float dw of bfloat16 operands:
 * it is computed as bfloat16, in the workspace, and widened.) workspace: 256-byte aligned; DC_ERR_INTERNAL if it is
 * less than the plan's. */
dc_status dc_conv_plan_execute(const dc_conv_plan *plan, cudaStream_t stream, void *x, void *w, void *y,
                               void *workspace, size_t workspace_bytes);

#endif
