/* Communicators: what ranks learn from each other, and how a job ends when one of them fails. The scenario is the first
 * argument; run.sh runs each with several numbers of ranks and looks at output, exit status and time. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "check.h"

static bool launcher_lives = true;

/* In front of MPI's. */
int MPI_Abort(MPI_Comm comm, int code)
{
    if (launcher_lives)
        return PMPI_Abort(comm, code);
    _Exit(code);
}

static void check_sums(const dc_comm *comm)
{
    double d[2] = {comm->rank + 0.5, 1};
    float f[2] = {(float)comm->rank, 2};
    int64_t i[2] = {(int64_t)comm->rank << 40, -comm->rank};
    int n = comm->size, ranks = n * (n - 1) / 2;
    CHECK_OK(dc_comm_sum_doubles(comm, d, 2));
    CHECK(d[0] == ranks + 0.5 * n && d[1] == n);
    CHECK_OK(dc_comm_sum_floats(comm, f, 2));
    CHECK(f[0] == (float)ranks && f[1] == (float)(2 * n));
    CHECK_OK(dc_comm_sum_int64(comm, i, 2));
    CHECK(i[0] == (int64_t)ranks << 40 && i[1] == -ranks);
    i[0] = comm->rank == n / 2 ? INT64_MAX : 0;
    CHECK_OK(dc_comm_max_int64(comm, i, 1));
    CHECK(i[0] == INT64_MAX);
}

static void check_bcast(const dc_comm *comm)
{
    for (int root = 0; root < comm->size; root++) {
        unsigned char bytes[1000];
        memset(bytes, comm->rank == root ? 7 + root : 0, sizeof bytes);
        CHECK_OK(dc_comm_bcast(comm, root, bytes, sizeof bytes));
        for (size_t i = 0; i < sizeof bytes; i++)
            CHECK(bytes[i] == 7 + root);
    }
}

/* Rank r gives r * 1000 bytes of value r: rank 0 none. */
static void check_blobs(const dc_blobs *blobs, int n)
{
    CHECK(blobs->n == n && blobs->offsets[0] == 0);
    for (int r = 0; r < n; r++) {
        CHECK(blobs->offsets[r + 1] - blobs->offsets[r] == (size_t)r * 1000);
        for (size_t i = blobs->offsets[r]; i < blobs->offsets[r + 1]; i++)
            CHECK(blobs->data[i] == r);
    }
}

static void check_gather(const dc_comm *comm)
{
    unsigned char bytes[8000];
    dc_blobs blobs;
    memset(bytes, comm->rank, sizeof bytes);
    CHECK_OK(dc_comm_gather_all(comm, bytes, (size_t)comm->rank * 1000, &blobs));
    check_blobs(&blobs, comm->size);
    dc_blobs_clear(&blobs);
    CHECK_OK(dc_comm_gather(comm, bytes, (size_t)comm->rank * 1000, &blobs));
    if (comm->rank == 0)
        check_blobs(&blobs, comm->size);
    else
        CHECK(blobs.n == 0 && !blobs.data);
    dc_blobs_clear(&blobs);
    /* Refused on every rank alike, before a byte is touched. */
    CHECK(dc_comm_gather_all(comm, bytes, (size_t)2 << 30, &blobs) == DC_ERR_COMM);
    CHECK_MESSAGE("2 GiB");
    CHECK(!blobs.data && !blobs.offsets);
}

static void check_groups(const dc_comm *comm)
{
    dc_comm group, copy, self = dc_comm_self();
    CHECK_OK(dc_comm_split(comm, comm->rank % 2, &group));
    CHECK(group.rank == comm->rank / 2 && group.size == (comm->size + 1 - comm->rank % 2) / 2);
    check_sums(&group);
    dc_comm_clear(&group);
    CHECK_OK(dc_comm_split(comm, comm->rank == 0 ? 0 : -1, &group));
    CHECK(group.size == (comm->rank == 0));
    dc_comm_clear(&group);
    CHECK_OK(dc_comm_duplicate(comm, &copy));
    CHECK(copy.size == comm->size && copy.mpi != comm->mpi);
    check_sums(&copy);
    dc_comm_clear(&copy);
    check_sums(&self);
    check_gather(&self);
    dc_comm_clear(&self);
    CHECK(comm->local_size == comm->size && comm->local_rank == comm->rank); /* the tests run on one node */
}

static void check_agreement(const dc_comm *comm)
{
    int last = comm->size - 1;
    bool any, is_last = comm->rank == last, is_first = comm->rank == 0;
    CHECK_OK(dc_comm_agree(comm, DC_OK));
    /* One fails: all do, with its message. */
    dc_status mine = is_last ? dc_fail(DC_ERR_IO, "cannot write lug.h5") : DC_OK;
    CHECK(dc_comm_agree(comm, mine) == DC_ERR_IO);
    char text[64];
    snprintf(text, sizeof text, "rank %d: cannot write lug.h5", last);
    CHECK(strcmp(dc_status_message(), is_last ? "cannot write lug.h5" : text) == 0);
    /* All fail: the first one's status, each with its own message. */
    dc_fail(DC_ERR_IO, "my own %d", comm->rank);
    CHECK(dc_comm_agree(comm, is_first ? DC_ERR_INPUT : DC_ERR_IO) == DC_ERR_INPUT);
    snprintf(text, sizeof text, "my own %d", comm->rank);
    CHECK(strcmp(dc_status_message(), text) == 0);
    /* An error outweighs an interruption, a cause its consequence. */
    dc_fail(DC_OK, "status of %d", comm->rank);
    CHECK(dc_comm_agree(comm, is_last ? DC_ERR_DEVICE : DC_INTERRUPTED) == DC_ERR_DEVICE);
    dc_fail(DC_OK, "status of %d", comm->rank);
    CHECK(dc_comm_agree(comm, is_last ? DC_ERR_INPUT : DC_ERR_COMM) == DC_ERR_INPUT);
    snprintf(text, sizeof text, "status of %d", last);
    CHECK_MESSAGE(text);
    CHECK(dc_comm_agree(comm, is_last ? DC_INTERRUPTED : DC_OK) == DC_INTERRUPTED);
    CHECK_OK(dc_comm_any(comm, false, &any));
    CHECK(!any);
    CHECK_OK(dc_comm_any(comm, is_last, &any));
    CHECK(any);
}

static dc_status bad_root(const dc_comm *comm)
{
    int x = 0;
    DC_MPI(MPI_Bcast(&x, 1, MPI_INT, comm->size, comm->mpi));
    return DC_OK;
}

static dc_status collectives(const dc_comm *world)
{
    check_sums(world);
    check_bcast(world);
    check_gather(world);
    check_groups(world);
    check_agreement(world);
    CHECK_OK(dc_comm_barrier(world));
    CHECK(bad_root(world) == DC_ERR_COMM);
    CHECK_MESSAGE("MPI_Bcast failed: MPI_ERR_ROOT");
    return DC_OK;
}

static dc_status fail_last(const dc_comm *world, dc_status code)
{
    return world->rank == world->size - 1 ? dc_fail(code, "[data] file = x.h5 is missing") : DC_OK;
}

/* All but the last rank wait for it; what it does instead is the scenario. */
static dc_status all_but_last_wait(const dc_comm *world, const char *scenario)
{
    if (world->rank < world->size - 1) {
        double one = 1;
        return dc_comm_sum_doubles(world, &one, 1);
    }
    if (strcmp(scenario, "abort") == 0)
        dc_comm_abort(fail_last(world, DC_ERR_INPUT));
    if (strcmp(scenario, "kill") == 0)
        kill(getpid(), SIGKILL);
    return fail_last(world, DC_ERR_INPUT); /* "alone": dc_comm_end sees to it */
}

/* The last rank ends the job, and the launcher does not see to it that the others, which wait, end too. */
static dc_status unlaunched(const dc_comm *world)
{
    double one = 1;
    launcher_lives = false;
    CHECK_OK(dc_watchdog_start(world->watchdog, world->mpi, 600, "[run] watchdog"));
    if (world->rank == world->size - 1)
        dc_comm_abort(fail_last(world, DC_ERR_INPUT));
    return dc_comm_sum_doubles(world, &one, 1);
}

/* The last rank is taken for dead by rank 0, finds that nobody answers it, and ends: the others go on. */
static dc_status forgotten(const dc_comm *world)
{
    launcher_lives = false;
    CHECK_OK(dc_watchdog_start(world->watchdog, world->mpi, 1, "[run] watchdog"));
    if (world->rank == 0)
        dc_watchdog_forget(world->watchdog, world->size - 1);
    CHECK_OK(dc_comm_barrier(world));
    for (int i = 0; i < 40 || world->rank == world->size - 1; i++) {
        usleep(100000);
        dc_watchdog_moved(world->watchdog, "a place", i);
    }
    printf("rank %d has gone on\n", world->rank);
    fflush(stdout);
    _Exit(0);
}

/* "stuck": the last rank neither moves nor waits; "deadlock": all wait, for different things; "slow": somebody always
 * moves, for much longer than the timeout. */
static dc_status watched(const dc_comm *world, const char *scenario)
{
    double one = 1;
    dc_comm other;
    bool slow = strcmp(scenario, "slow") == 0, last = world->rank == world->size - 1;
    CHECK_OK(dc_comm_duplicate(world, &other));
    CHECK_OK(dc_watchdog_start(world->watchdog, world->mpi, 1, "[run] watchdog"));
    dc_watchdog_moved(world->watchdog, "a place", 17);
    if (strcmp(scenario, "deadlock") == 0)
        return last ? dc_comm_barrier(&other) : dc_comm_sum_doubles(world, &one, 1);
    for (int i = 0; last && (i < 30 || !slow); i++) {
        usleep(100000);
        if (slow)
            dc_watchdog_moved(world->watchdog, NULL, i);
    }
    CHECK_OK(dc_comm_sum_doubles(world, &one, 1));
    dc_comm_clear(&other);
    return DC_OK;
}

static dc_status play(const dc_comm *world, const char *scenario)
{
    if (strcmp(scenario, "stuck") == 0 || strcmp(scenario, "deadlock") == 0 || strcmp(scenario, "slow") == 0)
        return watched(world, scenario);
    if (strcmp(scenario, "unlaunched") == 0)
        return unlaunched(world);
    if (strcmp(scenario, "forgotten") == 0)
        return forgotten(world);
    if (strcmp(scenario, "collectives") == 0)
        return collectives(world);
    if (strcmp(scenario, "together") == 0)
        return dc_comm_agree(world, fail_last(world, DC_ERR_INPUT));
    if (strcmp(scenario, "interrupted") == 0)
        return dc_comm_agree(world, fail_last(world, DC_INTERRUPTED));
    if (strcmp(scenario, "late") == 0) /* found out by dc_comm_end only, for nobody waits for anybody */
        return fail_last(world, DC_ERR_INPUT);
    return all_but_last_wait(world, scenario);
}

int main(int argc, char **argv)
{
    dc_comm world;
    dc_status status = dc_comm_init(&argc, &argv, &world);
    if (status != DC_OK) {
        fprintf(stderr, "%s\n", dc_status_message());
        return dc_status_exit_code(status);
    }
    status = dc_comm_end(&world, play(&world, argc > 1 ? argv[1] : "collectives"));
    if (status != DC_OK && world.rank == 0)
        fprintf(stderr, "dcanas: %s\n", dc_status_message());
    dc_comm_finalize(&world);
    return dc_status_exit_code(status);
}
