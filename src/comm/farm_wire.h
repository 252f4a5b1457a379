/* Private to the farm: what workers (the first ranks of the groups) and the manager send each other. Every message is
 * far below MPI's eager limits, so that a send never waits for its receiver. */
#ifndef DC_COMM_FARM_WIRE_H
#define DC_COMM_FARM_WIRE_H

#include "comm/farm.h"

enum {
    DC_FARM_TAG_MANAGER = 1, /* dc_farm_message to the manager; one tag, so that a worker's messages keep their order */
    DC_FARM_TAG_ORDER,       /* dc_farm_order, the answer to DC_FARM_ASK */
    DC_FARM_TAG_STOP         /* empty; once, to every worker that is not through, when the farm stops early */
};

typedef enum dc_farm_kind { DC_FARM_ASK, DC_FARM_TELL } dc_farm_kind;
typedef enum dc_farm_ended { DC_FARM_WELL, DC_FARM_INTERRUPTED, DC_FARM_FAILED } dc_farm_ended;

typedef struct dc_farm_message {
    dc_farm_kind kind;
    int item;            /* the worker's last or present one, -1: none yet */
    dc_farm_ended ended; /* ASK: how it went */
    bool stop;           /* ASK: a signal came */
    double fraction;     /* TELL */
    char text[DC_FARM_TEXT];
} dc_farm_message;

typedef struct dc_farm_order {
    int item;       /* -1: no more */
    bool stop_sent; /* with -1: a DC_FARM_TAG_STOP was sent */
    int n_lost;     /* with -1: ranks (or groups) that died: no collective will end */
} dc_farm_order;

/* The manager's thread, on rank 0. It ends when every worker was told that there is no more. */
typedef struct dc_farm_manager dc_farm_manager;

dc_status dc_farm_manager_start(const dc_farm *farm, const dc_comm *comm, dc_farm_manager **manager);
void dc_farm_manager_join(dc_farm_manager *manager); /* also frees; NULL is legal */

#endif
