/* Runs one node of a graph on a backend, forward and backward, with host operands, the way an executor would, and
 * harder: every operand is a channel range of a larger tensor, everything that is to be written and all scratch holds
 * NaNs before, what a node must not read in backward is gone by then, images past the last one are garbage, and what
 * lies around every operand is watched. */
#ifndef DC_TESTS_SUPPORT_TRIAL_H
#define DC_TESTS_SUPPORT_TRIAL_H

#include "backend/backend.h"

enum { DC_TRIAL_INPUTS = 12 };

typedef struct dc_trial {
    const dc_graph *graph;
    int node;
    dc_step step; /* n_images, training, rates, ...; images and labels are filled in */
    int batch;
    bool relu_input;
    bool accumulate; /* input gradients are added to */
    bool want_inputs, want_params;
} dc_trial;

/* A node's operands on the host: NCHW of n_images, plain where batch-free. */
typedef struct dc_operands {
    int n_inputs, n_params;
    size_t n_x[DC_TRIAL_INPUTS], n_y, n_param[DC_MAX_PARAMS];
    float *x[DC_TRIAL_INPUTS], *dx[DC_TRIAL_INPUTS]; /* dx: before (when accumulated) and after */
    float *y, *dy;
    float *param[DC_MAX_PARAMS], *dparam[DC_MAX_PARAMS]; /* running statistics change */
    int32_t *labels;
} dc_operands;

/* Random operands that depend on the seed only. NULL when out of memory. */
dc_operands *dc_operands_create(const dc_trial *trial, uint64_t seed);
dc_operands *dc_operands_copy(const dc_operands *from, const dc_trial *trial);
void dc_operands_destroy(dc_operands *operands);

/* Forward and, when step.training, backward. DC_ERR_INTERNAL with a message when something was written that must not
 * be, or gradients of images past the last one are not zero. */
dc_status dc_trial_run(dc_backend *backend, const dc_trial *trial, dc_operands *operands);

#endif
