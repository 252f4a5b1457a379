#include "train/pace.h"

#include "base/clock.h"

static const double tell_interval_s = 0.2; /* screens take no more */

void dc_pace_start(dc_pace *pace, const dc_comm *comm, const dc_hooks *hooks, double interval_s, double done)
{
    double now = dc_clock_seconds();
    *pace = (dc_pace){comm, hooks, interval_s, now, now, 0, done, now, 0};
}

dc_status dc_pace_agree_on_start(const dc_comm *comm, int64_t step, const char *name)
{
    int64_t range[] = {step, -step};
    DC_TRY(dc_comm_max_int64(comm, range, 2));
    if (range[0] != -range[1])
        return dc_fail(DC_ERR_INPUT,
                       "%s: some ranks find its checkpoint at step %lld, others at step %lld: all nodes must share the "
                       "output folder ([run] output)",
                       name, (long long)range[0], (long long)-range[1]);
    return DC_OK;
}

dc_status dc_pace_check(dc_pace *pace, bool *save, bool *stop)
{
    bool wish = false;
    if (pace->hooks->stop)
        DC_TRY(pace->hooks->stop(pace->hooks->context, &wish));
    bool due = pace->comm->rank == 0 && dc_clock_seconds() - pace->saved_s > pace->interval_s;
    int64_t wishes[] = {wish, due};
    DC_TRY(dc_comm_max_int64(pace->comm, wishes, 2));
    *stop = wishes[0] != 0;
    *save = wishes[0] || wishes[1];
    return DC_OK;
}

bool dc_pace_tells(dc_pace *pace)
{
    double now = dc_clock_seconds();
    if (!pace->hooks->progress || now - pace->told_s < tell_interval_s)
        return false;
    pace->told_s = now;
    return true;
}

double dc_pace_saved(dc_pace *pace)
{
    double now = dc_clock_seconds(), seconds = now - pace->saved_s;
    pace->saved_s = now;
    return seconds;
}

double dc_pace_waiting(const dc_pace *pace, double waited_s)
{
    double seconds = dc_clock_seconds() - pace->lap_s;
    return seconds > 0 ? (waited_s - pace->lap_waited_s) / seconds : 0;
}

dc_status dc_pace_lap(dc_pace *pace, double waited_s, double *waiting)
{
    static const double unit = 1e6;
    int64_t largest = (int64_t)(dc_pace_waiting(pace, waited_s) * unit);
    DC_TRY(dc_comm_max_int64(pace->comm, &largest, 1));
    *waiting = (double)largest / unit;
    pace->lap_s = dc_clock_seconds();
    pace->lap_waited_s = waited_s;
    return DC_OK;
}

double dc_pace_elapsed(const dc_pace *pace)
{
    return dc_clock_seconds() - pace->started_s;
}

double dc_pace_left(const dc_pace *pace, double done)
{
    double share = done - pace->done_at_start;
    return share > 0 ? dc_pace_elapsed(pace) / share * (1 - done) : 0;
}
