/* Loss and accuracy of a network over a list of images, shared out over ranks. */
#ifndef DC_TRAIN_EVALUATE_H
#define DC_TRAIN_EVALUATE_H

#include "comm/comm.h"
#include "data/loader.h"
#include "nn/model.h"

/* One pass of the loader (no shuffling, no augmentation, ranks as in comm) through a model planned for inference with
 * keep_losses. metrics: over all ranks' images, each counted once; the same on every rank. confusion: NULL, or
 * [classes][classes] counts of (true class, first most likely class), zeroed by the caller; then the loss is added up
 * exactly from each image's logits, so that no figure depends on the division into batches and ranks. Collective. */
dc_status dc_evaluate(dc_model *model, dc_loader *loader, const dc_comm *comm, int64_t *confusion, dc_metrics *metrics);

/* Adds up metrics over ranks, in place. Collective. */
dc_status dc_metrics_sum(const dc_comm *comm, dc_metrics *metrics);

/* Makes a loader's batch a step's images and labels, and their numbers; where the device has memory of its own it is
 * being copied there on return. */
dc_status dc_batch_stage(dc_backend *backend, const dc_graph *graph, const dc_batch *batch, dc_step *step);

#endif
