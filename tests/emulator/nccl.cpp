/* NCCL over MPI, as far as the project calls it: communicators that do not block, sums of floats, broadcasts of bytes.
 *
 * A call is under way until ncclCommGetAsyncError says that it is not, sometimes after several questions, and another
 * one before that ends the program. Collectives run in their streams' turn; the ranks first tell each other what theirs
 * is, so that ranks that do not mean the same end the program and do not wait for ever. A rank that never comes leaves
 * the others' streams waiting, as on a GPU, until they abort. */
#include "emulator.hpp"

#define OMPI_SKIP_MPICXX  1 /* the bindings to C++ */
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>
#include <nccl.h>

#include <stdio.h>
#include <string.h>

#include <map>
#include <memory>
#include <vector>

using namespace emulator;

namespace
{

enum { FIRST_TAG = 20000, TAGS = 10000 };

/* What is in a unique id: where members meet. */
struct meeting {
    int root, tag; /* a rank of the world; messages to it, and from it with tag + 1 */
};

struct member {
    int rank, world, device;
};

enum state { JOINING, READY, ENDING, ENDED };

struct communicator {
    int rank, size;
    meeting place;
    state now;
    member own, arrived;
    int n_arrived; /* at the meeting's root, and who: */
    std::vector<member> arrivals;
    std::vector<member> members;
    MPI_Comm mpi;
    MPI_Request request, arrival;
    bool busy; /* a collective is between its start and its end */
    bool aborted;
    std::function<void()> enqueues; /* a call under way */
    unsigned questions;             /* until it is through */
    ncclResult_t error;
};

using shared = std::shared_ptr<communicator>;

std::map<ncclComm_t, shared> communicators;
std::string last_error;

shared find(ncclComm_t handle, const char *call)
{
    const auto found = communicators.find(handle);
    if (found == communicators.end())
        die("%s: %p is no communicator, or not any more", call, (void *)handle);
    return found->second;
}

bool is_complete(MPI_Request *request)
{
    int flag = 0;
    MPI_Test(request, &flag, MPI_STATUS_IGNORE);
    return flag != 0;
}

/* ---- how members meet ---- */

void send(const void *data, size_t bytes, int to, int tag)
{
    MPI_Request request;
    MPI_Isend(data, (int)bytes, MPI_BYTE, to, tag, MPI_COMM_WORLD, &request);
    MPI_Request_free(&request);
}

void expect_arrival(communicator *c)
{
    MPI_Irecv(&c->arrived, sizeof c->arrived, MPI_BYTE, MPI_ANY_SOURCE, c->place.tag, MPI_COMM_WORLD, &c->arrival);
}

void join(communicator *c)
{
    c->members.resize((size_t)c->size);
    if (c->own.world == c->place.root) {
        c->arrivals.resize((size_t)c->size, member{-1, -1, -1});
        expect_arrival(c);
    }
    MPI_Irecv(c->members.data(), (int)(c->members.size() * sizeof(member)), MPI_BYTE, c->place.root, c->place.tag + 1,
              MPI_COMM_WORLD, &c->request);
    send(&c->own, sizeof c->own, c->place.root, c->place.tag);
}

/* The meeting's root knows them all in the end, and tells each. */
void receive_members(communicator *c)
{
    while (c->n_arrived < c->size && is_complete(&c->arrival)) {
        const member m = c->arrived;
        if (m.rank < 0 || m.rank >= c->size || c->arrivals[(size_t)m.rank].world >= 0)
            die("ncclCommInitRankConfig: rank %d of %d comes twice, or is none", m.rank, c->size);
        c->arrivals[(size_t)m.rank] = m;
        if (++c->n_arrived < c->size)
            expect_arrival(c);
        else
            for (const member &to : c->arrivals)
                send(c->arrivals.data(), c->arrivals.size() * sizeof(member), to.world, c->place.tag + 1);
    }
}

void refuse_shared_devices(communicator *c)
{
    for (int i = 0; i < c->size; i++) {
        for (int j = 0; j < i; j++) {
            if (c->members[(size_t)i].device == c->members[(size_t)j].device) {
                last_error = "Duplicate GPU detected : rank " + std::to_string(j) + " and rank " + std::to_string(i);
                c->error = ncclInvalidUsage;
            }
        }
    }
}

void poll_join(communicator *c)
{
    if (c->own.world == c->place.root)
        receive_members(c);
    if (!is_complete(&c->request))
        return;
    std::vector<int> ranks;
    for (const member &m : c->members)
        ranks.push_back(m.world);
    MPI_Group world, group;
    MPI_Comm_group(MPI_COMM_WORLD, &world);
    MPI_Group_incl(world, c->size, ranks.data(), &group);
    MPI_Comm_create_group(MPI_COMM_WORLD, group, c->place.tag, &c->mpi);
    MPI_Group_free(&group);
    MPI_Group_free(&world);
    c->now = READY;
    refuse_shared_devices(c);
}

/* ---- collectives ---- */

struct meaning {
    long long count, type, operation;
};

struct collective {
    shared comm;
    const char *call;
    meaning means;
    void *data;
    size_t bytes;
    int stage; /* 0: not begun, 1: telling, 2: moving */
    std::vector<meaning> told;
    std::vector<char> moved;
    MPI_Request request;
};

std::string describe(const meaning &m)
{
    char text[128];
    snprintf(text, sizeof text, "an all-reduce of %lld elements of type %lld, operation %lld", m.count, m.type,
             m.operation);
    return text;
}

void compare(const collective *c)
{
    for (int i = 0; i < c->comm->size; i++) {
        if (memcmp(&c->told[(size_t)i], &c->means, sizeof c->means) != 0)
            die("%s: on rank %d it is %s, at the same place on rank %d it is %s", c->call, c->comm->rank,
                describe(c->means).c_str(), i, describe(c->told[(size_t)i]).c_str());
    }
}

void tell(collective *c)
{
    c->comm->busy = true;
    c->told.resize((size_t)c->comm->size);
    MPI_Iallgather(&c->means, sizeof c->means, MPI_BYTE, c->told.data(), sizeof c->means, MPI_BYTE, c->comm->mpi,
                   &c->request);
}

void move(collective *c)
{
    require_device_memory(c->data, c->bytes, c->call, "the buffer, when its turn comes,");
    open_memory();
    c->moved.assign((const char *)c->data, (const char *)c->data + c->bytes);
    close_memory();
    MPI_Iallreduce(MPI_IN_PLACE, c->moved.data(), (int)c->means.count, MPI_FLOAT, MPI_SUM, c->comm->mpi, &c->request);
}

/* Whether it is through, or never will be. */
bool go_on(collective *c)
{
    if (c->comm->aborted)
        return true;
    if (c->stage == 0) {
        if (c->comm->busy)
            return false;
        tell(c);
        c->stage = 1;
    }
    if (c->stage == 1) {
        if (!is_complete(&c->request))
            return false;
        compare(c);
        move(c);
        c->stage = 2;
    }
    return is_complete(&c->request);
}

void end(collective *c)
{
    if (c->comm->aborted)
        return;
    memcpy(c->data, c->moved.data(), c->bytes);
    c->comm->busy = false;
}

/* ---- calls ---- */

/* Refuses what NCCL would: a call before the last one is through. */
void require_ready(const communicator *c, const char *call)
{
    if (c->now != READY || c->enqueues)
        die("%s: the last call of this communicator is still under way, or its end has begun", call);
}

/* NCCL permits it where all ranks capture the same and replay it together, which nobody checks; and then it waits for
 * ever in ncclCommFinalize and ncclCommAbort while a graph lives. */
void require_uncaptured(cudaStream_t stream, const char *call)
{
    cudaStreamCaptureStatus status;
    if (cudaStreamIsCapturing(stream, &status) != cudaSuccess || status != cudaStreamCaptureStatusNone)
        die("%s: the stream is being captured, which is not emulated", call);
}

ncclResult_t launch(ncclComm_t handle, const char *call, meaning means, const void *from, void *to, size_t bytes,
                    cudaStream_t stream)
{
    const shared comm = find(handle, call);
    require_ready(comm.get(), call);
    if (from != to)
        die("%s: this emulation is of collectives in place", call);
    require_device_memory(to, bytes, call, "the buffer");
    require_uncaptured(stream, call);
    auto c = std::make_shared<collective>(collective{comm, call, means, to, bytes, 0, {}, {}, MPI_REQUEST_NULL});
    comm->enqueues = [=] {
        const cudaError_t error = enqueue(
            stream, call, [=] { end(c.get()); }, [=] { return go_on(c.get()); });
        if (error != cudaSuccess)
            comm->error = ncclUnhandledCudaError;
    };
    comm->questions = random_number(3);
    return ncclInProgress;
}

} // namespace

extern "C" {
ncclResult_t ncclGetVersion(int *version)
{
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    static int n;
    meeting place = {0, FIRST_TAG + 2 * n++ % TAGS};
    MPI_Comm_rank(MPI_COMM_WORLD, &place.root);
    memset(id, 0, sizeof *id);
    memcpy(id->internal, &place, sizeof place);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *handle, int size, ncclUniqueId id, int rank, ncclConfig_t *config)
{
    api_call call("ncclCommInitRankConfig");
    if (config == nullptr || config->blocking != 0)
        die("ncclCommInitRankConfig: this emulation is of communicators that do not block");
    auto c = std::make_shared<communicator>();
    memcpy(&c->place, id.internal, sizeof c->place);
    c->rank = rank;
    c->size = size;
    c->own = {rank, 0, current_device()};
    c->error = ncclSuccess;
    MPI_Comm_rank(MPI_COMM_WORLD, &c->own.world);
    join(c.get());
    *handle = (ncclComm_t)c.get();
    communicators[*handle] = c;
    return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t handle, ncclResult_t *result)
{
    api_call call("ncclCommGetAsyncError");
    const shared c = find(handle, "ncclCommGetAsyncError");
    if (c->now == JOINING)
        poll_join(c.get());
    else if (c->now == ENDING && is_complete(&c->request))
        c->now = ENDED;
    else if (c->enqueues && c->questions-- == 0) {
        c->enqueues();
        c->enqueues = nullptr;
    }
    const bool under_way = c->now == JOINING || c->now == ENDING || c->enqueues;
    *result = c->error != ncclSuccess ? c->error : under_way ? ncclInProgress : ncclSuccess;
    return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type, ncclRedOp_t operation,
                           ncclComm_t comm, cudaStream_t stream)
{
    api_call call("ncclAllReduce");
    if (type != ncclFloat32 || operation != ncclSum)
        die("ncclAllReduce: this emulation adds floats only");
    return launch(comm, "ncclAllReduce", {(long long)count, type, operation}, from, to, count * sizeof(float), stream);
}

ncclResult_t ncclCommFinalize(ncclComm_t handle)
{
    api_call call("ncclCommFinalize");
    const shared c = find(handle, "ncclCommFinalize");
    require_ready(c.get(), "ncclCommFinalize");
    MPI_Ibarrier(c->mpi, &c->request);
    c->now = ENDING;
    return ncclInProgress;
}

ncclResult_t ncclCommDestroy(ncclComm_t handle)
{
    api_call call("ncclCommDestroy");
    const shared c = find(handle, "ncclCommDestroy");
    if (c->now != ENDED)
        die("ncclCommDestroy: ncclCommFinalize was not called, or is not through");
    MPI_Comm_free(&c->mpi);
    communicators.erase(handle);
    return ncclSuccess;
}

/* What is enqueued comes to an end; what has been told to other ranks stays untold to them. */
ncclResult_t ncclCommAbort(ncclComm_t handle)
{
    api_call call("ncclCommAbort");
    find(handle, "ncclCommAbort")->aborted = true;
    static std::vector<shared> kept; /* MPI may still write into it */
    kept.push_back(communicators[handle]);
    communicators.erase(handle);
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result)
{
    return result == ncclSuccess ? "no error" : result == ncclInvalidUsage ? "invalid usage" : "an error";
}

const char *ncclGetLastError(ncclComm_t)
{
    return last_error.c_str();
}
}
