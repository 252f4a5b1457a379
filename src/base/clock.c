#include "base/clock.h"

#include <time.h>

static double read_clock(clockid_t id)
{
    struct timespec now;
    clock_gettime(id, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

double dc_clock_seconds(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

double dc_clock_wall(void)
{
    return read_clock(CLOCK_REALTIME);
}

const char *dc_clock_stamp(char out[DC_CLOCK_CHARS])
{
    time_t now = time(NULL);
    struct tm local;
    localtime_r(&now, &local);
    strftime(out, DC_CLOCK_CHARS, "%Y-%m-%d %H:%M:%S", &local);
    return out;
}
