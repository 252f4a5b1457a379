/* A data set's file on the node's own storage, so that a job reads it over the network once and not in each epoch.
 *
 * One rank of each node copies it, under a name that tells the user and the data set's hash; a copy of the same set
 * that another job uses, or that one which was killed has left, is taken as it is. At the end the last job that uses a
 * copy removes it. */
#ifndef DC_DATA_STAGE_H
#define DC_DATA_STAGE_H

#include "base/files.h"
#include "comm/comm.h"
#include "data/dataset.h"

typedef struct dc_stage {
    bool staged;
    bool found;               /* the copy was there already */
    char path[DC_PATH_CHARS]; /* what to open: the copy, or the file itself */
    int fd;                   /* private, of the rank that answers for the copy: holds a lock on it; else -1 */
} dc_stage;

/* where: "no"; "auto": /dev/shm or $TMPDIR, where there is room, when the file lies on a network file system; else a
 * folder, in which there must be room (DC_ERR_INPUT). The same hash means the same data set. dc_stage_close is legal
 * after any outcome. Collective; DC_INTERRUPTED when a signal comes meanwhile. */
dc_status dc_stage_open(const dc_comm *world, const char *where, const dc_dataset *dataset, dc_stage *stage);

/* After the copy's last use here; those of other jobs may go on. Not collective. */
void dc_stage_close(dc_stage *stage);

#endif
