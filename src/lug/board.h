/* The board of a farm on the screen: one live line for each item that somebody works on. */
#ifndef DC_LUG_BOARD_H
#define DC_LUG_BOARD_H

#include "base/log.h"
#include "comm/farm.h"

typedef struct dc_board dc_board;

/* names: n_items texts, copied. heading: "lookup graph". log may be NULL. Used on rank 0. */
dc_status dc_board_create(dc_log *log, const char *heading, int n_items, const char *const *names, dc_board **board);
void dc_board_destroy(dc_board *board);

/* A dc_farm news callback whose context is the board: called by the manager's thread. */
void dc_board_news(void *board, const dc_farm_news *news);

#endif
