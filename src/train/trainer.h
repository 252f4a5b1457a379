/* Private to train/: what a running training holds, and its checkpoint. */
#ifndef DC_TRAIN_TRAINER_H
#define DC_TRAIN_TRAINER_H

#include "train/gradients.h"
#include "train/train.h"

/* Where the training stands: everything, besides parameters and momentum, that a checkpoint keeps. */
typedef struct dc_train_position {
    int epoch, step;        /* the next step to make */
    dc_metrics metrics;     /* this rank's, of this epoch so far */
    dc_train_result result; /* of the last complete epoch */
} dc_train_position;

typedef struct dc_trainer {
    const dc_train_job *job;
    dc_backend *backend;
    dc_params *params, *average; /* average: NULL without options->ema_decay */
    dc_step_arena arena;
    dc_model *model, *evaluation_model;
    dc_gradients gradients;
    dc_loader *train_loader, *evaluation_loader;
    dc_reducer *reducer;
    dc_pace pace;
    uint32_t steps; /* of an epoch */
    dc_schedule schedule;
    dc_csv *csv;
    dc_train_position at;
    double images;    /* of all ranks since this start */
    double data_wait; /* share of the last epoch in which steps waited for data */
} dc_trainer;

/* Collective: builds everything and resumes from the checkpoint if there is one. dc_trainer_close is legal after any
 * outcome; collective too. */
dc_status dc_trainer_open(dc_trainer *trainer);
void dc_trainer_close(dc_trainer *trainer);

/* Writes the checkpoint (rank 0), with every rank's running statistics and metrics. Collective. Without a checkpoint
 * path it only brings result.seconds up to date. */
dc_status dc_trainer_save(dc_trainer *trainer);

/* The parameters that are evaluated: the average, or those that are trained. */
dc_params *dc_trainer_evaluated(const dc_trainer *trainer);

/* Batch norm's running statistics become their mean over ranks. Collective. */
dc_status dc_trainer_average_statistics(dc_trainer *trainer);

/* The graphs: training with losses and drop-path; evaluation with the main loss only. */
dc_status dc_train_graphs(const dc_genotype *genotype, const dc_train_options *options, dc_graph **training,
                          dc_graph **evaluation);

#endif
