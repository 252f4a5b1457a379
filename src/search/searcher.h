/* Private to search/: what a running search holds, its supernets and its checkpoint. */
#ifndef DC_SEARCH_SEARCHER_H
#define DC_SEARCH_SEARCHER_H

#include "search/search.h"
#include "train/gradients.h"

/* Supernets for the latest derived architectures: alpha often goes back and forth between two. */
enum { DC_CACHED_SUPERNETS = 8 };

typedef struct dc_cached_supernet {
    dc_genotype derived;
    dc_model *model;
    int64_t used; /* the step of its last use */
} dc_cached_supernet;

/* Where the search stands: what a checkpoint keeps besides parameters, moments and multipliers. */
typedef struct dc_search_position {
    int64_t step;                                /* the next step to make */
    dc_metrics training, validation;             /* of this epoch so far, this rank's */
    double validation_loss, validation_accuracy; /* of the last complete epoch with alpha steps */
    double train_loss, train_accuracy;
    double seconds;
    dc_alpha kept;     /* the alpha whose derived size has come closest to the targets from below; see search.c */
    double kept_share; /* its largest size / target; 0: none yet */
} dc_search_position;

typedef struct dc_searcher {
    const dc_search_job *job;
    dc_backend *backend;
    dc_params *params;
    dc_step_arena arena;
    dc_cached_supernet supernets[DC_CACHED_SUPERNETS];
    dc_model *model; /* the one in use */
    dc_loader *train_loader, *validation_loader;
    dc_indices train_images, validation_images;
    dc_gradients gradients;
    dc_reducer *reducer;
    dc_deriver *deriver;
    dc_constraint constraint;
    dc_schedule schedule;
    uint32_t steps; /* of an epoch */
    int64_t total_steps;
    int alpha_item[DC_CELL_TYPES]; /* in the parameter store */
    dc_alpha alpha;                /* the host's copy, once dc_searcher_settle has returned */
    bool alpha_moves;              /* it has been moved on the device in step alpha_step, and not been settled since */
    int64_t alpha_step;
    dc_csv *csv;
    dc_pace pace;
    dc_search_position at;
    double images;
    double data_wait; /* share of the last epoch in which steps waited for data */
} dc_searcher;

/* Collective: builds everything and resumes from the checkpoint if there is one. Close is legal after any outcome. */
dc_status dc_searcher_open(dc_searcher *s);
void dc_searcher_close(dc_searcher *s);

/* Writes the checkpoint. Collective. */
dc_status dc_searcher_save(dc_searcher *s);

/* alpha has been moved, in the present step: its way to the host begins. Settle waits for its end, but not for what the
 * device was given after it, and takes note of this alpha. */
dc_status dc_searcher_alpha_moved(dc_searcher *s);
dc_status dc_searcher_settle(dc_searcher *s);

/* Makes the supernet for the architecture that the settled alpha derives (within the targets) the one in use. */
dc_status dc_searcher_choose_supernet(dc_searcher *s);

#endif
