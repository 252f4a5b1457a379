/* `dcanas status`: how far a run is, from any machine that sees its folder. */
#ifndef DC_APP_STATUS_COMMAND_H
#define DC_APP_STATUS_COMMAND_H

#include "base/status.h"

#include <stdio.h>

/* argv: what follows the command's name. Reads only, takes no lock, needs no MPI. */
dc_status dc_status_command(int argc, char *const *argv, FILE *out);

#endif
