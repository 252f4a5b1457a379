/* The gradients of a global batch: this rank computes those of its share, at once or, where that is more than a rank
 * can hold, piece by piece. Gradients are of the loss' mean over the global batch either way, so that pieces and ranks
 * add up; what a piece has for itself is batch norm: it normalises by its own statistics, as a rank does, and each
 * piece moves the running ones. */
#ifndef DC_TRAIN_GRADIENTS_H
#define DC_TRAIN_GRADIENTS_H

#include "data/loader.h"
#include "nn/model.h"
#include "train/reducer.h"

/* Pieces lie at whole blocks of images, whatever the device: micro_batch is a multiple of this. */
enum { DC_MICRO_BATCH_UNIT = 16 };

/* Images of a rank that computes its share of a batch in pieces of at most micro_batch (0: at once): what to plan its
 * graphs for. */
int dc_gradients_piece(int batch, int ranks, int micro_batch);

typedef struct dc_gradients {
    dc_params *params;
    int piece;
    float *sums; /* device, as params->grads; NULL: every share is one piece */
} dc_gradients;

/* For an allocated store. dc_gradients_clear is legal on zeros. */
dc_status dc_gradients_init(dc_gradients *gradients, dc_params *params, int batch, int ranks, int micro_batch);
void dc_gradients_clear(dc_gradients *gradients);

/* Makes params->grads those of `what` on this batch: forward and backward of a model planned for dc_gradients_piece.
 * step: the circumstances of the step, without its images. reducer: sums the weights' gradients over ranks, between its
 * begin and finish, which are the caller's; NULL: they stay this rank's. The step's figures are added to metrics as by
 * dc_executor_metrics. */
dc_status dc_gradients_compute(const dc_gradients *gradients, dc_model *model, const dc_batch *batch,
                               const dc_step *step, unsigned what, dc_reducer *reducer, dc_metrics *metrics);

#endif
