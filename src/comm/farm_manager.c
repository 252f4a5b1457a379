#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "comm/farm_wire.h"

/* A rank that works, or the first of a group of ranks that do. */
typedef struct worker {
    int item;   /* -1: none */
    bool idle;  /* asked for an item while others still work: one that dies gives its item back */
    bool ended; /* was told that there is no more, or is dead */
} worker;

struct dc_farm_manager {
    const dc_farm *farm;
    MPI_Comm mpi;
    dc_watchdog *watchdog;
    int ranks_per_group, n_workers;
    int next;                  /* item to look at next */
    int n_returned, *returned; /* items whose worker died */
    int n_done, n_running;
    bool stopping; /* no more items are handed out, everybody was told */
    int n_ended, n_lost;
    worker *workers;
    double looked_s; /* when the dead were last looked for */
    pthread_t thread;
};

static void tell(const dc_farm_manager *m, dc_farm_event event, int rank, const dc_farm_message *message)
{
    dc_farm_news news = {.event = event,
                         .item = message->item,
                         .rank = rank,
                         .n_done = m->n_done,
                         .fraction = event == DC_FARM_FINISHED ? 1 : message->fraction,
                         .text = message->text};
    if (m->farm->news)
        m->farm->news(m->farm->context, &news);
}

static dc_status stop_all(dc_farm_manager *m)
{
    m->stopping = true;
    for (int i = 0; i < m->n_workers; i++)
        if (!m->workers[i].ended)
            DC_MPI(MPI_Send(NULL, 0, MPI_BYTE, i * m->ranks_per_group, DC_FARM_TAG_STOP, m->mpi));
    return DC_OK;
}

static int take_item(dc_farm_manager *m)
{
    const dc_farm *farm = m->farm;
    if (m->stopping)
        return -1;
    if (m->n_returned > 0)
        return m->returned[--m->n_returned];
    while (m->next < farm->n_items && farm->done && farm->done[m->next])
        m->next++;
    return m->next >= farm->n_items ? -1 : m->next++;
}

/* An item, the end, or nothing yet. */
static dc_status serve(dc_farm_manager *m, int index)
{
    worker *w = &m->workers[index];
    const int rank = index * m->ranks_per_group;
    dc_farm_order order = {.item = take_item(m), .stop_sent = m->stopping, .n_lost = m->n_lost};
    w->idle = order.item < 0 && !m->stopping && m->n_running > 0 && m->farm->lost;
    if (w->idle)
        return DC_OK;
    DC_MPI(MPI_Send(&order, sizeof order, MPI_BYTE, rank, DC_FARM_TAG_ORDER, m->mpi));
    w->item = order.item;
    if (order.item >= 0) {
        m->n_running++;
        tell(m, DC_FARM_STARTED, rank, &(dc_farm_message){.item = order.item});
    } else {
        w->ended = true;
        m->n_ended++;
    }
    return DC_OK;
}

static dc_status serve_idle(dc_farm_manager *m)
{
    for (int i = 0; i < m->n_workers; i++)
        if (m->workers[i].idle && (m->stopping || m->n_running == 0 || m->n_returned > 0))
            DC_TRY(serve(m, i));
    return DC_OK;
}

static dc_status answer(dc_farm_manager *m, int rank, const dc_farm_message *ask)
{
    const int index = rank / m->ranks_per_group;
    if (ask->item >= 0) {
        m->n_running--;
        m->n_done += ask->ended == DC_FARM_WELL;
        m->workers[index].item = -1;
        tell(m, ask->ended == DC_FARM_WELL ? DC_FARM_FINISHED : DC_FARM_STOPPED, rank, ask);
    }
    if (!m->stopping && (ask->stop || ask->ended != DC_FARM_WELL))
        DC_TRY(stop_all(m));
    DC_TRY(serve(m, index));
    return serve_idle(m);
}

/* Items of the dead go to others; what the dead sent before is taken first, and nothing is sent to them. */
static dc_status look_for_dead(dc_farm_manager *m)
{
    double now = MPI_Wtime();
    if (!m->farm->lost || now - m->looked_s < 1)
        return DC_OK;
    m->looked_s = now;
    for (int i = 0; i < m->n_workers; i++) {
        worker *w = &m->workers[i];
        if (w->item < 0 || !m->farm->lost(m->farm->context, w->item))
            continue;
        const int rank = i * m->ranks_per_group;
        for (int r = rank; r < rank + m->ranks_per_group; r++)
            dc_watchdog_forget(m->watchdog, r);
        tell(m, DC_FARM_LOST, rank, &(dc_farm_message){.item = w->item});
        m->returned[m->n_returned++] = w->item;
        w->item = -1;
        w->ended = true;
        m->n_running--;
        m->n_ended++;
        m->n_lost++;
    }
    return serve_idle(m);
}

/* Polls asleep: a blocking receive would spin on a core that the workers need. */
static dc_status manage(dc_farm_manager *m)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    while (m->n_ended < m->n_workers) {
        int there;
        MPI_Status envelope;
        dc_farm_message message;
        DC_MPI(MPI_Iprobe(MPI_ANY_SOURCE, DC_FARM_TAG_MANAGER, m->mpi, &there, &envelope));
        if (!there) {
            DC_TRY(look_for_dead(m));
            nanosleep(&pause, NULL);
            continue;
        }
        int rank = envelope.MPI_SOURCE;
        DC_MPI(MPI_Recv(&message, sizeof message, MPI_BYTE, rank, DC_FARM_TAG_MANAGER, m->mpi, MPI_STATUS_IGNORE));
        if (message.kind == DC_FARM_ASK)
            DC_TRY(answer(m, rank, &message));
        else
            tell(m, DC_FARM_PROGRESS, rank, &message);
    }
    return DC_OK;
}

static void *thread_main(void *manager)
{
    dc_status status = manage(manager);
    if (status != DC_OK)
        dc_comm_abort(status); /* every worker waits for an answer */
    return NULL;
}

static dc_status start(dc_farm_manager *m)
{
    const size_t n = (size_t)m->n_workers;
    m->workers = dc_alloc_zeroed(n * sizeof *m->workers);
    m->returned = dc_alloc(n * sizeof *m->returned);
    if (!m->workers || !m->returned)
        return DC_ERR_MEMORY;
    for (int i = 0; i < m->n_workers; i++)
        m->workers[i].item = -1;
    int error = pthread_create(&m->thread, NULL, thread_main, m);
    if (!error)
        pthread_setname_np(m->thread, "manager"); /* for top -H and profilers */
    return error ? dc_fail(DC_ERR_MEMORY, "no thread for the manager of work items: %s", strerror(error)) : DC_OK;
}

static void destroy(dc_farm_manager *m)
{
    free(m->workers);
    free(m->returned);
    free(m);
}

dc_status dc_farm_manager_start(const dc_farm *farm, const dc_comm *comm, dc_farm_manager **manager)
{
    dc_farm_manager *m = dc_alloc_zeroed(sizeof *m);
    if (!m)
        return DC_ERR_MEMORY;
    *m = (dc_farm_manager){.farm = farm,
                           .mpi = comm->mpi,
                           .watchdog = comm->watchdog,
                           .ranks_per_group = farm->ranks_per_group,
                           .n_workers = comm->size / farm->ranks_per_group};
    for (int i = 0; farm->done && i < farm->n_items; i++)
        m->n_done += farm->done[i];
    dc_status status = start(m);
    if (status != DC_OK)
        destroy(m);
    else
        *manager = m;
    return status;
}

void dc_farm_manager_join(dc_farm_manager *m)
{
    if (!m)
        return;
    pthread_join(m->thread, NULL);
    destroy(m);
}
