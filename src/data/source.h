/* Where an importer reads from: a folder, or a tar, compressed tar or zip, as one stream of files.
 *
 * Archives inside (a tar of tars; tars in a folder) are gone through as if they were folders of their name without its
 * ending. Names are relative, of '/', and harmless: nothing is ever unpacked to disk, and "..", "." and leading slashes
 * are dropped. Files and folders whose names begin with a dot are left out. A link in an archive comes as a file that
 * cannot be read. */
#ifndef DC_DATA_SOURCE_H
#define DC_DATA_SOURCE_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct dc_source dc_source;

/* What dc_source_next came upon; its name lives until the next call. */
typedef struct dc_source_entry {
    const char *name; /* NULL: the end */
    bool folder;
    uint64_t stamp; /* of name, size and time of change: another one where the file was replaced */
} dc_source_entry;

dc_status dc_source_open(const char *path, dc_source **source);
void dc_source_close(dc_source *source); /* NULL is legal */

/* The next file or folder: those of a folder sorted by name, those of an archive as they lie in it. Errors name the
 * archive: not one at all, damaged, cut short. */
dc_status dc_source_next(dc_source *source, dc_source_entry *entry);

/* Reads the file that dc_source_next came upon, once: *bytes is the caller's to free, never NULL. */
enum { DC_SOURCE_MAX_BYTES = 1 << 30 };
dc_status dc_source_read(dc_source *source, uint8_t **bytes, size_t *n_bytes);

/* How far it is, 0..1; an estimate for people. */
double dc_source_progress(const dc_source *source);

#endif
