/* dcanas data import KIND [SOURCE] DEST, dcanas data info FILE: makes and shows data set files. */
#ifndef DC_APP_DATA_COMMAND_H
#define DC_APP_DATA_COMMAND_H

#include "base/status.h"
#include "comm/comm.h"

#include <stdio.h>

/* argv starts after "data"; results go to out, from rank 0. Collective: all ranks share the work of an import. */
dc_status dc_data_command(const dc_comm *world, int argc, char *const *argv, FILE *out);

#endif
