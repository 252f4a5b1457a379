/* dcanas plan: a run's memory and work, before it is started. */
#ifndef DC_APP_PLAN_COMMAND_H
#define DC_APP_PLAN_COMMAND_H

#include "comm/comm.h"

#include <stdio.h>

/* argv starts after "plan". Rank 0 plans and prints. Collective. */
dc_status dc_plan_command(const dc_comm *world, int argc, char *const *argv, FILE *out);

#endif
