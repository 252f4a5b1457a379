#include "comm/nccl.h"

#include "base/clock.h"
#include "base/units.h"

#include <nccl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct dc_nccl {
    ncclComm_t comm; /* NULL: not there yet, or aborted */
    int size;
    double timeout_s;
    int64_t number; /* of what has been enqueued, of which the last is: */
    const char *last;
    size_t last_bytes;
};

/* What a rank tells the others of its GPU. */
typedef struct identity {
    cudaUUID_t uuid;
    int rank; /* in the world */
    int device;
    char name[256];
} identity;

static const double default_timeout_s = 300;

/* ---- waiting -------------------------------------------------------------------------------------------------------
 */

/* What is waited for usually takes less than a millisecond. */
static void pause_after(double waited_s)
{
    const struct timespec pause = {.tv_nsec = 200000};
    if (waited_s < 2e-3)
        sched_yield();
    else
        nanosleep(&pause, NULL);
}

/* Ends what is on streams; what the other ranks have still to say is of no use. */
static void abort_all(dc_nccl *n)
{
    if (n->comm)
        ncclCommAbort(n->comm);
    n->comm = NULL;
}

static dc_status failed(dc_nccl *n, ncclResult_t result, const char *what)
{
    const char *detail = ncclGetLastError(n->comm);
    const bool has_detail = detail && *detail;
    dc_fail(DC_ERR_COMM, "NCCL: %s failed: %s%s%s", what, ncclGetErrorString(result), has_detail ? ": " : "",
            has_detail ? detail : "");
    abort_all(n);
    return DC_ERR_COMM;
}

static dc_status late(dc_nccl *n, const char *what)
{
    abort_all(n);
    return dc_fail(
        DC_ERR_COMM,
        "NCCL: waited %g s for %s over %d ranks: another rank has ended or hangs (DCANAS_NCCL_TIMEOUT_S sets "
        "how long)",
        n->timeout_s, what, n->size);
}

/* The communicator does not block: a call of it is through when this returns, whatever it returned itself. */
static dc_status settle(dc_nccl *n, ncclResult_t result, const char *what)
{
    const double start = dc_clock_seconds();
    while (result == ncclSuccess || result == ncclInProgress) {
        const ncclResult_t asked = ncclCommGetAsyncError(n->comm, &result);
        if (asked != ncclSuccess)
            result = asked;
        if (result == ncclSuccess)
            return DC_OK;
        const double waited_s = dc_clock_seconds() - start;
        if (result == ncclInProgress && waited_s > n->timeout_s)
            return late(n, what);
        pause_after(waited_s);
    }
    return failed(n, result, what);
}

dc_status dc_nccl_check(dc_nccl *n, double waited_s)
{
    if (!n->comm)
        return dc_fail(DC_ERR_COMM, "NCCL: what was enqueued over ranks has been aborted");
    char what[128];
    snprintf(what, sizeof what, "collective %lld (%s of %zu bytes), or one before it,", (long long)n->number, n->last,
             n->last_bytes);
    ncclResult_t result = ncclSuccess;
    const ncclResult_t asked = ncclCommGetAsyncError(n->comm, &result);
    if (asked != ncclSuccess)
        result = asked;
    if (result != ncclSuccess && result != ncclInProgress)
        return failed(n, result, what);
    return waited_s > n->timeout_s ? late(n, what) : DC_OK;
}

dc_status dc_nccl_wait(dc_nccl *n, cudaStream_t stream)
{
    const double start = dc_clock_seconds();
    for (;;) {
        const cudaError_t error = cudaStreamQuery(stream);
        if (error == cudaSuccess)
            return DC_OK;
        if (error != cudaErrorNotReady) {
            abort_all(n);
            return dc_cuda_error(error, "a stream with sums over ranks");
        }
        const double waited_s = dc_clock_seconds() - start;
        DC_TRY(dc_nccl_check(n, waited_s));
        pause_after(waited_s);
    }
}

/* ---- what is enqueued ----------------------------------------------------------------------------------------------
 */

static dc_status enqueues(dc_nccl *n, const char *what, size_t size_bytes)
{
    if (!n->comm)
        return dc_fail(DC_ERR_COMM, "NCCL: %s after its ranks' communicator was aborted", what);
    n->number++;
    n->last = what;
    n->last_bytes = size_bytes;
    return DC_OK;
}

dc_status dc_nccl_sum(dc_nccl *n, float *values, size_t count, cudaStream_t stream)
{
    DC_TRY(enqueues(n, "a sum", count * sizeof *values));
    return settle(n, ncclAllReduce(values, values, count, ncclFloat32, ncclSum, n->comm, stream), n->last);
}

/* ---- creation ------------------------------------------------------------------------------------------------------
 */

static dc_status identify(identity *own)
{
    struct cudaDeviceProp properties;
    *own = (identity){0};
    DC_CUDA_TRY(cudaGetDevice(&own->device));
    DC_CUDA_TRY(cudaGetDeviceProperties(&properties, own->device));
    own->uuid = properties.uuid;
    snprintf(own->name, sizeof own->name, "%s", properties.name);
    DC_MPI(MPI_Comm_rank(MPI_COMM_WORLD, &own->rank));
    return DC_OK;
}

/* NCCL would refuse too, less clearly; two of its ranks on one GPU could wait for each other for ever. */
static dc_status check_distinct(const dc_comm *comm, const identity *own)
{
    dc_blobs blobs;
    DC_TRY(dc_comm_gather_all(comm, own, sizeof *own, &blobs));
    identity *all = (identity *)(void *)blobs.data;
    dc_status status = DC_OK;
    for (int i = 1; i < blobs.n && status == DC_OK; i++)
        for (int j = 0; j < i && status == DC_OK; j++)
            if (!memcmp(&all[i].uuid, &all[j].uuid, sizeof all[i].uuid))
                status = dc_fail(DC_ERR_INPUT,
                                 "ranks %d and %d both use GPU %d (%s) of their node: NCCL needs one GPU a rank; start "
                                 "as many ranks a node as it has GPUs (searches of one rank each may share one: "
                                 "dcanas lug or search with [lug] ranks_per_search = 1)",
                                 all[j].rank, all[i].rank, all[j].device, all[j].name);
    dc_blobs_clear(&blobs);
    return status;
}

dc_status dc_nccl_check_distinct(const dc_comm *comm)
{
    identity own;
    DC_TRY_ALL(comm, identify(&own));
    return check_distinct(comm, &own);
}

static dc_status prepare(const dc_comm *comm, dc_nccl *n, ncclUniqueId *id)
{
    if (!n)
        return DC_ERR_MEMORY;
    n->size = comm->size;
    n->timeout_s = default_timeout_s;
    const char *text = getenv("DCANAS_NCCL_TIMEOUT_S");
    if (text && dc_parse_duration(text, &n->timeout_s) != DC_OK)
        return dc_fail_within(DC_ERR_INPUT, "DCANAS_NCCL_TIMEOUT_S");
    const ncclResult_t result = comm->rank == 0 ? ncclGetUniqueId(id) : ncclSuccess;
    return result == ncclSuccess ? DC_OK : failed(n, result, "a unique id");
}

/* A first sum, of ones. NCCL connects ranks when they first need it: better here than in the first step. */
static dc_status sum_ones(dc_nccl *n, cudaStream_t stream, float *device)
{
    float one = 1;
    DC_CUDA_TRY(cudaMemcpyAsync(device, &one, sizeof one, cudaMemcpyHostToDevice, stream));
    DC_TRY(dc_nccl_sum(n, device, 1, stream));
    DC_TRY(dc_nccl_wait(n, stream));
    DC_CUDA_TRY(cudaMemcpyAsync(&one, device, sizeof one, cudaMemcpyDeviceToHost, stream));
    DC_CUDA_TRY(cudaStreamSynchronize(stream));
    if (one != (float)n->size)
        return dc_fail(DC_ERR_COMM, "NCCL: ones of %d ranks add up to %g", n->size, (double)one);
    return DC_OK;
}

static dc_status try_sum(dc_nccl *n)
{
    cudaStream_t stream;
    float *device = NULL;
    DC_CUDA_TRY(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    const cudaError_t error = cudaMalloc((void **)&device, sizeof *device);
    dc_status status = error == cudaSuccess ? sum_ones(n, stream, device) : dc_cuda_error(error, "cudaMalloc");
    cudaFree(device);
    cudaStreamDestroy(stream);
    return status;
}

static dc_status start(const dc_comm *comm, const ncclUniqueId *id, dc_nccl *n)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    const ncclResult_t result = ncclCommInitRankConfig(&n->comm, comm->size, *id, comm->rank, &config);
    DC_TRY(settle(n, result, "a communicator"));
    return try_sum(n);
}

dc_status dc_nccl_create(const dc_comm *comm, dc_nccl **nccl)
{
    ncclUniqueId id;
    dc_nccl *n = dc_alloc_zeroed(sizeof *n);
    dc_status status = dc_comm_agree(comm, prepare(comm, n, &id));
    if (status == DC_OK)
        status = dc_nccl_check_distinct(comm);
    if (status == DC_OK)
        status = dc_comm_bcast(comm, 0, &id, sizeof id);
    if (status == DC_OK)
        status = start(comm, &id, n);
    if (status != DC_OK) {
        if (n)
            abort_all(n);
        free(n);
        return status;
    }
    *nccl = n;
    return DC_OK;
}

void dc_nccl_destroy(dc_nccl *n)
{
    if (!n)
        return;
    if (n->comm && settle(n, ncclCommFinalize(n->comm), "the end of a communicator") == DC_OK)
        ncclCommDestroy(n->comm);
    free(n);
}
