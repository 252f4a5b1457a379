/* How often a run was started and whether that brought it on: FOLDER/starts.json. A job that is requeued again and
 * again and gets nowhere (a time limit below one step, a node that kills it) would go on so for ever. */
#ifndef DC_APP_STARTS_H
#define DC_APP_STARTS_H

#include "app/pipeline.h"

typedef struct dc_starts {
    int starts;         /* so far, the present one too; 0: never */
    int idle;           /* of these, the last ones that ended before they brought anything further */
    double progress;    /* dc_survey_progress at the last start; negative: that one ended well */
    char command[16];   /* of the last start: "run" */
    int ranks, workers; /* its ranks, and how many searches they make side by side */
    double started_s;   /* seconds since 1970 */
    char last[320];     /* how it ended, "" while it runs or when it died */
} dc_starts;

/* What the file says; one that is missing or damaged says nothing. */
dc_starts dc_starts_read(const char *folder);

/* One more start of an open folder: DC_ERR_STALLED when [checkpoint] max_starts_without_progress starts in a row have
 * brought nothing. Rank 0 only. */
dc_status dc_starts_begin(const dc_pipeline *p);

/* Its end, with the thread's message, which is kept. A write that fails is no matter. Rank 0 only. */
void dc_starts_end(const dc_pipeline *p, dc_status status);

#endif
