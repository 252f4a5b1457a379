/* dcanas limits: what budgets a space allows. */
#ifndef DC_APP_LIMITS_COMMAND_H
#define DC_APP_LIMITS_COMMAND_H

#include "base/status.h"

#include <stdio.h>

/* `dcanas limits [options]`; argv starts after "limits". Prints to out. */
dc_status dc_limits_command(int argc, char *const *argv, FILE *out);

#endif
