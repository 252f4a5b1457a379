/* Long independent works (searches, short trainings) farmed out to ranks, with a live line on the screen for each one
 * that is under way and a lasting line for each that is done. */
#ifndef DC_LUG_CREW_H
#define DC_LUG_CREW_H

#include "base/events.h"
#include "base/log.h"
#include "comm/farm.h"
#include "train/pace.h"

typedef struct dc_crew {
    dc_log *log;         /* may be NULL */
    dc_events *events;   /* gets an event for each finished item; may be NULL */
    const char *heading; /* "lookup graph" */
    int n_items, ranks_per_item;
    const bool *done; /* as dc_farm's */
    const char *(*name)(const void *context, int item);
    dc_status (*work)(void *context, int item, dc_farm_worker *worker); /* its last progress text is its summary */
    bool (*lost)(void *context, int item);                              /* as dc_farm's; NULL: none */
    void *context;
} dc_crew;

/* Works on all items that are not done; results as dc_farm_run's. An error's message begins with the item's name.
 * DC_INTERRUPTED after a signal. Collective. */
dc_status dc_crew_run(const dc_comm *comm, const dc_crew *crew, dc_blobs *results);

/* The hooks by which work tells the crew its progress and learns that it should stop. */
dc_hooks dc_crew_hooks(dc_farm_worker *worker);

#endif
