#include "lug/board.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_CHARS = 256, MOST_LINES = 32 };

struct dc_board {
    dc_log *log;
    char *heading;
    int n_items;
    char (*names)[LINE_CHARS / 4];
    int n_running;
    struct {
        int item;
        char text[LINE_CHARS];
    } running[MOST_LINES];
};

dc_status dc_board_create(dc_log *log, const char *heading, int n_items, const char *const *names, dc_board **board_out)
{
    dc_board *board = dc_alloc_zeroed(sizeof *board);
    if (!board)
        return DC_ERR_MEMORY;
    board->log = log;
    board->n_items = n_items;
    board->heading = strdup(heading);
    board->names = dc_alloc_zeroed(((size_t)n_items + 1) * sizeof *board->names);
    if (!board->heading || !board->names) {
        dc_board_destroy(board);
        return dc_fail(DC_ERR_MEMORY, "out of memory for the list of %s", heading);
    }
    for (int i = 0; i < n_items; i++)
        snprintf(board->names[i], sizeof board->names[i], "%s", names[i]);
    *board_out = board;
    return DC_OK;
}

void dc_board_destroy(dc_board *board)
{
    if (!board)
        return;
    dc_log_status(board->log, 0, NULL);
    free(board->heading);
    free(board->names);
    free(board);
}

static void put(dc_board *board, int item, const char *text)
{
    int at = 0;
    while (at < board->n_running && board->running[at].item != item)
        at++;
    if (at == MOST_LINES)
        return;
    if (at == board->n_running)
        board->n_running++;
    board->running[at].item = item;
    snprintf(board->running[at].text, LINE_CHARS, "  %s: %s", board->names[item], text);
}

static void take_off(dc_board *board, int item)
{
    for (int at = 0; at < board->n_running; at++)
        if (board->running[at].item == item) {
            memmove(&board->running[at], &board->running[at + 1],
                    (size_t)(board->n_running - at - 1) * sizeof board->running[0]);
            board->n_running--;
            return;
        }
}

static void show(dc_board *board, int n_done)
{
    if (!dc_log_status_due(board->log))
        return;
    char first[LINE_CHARS];
    const char *lines[MOST_LINES + 1] = {first};
    snprintf(first, sizeof first, "%s: %d of %d done, %d running", board->heading, n_done, board->n_items,
             board->n_running);
    for (int i = 0; i < board->n_running; i++)
        lines[i + 1] = board->running[i].text;
    dc_log_status(board->log, board->n_running + 1, lines);
}

void dc_board_news(void *context, const dc_farm_news *news)
{
    dc_board *board = context;
    if (news->event == DC_FARM_STARTED)
        put(board, news->item, "starting");
    else if (news->event == DC_FARM_PROGRESS)
        put(board, news->item, news->text);
    else
        take_off(board, news->item);
    if (news->event == DC_FARM_FINISHED)
        dc_log_info(board->log, "%s: %s done by rank %d (%d of %d)%s%s", board->heading, board->names[news->item],
                    news->rank, news->n_done, board->n_items, *news->text ? ": " : "", news->text);
    show(board, news->n_done);
}
