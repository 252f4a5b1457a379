#include "comm/nccl.h"
#include "comm/transport.h"

#include <stdlib.h>

/* Sums run on a stream of their own: each waits for what was on the caller's stream when it was started, the caller's
 * stream waits for all of them when they are finished. The host waits for nothing. */
typedef struct nccl_transport {
    dc_transport transport;
    dc_nccl *nccl;
    cudaStream_t caller, sums;
    cudaEvent_t ready, done;
} nccl_transport;

static void destroy(dc_transport *transport)
{
    nccl_transport *t = (nccl_transport *)transport;
    if (t->nccl)
        (void)dc_nccl_wait(t->nccl, t->sums);
    dc_nccl_destroy(t->nccl);
    if (t->ready)
        cudaEventDestroy(t->ready);
    if (t->done)
        cudaEventDestroy(t->done);
    if (t->sums)
        cudaStreamDestroy(t->sums);
    free(t);
}

static dc_status zero(dc_transport *transport, float *data, size_t count)
{
    nccl_transport *t = (nccl_transport *)transport;
    DC_CUDA_TRY(cudaMemsetAsync(data, 0, count * sizeof *data, t->caller));
    return DC_OK;
}

static dc_status start(dc_transport *transport, float *data, size_t count)
{
    nccl_transport *t = (nccl_transport *)transport;
    DC_CUDA_TRY(cudaEventRecord(t->ready, t->caller));
    DC_CUDA_TRY(cudaStreamWaitEvent(t->sums, t->ready, 0));
    return dc_nccl_sum(t->nccl, data, count, t->sums);
}

static dc_status progress(dc_transport *transport)
{
    (void)transport;
    return DC_OK;
}

static dc_status finish(dc_transport *transport)
{
    nccl_transport *t = (nccl_transport *)transport;
    DC_CUDA_TRY(cudaEventRecord(t->done, t->sums));
    DC_CUDA_TRY(cudaStreamWaitEvent(t->caller, t->done, 0));
    return DC_OK;
}

static dc_status check(dc_transport *transport, double waited_s)
{
    nccl_transport *t = (nccl_transport *)transport;
    return dc_nccl_check(t->nccl, waited_s);
}

static const dc_transport_interface interface = {destroy, zero, start, progress, finish, check};

/* The sums go first where they and the rest of backward could both run: backward has other work meanwhile. */
static dc_status create_streams(nccl_transport *t)
{
    int lowest, highest;
    DC_CUDA_TRY(cudaDeviceGetStreamPriorityRange(&lowest, &highest));
    DC_CUDA_TRY(cudaStreamCreateWithPriority(&t->sums, cudaStreamNonBlocking, highest));
    DC_CUDA_TRY(cudaEventCreateWithFlags(&t->ready, cudaEventDisableTiming));
    DC_CUDA_TRY(cudaEventCreateWithFlags(&t->done, cudaEventDisableTiming));
    return DC_OK;
}

dc_status dc_nccl_transport_check(const dc_comm *comm)
{
    return dc_nccl_check_distinct(comm);
}

dc_status dc_nccl_transport_create(const dc_comm *comm, void *stream, dc_transport **transport)
{
    nccl_transport *t = dc_alloc_zeroed(sizeof *t);
    dc_status status = dc_comm_agree(comm, t ? create_streams(t) : DC_ERR_MEMORY);
    if (status == DC_OK)
        status = dc_nccl_create(comm, &t->nccl);
    if (status != DC_OK) {
        if (t)
            destroy(&t->transport);
        return status;
    }
    t->transport.call = &interface;
    t->caller = stream;
    *transport = &t->transport;
    return DC_OK;
}
