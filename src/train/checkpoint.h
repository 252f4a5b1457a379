/* What the checkpoints of searches and trainings have in common. */
#ifndef DC_TRAIN_CHECKPOINT_H
#define DC_TRAIN_CHECKPOINT_H

#include "backend/executor.h"
#include "base/events.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/state.h"
#include "nn/params.h"

/* Metrics as a row of numbers, and back. */
enum { DC_METRICS_NUMBERS = 5 };
void dc_metrics_pack(const dc_metrics *metrics, double numbers[DC_METRICS_NUMBERS]);
dc_metrics dc_metrics_unpack(const double numbers[DC_METRICS_NUMBERS]);

typedef struct dc_checkpoint {
    const char *path;   /* NULL: none is kept */
    const char *name;   /* of the work, for messages */
    uint64_t identity;  /* of everything that decides the result */
    dc_params *params;  /* kept with the optimizers' moments below "params" */
    dc_params *average; /* kept below "average"; NULL: there is none */
    /* The rest of the work's state. put cannot fail: a state's errors stick. */
    void (*put)(void *context, dc_state *state);
    dc_status (*get)(void *context, dc_state *state);
    void *context;
    dc_csv *table;       /* whose rows so far it counts on; NULL: there is none */
    const dc_lock *lock; /* of who may write it; NULL: nobody else would */
} dc_checkpoint;

/* Writes the file and keeps the previous one. One rank's. DC_ERR_IO when the lock was taken over. */
dc_status dc_checkpoint_write(const dc_checkpoint *checkpoint);

/* Takes up the newest whole file, if there is any. One of another identity is refused. Every rank reads it: it is
 * replicated state. A damaged newest file is told to log, when that is given. */
dc_status dc_checkpoint_resume(const dc_checkpoint *checkpoint, bool tell, dc_log *log);

#endif
