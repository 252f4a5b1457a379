/* What long work tells its caller and asks of it, at step boundaries. */
#ifndef DC_TRAIN_HOOKS_H
#define DC_TRAIN_HOOKS_H

#include "base/status.h"

#include <stdbool.h>

typedef struct dc_hooks {
    void *context;
    /* How far the work is, 0..1, with one line of text. NULL: nobody listens. */
    dc_status (*progress)(void *context, double fraction, const char *text);
    /* Whether to save the state and return DC_INTERRUPTED. Called on every rank of the work's communicator; each may
     * answer for itself. NULL: never. */
    dc_status (*stop)(void *context, bool *stop);
} dc_hooks;

#endif
