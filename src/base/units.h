/* Numbers as people write them: "3.5M" parameters, "15m" of time, "1.4 GiB". */
#ifndef DC_BASE_UNITS_H
#define DC_BASE_UNITS_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

/* A count, exact: digits with an optional fraction and one suffix k (K), M, G or T (powers of 1000), '_' between digits
 * allowed: "3.5M" = 3500000. Not negative. DC_ERR_INPUT when it is no whole number or above 2^63 - 1. */
dc_status dc_parse_count(const char *text, int64_t *value);

/* Seconds: "90", "1.5", "30s", "15m", "2h", "1d" or several in falling order: "1h30m". */
dc_status dc_parse_duration(const char *text, double *seconds);

/* A short text by value, to be used where it is made: printf("%s", dc_format_count(n).s). */
typedef struct dc_units_text {
    char s[32];
} dc_units_text;

dc_units_text dc_format_count(int64_t count);          /* "3,349,342" */
dc_units_text dc_format_count_short(double count);     /* "3.35M", "987", "1.20k" */
dc_units_text dc_format_bytes(double bytes);           /* "1.4 GiB", "512 B" */
dc_units_text dc_format_duration(double time_seconds); /* "0.8s", "42s", "3m 12s", "2h 05m", "1d 03h" */

#endif
