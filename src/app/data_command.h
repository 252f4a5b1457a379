/* dcanas data import KIND [SOURCE] DEST, dcanas data info FILE. */
#ifndef DC_APP_DATA_COMMAND_H
#define DC_APP_DATA_COMMAND_H

#include "base/status.h"

#include <stdio.h>

/* argv[0] is "import" or "info" (what follows "dcanas data"); results go to out. Not collective: one rank. */
dc_status dc_data_command(int argc, char *const *argv, FILE *out);

#endif
