#include "comm/comm.h"

#include "base/units.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    CHUNK = 1 << 28, /* elements of one MPI call: its counts are ints */
    MESSAGE_CHARS = 1024,
    CODE_BITS = 8,
    RANK_BITS = 32,
    START_SECONDS = 600
};

dc_status dc_comm_mpi_error(int code, const char *call)
{
    char text[MPI_MAX_ERROR_STRING];
    int length = 0, begun = 0;
    MPI_Initialized(&begun);
    if (!begun || MPI_Error_string(code, text, &length) != MPI_SUCCESS)
        snprintf(text, sizeof text, "error %d", code);
    return dc_fail(DC_ERR_COMM, "%.*s failed: %s", (int)strcspn(call, "("), call, text);
}

static dc_watchdog *the_watchdog; /* of this process: also who has no communicator at hand can end the job */

/* ---- life ----------------------------------------------------------------------------------------------------------
 */

/* Launchers bind ranks to cores of their own, to sockets that several share, or not at all. */
static dc_status share_cores(dc_comm *comm, MPI_Comm node)
{
    cpu_set_t mine, *all = dc_alloc((size_t)comm->local_size * sizeof *all);
    if (!all)
        return DC_ERR_MEMORY;
    CPU_ZERO(&mine);
    if (sched_getaffinity(0, sizeof mine, &mine) != 0)
        CPU_SET(0, &mine);
    int code = MPI_Allgather(&mine, sizeof mine, MPI_BYTE, all, sizeof mine, MPI_BYTE, node), sharers = 0;
    for (int i = 0; i < comm->local_size && code == MPI_SUCCESS; i++)
        sharers += CPU_EQUAL(&all[i], &mine) != 0;
    free(all);
    if (code != MPI_SUCCESS)
        return dc_comm_mpi_error(code, "MPI_Allgather");
    comm->cores = CPU_COUNT(&mine) / sharers;
    if (comm->cores < 1)
        comm->cores = 1;
    return DC_OK;
}

static dc_status describe(dc_comm *comm)
{
    MPI_Comm node;
    DC_MPI(MPI_Comm_rank(comm->mpi, &comm->rank));
    DC_MPI(MPI_Comm_size(comm->mpi, &comm->size));
    DC_MPI_WAIT(comm, MPI_Comm_split_type(comm->mpi, MPI_COMM_TYPE_SHARED, comm->rank, MPI_INFO_NULL, &node));
    DC_MPI(MPI_Comm_rank(node, &comm->local_rank));
    DC_MPI(MPI_Comm_size(node, &comm->local_size));
    dc_status status = share_cores(comm, node);
    DC_MPI(MPI_Comm_free(&node));
    return status;
}

static dc_status init_world(int threads, dc_comm *world)
{
    if (threads < MPI_THREAD_MULTIPLE)
        return dc_fail(DC_ERR_COMM, "this MPI offers thread level %d only; MPI_THREAD_MULTIPLE (%d) is needed", threads,
                       MPI_THREAD_MULTIPLE);
    /* Communicators made from these inherit the handler. */
    DC_MPI(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
    DC_MPI(MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN));
    world->mpi = MPI_COMM_WORLD;
    DC_TRY(describe(world));
    DC_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &world->last));
    return DC_OK;
}

static dc_status start_seconds(double *seconds)
{
    const char *text = getenv("DCANAS_START_TIMEOUT");
    if (text && *text && dc_parse_duration(text, seconds) == DC_OK && *seconds > 0)
        return DC_OK;
    *seconds = START_SECONDS;
    if (!text || !*text)
        return DC_OK;
    return dc_fail(DC_ERR_INPUT, "DCANAS_START_TIMEOUT=%s: must be a duration above 0, such as 90, 45s or 15m", text);
}

dc_status dc_comm_check_environment(const dc_comm *world)
{
    double seconds;
    return dc_comm_agree(world, start_seconds(&seconds));
}

dc_status dc_comm_init(int *argc, char ***argv, dc_comm *world)
{
    int threads = 0;
    *world = (dc_comm){.mpi = MPI_COMM_NULL, .last = MPI_COMM_NULL};
    /* Without mpirun Open MPI would start a daemon beside us, only for MPI_Comm_spawn. */
    setenv("OMPI_MCA_ess_singleton_isolated", "1", 0);
    double start_s;
    (void)start_seconds(&start_s);
    DC_TRY(dc_watchdog_create(start_s, &world->watchdog));
    the_watchdog = world->watchdog;
    DC_MPI(MPI_Init_thread(argc, argv, MPI_THREAD_MULTIPLE, &threads));
    dc_status status = init_world(threads, world);
    if (status != DC_OK)
        dc_comm_abort(status); /* the others, which may be well, would wait in MPI_Finalize too */
    return DC_OK;
}

/* seconds < 0: for ever. */
static dc_status wait_asleep(MPI_Request *request, double seconds, bool *done)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    double start = MPI_Wtime();
    for (;;) {
        int flag = 0;
        DC_MPI(MPI_Test(request, &flag, MPI_STATUS_IGNORE));
        *done = flag;
        if (flag || (seconds >= 0 && MPI_Wtime() - start > seconds))
            return DC_OK;
        nanosleep(&pause, NULL);
    }
}

dc_status dc_comm_wait(const dc_comm *comm, MPI_Request *request)
{
    bool done;
    const char *before = dc_watchdog_waits(comm->watchdog, "MPI_Wait");
    dc_status status = wait_asleep(request, -1, &done);
    dc_watchdog_waits(comm->watchdog, before);
    return status;
}

static dc_status barrier_within(const dc_comm *comm, double seconds, bool *done)
{
    MPI_Request request;
    DC_MPI(MPI_Ibarrier(comm->mpi, &request));
    const char *before = dc_watchdog_waits(comm->watchdog, "MPI_Ibarrier");
    dc_status status = wait_asleep(&request, seconds, done);
    dc_watchdog_waits(comm->watchdog, before);
    return status;
}

dc_status dc_comm_end(const dc_comm *world, dc_status mine)
{
    if (world->size == 1)
        return mine;
    /* An interrupted rank waits: rank 0 may be writing the checkpoint. */
    bool alone = mine != DC_OK && mine != DC_INTERRUPTED;
    bool joined = false;
    dc_comm last = *world;
    last.mpi = world->last;
    dc_status status = barrier_within(&last, alone ? DC_COMM_END_SECONDS : -1, &joined);
    if (!joined)
        dc_comm_abort(alone ? mine : status);
    return dc_comm_agree(&last, mine);
}

void dc_comm_finalize(dc_comm *world)
{
    the_watchdog = NULL;
    dc_watchdog_destroy(world->watchdog);
    if (world->last != MPI_COMM_NULL)
        MPI_Comm_free(&world->last);
    MPI_Finalize();
    *world = (dc_comm){.mpi = MPI_COMM_NULL, .last = MPI_COMM_NULL};
}

/* The last words of a rank that ends by itself. */
static void say_last(void)
{
    int rank = 0, size = 1;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    fflush(stdout);
    if (size > 1)
        fprintf(stderr, "dcanas: rank %d: %s\n", rank, dc_status_message());
    else
        fprintf(stderr, "dcanas: %s\n", dc_status_message());
    fflush(stderr);
}

_Noreturn void dc_comm_abort(dc_status status)
{
    const int code = dc_status_exit_code(status);
    say_last();
    dc_watchdog_tell_end(the_watchdog, code);
    MPI_Abort(MPI_COMM_WORLD, code);
    _Exit(code);
}

_Noreturn void dc_comm_leave(const dc_comm *comm, dc_status status)
{
    if (comm->rank == 0)
        say_last();
    _Exit(dc_status_exit_code(status));
}

/* ---- groups --------------------------------------------------------------------------------------------------------
 */

dc_status dc_comm_split(const dc_comm *comm, int color, dc_comm *group)
{
    *group = (dc_comm){.mpi = MPI_COMM_NULL, .last = MPI_COMM_NULL, .watchdog = comm->watchdog};
    DC_MPI_WAIT(comm, MPI_Comm_split(comm->mpi, color < 0 ? MPI_UNDEFINED : color, comm->rank, &group->mpi));
    return group->mpi == MPI_COMM_NULL ? DC_OK : describe(group);
}

dc_status dc_comm_split_node(const dc_comm *comm, dc_comm *group)
{
    if (comm->size == 1) {
        *group = dc_comm_self();
        return DC_OK;
    }
    *group = (dc_comm){.mpi = MPI_COMM_NULL, .last = MPI_COMM_NULL, .watchdog = comm->watchdog};
    DC_MPI_WAIT(comm, MPI_Comm_split_type(comm->mpi, MPI_COMM_TYPE_SHARED, comm->rank, MPI_INFO_NULL, &group->mpi));
    return describe(group);
}

dc_status dc_comm_duplicate(const dc_comm *comm, dc_comm *copy)
{
    *copy = *comm;
    copy->mpi = copy->last = MPI_COMM_NULL;
    DC_MPI_WAIT(comm, MPI_Comm_dup(comm->mpi, &copy->mpi));
    return DC_OK;
}

dc_comm dc_comm_self(void)
{
    return (dc_comm){.mpi = MPI_COMM_SELF, .size = 1, .local_size = 1, .cores = 1, .last = MPI_COMM_NULL};
}

void dc_comm_clear(dc_comm *comm)
{
    if (comm->size > 0 && comm->mpi != MPI_COMM_NULL && comm->mpi != MPI_COMM_SELF && comm->mpi != MPI_COMM_WORLD)
        MPI_Comm_free(&comm->mpi);
    *comm = (dc_comm){.mpi = MPI_COMM_NULL, .last = MPI_COMM_NULL};
}

/* ---- agreement -----------------------------------------------------------------------------------------------------
 */

static int gravity(dc_status status)
{
    switch (status) {
    case DC_OK:
        return 0;
    case DC_INTERRUPTED:
        return 1;
    case DC_ERR_COMM:
        return 2;
    default:
        return 3;
    }
}

dc_status dc_comm_agree(const dc_comm *comm, dc_status mine)
{
    if (comm->size == 1)
        return mine;
    /* One number whose maximum is the gravest failure of the lowest rank. */
    int64_t verdict = (int64_t)gravity(mine) << (RANK_BITS + CODE_BITS) |
                      (int64_t)(comm->size - 1 - comm->rank) << CODE_BITS | (int64_t)mine;
    DC_MPI_WAIT(comm, MPI_Allreduce(MPI_IN_PLACE, &verdict, 1, MPI_INT64_T, MPI_MAX, comm->mpi));
    dc_status worst = (dc_status)(verdict & ((1 << CODE_BITS) - 1));
    if (worst == DC_OK)
        return DC_OK;
    int rank = comm->size - 1 - (int)(verdict >> CODE_BITS & UINT32_MAX);
    char text[MESSAGE_CHARS];
    snprintf(text, sizeof text, "%s", dc_status_message());
    DC_MPI_WAIT(comm, MPI_Bcast(text, MESSAGE_CHARS, MPI_CHAR, rank, comm->mpi));
    return gravity(mine) < gravity(worst) ? dc_fail(worst, "rank %d: %s", rank, text) : worst;
}

dc_status dc_comm_alone(const dc_comm *comm, dc_status mine)
{
    if (mine != DC_OK && comm->size > 1)
        dc_comm_abort(mine);
    return mine;
}

dc_status dc_comm_watch(const dc_comm *world)
{
    const char *text = getenv("DCANAS_WATCHDOG");
    double timeout_s = 0;
    if (!world->watchdog)
        return DC_OK;
    dc_status status = world->rank == 0 ? dc_parse_duration(text && *text ? text : "30m", &timeout_s) : DC_OK;
    if (status != DC_OK)
        status = dc_fail(status, "DCANAS_WATCHDOG=%s: must be a duration such as 90, 45s or 15m, 0: none", text);
    DC_TRY(dc_comm_agree(world, status));
    DC_TRY(dc_comm_bcast(world, 0, &timeout_s, sizeof timeout_s)); /* launchers need not pass it on to all */
    if (timeout_s > 0)
        return dc_comm_alone(world, dc_watchdog_start(world->watchdog, world->mpi, timeout_s, "DCANAS_WATCHDOG"));
    dc_watchdog_begun(world->watchdog);
    return DC_OK;
}

dc_status dc_comm_any(const dc_comm *comm, bool mine, bool *any)
{
    int flag = mine;
    if (comm->size > 1)
        DC_MPI_WAIT(comm, MPI_Allreduce(MPI_IN_PLACE, &flag, 1, MPI_INT, MPI_LOR, comm->mpi));
    *any = flag;
    return DC_OK;
}

/* ---- collectives ---------------------------------------------------------------------------------------------------
 */

dc_status dc_comm_barrier(const dc_comm *comm)
{
    bool done;
    return comm->size == 1 ? DC_OK : dc_comm_alone(comm, barrier_within(comm, -1, &done));
}

dc_status dc_comm_bcast(const dc_comm *comm, int root, void *bytes, size_t size_bytes)
{
    if (comm->size == 1)
        return DC_OK;
    for (size_t at = 0; at < size_bytes; at += CHUNK) {
        int n = size_bytes - at < CHUNK ? (int)(size_bytes - at) : CHUNK;
        DC_MPI_WAIT(comm, MPI_Bcast((char *)bytes + at, n, MPI_BYTE, root, comm->mpi));
    }
    return DC_OK;
}

static dc_status reduce(const dc_comm *comm, void *values, size_t n, size_t item_bytes, MPI_Datatype type, MPI_Op op)
{
    if (comm->size == 1)
        return DC_OK;
    for (size_t at = 0; at < n; at += CHUNK) {
        int count = n - at < CHUNK ? (int)(n - at) : CHUNK;
        DC_MPI_WAIT(comm, MPI_Allreduce(MPI_IN_PLACE, (char *)values + at * item_bytes, count, type, op, comm->mpi));
    }
    return DC_OK;
}

dc_status dc_comm_sum_doubles(const dc_comm *comm, double *values, size_t n)
{
    return reduce(comm, values, n, sizeof *values, MPI_DOUBLE, MPI_SUM);
}

dc_status dc_comm_sum_floats(const dc_comm *comm, float *values, size_t n)
{
    return reduce(comm, values, n, sizeof *values, MPI_FLOAT, MPI_SUM);
}

dc_status dc_comm_sum_int64(const dc_comm *comm, int64_t *values, size_t n)
{
    return reduce(comm, values, n, sizeof *values, MPI_INT64_T, MPI_SUM);
}

dc_status dc_comm_max_int64(const dc_comm *comm, int64_t *values, size_t n)
{
    return reduce(comm, values, n, sizeof *values, MPI_INT64_T, MPI_MAX);
}
