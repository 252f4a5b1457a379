/* dcanas eval: trained weights on a data set. */
#ifndef DC_APP_EVAL_COMMAND_H
#define DC_APP_EVAL_COMMAND_H

#include "comm/comm.h"

#include <stdio.h>

/* argv starts after "eval". The images are shared out over the ranks, each counted once. Collective; rank 0 prints. */
dc_status dc_eval_command(const dc_comm *world, int argc, char *const *argv, FILE *out);

#endif
