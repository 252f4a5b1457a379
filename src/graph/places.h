/* Where in one arena each of many tensors lies, by the steps at which they are in use. */
#ifndef DC_GRAPH_PLACES_H
#define DC_GRAPH_PLACES_H

#include "base/status.h"

#include <stddef.h>

/* A stretch of arena memory that is in use from step `begin` to step `end`. */
typedef struct dc_interval {
    int begin, end;
    size_t bytes, offset_bytes; /* 0 bytes: it needs no place */
} dc_interval;

/* Gives each a place that no other in use at the same time has: best fit among the gaps that are free at the step at
 * which it begins. bytes are rounded up to whole cache lines. The same intervals always get the same places. */
dc_status dc_places_assign(dc_interval *all, int n, size_t *arena_bytes);

#endif
