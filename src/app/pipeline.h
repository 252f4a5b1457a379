/* A run: its settings, data, device and output folder, shared by the subcommands lug, search, train and run. */
#ifndef DC_APP_PIPELINE_H
#define DC_APP_PIPELINE_H

#include "app/settings.h"
#include "base/files.h"
#include "base/lock.h"
#include "comm/comm.h"
#include "data/stage.h"
#include "lug/candidates.h"
#include "lug/lug.h"

typedef enum dc_phase { DC_PHASE_LUG, DC_PHASE_SEARCH, DC_PHASE_SELECT, DC_PHASE_TRAIN, DC_PHASES } dc_phase;
extern const char *const dc_phase_names[DC_PHASES];

/* What the folder's run.h5 keeps: decided once, the same after any restart. */
typedef struct dc_progress {
    double seconds[DC_PHASES];     /* wall time of all starts together */
    double target[DC_METRICS];     /* K' that the lookup gave; 0: not looked up yet, or not constrained */
    int64_t lug_points, lug_seeds; /* the graph that the lookup saw: candidates come from no later extension of it */
} dc_progress;

typedef struct dc_pipeline {
    const dc_comm *world;
    const char *command; /* "run" */
    dc_settings settings;
    uint64_t config_hash; /* of all that decides results */
    uint64_t identity;    /* config_hash and data set: what checkpoints carry */
    dc_dataset *dataset;
    dc_stage stage;
    dc_backend *backend;
    int threads;
    dc_cost_table tables[DC_METRICS];
    dc_limits limits[DC_METRICS];
    dc_budgets budgets;
    dc_deriver *deriver;
    char folder[DC_PATH_CHARS]; /* the run's: output/NAME */
    char own[DC_PATH_CHARS];    /* of this job's log, events and lock: the same, or of a part parts/I-of-N in it */
    int part, parts;            /* which share of the lookup graph's searches this job makes, from 1; 0: all there is */
    dc_lock *lock;              /* of `own`: this job is its one writer; on every rank */
    dc_log *log;
    dc_events *events;
    bool started; /* the start is noted in the folder; rank 0 */
    dc_progress progress;
    dc_lug lug;    /* empty without a budget */
    bool searches; /* it is for more than training a given architecture */
    double phase_started_s;
} dc_pipeline;

/* Reads the configuration, opens the data and the device, and checks the budgets against the space's exact limits:
 * everything but the output folder, in which nothing is made yet. searches: it is for more than training a given
 * architecture, so that the images of searches and candidates must suffice too. Not collective. dc_pipeline_close is
 * legal after any outcome. */
dc_status dc_pipeline_prepare(dc_pipeline *p, const dc_comm *world, const char *command, const char *config,
                              const dc_args *args, bool searches);

/* Whether the target network of a given genotype keeps the budgets of a prepared run: its size on this data set counts,
 * not what another one's search was held to. Not collective. */
dc_status dc_pipeline_check_genotype(const dc_pipeline *p, const dc_genotype *genotype);

/* Makes a prepared run a part of it: one of several jobs, on the same folder at the same time, that make the searches
 * of one lookup graph. part: from 1 to parts. */
dc_status dc_pipeline_take_part(dc_pipeline *p, int part, int parts);

/* Takes the output folder of a prepared run for this job (rank 0): an unfinished run of the same configuration in it is
 * continued, one of another is refused, naming the key that differs. Collective. */
dc_status dc_pipeline_open(dc_pipeline *p);
void dc_pipeline_close(dc_pipeline *p);

/* Paths in the run's folder; a subfolder is made (rank 0 only makes it; call it on all ranks, collectively, when so).
 */
dc_status dc_pipeline_path(const dc_pipeline *p, const char *name, char path[DC_PATH_CHARS]);
dc_status dc_pipeline_folder(const dc_pipeline *p, const char *name, char path[DC_PATH_CHARS]);

/* The path of one of this job's own files. */
dc_status dc_pipeline_own_path(const dc_pipeline *p, const char *name, char path[DC_PATH_CHARS]);

/* Writes run.h5: p->progress. Collective. */
dc_status dc_pipeline_save(const dc_pipeline *p);

/* A phase's beginning and end: its wall time is added up over restarts, also when it is interrupted. Collective. */
void dc_pipeline_begin(dc_pipeline *p, dc_phase phase);
dc_status dc_pipeline_end(dc_pipeline *p, dc_phase phase, dc_status status);

/* Seed of the i-th use of a name, from the run's seed. */
uint64_t dc_pipeline_seed(const dc_pipeline *p, const char *name, int i, int j);

#endif
