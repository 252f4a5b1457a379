/* dcanas run, lug, search, train: the phases of a run, all of them or one. */
#ifndef DC_APP_RUN_COMMAND_H
#define DC_APP_RUN_COMMAND_H

#include "comm/comm.h"

#include <stdio.h>

/* argv starts after the subcommand's name, which is one of the four. Collective over the world. Rank 0 prints to out.
 */
dc_status dc_run_command(const dc_comm *world, const char *name, int argc, char *const *argv, FILE *out);

/* Their one-line summaries, for the program's help. */
const char *dc_run_command_summary(const char *name);

#endif
