#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "comm/farm_wire.h"

struct dc_farm_manager {
    const dc_farm *farm;
    MPI_Comm mpi;
    int ranks_per_group, n_workers;
    int next; /* item to look at next */
    int n_done;
    bool stopping; /* no more items are handed out, everybody was told */
    int n_ended;
    bool *ended; /* per worker: was told that there is no more */
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
        if (!m->ended[i])
            DC_MPI(MPI_Send(NULL, 0, MPI_BYTE, i * m->ranks_per_group, DC_FARM_TAG_STOP, m->mpi));
    return DC_OK;
}

static int take_item(dc_farm_manager *m)
{
    const dc_farm *farm = m->farm;
    while (m->next < farm->n_items && farm->done && farm->done[m->next])
        m->next++;
    return m->stopping || m->next >= farm->n_items ? -1 : m->next++;
}

static dc_status answer(dc_farm_manager *m, int rank, const dc_farm_message *ask)
{
    m->n_done += ask->item >= 0 && ask->ended == DC_FARM_WELL;
    if (ask->item >= 0)
        tell(m, ask->ended == DC_FARM_WELL ? DC_FARM_FINISHED : DC_FARM_STOPPED, rank, ask);
    if (!m->stopping && (ask->stop || ask->ended != DC_FARM_WELL))
        DC_TRY(stop_all(m));
    dc_farm_order order = {.item = take_item(m), .stop_sent = m->stopping};
    DC_MPI(MPI_Send(&order, sizeof order, MPI_BYTE, rank, DC_FARM_TAG_ORDER, m->mpi));
    if (order.item >= 0) {
        tell(m, DC_FARM_STARTED, rank, &(dc_farm_message){.item = order.item});
    } else {
        m->ended[rank / m->ranks_per_group] = true;
        m->n_ended++;
    }
    return DC_OK;
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

dc_status dc_farm_manager_start(const dc_farm *farm, const dc_comm *comm, dc_farm_manager **manager)
{
    dc_farm_manager *m = dc_alloc_zeroed(sizeof *m);
    if (!m)
        return DC_ERR_MEMORY;
    *m = (dc_farm_manager){.farm = farm,
                           .mpi = comm->mpi,
                           .ranks_per_group = farm->ranks_per_group,
                           .n_workers = comm->size / farm->ranks_per_group};
    for (int i = 0; farm->done && i < farm->n_items; i++)
        m->n_done += farm->done[i];
    m->ended = dc_alloc_zeroed((size_t)m->n_workers * sizeof *m->ended);
    int error = m->ended ? pthread_create(&m->thread, NULL, thread_main, m) : 0;
    if (!m->ended || error) {
        dc_status status = m->ended
                               ? dc_fail(DC_ERR_MEMORY, "no thread for the manager of work items: %s", strerror(error))
                               : DC_ERR_MEMORY;
        free(m->ended);
        free(m);
        return status;
    }
    *manager = m;
    return DC_OK;
}

void dc_farm_manager_join(dc_farm_manager *m)
{
    if (!m)
        return;
    pthread_join(m->thread, NULL);
    free(m->ended);
    free(m);
}
