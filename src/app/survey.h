/* What stands in a run's folder: read without touching it, while jobs write in it or after they died. Files that are
 * missing, damaged or half written count as not there, the one before a damaged checkpoint as that checkpoint. */
#ifndef DC_APP_SURVEY_H
#define DC_APP_SURVEY_H

#include "app/pipeline.h"

typedef struct dc_survey_phase {
    int items;           /* searches, candidates (at most so many), 1 training; 0: the run has no such phase */
    int done;            /* of these */
    int begun;           /* have a checkpoint or a table, and are not done */
    double share;        /* 0..1 of all items' steps are done */
    double work_s;       /* what all items took so far, side by side or not */
    double work_left_s;  /* the same for what is left, by the speed so far; negative: not known */
    double checkpoint_s; /* seconds since 1970 when the newest checkpoint was written; 0: there is none */
    double accuracy;     /* the best validation (or, of the training, test) accuracy so far, 0..1; negative: none yet */
} dc_survey_phase;

typedef struct dc_survey {
    dc_survey_phase phase[DC_PHASES];
    double seconds[DC_PHASES];                  /* wall time of phases that ended or were stopped */
    int epoch, epochs, step, steps, best_epoch; /* of the training: those done; best_epoch from 1, 0: none yet */
    double last_accuracy;                       /* of its last evaluation, negative: none yet */
    bool finished;                              /* there is a result */
} dc_survey;

/* settings: the folder's. DC_ERR_INPUT only when a path would be too long. */
dc_status dc_survey_take(const char *folder, const dc_settings *settings, dc_survey *survey);

/* One number that grows whenever a restart would begin further on: the sum of all phases' shares, by items. */
double dc_survey_progress(const dc_survey *survey);

#endif
