/* Files and directories. Errors are DC_ERR_IO with the path and the system's reason. */
#ifndef DC_BASE_FILES_H
#define DC_BASE_FILES_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>

enum { DC_PATH_CHARS = 4096 };

bool dc_file_exists(const char *path);

/* Joins with one '/'. DC_ERR_INPUT when the result is longer than a path may be. */
dc_status dc_path_join(const char *directory, const char *name, char out[DC_PATH_CHARS]);

/* The directory that a path lies in ("." when it has none). */
dc_status dc_path_directory(const char *path, char out[DC_PATH_CHARS]);

/* mkdir -p. */
dc_status dc_directory_create(const char *path);

/* Makes renames and new names in a directory durable. */
dc_status dc_directory_sync(const char *path);

/* Reads a whole file: *data has size + 1 bytes, the last 0; caller frees. size may be NULL. */
dc_status dc_file_read(const char *path, char **data, size_t *size);

/* Writes all bytes, in spite of short writes and interrupts; `path` is for the message. */
dc_status dc_file_write_all(int fd, const char *path, const void *data, size_t size);

/* Whether a file can be made or replaced at this path, for telling it before long work: a folder or a device cannot. */
dc_status dc_file_check_writable(const char *path);

/* Replaces a file in one instant: path.tmp, fsync, rename, fsync of the directory. After an error the old one stands.
 */
dc_status dc_file_replace(const char *path, const void *data, size_t size);
dc_status dc_file_replace_text(const char *path, const char *text);

#endif
