#include "base/state.h"

#include "base/state_file.h"
#include "base/state_hdf5.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* HDF5 is built without thread safety and keeps one error stack and one table of files. */
static pthread_mutex_t hdf5_mutex = PTHREAD_MUTEX_INITIALIZER;
static bool prepared;
static unsigned long images; /* numbers the files in memory: HDF5 takes equal names for the same file */

void dc_state_hdf5_enter(void)
{
    pthread_mutex_lock(&hdf5_mutex);
    if (!prepared)
        H5dont_atexit(); /* after a full disk its cleaning up crashes; everything is closed without it */
    prepared = true;
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL); /* errors are ours to print */
}

void dc_state_hdf5_leave(void)
{
    pthread_mutex_unlock(&hdf5_mutex);
}

static herr_t innermost(unsigned n, const H5E_error2_t *error, void *reason)
{
    if (n == 0)
        snprintf(reason, 256, "%s", error->desc ? error->desc : "unknown");
    return 0;
}

dc_status dc_state_hdf5_fail(const dc_state *state, const char *what, const char *name)
{
    char reason[256] = "HDF5 failed";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, innermost, reason);
    const char *number = strstr(reason, "errno = "); /* of a failed read or write, among much else */
    if (number)
        snprintf(reason, sizeof reason, "%s", strerror(atoi(number + strlen("errno = "))));
    return dc_fail(state->writing ? DC_ERR_IO : DC_ERR_INPUT, "%s: %s%s%s%s: %s", state->path, what, name ? " '" : "",
                   name ? name : "", name ? "'" : "", reason);
}

dc_status dc_state_keep(dc_state *state, dc_status status)
{
    if (status && !state->status) {
        state->status = status;
        snprintf(state->message, sizeof state->message, "%s", dc_status_message());
    }
    return status;
}

dc_status dc_state_repeat(const dc_state *state)
{
    return state->status ? dc_fail(state->status, "%s", state->message) : DC_OK;
}

static dc_status make(const char *path, bool large, bool writing, dc_state **state)
{
    if (strlen(path) >= DC_PATH_CHARS - 16)
        return dc_fail(DC_ERR_INPUT, "path too long (at most %d characters): %.60s...", DC_PATH_CHARS - 17, path);
    dc_state *made = dc_alloc_zeroed(sizeof *made);
    if (!made)
        return DC_ERR_MEMORY;
    made->file = -1;
    made->large = large;
    made->writing = writing;
    snprintf(made->path, sizeof made->path, "%s", path);
    snprintf(made->temporary, sizeof made->temporary, "%s.tmp", path);
    *state = made;
    return DC_OK;
}

/* The same bytes for the same contents (no times), metadata with checksums of its own, arrays at multiples of 64 bytes.
 * Files of HDF5 1.10's form would need to be closed before their image is whole: 1.8's do not. */
static hid_t access_properties(bool large)
{
    hid_t list = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_libver_bounds(list, H5F_LIBVER_V18, H5F_LIBVER_V18);
    H5Pset_alignment(list, 1, 64); /* small arrays too: they are mapped as well */
    if (large)
        H5Pset_file_locking(list, 0, 1); /* dc_lock guards the directory; many file systems cannot lock */
    else
        H5Pset_fapl_core(list, 16384, 0);
    return list;
}

/* HDF5's own message of a file that cannot be made is no line for a user. */
static dc_status check_creatable(const dc_state *state)
{
    int fd = open(state->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return dc_fail(DC_ERR_IO, "cannot create %s: %s", state->temporary, strerror(errno));
    close(fd);
    return DC_OK;
}

static dc_status create_file(dc_state *state)
{
    char image[32];
    if (state->large)
        DC_TRY(check_creatable(state));
    hid_t access = access_properties(state->large), creation = H5Pcreate(H5P_FILE_CREATE);
    H5Pset_userblock(creation, DC_STATE_HEADER_BYTES);
    H5Pset_obj_track_times(creation, 0);
    snprintf(image, sizeof image, "image %lu", images++);
    state->file = H5Fcreate(state->large ? state->temporary : image, H5F_ACC_TRUNC, creation, access);
    dc_status status = state->file < 0 ? dc_state_hdf5_fail(state, "cannot create", NULL) : DC_OK;
    H5Pclose(creation);
    H5Pclose(access);
    return status;
}

static dc_status create(const char *path, bool large, dc_state **state)
{
    dc_state *made = NULL;
    DC_TRY(make(path, large, true, &made));
    dc_state_hdf5_enter();
    dc_status status = create_file(made);
    dc_state_hdf5_leave();
    if (status) {
        dc_state_abandon(made);
        return status;
    }
    *state = made;
    return DC_OK;
}

dc_status dc_state_create(const char *path, dc_state **state)
{
    return create(path, false, state);
}

dc_status dc_state_create_large(const char *path, dc_state **state)
{
    return create(path, true, state);
}

void dc_state_put_about(dc_state *state, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(state->about, sizeof state->about, format, arguments);
    va_end(arguments);
}

dc_status dc_state_check(const dc_state *state)
{
    return dc_state_repeat(state);
}

const char *dc_state_path(const dc_state *state)
{
    return state->path;
}

/* Closes the HDF5 file; a large one's buffers are written by that. */
static dc_status close_file(dc_state *state)
{
    dc_status status = DC_OK;
    if (state->file >= 0) {
        dc_state_hdf5_enter();
        if (H5Fclose(state->file) < 0 && state->writing)
            status = dc_state_hdf5_fail(state, "cannot write", NULL);
        dc_state_hdf5_leave();
    }
    state->file = -1;
    return status;
}

/* The file as it would lie on the disk, inside HDF5's memory until the file is closed. */
static dc_status image_of(dc_state *state, char **bytes, size_t *size_bytes)
{
    void **memory = NULL;
    hsize_t size = 0;
    dc_status status = DC_OK;
    dc_state_hdf5_enter();
    if (H5Fflush(state->file, H5F_SCOPE_LOCAL) < 0 ||
        H5Fget_vfd_handle(state->file, H5P_DEFAULT, (void **)&memory) < 0 || H5Fget_filesize(state->file, &size) < 0)
        status = dc_state_hdf5_fail(state, "cannot finish", NULL);
    dc_state_hdf5_leave();
    if (!status) {
        *bytes = *memory;
        *size_bytes = size;
    }
    return status;
}

static dc_status write_temporary(dc_state *state)
{
    char *bytes = NULL;
    size_t size_bytes = 0;
    DC_TRY(dc_state_repeat(state));
    if (state->large) {
        DC_TRY(close_file(state));
        return dc_state_seal_file(state->temporary, state->about);
    }
    DC_TRY(image_of(state, &bytes, &size_bytes));
    return dc_state_write_file(state->temporary, state->about, bytes, size_bytes);
}

dc_status dc_state_commit(dc_state *state, bool keep_previous)
{
    if (!state)
        return DC_OK;
    dc_status status = write_temporary(state);
    if (!status)
        status = dc_state_install(state->temporary, state->path, keep_previous);
    dc_state_keep(state, status); /* before anything else can fail */
    if (status)
        unlink(state->temporary);
    close_file(state);
    status = dc_state_repeat(state);
    free(state);
    return status;
}

void dc_state_abandon(dc_state *state)
{
    if (!state)
        return;
    close_file(state);
    if (state->large && state->writing)
        unlink(state->temporary);
    free(state);
}

static void previous_of(const char *path, char previous[DC_PATH_CHARS + 16])
{
    snprintf(previous, DC_PATH_CHARS + 16, "%s.previous", path);
}

bool dc_state_exists(const char *path)
{
    char previous[DC_PATH_CHARS + 16];
    previous_of(path, previous);
    return dc_file_exists(path) || dc_file_exists(previous);
}

/* Opens verified bytes, which HDF5 copies, or a file. */
static dc_status open_file(dc_state *state, char *bytes, size_t size_bytes)
{
    char image[32];
    dc_state_hdf5_enter();
    hid_t access = access_properties(state->large);
    snprintf(image, sizeof image, "image %lu", images++);
    if (state->large || H5Pset_file_image(access, bytes, size_bytes) >= 0)
        state->file = H5Fopen(state->large ? state->path : image, H5F_ACC_RDONLY, access);
    dc_status status = state->file < 0 ? dc_state_hdf5_fail(state, "cannot open", NULL) : DC_OK;
    H5Pclose(access);
    dc_state_hdf5_leave();
    return status;
}

static dc_status open_in_memory(dc_state *state)
{
    char *bytes = NULL;
    size_t size_bytes = 0;
    DC_TRY(dc_file_read(state->path, &bytes, &size_bytes));
    dc_status status = dc_state_verify_bytes(state->path, bytes, size_bytes);
    if (!status)
        status = open_file(state, bytes, size_bytes);
    free(bytes);
    return status;
}

static dc_status open_large(dc_state *state, bool verify)
{
    DC_TRY(verify ? dc_state_verify_file(state->path) : dc_state_verify_size(state->path));
    return open_file(state, NULL, 0);
}

static dc_status open_state(const char *path, bool large, bool verify, dc_state **state)
{
    dc_state *made = NULL;
    DC_TRY(make(path, large, false, &made));
    dc_status status = large ? open_large(made, verify) : open_in_memory(made);
    if (status) {
        free(made);
        return status;
    }
    *state = made;
    return DC_OK;
}

dc_status dc_state_open(const char *path, dc_state **state)
{
    return open_state(path, false, true, state);
}

dc_status dc_state_open_large(const char *path, bool verify, dc_state **state)
{
    return open_state(path, true, verify, state);
}

dc_status dc_state_open_newest(const char *path, dc_state **state)
{
    char previous[DC_PATH_CHARS + 16], newest[DC_STATE_MESSAGE_CHARS / 2];
    dc_status status = dc_state_open(path, state);
    if (status == DC_OK || status == DC_ERR_MEMORY)
        return status;
    previous_of(path, previous);
    if (!dc_file_exists(previous))
        return status;
    snprintf(newest, sizeof newest, "%s", dc_status_message());
    if (dc_state_open(previous, state))
        return dc_fail_within(status, "%s; the one before it neither", newest);
    snprintf((*state)->warning, sizeof(*state)->warning, "%s; going on from %.400s", newest, previous);
    return DC_OK;
}

const char *dc_state_warning(const dc_state *state)
{
    return state->warning[0] ? state->warning : NULL;
}

dc_status dc_state_close(dc_state *state)
{
    if (!state)
        return DC_OK;
    close_file(state);
    dc_status status = dc_state_repeat(state);
    free(state);
    return status;
}
