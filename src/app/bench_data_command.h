/* dcanas bench-data: how fast a configuration's data can be made ready. */
#ifndef DC_APP_BENCH_DATA_COMMAND_H
#define DC_APP_BENCH_DATA_COMMAND_H

#include "comm/comm.h"

#include <stdio.h>

/* argv starts after "bench-data". Every rank loads its share as in a training. Collective; rank 0 prints. */
dc_status dc_bench_data_command(const dc_comm *world, int argc, char *const *argv, FILE *out);

#endif
