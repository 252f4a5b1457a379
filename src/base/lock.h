/* One writer: a file that says which job writes something (a run's folder, a search's checkpoint), on any file system
 * that several machines share. No fcntl: many parallel file systems lock on one machine only, or not at all.
 *
 * The record at `path` names the owner and a generation, which each new owner raises by one; only who has created
 * `path`.claim-GENERATION (O_EXCL), and named itself there, may write it. Beside it the owner counts in `path`.beat as
 * a sign of life. Whether an owner lives is asked of the system on its own machine, and elsewhere by watching the count
 * for timeout_s: clocks and times of files are never compared. An owner looks at the record before it writes
 * (dc_lock_check) and every timeout_s / 6: once there is a later generation it writes no more.
 *
 * Who finds an owner that ended or died takes over at once; who finds a living one is refused, unless that is what was
 * left of an earlier start of the same batch job, requeued since: it is given timeout_s to end, then its generation is
 * over, and after another timeout_s, in which a write that had begun ends too, the successor begins. */
#ifndef DC_BASE_LOCK_H
#define DC_BASE_LOCK_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct dc_lock dc_lock;

typedef enum dc_lock_life {
    DC_LOCK_FREE,   /* nobody's, or its owner ended in good order */
    DC_LOCK_LIVES,  /* its owner runs, on this machine */
    DC_LOCK_DEAD,   /* its owner was on this machine and is gone */
    DC_LOCK_UNKNOWN /* its owner was on another machine: beat tells, to who watches it */
} dc_lock_life;

/* What the files say now. Times are others' clocks' and for people only. */
typedef struct dc_lock_view {
    int64_t generation; /* 0: there never was an owner */
    dc_lock_life life;
    char host[128];
    long process;
    char job[64];      /* the batch system's number, "" without one */
    int restarts;      /* how often the batch system had requeued that job */
    int64_t beat;      /* rises while the owner lives */
    double beat_age_s; /* since the last one, not negative */
} dc_lock_view;

/* Reads only; files that are missing, damaged or half written are no error. */
dc_lock_view dc_lock_look(const char *path);

/* Takes the lock; waits as above (DC_INTERRUPTED when a signal comes meanwhile). DC_ERR_INPUT naming the owner when it
 * is in use; what: for that message, "output/demo". lost: called once, from another thread, when a later generation is
 * found; NULL: nobody is told. */
dc_status dc_lock_acquire(const char *path, const char *what, double timeout_s, void (*lost)(dc_status),
                          dc_lock **lock);

/* The same lock in another process of its owner's job: it may be checked there; it shows no sign of life. */
dc_status dc_lock_join(const char *path, const char *what, int64_t generation, dc_lock **lock);

int64_t dc_lock_generation(const dc_lock *lock);

/* Before a write: DC_ERR_IO when the lock was taken over. NULL is legal and always fine. */
dc_status dc_lock_check(const dc_lock *lock);

/* NULL is legal. */
void dc_lock_release(dc_lock *lock);

#endif
