/* Requests to stop: SIGTERM, SIGINT, SIGUSR1, SIGUSR2. A handler only sets a flag, however often it is called; the run
 * looks at it between steps. */
#ifndef DC_BASE_SIGNALS_H
#define DC_BASE_SIGNALS_H

#include "base/status.h"

/* Installs the handlers; SIGBUS, of a mapped file that cannot be read, ends the process with one line; ignores SIGPIPE
 * and SIGXFSZ so that a write reports its error instead. */
dc_status dc_signals_install(void);

/* The last signal that asked to stop, or 0. */
int dc_signals_received(void);

/* Forgets the request. */
void dc_signals_clear(void);

#endif
