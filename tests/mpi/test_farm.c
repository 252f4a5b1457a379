/* The farm: every item once, on whichever rank is free; results that do not show who made them; orderly ends. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "comm/farm.h"

enum { MAX_ITEMS = 40 };

typedef struct bench {
    const dc_comm *comm;
    int64_t worked[MAX_ITEMS]; /* how often this rank worked on the item */
    int trouble_item;          /* the item that fails, is interrupted, dies, ...; -1: none */
    const char *trouble;
    bool signalled;
    int n_signal_calls, signal_at;                    /* this rank's signal comes at the n-th question; 0: never */
    int n_started, n_finished, n_stopped, n_progress; /* rank 0: news */
} bench;

static void sleep_ms(int ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000}, NULL);
}

static void on_news(void *context, const dc_farm_news *news)
{
    bench *b = context;
    b->n_started += news->event == DC_FARM_STARTED;
    b->n_finished += news->event == DC_FARM_FINISHED;
    b->n_stopped += news->event == DC_FARM_STOPPED;
    if (news->event == DC_FARM_PROGRESS) {
        char text[32];
        snprintf(text, sizeof text, "item %d", news->item);
        CHECK(strcmp(news->text, text) == 0 && news->fraction == 0.5);
        b->n_progress++;
    }
    CHECK(news->item >= 0 && news->item < MAX_ITEMS && news->rank >= 0 && news->rank < b->comm->size);
}

static bool on_interrupted(void *context)
{
    bench *b = context;
    b->signalled = b->signalled || (b->signal_at > 0 && ++b->n_signal_calls >= b->signal_at);
    return b->signalled;
}

static dc_farm make_farm(bench *b, int n_items, dc_status (*work)(void *, int, dc_farm_worker *))
{
    return (dc_farm){.n_items = n_items,
                     .ranks_per_group = 1,
                     .work = work,
                     .news = on_news,
                     .interrupted = on_interrupted,
                     .context = b};
}

/* Item i gives i % 5 times its number, in two parts: some give nothing. */
static dc_status quick_work(void *context, int item, dc_farm_worker *worker)
{
    bench *b = context;
    char text[32];
    b->worked[item]++;
    snprintf(text, sizeof text, "item %d", item);
    DC_TRY(dc_farm_progress(worker, 0.5, text));
    CHECK(dc_farm_group(worker)->size == 1);
    for (int i = 0; i < item % 5; i++)
        DC_TRY(dc_farm_result(worker, &item, sizeof item));
    sleep_ms(item % 3);
    return DC_OK;
}

static void check_quick_results(const dc_blobs *results, int n_items, const bool *done)
{
    CHECK(results->n == n_items);
    for (int i = 0; i < n_items; i++) {
        size_t n = done && done[i] ? 0 : (size_t)(i % 5);
        CHECK(results->offsets[i + 1] - results->offsets[i] == n * sizeof(int));
        for (size_t j = 0; j < n; j++)
            CHECK(memcmp(results->data + results->offsets[i] + j * sizeof(int), &i, sizeof i) == 0);
    }
}

static void check_items(const dc_comm *comm, int n_items, const bool *done)
{
    bench b = {.comm = comm, .trouble_item = -1};
    dc_farm farm = make_farm(&b, n_items, quick_work);
    dc_blobs results;
    int n = 0;
    farm.done = comm->rank == 0 ? done : NULL; /* rank 0's word counts */
    CHECK_OK(dc_farm_run(comm, &farm, &results));
    check_quick_results(&results, n_items, done);
    dc_blobs_clear(&results);
    CHECK_OK(dc_comm_sum_int64(comm, b.worked, MAX_ITEMS));
    for (int i = 0; i < n_items; i++) {
        bool wanted = !done || !done[i];
        CHECK(b.worked[i] == wanted);
        n += wanted;
    }
    if (comm->rank == 0)
        CHECK(b.n_started == n && b.n_finished == n && b.n_progress == n && b.n_stopped == 0);
}

/* Items of 150 ms that a fixed deal (item modulo ranks) would all give to rank 0. */
static dc_status uneven_work(void *context, int item, dc_farm_worker *worker)
{
    bench *b = context;
    (void)worker;
    b->worked[item]++;
    sleep_ms(item % b->comm->size == 0 ? 150 : 2);
    return DC_OK;
}

static void check_balance(const dc_comm *comm)
{
    bench b = {.comm = comm};
    dc_farm farm = make_farm(&b, 4 * comm->size, uneven_work);
    double start = MPI_Wtime();
    CHECK_OK(dc_farm_run(comm, &farm, NULL));
    double seconds = MPI_Wtime() - start;
    CHECK(comm->size == 1 || seconds < 0.5); /* the fixed deal takes 0.6 */
}

/* Long items that ask at every step whether to stop; one of them makes the trouble. */
static dc_status long_work(void *context, int item, dc_farm_worker *worker)
{
    bench *b = context;
    b->worked[item]++;
    for (int step = 0; step < 3000; step++) {
        bool stop;
        if (item == b->trouble_item && step == 20) {
            if (strcmp(b->trouble, "fail") == 0)
                return dc_fail(DC_ERR_IO, "search 3: cannot write its checkpoint");
            if (strcmp(b->trouble, "abort") == 0)
                dc_comm_abort(dc_fail(DC_ERR_IO, "search 3: cannot write its checkpoint"));
            if (strcmp(b->trouble, "kill") == 0)
                kill(getpid(), SIGKILL);
            if (strcmp(b->trouble, "interrupt") == 0)
                return dc_fail(DC_INTERRUPTED, "stopped");
        }
        sleep_ms(10);
        DC_TRY(dc_farm_should_stop(worker, &stop));
        if (stop)
            return dc_fail(DC_INTERRUPTED, "stopped");
    }
    return DC_OK;
}

/* The others would go on for half a minute. */
static dc_status run_trouble(const dc_comm *comm, bench *b, int n_items)
{
    dc_farm farm = make_farm(b, n_items, long_work);
    dc_blobs results;
    double start = MPI_Wtime();
    dc_status status = dc_farm_run(comm, &farm, &results);
    CHECK(MPI_Wtime() - start < 5);
    CHECK(status == DC_OK || (results.n == 0 && !results.data));
    dc_blobs_clear(&results);
    CHECK_OK(dc_comm_sum_int64(comm, b->worked, MAX_ITEMS));
    for (int i = 0; i < n_items; i++)
        CHECK(b->worked[i] == (i < comm->size)); /* nothing was handed out afterwards */
    return status;
}

static void check_failure(const dc_comm *comm)
{
    bench b = {.comm = comm, .trouble_item = comm->size - 1, .trouble = "fail"};
    CHECK(run_trouble(comm, &b, 2 * comm->size) == DC_ERR_IO);
    CHECK_MESSAGE("search 3: cannot write its checkpoint");
    b = (bench){.comm = comm, .trouble_item = comm->size - 1, .trouble = "interrupt"};
    CHECK(run_trouble(comm, &b, 2 * comm->size) == DC_INTERRUPTED);
    /* A signal that only the last rank gets, within an item. */
    b = (bench){.comm = comm, .trouble_item = -1, .signal_at = comm->rank == comm->size - 1 ? 25 : 0};
    CHECK(run_trouble(comm, &b, 2 * comm->size) == DC_INTERRUPTED);
    if (comm->rank == 0)
        CHECK(b.n_started == comm->size && b.n_stopped == comm->size && b.n_finished == 0);
}

/* A signal between items: nobody gets the rest. */
static void check_signal_between(const dc_comm *comm)
{
    bench b = {.comm = comm, .signal_at = comm->rank == 0 ? 3 : 0};
    dc_farm farm = make_farm(&b, MAX_ITEMS, uneven_work);
    CHECK(dc_farm_run(comm, &farm, NULL) == DC_INTERRUPTED);
    int64_t n = 0;
    for (int i = 0; i < MAX_ITEMS; i++)
        n += b.worked[i];
    CHECK(comm->rank > 0 || n <= 2);
}

static dc_status group_work(void *context, int item, dc_farm_worker *worker)
{
    bench *b = context;
    const dc_comm *group = dc_farm_group(worker);
    bool stop;
    int64_t items = item;
    b->worked[item]++;
    DC_TRY(dc_comm_sum_int64(group, &items, 1));
    CHECK(items == (int64_t)item * group->size);
    DC_TRY(dc_farm_should_stop(worker, &stop));
    if (stop)
        return dc_fail(DC_INTERRUPTED, "stopped");
    if (item == b->trouble_item)
        return dc_comm_agree(group, group->rank == group->size - 1 ? dc_fail(DC_ERR_IO, "item %d", item) : DC_OK);
    return dc_farm_result(worker, &items, sizeof items);
}

static void check_groups(const dc_comm *comm)
{
    bench b = {.comm = comm, .trouble_item = -1};
    dc_farm farm = make_farm(&b, 9, group_work);
    dc_blobs results;
    for (int ranks = 2; ranks <= comm->size; ranks++) {
        farm.ranks_per_group = ranks;
        memset(b.worked, 0, sizeof b.worked);
        CHECK_OK(dc_farm_run(comm, &farm, &results));
        CHECK_OK(dc_comm_sum_int64(comm, b.worked, MAX_ITEMS));
        for (int64_t i = 0; i < farm.n_items; i++) {
            CHECK(b.worked[i] == ranks);
            CHECK(results.offsets[i] == (size_t)i * sizeof i);
            CHECK(memcmp(results.data + results.offsets[i], &(int64_t){i * ranks}, sizeof i) == 0);
        }
        dc_blobs_clear(&results);
        b.trouble_item = 4;
        CHECK(dc_farm_run(comm, &farm, &results) == DC_ERR_IO);
        CHECK_MESSAGE("item 4");
        b.trouble_item = -1;
    }
    farm.ranks_per_group = comm->size + 1;
    CHECK(dc_farm_run(comm, &farm, NULL) == DC_ERR_INPUT);
}

static dc_status play(const dc_comm *world, const char *scenario)
{
    bool done[MAX_ITEMS] = {[0] = true, [7] = true, [12] = true};
    if (strcmp(scenario, "all") != 0) {
        bench b = {.comm = world, .trouble_item = world->size - 1, .trouble = scenario};
        return run_trouble(world, &b, 2 * world->size);
    }
    check_items(world, 13, NULL);
    check_items(world, 13, done);
    check_items(world, 2, NULL); /* more ranks than items */
    check_items(world, 0, NULL);
    check_items(world, 1, done);
    check_balance(world);
    check_failure(world);
    check_signal_between(world);
    check_groups(world);
    return DC_OK;
}

int main(int argc, char **argv)
{
    dc_comm world;
    CHECK_OK(dc_comm_init(&argc, &argv, &world));
    dc_status status = dc_comm_end(&world, play(&world, argc > 1 ? argv[1] : "all"));
    if (status != DC_OK && world.rank == 0)
        fprintf(stderr, "dcanas: %s\n", dc_status_message());
    dc_comm_finalize(&world);
    return dc_status_exit_code(status);
}
