/* How the gradient buckets (buckets.h) are summed over ranks: by MPI in host memory or by NCCL in a GPU's. Sums are
 * started in the same order on every rank and go on beside the caller's work. */
#ifndef DC_COMM_TRANSPORT_H
#define DC_COMM_TRANSPORT_H

#include "comm/comm.h"

typedef struct dc_transport dc_transport;

typedef struct dc_transport_interface {
    void (*destroy)(dc_transport *); /* collective */
    /* Zeroes, after what the caller has put on the stream until now. */
    dc_status (*zero)(dc_transport *, float *data, size_t count);
    /* Begins to sum over ranks, in place, what data will be after what the caller has put on the stream until now.
     * count: at most INT_MAX. */
    dc_status (*start)(dc_transport *, float *data, size_t count);
    /* Called now and then between starts. */
    dc_status (*progress)(dc_transport *);
    /* All that was started: waits for it, or lets the stream wait for it. */
    dc_status (*finish)(dc_transport *);
    /* As dc_watch of backend/backend.h: of somebody who waits for the stream. */
    dc_status (*check)(dc_transport *, double waited_s);
} dc_transport_interface;

struct dc_transport {
    const dc_transport_interface *call;
    /* implementation's data follows */
};

/* By MPI, in host memory: n_sums are started at most before they are finished. Collective. */
dc_status dc_mpi_transport_create(const dc_comm *comm, int n_sums, dc_transport **transport);

/* By NCCL, in the memory of the present CUDA device, which is to be another one on each rank (DC_ERR_INPUT where it is
 * not; _check tells so in advance): stream is the cudaStream_t of the caller's work. `zero`, `start` and `finish` only
 * enqueue; not while the stream is captured (nccl.h). Where the program is built without CUDA no backend has a stream,
 * and without_nccl.c takes the place of nccl_transport.c. Collective. */
dc_status dc_nccl_transport_check(const dc_comm *comm);
dc_status dc_nccl_transport_create(const dc_comm *comm, void *stream, dc_transport **transport);

#endif
