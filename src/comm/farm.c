/* The workers' side and the run; the manager is in farm_manager.c, what they say to each other in farm_wire.h. */
#include "comm/farm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/farm_wire.h"

/* Messages a second to the manager, at most, as a pause. */
#define PROGRESS_SECONDS 0.2

typedef struct bytes {
    unsigned char *data;
    size_t size, capacity;
} bytes;

/* One item's result in a worker's bytes. */
typedef struct record {
    int64_t item, size_bytes;
} record;

struct dc_farm_worker {
    const dc_farm *farm;
    const dc_comm *comm; /* all ranks and the manager; the farm's own */
    dc_comm group;
    int item; /* present, -1: none */
    bool stop;
    bool told_to_stop; /* the manager's message was read */
    int n_lost;        /* ranks that died */
    double last_progress;
    bytes results; /* of the group's first rank: records, each followed by its bytes */
    size_t record; /* where the present item's begins */
};

static dc_status append(bytes *b, const void *data, size_t size_bytes)
{
    if (b->size + size_bytes > b->capacity) {
        size_t capacity = 2 * b->capacity + size_bytes + 1024;
        unsigned char *larger = dc_realloc(b->data, capacity);
        if (!larger)
            return DC_ERR_MEMORY;
        b->data = larger;
        b->capacity = capacity;
    }
    if (size_bytes > 0)
        memcpy(b->data + b->size, data, size_bytes);
    b->size += size_bytes;
    return DC_OK;
}

/* ---- for the work callback ------------------------------------------------------------------------------------------
 */

const dc_comm *dc_farm_group(const dc_farm_worker *worker)
{
    return &worker->group;
}

dc_status dc_farm_result(dc_farm_worker *w, const void *data, size_t size_bytes)
{
    if (w->group.rank != 0)
        return DC_OK;
    DC_TRY(append(&w->results, data, size_bytes));
    record r;
    memcpy(&r, w->results.data + w->record, sizeof r);
    r.size_bytes += (int64_t)size_bytes;
    memcpy(w->results.data + w->record, &r, sizeof r);
    return DC_OK;
}

dc_status dc_farm_progress(dc_farm_worker *w, double fraction, const char *text)
{
    double now = MPI_Wtime();
    bool due = fraction >= 1 || now - w->last_progress >= PROGRESS_SECONDS;
    if (w->group.rank != 0 || !w->farm->news || !due)
        return DC_OK;
    w->last_progress = now;
    dc_farm_message message = {.kind = DC_FARM_TELL, .item = w->item, .fraction = fraction};
    snprintf(message.text, sizeof message.text, "%s", text);
    DC_MPI(MPI_Send(&message, sizeof message, MPI_BYTE, 0, DC_FARM_TAG_MANAGER, w->comm->mpi));
    return DC_OK;
}

static dc_status read_stop(dc_farm_worker *w)
{
    int there = 0;
    if (w->told_to_stop || w->group.rank != 0)
        return DC_OK;
    DC_MPI(MPI_Iprobe(0, DC_FARM_TAG_STOP, w->comm->mpi, &there, MPI_STATUS_IGNORE));
    if (there) {
        DC_MPI(MPI_Recv(NULL, 0, MPI_BYTE, 0, DC_FARM_TAG_STOP, w->comm->mpi, MPI_STATUS_IGNORE));
        w->told_to_stop = true;
    }
    return DC_OK;
}

static bool interrupted(const dc_farm *farm)
{
    return farm->interrupted && farm->interrupted(farm->context);
}

dc_status dc_farm_should_stop(dc_farm_worker *w, bool *stop)
{
    DC_TRY(read_stop(w));
    DC_TRY(dc_comm_any(&w->group, w->stop || w->told_to_stop || interrupted(w->farm), stop));
    w->stop = *stop;
    return DC_OK;
}

/* ---- the loop of a worker -------------------------------------------------------------------------------------------
 */

/* The group's first rank reports how the last item ended and gets the next; the others get it from there. */
static dc_status next_item(dc_farm_worker *w, dc_farm_ended ended, bool stop)
{
    dc_farm_order order = {.item = -1};
    if (w->group.rank == 0) {
        dc_farm_message ask = {.kind = DC_FARM_ASK, .item = w->item, .ended = ended, .stop = stop};
        DC_MPI(MPI_Send(&ask, sizeof ask, MPI_BYTE, 0, DC_FARM_TAG_MANAGER, w->comm->mpi));
        MPI_Request request; /* asleep: it may come only when the last item is done */
        DC_MPI(MPI_Irecv(&order, sizeof order, MPI_BYTE, 0, DC_FARM_TAG_ORDER, w->comm->mpi, &request));
        DC_TRY(dc_comm_wait(w->comm, &request));
        /* Nothing may be left in the communicator when it is freed. */
        if (order.item < 0 && order.stop_sent && !w->told_to_stop)
            DC_MPI(MPI_Recv(NULL, 0, MPI_BYTE, 0, DC_FARM_TAG_STOP, w->comm->mpi, MPI_STATUS_IGNORE));
    }
    DC_TRY(dc_comm_bcast(&w->group, 0, &order, sizeof order));
    w->item = order.item;
    w->n_lost = order.n_lost;
    return DC_OK;
}

/* mine: this rank's status; ended: the group's. Fails only when the group cannot agree. */
static dc_status work_item(dc_farm_worker *w, dc_status *mine, dc_farm_ended *ended)
{
    record r = {.item = w->item};
    w->record = w->results.size;
    w->last_progress = MPI_Wtime() - PROGRESS_SECONDS; /* the first message goes at once */
    *mine = append(&w->results, &r, sizeof r);
    if (*mine == DC_OK)
        *mine = w->farm->work(w->farm->context, w->item, w);
    int64_t worst = *mine == DC_OK ? DC_FARM_WELL : *mine == DC_INTERRUPTED ? DC_FARM_INTERRUPTED : DC_FARM_FAILED;
    DC_TRY(dc_comm_max_int64(&w->group, &worst, 1));
    *ended = (dc_farm_ended)worst;
    return DC_OK;
}

/* mine: how this rank's items went. Fails only when the farm itself is broken. */
static dc_status work_loop(dc_farm_worker *w, dc_status *mine)
{
    dc_farm_ended ended = DC_FARM_WELL;
    w->item = -1;
    for (;;) {
        bool stop;
        DC_TRY(dc_comm_any(&w->group, interrupted(w->farm), &stop));
        DC_TRY(next_item(w, ended, stop));
        if (w->item < 0) {
            if (*mine == DC_OK && stop)
                *mine = dc_fail(DC_INTERRUPTED, "interrupted; what was done is saved");
            return DC_OK;
        }
        DC_TRY(work_item(w, mine, &ended));
    }
}

/* ---- results --------------------------------------------------------------------------------------------------------
 */

typedef void (*record_visitor)(dc_blobs *results, const record *r, const unsigned char *data);

static void each_record(const dc_blobs *gathered, record_visitor visit, dc_blobs *results)
{
    const unsigned char *at = gathered->data, *end = gathered->data + gathered->offsets[gathered->n];
    while (at < end) {
        record r;
        memcpy(&r, at, sizeof r);
        visit(results, &r, at + sizeof r);
        at += sizeof r + (size_t)r.size_bytes;
    }
}

static void note_size(dc_blobs *results, const record *r, const unsigned char *data)
{
    (void)data;
    results->offsets[r->item + 1] = (size_t)r->size_bytes;
}

static void copy_bytes(dc_blobs *results, const record *r, const unsigned char *data)
{
    memcpy(results->data + results->offsets[r->item], data, (size_t)r->size_bytes);
}

static dc_status sort_records(const dc_blobs *gathered, int n_items, dc_blobs *results)
{
    results->n = n_items;
    results->offsets = dc_alloc_zeroed(((size_t)n_items + 1) * sizeof *results->offsets);
    if (!results->offsets)
        return DC_ERR_MEMORY;
    each_record(gathered, note_size, results);
    for (int i = 0; i < n_items; i++)
        results->offsets[i + 1] += results->offsets[i];
    results->data = dc_alloc(results->offsets[n_items]);
    if (!results->data)
        return DC_ERR_MEMORY;
    each_record(gathered, copy_bytes, results);
    return DC_OK;
}

static dc_status share_results(const dc_farm_worker *w, dc_blobs *results)
{
    dc_blobs gathered;
    size_t size_bytes = w->group.rank == 0 ? w->results.size : 0;
    DC_TRY(dc_comm_gather_all(w->comm, w->results.data, size_bytes, &gathered));
    dc_status status = dc_comm_agree(w->comm, sort_records(&gathered, w->farm->n_items, results));
    dc_blobs_clear(&gathered);
    if (status != DC_OK)
        dc_blobs_clear(results);
    return status;
}

/* ---- the run --------------------------------------------------------------------------------------------------------
 */

static dc_status form_group(dc_farm_worker *w)
{
    int ranks = w->farm->ranks_per_group, index = w->comm->rank / ranks;
    w->group = dc_comm_self();
    w->group.watchdog = w->comm->watchdog;
    if (ranks == 1)
        return DC_OK;
    return dc_comm_split(w->comm, index < w->comm->size / ranks ? index : -1, &w->group);
}

/* All living ranks are through: nobody was told that there is no more before. */
static _Noreturn void end_without_lost(const dc_farm_worker *w)
{
    dc_comm_leave(w->comm, dc_fail(DC_INTERRUPTED,
                                   "%d rank%s died; the others did what was left and saved it: start again to go on",
                                   w->n_lost, w->n_lost == 1 ? "" : "s"));
}

/* On the farm's communicator, with the groups formed. */
static dc_status run(dc_farm_worker *w, dc_blobs *results)
{
    dc_farm_manager *manager = NULL;
    dc_status mine = DC_OK, broken = DC_OK;
    if (w->comm->rank == 0)
        mine = dc_farm_manager_start(w->farm, w->comm, &manager);
    DC_TRY_ALL(w->comm, mine);
    if (w->group.size > 0)
        broken = work_loop(w, &mine);
    if (broken != DC_OK)
        dc_comm_abort(broken);
    dc_farm_manager_join(manager);
    if (w->n_lost > 0)
        end_without_lost(w);
    DC_TRY(dc_comm_barrier(w->comm));
    DC_TRY_ALL(w->comm, mine);
    return results ? share_results(w, results) : DC_OK;
}

dc_status dc_farm_run(const dc_comm *comm, const dc_farm *farm, dc_blobs *results)
{
    dc_comm own;
    dc_farm_worker w = {.farm = farm, .comm = &own};
    if (results)
        *results = (dc_blobs){0};
    if (farm->ranks_per_group < 1 || farm->ranks_per_group > comm->size)
        return dc_fail(DC_ERR_INPUT, "groups of %d ranks are wanted, but the job has %d", farm->ranks_per_group,
                       comm->size);
    DC_TRY(dc_comm_duplicate(comm, &own));
    dc_status status = form_group(&w);
    if (status == DC_OK)
        status = run(&w, results);
    dc_comm_clear(&w.group);
    dc_comm_clear(&own);
    free(w.results.data);
    return status;
}
