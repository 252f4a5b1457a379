/* What happens between the steps of long work (a search, a training): progress, checkpoints by the clock, stopping. */
#ifndef DC_TRAIN_PACE_H
#define DC_TRAIN_PACE_H

#include "comm/comm.h"

/* What long work tells its caller and asks of it. */
typedef struct dc_hooks {
    void *context;
    /* How far the work is, 0..1, with one line of text; some times a second. NULL: nobody listens. */
    dc_status (*progress)(void *context, double fraction, const char *text);
    /* Whether to save the state and return DC_INTERRUPTED. Called on every rank of the work's communicator; each may
     * answer for itself. NULL: never. */
    dc_status (*stop)(void *context, bool *stop);
} dc_hooks;

typedef struct dc_pace {
    const dc_comm *comm;
    const dc_hooks *hooks;
    double interval_s; /* between checkpoints, by rank 0's clock */
    double started_s, saved_s, told_s, done_at_start;
    double lap_s, lap_waited_s; /* where the current lap began */
} dc_pace;

/* done: the share of the work that was done before this start. */
void dc_pace_start(dc_pace *pace, const dc_comm *comm, const dc_hooks *hooks, double interval_s, double done);

/* Whether all ranks resume at the same step: DC_ERR_INPUT on each of them when some do not see the checkpoint that
 * others see. name: of the work. Collective. */
dc_status dc_pace_agree_on_start(const dc_comm *comm, int64_t step, const char *name);

/* At a step boundary: *stop: a rank was asked to stop; *save: save the state now (also when stopping). Collective. */
dc_status dc_pace_check(dc_pace *pace, bool *save, bool *stop);

/* Whether progress should be told now: lets a step skip composing it. Not collective. */
bool dc_pace_tells(dc_pace *pace);

/* The state has been saved: seconds since it was last saved (or since the start). */
double dc_pace_saved(dc_pace *pace);

/* Laps (epochs) and the part of them in which steps waited for their data. waited_s: of this rank's loaders since the
 * start of the work. Of the lap so far, on this rank: */
double dc_pace_waiting(const dc_pace *pace, double waited_s);
/* At the end of a lap, on the rank where it is largest; the next lap begins. Collective. */
dc_status dc_pace_lap(dc_pace *pace, double waited_s, double *waiting);

/* Seconds since the start, and an estimate of those left when this share of the work is done. */
double dc_pace_elapsed(const dc_pace *pace);
double dc_pace_left(const dc_pace *pace, double done);

#endif
