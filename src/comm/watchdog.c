#include "comm/watchdog.h"

#include "base/units.h"
#include "comm/comm.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { TAG_REPORT = 1, TAG_ANSWER, TAG_END, TURNS = 20, NAMED = 4, MOST_STAGGERED = 20 };

/* What a rank tells rank 0. */
typedef struct report {
    int64_t step;
    int age; /* turns since it last moved */
    char name[64];
    char waits[32]; /* "MPI_Allreduce", "": it works */
} report;

/* What rank 0 knows of a rank. */
typedef struct known {
    report last;
    int silence; /* turns since it told something */
    int sent, received;
    MPI_Request answer;
    atomic_bool forgotten;
} known;

struct dc_watchdog {
    pthread_mutex_t mutex; /* of name and step */
    char name[64];
    int64_t step;
    atomic_ullong moves;
    _Atomic(const char *) waits;

    double start_s;
    pthread_t starting; /* the thread that waits for the start's end */
    pthread_cond_t begun_now;
    bool begun; /* under mutex */

    MPI_Comm mpi; /* its own; MPI_COMM_NULL: not started */
    int rank, size;
    double timeout_s, turn_s;
    const char *setting;
    pthread_t thread;
    atomic_bool watching, stopping;
    unsigned long long seen; /* moves at the last turn */
    report mine;             /* in flight */
    MPI_Request telling;
    int sent, received;  /* to rank 0, and of its answers */
    atomic_int silence;  /* turns since the last answer */
    known *ranks;        /* rank 0's */
    MPI_Request *ending; /* of what tells each rank that the job ends */
};

/* ---- the start ---- */

/* Time is counted in seconds that this thread has waited, so that a job that is suspended is left alone. There may be
 * no MPI yet to abort: the launcher ends the others. */
static void *await_start(void *context)
{
    dc_watchdog *w = context;
    pthread_mutex_lock(&w->mutex);
    for (double waited_s = 0; !w->begun && waited_s < w->start_s; waited_s++) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec++;
        pthread_cond_timedwait(&w->begun_now, &w->mutex, &until);
    }
    bool begun = w->begun;
    pthread_mutex_unlock(&w->mutex);
    if (!begun) {
        fprintf(stderr,
                "dcanas: no start within %s (DCANAS_START_TIMEOUT): a rank is stopped, or its machine is lost. What "
                "was saved stands\n",
                dc_format_duration(w->start_s).s);
        _exit(dc_status_exit_code(DC_ERR_STALLED));
    }
    return NULL;
}

dc_status dc_watchdog_create(double start_s, dc_watchdog **watchdog)
{
    dc_watchdog *w = dc_alloc_zeroed(sizeof *w);
    if (!w)
        return DC_ERR_MEMORY;
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->begun_now, NULL);
    w->mpi = MPI_COMM_NULL;
    w->telling = MPI_REQUEST_NULL;
    w->start_s = start_s;
    snprintf(w->name, sizeof w->name, "the start");
    int error = pthread_create(&w->starting, NULL, await_start, w);
    if (error) {
        free(w);
        return dc_fail(DC_ERR_MEMORY, "no thread for the watchdog: %s", strerror(error));
    }
    pthread_setname_np(w->starting, "start");
    *watchdog = w;
    return DC_OK;
}

void dc_watchdog_begun(dc_watchdog *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->mutex);
    bool before = w->begun;
    w->begun = true;
    pthread_cond_signal(&w->begun_now);
    pthread_mutex_unlock(&w->mutex);
    if (!before)
        pthread_join(w->starting, NULL);
}

/* ---- notes ---- */

void dc_watchdog_moved(dc_watchdog *w, const char *name, int64_t step)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->mutex);
    if (name)
        snprintf(w->name, sizeof w->name, "%s", name);
    w->step = step;
    pthread_mutex_unlock(&w->mutex);
    atomic_fetch_add_explicit(&w->moves, 1, memory_order_relaxed);
}

const char *dc_watchdog_waits(dc_watchdog *w, const char *call)
{
    if (!w)
        return NULL;
    atomic_fetch_add_explicit(&w->moves, 1, memory_order_relaxed);
    return atomic_exchange_explicit(&w->waits, call, memory_order_relaxed);
}

static report take_report(dc_watchdog *w)
{
    report r = {.age = w->mine.age + 1};
    unsigned long long moves = atomic_load_explicit(&w->moves, memory_order_relaxed);
    const char *waits = atomic_load_explicit(&w->waits, memory_order_relaxed);
    if (moves != w->seen)
        r.age = 0;
    w->seen = moves;
    pthread_mutex_lock(&w->mutex);
    memcpy(r.name, w->name, sizeof r.name);
    r.step = w->step;
    pthread_mutex_unlock(&w->mutex);
    if (waits)
        snprintf(r.waits, sizeof r.waits, "%.*s", (int)strcspn(waits, "("), waits);
    return r;
}

/* ---- judging ---- */

static int turns_of(const dc_watchdog *w)
{
    return (int)(w->timeout_s / w->turn_s) + 1;
}

/* Ranks of one kind that the message names: the first of them. */
typedef struct named {
    int n;
    char text[640];
} named;

static void name_rank(named *list, int rank, const report *r)
{
    size_t used = strlen(list->text), left = sizeof list->text - used;
    if (list->n < NAMED)
        snprintf(list->text + used, left, "%srank %d in %s, step %lld%s%s", list->n ? "; " : "", rank,
                 *r->name ? r->name : "the start", (long long)r->step, *r->waits ? ", " : "", r->waits);
    else if (list->n == NAMED)
        snprintf(list->text + used, left, " and others");
    list->n++;
}

/* DC_ERR_STALLED when the job hangs, with who and where. */
static dc_status judge(const dc_watchdog *w)
{
    named silent = {0}, stuck = {0}, waiting = {0};
    int limit = turns_of(w), n_living = 0;
    for (int i = 0; i < w->size; i++) {
        const known *k = &w->ranks[i];
        if (atomic_load(&k->forgotten))
            continue;
        n_living++;
        if (k->silence > limit)
            name_rank(&silent, i, &k->last);
        else if (k->last.age > limit)
            name_rank(*k->last.waits ? &waiting : &stuck, i, &k->last);
    }
    const named *worst = silent.n ? &silent : stuck.n ? &stuck : &waiting;
    if (worst == &waiting && waiting.n < n_living)
        return DC_OK;
    return dc_fail(DC_ERR_STALLED, "no progress for %s (%s): %s: %s. What was saved stands",
                   dc_format_duration(w->timeout_s).s, w->setting,
                   worst == &silent  ? "silent (stopped, or the machine is lost)"
                   : worst == &stuck ? "does not move"
                                     : "all wait for each other",
                   worst->text);
}

void dc_watchdog_forget(dc_watchdog *w, int rank)
{
    if (w && w->ranks && rank < w->size)
        atomic_store(&w->ranks[rank].forgotten, true);
}

/* ---- an end that the launcher does not bring ---- */

/* Rank 0 tells all, the others rank 0, which passes it on; unless it is rank 0 that hangs. */
void dc_watchdog_tell_end(dc_watchdog *w, int code)
{
    const struct timespec nap = {.tv_nsec = 1000000};
    static _Thread_local int told; /* may be read after the return */
    if (!w || !atomic_load(&w->watching))
        return;
    const bool all = w->rank == 0 || atomic_load(&w->silence) > turns_of(w);
    const int n = all ? w->size : 1;
    told = code;
    for (int i = 0; i < n; i++)
        if (i != w->rank && !(w->rank == 0 && atomic_load(&w->ranks[i].forgotten)))
            MPI_Isend(&told, 1, MPI_INT, i, TAG_END, w->mpi, &w->ending[i]);
    for (int naps = 1000, left = n; naps > 0 && left > 0; naps--) {
        left = 0;
        for (int i = 0; i < n; i++) {
            int done = 1; /* one that cannot be reached holds up nobody */
            left += MPI_Test(&w->ending[i], &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && !done;
        }
        nanosleep(&nap, NULL);
    }
}

/* One that was taken for dead has no say: rank 0 knows it, and to the others only rank 0 may speak as long as it lives.
 */
static bool may_end(const dc_watchdog *w, int rank)
{
    if (w->rank == 0)
        return !atomic_load(&w->ranks[rank].forgotten);
    return rank == 0 || atomic_load(&w->silence) > turns_of(w);
}

static dc_status hear_end(dc_watchdog *w)
{
    for (;;) {
        int there, code;
        MPI_Status envelope;
        DC_MPI(MPI_Iprobe(MPI_ANY_SOURCE, TAG_END, w->mpi, &there, &envelope));
        if (!there)
            return DC_OK;
        DC_MPI(MPI_Recv(&code, 1, MPI_INT, envelope.MPI_SOURCE, TAG_END, w->mpi, MPI_STATUS_IGNORE));
        if (!may_end(w, envelope.MPI_SOURCE))
            continue;
        if (w->rank == 0)
            dc_watchdog_tell_end(w, code);
        _Exit(code);
    }
}

/* ---- a turn ---- */

static dc_status is_done(MPI_Request *request, bool *done)
{
    int flag = 1;
    if (*request != MPI_REQUEST_NULL)
        DC_MPI(MPI_Test(request, &flag, MPI_STATUS_IGNORE));
    *done = flag;
    return DC_OK;
}

static dc_status hear_reports(dc_watchdog *w)
{
    for (;;) {
        int there;
        MPI_Status envelope;
        report r;
        DC_MPI(MPI_Iprobe(MPI_ANY_SOURCE, TAG_REPORT, w->mpi, &there, &envelope));
        if (!there)
            return DC_OK;
        known *k = &w->ranks[envelope.MPI_SOURCE];
        DC_MPI(MPI_Recv(&r, sizeof r, MPI_BYTE, envelope.MPI_SOURCE, TAG_REPORT, w->mpi, MPI_STATUS_IGNORE));
        k->last = r;
        k->silence = 0;
        k->received++;
    }
}

static dc_status turn_of_first(dc_watchdog *w)
{
    for (int i = 0; i < w->size; i++)
        w->ranks[i].silence++;
    w->ranks[0].last = w->mine = take_report(w);
    w->ranks[0].silence = 0;
    DC_TRY(hear_reports(w));
    for (int i = 1; i < w->size; i++) {
        bool done = false;
        known *k = &w->ranks[i];
        if (atomic_load(&k->forgotten) || is_done(&k->answer, &done) != DC_OK || !done)
            continue;
        /* one that cannot be reached will be silent */
        k->sent += MPI_Isend(NULL, 0, MPI_BYTE, i, TAG_ANSWER, w->mpi, &k->answer) == MPI_SUCCESS;
    }
    return judge(w);
}

/* Should rank 0 be the one that hangs, the next rank says so; the others only if that one hangs too. */
static dc_status turn_of_other(dc_watchdog *w)
{
    bool done = false;
    int there;
    DC_TRY(is_done(&w->telling, &done));
    if (done) {
        w->mine = take_report(w);
        DC_MPI(MPI_Isend(&w->mine, sizeof w->mine, MPI_BYTE, 0, TAG_REPORT, w->mpi, &w->telling));
        w->sent++;
    }
    w->silence++;
    for (;;) {
        DC_MPI(MPI_Iprobe(0, TAG_ANSWER, w->mpi, &there, MPI_STATUS_IGNORE));
        if (!there)
            break;
        DC_MPI(MPI_Recv(NULL, 0, MPI_BYTE, 0, TAG_ANSWER, w->mpi, MPI_STATUS_IGNORE));
        w->received++;
        w->silence = 0;
    }
    int later = w->rank < MOST_STAGGERED ? w->rank : MOST_STAGGERED;
    if (w->silence > turns_of(w) + 4 * later)
        return dc_fail(
            DC_ERR_STALLED,
            "no progress for %s (%s): silent (stopped, or the machine is lost): rank 0. What was saved stands",
            dc_format_duration(w->timeout_s).s, w->setting);
    return DC_OK;
}

static void *watch(void *context)
{
    dc_watchdog *w = context;
    /* short naps, so that the end of the job need not wait for a turn */
    const double nap_s = w->turn_s < 0.02 ? w->turn_s : 0.02;
    const struct timespec nap = {.tv_nsec = (long)(nap_s * 1e9)};
    double slept_s = 0;
    while (!atomic_load(&w->stopping)) {
        nanosleep(&nap, NULL);
        if ((slept_s += nap_s) < w->turn_s)
            continue;
        slept_s = 0;
        dc_status status = hear_end(w);
        if (status == DC_OK)
            status = w->rank == 0 ? turn_of_first(w) : turn_of_other(w);
        if (status != DC_OK)
            dc_comm_abort(status);
    }
    return NULL;
}

/* ---- life ---- */

dc_status dc_watchdog_start(dc_watchdog *w, MPI_Comm mpi, double timeout_s, const char *setting)
{
    DC_MPI(MPI_Comm_dup(mpi, &w->mpi));
    DC_MPI(MPI_Comm_rank(w->mpi, &w->rank));
    DC_MPI(MPI_Comm_size(w->mpi, &w->size));
    w->timeout_s = timeout_s;
    w->setting = setting;
    w->turn_s = timeout_s / TURNS < 5 ? timeout_s / TURNS : 5;
    w->ending = dc_alloc((size_t)w->size * sizeof *w->ending); /* now: at the end there may be no memory */
    for (int i = 0; i < w->size && w->ending; i++)
        w->ending[i] = MPI_REQUEST_NULL;
    if (w->rank == 0) {
        w->ranks = dc_alloc_zeroed((size_t)w->size * sizeof *w->ranks);
        for (int i = 0; i < w->size && w->ranks; i++)
            w->ranks[i].answer = MPI_REQUEST_NULL;
    }
    int error = !w->ending || (w->rank == 0 && !w->ranks) ? ENOMEM : pthread_create(&w->thread, NULL, watch, w);
    if (error)
        MPI_Comm_free(&w->mpi);
    else
        pthread_setname_np(w->thread, "watchdog");
    atomic_store(&w->watching, !error);
    dc_watchdog_begun(w);
    return error ? dc_fail(DC_ERR_MEMORY, "no thread for the watchdog: %s", strerror(error)) : DC_OK;
}

/* What was sent is received, so that nothing is left in the communicator. */
static void drain(dc_watchdog *w)
{
    int *counts = w->rank == 0 ? dc_alloc_zeroed((size_t)w->size * sizeof *counts) : NULL;
    int answers = 0;
    report r;
    if (w->rank == 0 && !counts)
        return;
    MPI_Gather(&w->sent, 1, MPI_INT, counts, 1, MPI_INT, 0, w->mpi);
    for (int i = 1; i < w->size && w->rank == 0; i++) {
        for (int left = counts[i] - w->ranks[i].received; left > 0; left--)
            MPI_Recv(&r, sizeof r, MPI_BYTE, i, TAG_REPORT, w->mpi, MPI_STATUS_IGNORE);
        counts[i] = w->ranks[i].sent;
    }
    MPI_Scatter(counts, 1, MPI_INT, &answers, 1, MPI_INT, 0, w->mpi);
    for (int left = answers - w->received; left > 0 && w->rank != 0; left--)
        MPI_Recv(NULL, 0, MPI_BYTE, 0, TAG_ANSWER, w->mpi, MPI_STATUS_IGNORE);
    MPI_Wait(&w->telling, MPI_STATUS_IGNORE);
    for (int i = 1; i < w->size && w->rank == 0; i++)
        MPI_Wait(&w->ranks[i].answer, MPI_STATUS_IGNORE);
    free(counts);
}

void dc_watchdog_destroy(dc_watchdog *w)
{
    if (!w)
        return;
    dc_watchdog_begun(w);
    if (w->mpi != MPI_COMM_NULL) {
        atomic_store(&w->stopping, true);
        atomic_store(&w->watching, false);
        pthread_join(w->thread, NULL);
        drain(w);
        MPI_Comm_free(&w->mpi);
    }
    pthread_cond_destroy(&w->begun_now);
    pthread_mutex_destroy(&w->mutex);
    free(w->ranks);
    free(w->ending);
    free(w);
}
