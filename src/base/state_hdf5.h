/* Private to state*.c: what the state's parts share. */
#ifndef DC_BASE_STATE_HDF5_H
#define DC_BASE_STATE_HDF5_H

#include "base/files.h"
#include "base/state.h"

#include <hdf5.h>

enum { DC_STATE_MESSAGE_CHARS = 1024 };

struct dc_state {
    hid_t file; /* negative when closed */
    bool large; /* lies in a file and not in memory */
    bool writing;
    dc_status status; /* the first error, with its message */
    char message[DC_STATE_MESSAGE_CHARS];
    char warning[DC_STATE_MESSAGE_CHARS];
    char path[DC_PATH_CHARS];
    char temporary[DC_PATH_CHARS + 8]; /* path.tmp */
    char about[DC_STATE_ABOUT_CHARS];
};

/* Every use of HDF5 stands between these two. */
void dc_state_hdf5_enter(void);
void dc_state_hdf5_leave(void);

/* Fails with "<path>: <what> '<name>': <HDF5's innermost reason>". */
dc_status dc_state_hdf5_fail(const dc_state *state, const char *what, const char *name);

/* Keeps the first error of a state; returns `status`. */
dc_status dc_state_keep(dc_state *state, dc_status status);

/* Repeats the first error as this thread's message; DC_OK when there is none. */
dc_status dc_state_repeat(const dc_state *state);

#endif
