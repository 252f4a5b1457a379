/* Communicators: MPI, checked. Every function here that is marked collective must be called by all ranks of the
 * communicator in the same order; functions of one communicator must not be called by two threads at once.
 *
 * How ranks fail: before a collective phase they agree on their status (dc_comm_agree) and so fail together, with one
 * message. A rank that fails alone, while the others are busy or wait for it, ends the job: dc_comm_end in main gives
 * the others a few seconds to join in and then aborts, dc_comm_abort does so at once. MPI's own errors come back as
 * DC_ERR_COMM with MPI's text, but those of collectives end the job. On a communicator of one rank nothing costs
 * anything. */
#ifndef DC_COMM_COMM_H
#define DC_COMM_COMM_H

#include <mpi.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "comm/watchdog.h"

typedef struct dc_comm {
    MPI_Comm mpi;
    int rank, size;
    int local_rank, local_size; /* among this communicator's ranks on this node: which GPU */
    int cores;             /* this rank's share of the node's cores, at least 1: those it may run on, divided by the
                              ranks of this communicator that may run on the same ones */
    MPI_Comm last;         /* private, world only: kept free for dc_comm_end */
    dc_watchdog *watchdog; /* the process's; NULL: nobody watches */
} dc_comm;

/* Turns an MPI error into DC_ERR_COMM: `DC_MPI(MPI_Barrier(comm->mpi));` in a function that returns dc_status. */
#define DC_MPI(call)                                                                                                   \
    do {                                                                                                               \
        int dc_mpi_code_ = (call);                                                                                     \
        if (dc_mpi_code_ != MPI_SUCCESS)                                                                               \
            return dc_comm_mpi_error(dc_mpi_code_, #call);                                                             \
    } while (0)

/* The same of a call in which ranks of comm wait for each other: the watchdog learns that this one does. Where it fails
 * on one of several ranks the job ends (dc_comm_alone), for the others' next calls would not be this one's. */
#define DC_MPI_WAIT(comm, call)                                                                                        \
    do {                                                                                                               \
        const char *dc_mpi_before_ = dc_watchdog_waits((comm)->watchdog, #call);                                       \
        int dc_mpi_code_ = (call);                                                                                     \
        dc_watchdog_waits((comm)->watchdog, dc_mpi_before_);                                                           \
        if (dc_mpi_code_ != MPI_SUCCESS)                                                                               \
            return dc_comm_alone(comm, dc_comm_mpi_error(dc_mpi_code_, #call));                                        \
    } while (0)

/* The error of an MPI return code; call: the C text of the call, of which the function's name is shown. */
dc_status dc_comm_mpi_error(int code, const char *call);

/* ---- life ----------------------------------------------------------------------------------------------------------
 */

/* Starts MPI with MPI_THREAD_MULTIPLE; all ranks of the job become *world. Also without mpirun (one rank). Once, first
 * thing in main; collective. A rank that fails once MPI has begun ends the job (dc_comm_abort). */
dc_status dc_comm_init(int *argc, char ***argv, dc_comm *world);

/* DC_ERR_INPUT when a variable that the start reads, DCANAS_START_TIMEOUT, says nothing that it could be: dc_comm_init
 * takes the default then. Collective. */
dc_status dc_comm_check_environment(const dc_comm *world);

/* The end of every rank's work, however it went: the status of all (as dc_comm_agree), before main prints rank 0's
 * message. Collective over the world, and yet never hangs: a rank that comes with an error and is not joined by all
 * others within DC_COMM_END_SECONDS aborts the job with its message. Nothing but dc_comm_finalize may follow. */
dc_status dc_comm_end(const dc_comm *world, dc_status mine);
enum { DC_COMM_END_SECONDS = 5 };

/* Ends MPI; collective. After main's message: mpirun may kill the others as soon as one exits with a status not 0. */
void dc_comm_finalize(dc_comm *world);

/* Ends the whole job at once from one rank alone: prints this thread's message as "dcanas: rank R: ..." to stderr and
 * aborts with the exit status of `status`, which the launcher passes on; where it does not reach the others, they end
 * by themselves within seconds, told by the watchdog (if they are watched). R is the rank in the world. Not collective.
 */
_Noreturn void dc_comm_abort(dc_status status);

/* Ends this process where others have died and MPI can neither be finalized nor aborted (Open MPI's mpirun
 * --enable-recovery waits for ever then): each living rank leaves, rank 0 with the message. */
_Noreturn void dc_comm_leave(const dc_comm *comm, dc_status status);

/* ---- groups --------------------------------------------------------------------------------------------------------
 */

/* Ranks of equal colour become one communicator, in the order of their ranks here; a negative colour takes part and
 * gets an empty group (size 0). Cleared by dc_comm_clear. Collective. */
dc_status dc_comm_split(const dc_comm *comm, int color, dc_comm *group);

/* The ranks of this node, likewise. Collective. */
dc_status dc_comm_split_node(const dc_comm *comm, dc_comm *group);

/* The same ranks in a communicator of their own, so that another thread's or phase's messages cannot meet ours.
 * Collective; cleared by dc_comm_clear. */
dc_status dc_comm_duplicate(const dc_comm *comm, dc_comm *copy);

/* This rank alone. Not collective; dc_comm_clear is legal. */
dc_comm dc_comm_self(void);

/* Frees a split or duplicated communicator; collective. Legal on a cleared or empty one. */
void dc_comm_clear(dc_comm *comm);

/* ---- agreement -----------------------------------------------------------------------------------------------------
 */

/* The one status of all ranks, the same on each: DC_OK when all are; else that of the first rank with the gravest
 * failure, where an error outweighs an interruption and a cause outweighs DC_ERR_COMM, its consequence. A rank without
 * a failure of that gravity gets the message "rank R: ..." of that rank; the others keep their own. Collective. */
dc_status dc_comm_agree(const dc_comm *comm, dc_status mine);

/* For a failure between two collectives of a step, where agreeing each time would cost more than such failures are
 * worth: on one rank mine comes back; among several the job ends at once (dc_comm_abort), since the others wait in a
 * collective, or in a sum over ranks whose memory may not be freed. Not collective. */
dc_status dc_comm_alone(const dc_comm *comm, dc_status mine);

/* Watches, from now on, the ranks of a command that has no configuration: for rank 0's DCANAS_WATCHDOG (0: not at all),
 * by default long, since a data set of ImageNet's size is flushed to its disk in one call. Without a watchdog
 * (dc_comm_self) it does nothing. Once; collective. */
dc_status dc_comm_watch(const dc_comm *world);

/* DC_TRY over all ranks: every rank returns when one fails. */
#define DC_TRY_ALL(comm, expression) DC_TRY(dc_comm_agree(comm, (expression)))

/* *any: whether one rank says true (a signal's flag at a step boundary). Collective. */
dc_status dc_comm_any(const dc_comm *comm, bool mine, bool *any);

/* ---- collectives ---------------------------------------------------------------------------------------------------
 */

/* Waits for what other ranks send, asleep (checked each millisecond): blocking MPI calls spin on a core that another
 * rank's threads may need. Not collective. */
dc_status dc_comm_wait(const dc_comm *comm, MPI_Request *request);

/* Waits for all ranks, asleep (checked each millisecond), so that a rank may wait for hours and leave the cores to
 * others. */
dc_status dc_comm_barrier(const dc_comm *comm);

/* bytes of root become everybody's; size_bytes equal on every rank, of any magnitude. */
dc_status dc_comm_bcast(const dc_comm *comm, int root, void *bytes, size_t size_bytes);

/* Element-wise over ranks, in place, the same bits on every rank and for every run with as many ranks. */
dc_status dc_comm_sum_doubles(const dc_comm *comm, double *values, size_t n);
dc_status dc_comm_sum_floats(const dc_comm *comm, float *values, size_t n);
dc_status dc_comm_sum_int64(const dc_comm *comm, int64_t *values, size_t n);
dc_status dc_comm_max_int64(const dc_comm *comm, int64_t *values, size_t n);

/* Byte strings end to end: string i is data[offsets[i]] .. data[offsets[i + 1]]. */
typedef struct dc_blobs {
    int n;
    unsigned char *data;
    size_t *offsets; /* n + 1 */
} dc_blobs;

void dc_blobs_clear(dc_blobs *blobs);

/* Every rank's bytes (of its own size, also none) in rank order: on rank 0 (elsewhere *all is empty, n = 0), or on
 * every rank. At most 2 GiB together. Cleared by dc_blobs_clear. An error on one rank is an error on all. Collective.
 */
dc_status dc_comm_gather(const dc_comm *comm, const void *bytes, size_t size_bytes, dc_blobs *all);
dc_status dc_comm_gather_all(const dc_comm *comm, const void *bytes, size_t size_bytes, dc_blobs *all);

#endif
