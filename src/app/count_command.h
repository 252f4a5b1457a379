/* dcanas count: the exact size of a network. */
#ifndef DC_APP_COUNT_COMMAND_H
#define DC_APP_COUNT_COMMAND_H

#include "base/status.h"

#include <stdio.h>

/* `dcanas count GENOTYPE|supernet [options]`; argv starts after "count". Prints to out. */
dc_status dc_count_command(int argc, char *const *argv, FILE *out);

#endif
