/* Messages for people, aware of ranks and terminals.
 *
 * Rank 0 prints what is said; other ranks print warnings only, prefixed "[rank 3] ". On a terminal the last
 * lines are a live status, redrawn in place; otherwise the status becomes plain lines every now and then. Times stand
 * in the file, and on the screen when it is no terminal. Every function takes a NULL log and then does nothing
 * (warnings still go to stderr), and may be called from several threads. */
#ifndef DC_BASE_LOG_H
#define DC_BASE_LOG_H

#include "base/status.h"

#include <stdbool.h>

typedef struct dc_log dc_log;

/* Can standard output be redrawn? False under an mpirun whose own output is no terminal: it gives its processes a
 * pseudo-terminal of no size then. */
bool dc_log_on_terminal(void);

/* terminal: standard output can be redrawn. path: a file to append to, or NULL; its directory must exist. */
dc_status dc_log_open(int rank, int size, bool terminal, const char *path, dc_log **log);
void dc_log_close(dc_log *log); /* erases the live status; NULL is legal */

/* Seconds between plain status lines when not on a terminal (default 30). */
void dc_log_set_interval(dc_log *log, double interval_s);

void dc_log_info(dc_log *log, const char *format, ...) __attribute__((format(printf, 2, 3)));
void dc_log_warn(dc_log *log, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Why a run ends before its time, by the thread's dc_status_message: in the file only, since main prints it too. */
void dc_log_end(dc_log *log, dc_status status);

/* True when a status given now would be shown: lets a caller skip composing one in a step. */
bool dc_log_status_due(dc_log *log);

/* Replaces the live status by n lines (copied; no newlines in them; cut at the terminal's width). At most five times a
 * second on a terminal, else once an interval: what comes between is dropped. Rank 0 only; n = 0 erases at once. */
void dc_log_status(dc_log *log, int n, const char *const *lines);

#endif
