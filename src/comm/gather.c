/* Byte strings of every rank's own size: dc_comm_gather, dc_comm_gather_all. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "comm/comm.h"

void dc_blobs_clear(dc_blobs *blobs)
{
    free(blobs->data);
    free(blobs->offsets);
    *blobs = (dc_blobs){0};
}

/* What a gather needs besides the result; on every rank, as sizes decide whether it can be done at all. */
typedef struct gathering {
    int64_t *sizes;        /* per rank */
    int *counts, *offsets; /* the same as MPI wants them */
    bool keep;             /* whether this rank gets the result */
} gathering;

static dc_status prepare(const dc_comm *comm, size_t size_bytes, gathering *g)
{
    size_t n = (size_t)comm->size;
    g->sizes = dc_alloc(n * sizeof *g->sizes);
    g->counts = dc_alloc(n * sizeof *g->counts);
    g->offsets = dc_alloc(n * sizeof *g->offsets);
    DC_TRY_ALL(comm, g->sizes && g->counts && g->offsets ? DC_OK : DC_ERR_MEMORY);
    int64_t mine = g->sizes[0] = (int64_t)size_bytes;
    if (comm->size > 1)
        DC_MPI_WAIT(comm, MPI_Allgather(&mine, 1, MPI_INT64_T, g->sizes, 1, MPI_INT64_T, comm->mpi));
    int64_t total = 0;
    for (size_t i = 0; i < n; i++) {
        if (g->sizes[i] > INT_MAX - total)
            return dc_fail(DC_ERR_COMM, "the ranks' results together exceed 2 GiB, more than one gather can carry");
        g->offsets[i] = (int)total;
        g->counts[i] = (int)g->sizes[i];
        total += g->sizes[i];
    }
    return DC_OK;
}

static dc_status allocate(const dc_comm *comm, const gathering *g, dc_blobs *all)
{
    size_t n = (size_t)comm->size, total = (size_t)g->offsets[n - 1] + (size_t)g->counts[n - 1];
    if (!g->keep)
        return DC_OK;
    all->n = comm->size;
    all->data = dc_alloc(total);
    all->offsets = dc_alloc((n + 1) * sizeof *all->offsets);
    if (!all->data || !all->offsets)
        return DC_ERR_MEMORY;
    for (size_t i = 0; i < n; i++)
        all->offsets[i] = (size_t)g->offsets[i];
    all->offsets[n] = total;
    return DC_OK;
}

static dc_status exchange(const dc_comm *comm, const void *bytes, size_t size_bytes, bool to_all, gathering *g,
                          dc_blobs *all)
{
    DC_TRY(prepare(comm, size_bytes, g));
    DC_TRY_ALL(comm, allocate(comm, g, all));
    if (comm->size == 1 && size_bytes > 0)
        memcpy(all->data, bytes, size_bytes);
    if (comm->size == 1)
        return DC_OK;
    if (to_all)
        DC_MPI_WAIT(comm, MPI_Allgatherv(bytes, (int)size_bytes, MPI_BYTE, all->data, g->counts, g->offsets, MPI_BYTE,
                                         comm->mpi));
    else
        DC_MPI_WAIT(comm, MPI_Gatherv(bytes, (int)size_bytes, MPI_BYTE, all->data, g->counts, g->offsets, MPI_BYTE, 0,
                                      comm->mpi));
    return DC_OK;
}

static dc_status gather(const dc_comm *comm, const void *bytes, size_t size_bytes, bool to_all, dc_blobs *all)
{
    gathering g = {.keep = to_all || comm->rank == 0};
    *all = (dc_blobs){0};
    dc_status status = exchange(comm, bytes, size_bytes, to_all, &g, all);
    if (status != DC_OK)
        dc_blobs_clear(all);
    free(g.sizes);
    free(g.counts);
    free(g.offsets);
    return status;
}

dc_status dc_comm_gather(const dc_comm *comm, const void *bytes, size_t size_bytes, dc_blobs *all)
{
    return gather(comm, bytes, size_bytes, false, all);
}

dc_status dc_comm_gather_all(const dc_comm *comm, const void *bytes, size_t size_bytes, dc_blobs *all)
{
    return gather(comm, bytes, size_bytes, true, all);
}
