/* Training a target network, alone or data-parallel.
 *
 * All ranks of the communicator hold the same weights and train on their share of each global batch; gradients are
 * summed in buckets while backward still runs. Batch norm works as in the usual data-parallel practice: every rank
 * normalises by the statistics of its own share; running statistics are averaged over ranks at the end of each epoch,
 * before evaluation. Results are the same bits for a fixed number of ranks, for any number of threads, and through any
 * interruption.
 *
 * It may go on with another number of ranks: the same images come in the same global batches, with the same weights,
 * moments and rates. Every rank then begins with the mean of the earlier ranks' running statistics, and their counts of
 * the epoch so far are added up. What differs is batch norm's shares and the order of sums: not the same bits. */
#ifndef DC_TRAIN_TRAIN_H
#define DC_TRAIN_TRAIN_H

#include "base/events.h"
#include "base/lock.h"
#include "base/log.h"
#include "comm/comm.h"
#include "data/loader.h"
#include "nn/model.h"
#include "nn/schedule.h"
#include "space/network.h"
#include "train/pace.h"

typedef struct dc_train_options {
    dc_network_options network; /* losses and drop_path are set by the trainer */
    int epochs, batch;          /* batch: over all ranks */
    int micro_batch;            /* images that a rank computes at once, see train/gradients.h; 0: its share */
    dc_sgd_options sgd;
    dc_schedule schedule;  /* epochs is set by the trainer */
    double drop_path_rate; /* at the last epoch; grows linearly from 0 by epoch, as in DARTS */
    double ema_decay;      /* of an exponential moving average of weights and running statistics, which is then what is
                              evaluated and kept as the result; 0: the weights themselves. In the first steps it is the
                              smaller (1 + step) / (10 + step), so that the random start is soon forgotten */
    dc_augment augment;
    dc_loading loading;
} dc_train_options;

typedef struct dc_train_job {
    const char *name; /* for messages and events: "training", "candidate 3" */
    dc_backend *backend;
    const dc_comm *comm;
    const dc_dataset *dataset;
    const dc_indices *train; /* of the training images; NULL: all */
    dc_split evaluation_split;
    const dc_indices *evaluation; /* NULL: all of that split */
    const dc_genotype *genotype;
    const dc_train_options *options;
    uint64_t seed;
    uint64_t identity;       /* of everything that decides the result: a checkpoint of another one is refused */
    const char *checkpoint;  /* path; resumed from when it exists. NULL: none */
    const char *best, *last; /* paths of weights files; NULL: not written */
    double checkpoint_interval_s;
    const dc_lock *lock; /* of who may write these files; NULL: nobody else would */
    const char *csv;     /* path of the table of epochs; NULL: none */
    dc_log *log;         /* epoch lines; may be NULL */
    dc_events *events;   /* may be NULL; rank 0's */
    dc_hooks hooks;
} dc_train_job;

typedef struct dc_train_result {
    double train_loss, train_accuracy; /* of the last epoch, while training */
    double loss, accuracy, top5;       /* of the last evaluation */
    double best_accuracy;
    int best_epoch;    /* counted from 0 */
    int64_t evaluated; /* images of an evaluation */
    double seconds;    /* of all starts of this training together */
} dc_train_result;

/* Collective over job->comm. DC_INTERRUPTED after a stop request: the checkpoint is written. A training whose
 * checkpoint is complete returns its result at once. */
dc_status dc_train_run(const dc_train_job *job, dc_train_result *result);

/* Memory of such a training on one rank, before it runs: its arena (the larger of training and evaluation), its
 * parameters with gradients, momentum and what else is kept of each, its loaders. */
typedef struct dc_train_memory {
    size_t arena_bytes, model_bytes;
    size_t step_bytes; /* of a GPU, beside these: workspaces of libraries, batches on their way */
    size_t data_bytes; /* of the host */
} dc_train_memory;
dc_status dc_train_plan(dc_backend *backend, const dc_dataset *dataset, const dc_genotype *genotype,
                        const dc_train_options *options, int ranks, dc_train_memory *memory);

#endif
