#include "lug/crew.h"

#include "base/signals.h"

#include <stdio.h>
#include <string.h>

enum { LINE_CHARS = 256, MOST_LINES = 32 };

/* The board on the screen: one live line for each item that somebody works on. */
typedef struct board {
    const dc_crew *crew;
    int n_running;
    struct {
        int item;
        char text[DC_FARM_TEXT];
    } running[MOST_LINES];
} board;

static void put(board *b, int item, const char *text)
{
    int at = 0;
    while (at < b->n_running && b->running[at].item != item)
        at++;
    if (at == MOST_LINES)
        return;
    if (at == b->n_running)
        b->n_running++;
    b->running[at].item = item;
    snprintf(b->running[at].text, sizeof b->running[at].text, "%s", text);
}

/* last: what the item told last, its summary. */
static void take_off(board *b, int item, char last[DC_FARM_TEXT])
{
    *last = 0;
    for (int at = 0; at < b->n_running; at++)
        if (b->running[at].item == item) {
            memcpy(last, b->running[at].text, DC_FARM_TEXT);
            memmove(&b->running[at], &b->running[at + 1], (size_t)(b->n_running - at - 1) * sizeof b->running[0]);
            b->n_running--;
            return;
        }
}

static void show(board *b, int n_done)
{
    if (!dc_log_status_due(b->crew->log))
        return;
    char first[LINE_CHARS];
    char running[MOST_LINES][LINE_CHARS];
    const char *lines[MOST_LINES + 1] = {first};
    snprintf(first, sizeof first, "%s: %d of %d done, %d running", b->crew->heading, n_done, b->crew->n_items,
             b->n_running);
    for (int i = 0; i < b->n_running; i++) {
        snprintf(running[i], sizeof running[i], "  %s: %s", b->crew->name(b->crew->context, b->running[i].item),
                 b->running[i].text);
        lines[i + 1] = running[i];
    }
    dc_log_status(b->crew->log, b->n_running + 1, lines);
}

/* A lost line of the events file is no reason to end hours of work: it is told, and the work goes on. */
static void write_event(const dc_crew *crew, const dc_farm_news *news, const char *summary)
{
    cJSON *event = crew->events ? dc_event_create("finished") : NULL;
    if (!event)
        return;
    cJSON_AddStringToObject(event, "phase", crew->heading);
    cJSON_AddStringToObject(event, "item", crew->name(crew->context, news->item));
    cJSON_AddNumberToObject(event, "rank", news->rank);
    cJSON_AddNumberToObject(event, "done", news->n_done);
    cJSON_AddNumberToObject(event, "of", crew->n_items);
    cJSON_AddStringToObject(event, "summary", summary);
    if (dc_events_write(crew->events, event) != DC_OK)
        dc_log_warn(crew->log, "%s", dc_status_message());
}

static void news_for_board(void *context, const dc_farm_news *news)
{
    board *b = context;
    const dc_crew *crew = b->crew;
    char summary[DC_FARM_TEXT];
    if (news->event == DC_FARM_STARTED)
        put(b, news->item, "starting");
    else if (news->event == DC_FARM_PROGRESS)
        put(b, news->item, news->text);
    else
        take_off(b, news->item, summary);
    if (news->event == DC_FARM_LOST)
        dc_log_warn(crew->log, "%s: rank %d died over %s: it is done again by another", crew->heading, news->rank,
                    crew->name(crew->context, news->item));
    if (news->event == DC_FARM_FINISHED) {
        write_event(crew, news, summary);
        dc_log_info(crew->log, "%s: %d of %d: %s: %s", crew->heading, news->n_done, crew->n_items,
                    crew->name(crew->context, news->item), summary);
    }
    show(b, news->n_done);
}

static dc_status work_of_board(void *context, int item, dc_farm_worker *worker)
{
    const dc_crew *crew = ((board *)context)->crew;
    dc_status status = crew->work(crew->context, item, worker);
    return status == DC_OK || status == DC_INTERRUPTED ? status
                                                       : dc_fail_within(status, "%s", crew->name(crew->context, item));
}

static bool lost_of_board(void *context, int item)
{
    const dc_crew *crew = ((board *)context)->crew;
    return crew->lost(crew->context, item);
}

static bool interrupted(void *context)
{
    (void)context;
    return dc_signals_received() != 0;
}

dc_status dc_crew_run(const dc_comm *comm, const dc_crew *crew, dc_blobs *results)
{
    board b = {.crew = crew};
    dc_farm farm = {.n_items = crew->n_items,
                    .done = crew->done,
                    .ranks_per_group = crew->ranks_per_item,
                    .work = work_of_board,
                    .news = news_for_board,
                    .lost = crew->lost ? lost_of_board : NULL,
                    .interrupted = interrupted,
                    .context = &b};
    dc_status status = dc_farm_run(comm, &farm, results);
    dc_log_status(crew->log, 0, NULL);
    return status;
}

static dc_status pass_progress(void *worker, double fraction, const char *text)
{
    return dc_farm_progress(worker, fraction, text);
}

static dc_status pass_stop(void *worker, bool *stop)
{
    return dc_farm_should_stop(worker, stop);
}

dc_hooks dc_crew_hooks(dc_farm_worker *worker)
{
    return (dc_hooks){worker, pass_progress, pass_stop};
}
