#include "comm/transport.h"

#include <stdlib.h>
#include <string.h>

typedef struct mpi_transport {
    dc_transport transport;
    dc_comm comm; /* its own: other collectives may be used meanwhile */
    int n_started;
    MPI_Request *requests;
} mpi_transport;

static void destroy(dc_transport *transport)
{
    mpi_transport *t = (mpi_transport *)transport;
    dc_comm_clear(&t->comm);
    free(t->requests);
    free(t);
}

static dc_status zero(dc_transport *transport, float *data, size_t count)
{
    (void)transport;
    memset(data, 0, count * sizeof *data);
    return DC_OK;
}

static dc_status start(dc_transport *transport, float *data, size_t count)
{
    mpi_transport *t = (mpi_transport *)transport;
    MPI_Request *request = &t->requests[t->n_started];
    DC_MPI(MPI_Iallreduce(MPI_IN_PLACE, data, (int)count, MPI_FLOAT, MPI_SUM, t->comm.mpi, request));
    t->n_started++;
    return DC_OK;
}

/* MPI moves data only while it is called. */
static dc_status progress(dc_transport *transport)
{
    mpi_transport *t = (mpi_transport *)transport;
    int flag;
    DC_MPI(MPI_Testall(t->n_started, t->requests, &flag, MPI_STATUSES_IGNORE));
    return DC_OK;
}

static dc_status finish(dc_transport *transport)
{
    mpi_transport *t = (mpi_transport *)transport;
    DC_MPI_WAIT(&t->comm, MPI_Waitall(t->n_started, t->requests, MPI_STATUSES_IGNORE));
    t->n_started = 0;
    return DC_OK;
}

static dc_status check(dc_transport *transport, double waited_s)
{
    (void)transport;
    (void)waited_s;
    return DC_OK;
}

static const dc_transport_interface interface = {destroy, zero, start, progress, finish, check};

dc_status dc_mpi_transport_create(const dc_comm *comm, int n_sums, dc_transport **transport)
{
    mpi_transport *t = dc_alloc_zeroed(sizeof *t);
    MPI_Request *requests = dc_alloc((size_t)n_sums * sizeof(MPI_Request));
    dc_status status = dc_comm_agree(comm, t && requests ? DC_OK : DC_ERR_MEMORY);
    if (status == DC_OK)
        status = dc_comm_duplicate(comm, &t->comm);
    if (status != DC_OK) {
        free(requests);
        free(t);
        return status;
    }
    t->transport.call = &interface;
    t->requests = requests;
    *transport = &t->transport;
    return DC_OK;
}
