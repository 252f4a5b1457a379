/* The differentiable search: weights and alpha trained in turns on two halves of the training images (DARTS, Liu et al.
 * 2019, first order; DCA-NAS, Dutta et al. 2023, Eq 2 and 4).
 *
 * Each step: the loss on a validation batch gives alpha's gradient, the constraint adds its own, Adam moves alpha; then
 * the loss on a training batch gives the weights' gradient and SGD moves them. During the first warm-up epochs alpha
 * rests, so that untrained operations do not lose to those that have nothing to train. With derived cells the
 * architecture that alpha derives now (within the targets) is looked up after each alpha step, and the supernet changes
 * with it; weights that leave the network wait in the store.
 *
 * Same seed and options: same bits, for any number of threads, and through any interruption. */
#ifndef DC_SEARCH_SEARCH_H
#define DC_SEARCH_SEARCH_H

#include "base/events.h"
#include "base/lock.h"
#include "base/log.h"
#include "data/loader.h"
#include "nn/model.h"
#include "nn/schedule.h"
#include "search/constraint.h"
#include "search/supernet.h"
#include "train/pace.h"

typedef struct dc_alpha_options {
    double learning_rate, beta1, beta2, weight_decay; /* Adam */
    bool anneal; /* the rate falls to 0 by a cosine over the steps that move alpha: the architecture settles */
} dc_alpha_options;

typedef struct dc_search_options {
    dc_supernet_options supernet;
    bool constrained; /* the fourth switch */
    dc_constraint_options constraint;
    int epochs, warmup_epochs, batch; /* batch: over all ranks of the search */
    int micro_batch;                  /* as dc_train_options' */
    dc_sgd_options sgd;
    dc_schedule schedule; /* epochs is set by the search */
    dc_alpha_options alpha;
    dc_portion train, validation; /* of the training images */
    dc_augment augment;           /* of both */
    dc_loading loading;
} dc_search_options;

typedef struct dc_search_job {
    const char *name; /* for messages and events: "search 3" */
    dc_backend *backend;
    const dc_comm *comm; /* the ranks that do this search together, data-parallel */
    const dc_dataset *dataset;
    const dc_search_options *options;
    dc_budgets targets;          /* K' for each constrained metric, with tables in the target geometry */
    const dc_cost_table *tables; /* DC_METRICS, for the derived network's costs */
    uint64_t seed;
    uint64_t identity;      /* as dc_train_job's */
    const char *checkpoint; /* path, or NULL */
    double checkpoint_interval_s;
    const dc_lock *lock; /* of who may write these files; NULL: nobody else would */
    const char *csv;     /* path of the trace, or NULL */
    dc_log *log;         /* epoch lines; may be NULL */
    dc_events *events;
    dc_hooks hooks;
} dc_search_job;

typedef struct dc_search_result {
    dc_alpha alpha;                  /* the last one; of a constrained search, that of its last third whose derived size
                                        comes closest to the targets without exceeding them */
    dc_genotype genotype;            /* by the plain DARTS rule */
    double derived_cost[DC_METRICS]; /* its exact cost in the target geometry */
    double validation_loss, validation_accuracy; /* of the supernet, over the last epoch's validation batches */
    double entropy[DC_CELL_TYPES]; /* of alpha's softmax, mean over edges, in nats: log 8 = 2.08 when undecided */
    int skips[DC_CELL_TYPES];      /* skip connections among the 8 operations kept: a collapse shows here */
    double seconds;
    int64_t steps_made; /* by this call: 0 when the checkpoint was complete */
} dc_search_result;

/* Collective over job->comm. DC_INTERRUPTED after a stop request: the checkpoint is written. A search whose checkpoint
 * is complete returns its result at once. */
dc_status dc_search_run(const dc_search_job *job, dc_search_result *result);

/* Memory of such a search on one rank, before it runs. arena_bytes is the plan's of the heaviest supernet: the one
 * whose derived cells keep the largest operations. */
typedef struct dc_search_memory {
    size_t arena_bytes, model_bytes;
    size_t step_bytes; /* of a GPU, beside these: workspaces of libraries, batches on their way */
    size_t data_bytes; /* of the host */
} dc_search_memory;
dc_status dc_search_plan(dc_backend *backend, const dc_dataset *dataset, const dc_search_options *options, int ranks,
                         dc_search_memory *memory);

#endif
