#ifndef DC_BASE_CLOCK_H
#define DC_BASE_CLOCK_H

/* Seconds on a clock that only goes forward, from an arbitrary origin. */
double dc_clock_seconds(void);

/* Seconds since 1970. */
double dc_clock_wall(void);

/* Local time now, "2025-01-31 12:00:01", into out; returns out. */
enum { DC_CLOCK_CHARS = 32 };
const char *dc_clock_stamp(char out[DC_CLOCK_CHARS]);

#endif
