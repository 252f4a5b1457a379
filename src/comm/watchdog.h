/* Finds ranks that hang: stopped, on a lost machine, caught in a system call or waiting for what never comes. Without
 * it such a job would hold its machines until its time is up, and nobody would know.
 *
 * Every rank says where it is (dc_watchdog_moved at each step; collectives note by themselves that they wait). A thread
 * beside it tells rank 0 some times in each timeout, on a communicator of its own; rank 0 answers. The job is ended
 * (dc_comm_abort, DC_ERR_STALLED) with one message that names ranks and places when a rank has told nothing for the
 * timeout, or has told that it neither moved nor waited for others, or when all wait. Time is counted in the threads'
 * own turns, so that a job that is suspended as a whole and goes on later is left alone. */
#ifndef DC_COMM_WATCHDOG_H
#define DC_COMM_WATCHDOG_H

#include <mpi.h>
#include <stdint.h>

#include "base/status.h"

typedef struct dc_watchdog dc_watchdog;

/* One a process, made by dc_comm_init before MPI has begun. Until it is started it takes notes, and ends the process
 * with one line when that takes longer than start_s: a rank that hangs at its start lets the others wait for it. */
dc_status dc_watchdog_create(double start_s, dc_watchdog **watchdog);

/* Begins to watch the ranks of mpi. setting: where timeout_s is set, for messages ("[run] watchdog"; it lasts). Once;
 * collective. */
dc_status dc_watchdog_start(dc_watchdog *watchdog, MPI_Comm mpi, double timeout_s, const char *setting);

/* The start is over: from here on nobody watches, unless dc_watchdog_start is called. Legal at any time. */
void dc_watchdog_begun(dc_watchdog *watchdog);

/* Ends the watch and frees; collective, after everybody's work. NULL is legal. */
void dc_watchdog_destroy(dc_watchdog *watchdog);

/* This process is about to end the job with this exit status: the others end with it by themselves at their next turn,
 * should the launcher not reach them (a node that was taken for dead has none any more). Ranks but the first tell that
 * one, which tells all, and all where it is the first that is silent. Takes at most a second; tells nobody unless the
 * watch has started. NULL is legal. */
void dc_watchdog_tell_end(dc_watchdog *watchdog, int code);

/* A rank that is known to be dead: the others go on without it. Rank 0's. */
void dc_watchdog_forget(dc_watchdog *watchdog, int rank);

/* This rank has moved on. name: of the work (copied), NULL: the same as before. NULL watchdogs take no notes. */
void dc_watchdog_moved(dc_watchdog *watchdog, const char *name, int64_t step);

/* This rank waits for others in a call (a text that lasts); NULL: no longer. Returns what was noted before. */
const char *dc_watchdog_waits(dc_watchdog *watchdog, const char *call);

#endif
