/* A farm: independent work items (the searches of a lookup graph, the final runs) handed out to ranks as they become
 * free. A manager thread on rank 0 does so, hence no rank is reserved: every rank works, also rank 0. With
 * ranks_per_group > 1 consecutive ranks work on an item together; ranks left over by the division wait.
 *
 * Which rank computed an item leaves no trace in the results: they come back in item order, on every rank. */
#ifndef DC_COMM_FARM_H
#define DC_COMM_FARM_H

#include "comm/comm.h"

/* The place of a working rank, for the calls below from within the work callback. */
typedef struct dc_farm_worker dc_farm_worker;

typedef enum dc_farm_event {
    DC_FARM_STARTED,
    DC_FARM_PROGRESS,
    DC_FARM_FINISHED,
    DC_FARM_STOPPED, /* failed or interrupted */
    DC_FARM_LOST     /* with its rank: it will be done by another */
} dc_farm_event;

typedef struct dc_farm_news {
    dc_farm_event event;
    int item;
    int rank;         /* which works on it (the first of its group), in the farm's communicator */
    int n_done;       /* finished items, also those that were done before */
    double fraction;  /* 0..1 of the item */
    const char *text; /* the worker's, "" if none */
} dc_farm_news;

typedef struct dc_farm {
    int n_items;
    const bool *done;    /* n_items, rank 0's counts: items to leave out (their results are empty); NULL: none */
    int ranks_per_group; /* 1..size of the communicator */
    /* Works on one item; called on every rank of the group. DC_INTERRUPTED: stopped in good order, state saved. In a
     * group the ranks agree before they return (dc_comm_agree): one that leaves alone leaves the others waiting. */
    dc_status (*work)(void *context, int item, dc_farm_worker *worker);
    /* For progress lines: called on rank 0 by the manager's thread, beside rank 0's own work. NULL: none. */
    void (*news)(void *context, const dc_farm_news *news);
    /* Whether the rank that works on this item is dead, as can happen where the launcher does not end the job then;
     * asked by the manager's thread about once a second. NULL: that ends the job. */
    bool (*lost)(void *context, int item);
    /* Whether a signal asks to stop; asked on every rank. NULL: never. */
    bool (*interrupted)(void *context);
    void *context;
} dc_farm;

/* Works on all items that are not done and returns when all ranks are through. results: the bytes of each item
 * (dc_farm_result), n = n_items, on every rank, cleared by dc_blobs_clear; NULL: not wanted (equal on every rank).
 *
 * When an item fails or is interrupted no more items are handed out, the others are asked to stop
 * (dc_farm_should_stop), and every rank returns the agreed status and message (dc_comm_agree); results are then empty.
 * A rank that is lost takes no other with it: its item is handed out again, and when all that can be done is done, the
 * job ends (dc_comm_leave with DC_INTERRUPTED), since MPI knows no collectives without it. What the items saved stands.
 *
 * Collective; n_items, ranks_per_group equal on every rank. More ranks than items is fine. */
dc_status dc_farm_run(const dc_comm *comm, const dc_farm *farm, dc_blobs *results);

/* The ranks that work on this item together: this rank alone, or its group. */
const dc_comm *dc_farm_group(const dc_farm_worker *worker);

/* Appends to the result of the present item. In a group only the first rank's counts. */
dc_status dc_farm_result(dc_farm_worker *worker, const void *bytes, size_t size_bytes);

/* Tells the manager how far the item is; cheap enough for every step (at most some messages a second are sent, by the
 * group's first rank; one with fraction 1 always). text: one line, cut at DC_FARM_TEXT. */
dc_status dc_farm_progress(dc_farm_worker *worker, double fraction, const char *text);
enum { DC_FARM_TEXT = 160 };

/* Whether to save the state and return DC_INTERRUPTED: a signal came, here or elsewhere, or another item failed. Meant
 * for step boundaries. Collective over the group, which agrees. */
dc_status dc_farm_should_stop(dc_farm_worker *worker, bool *stop);

#endif
