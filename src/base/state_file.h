/* Private to state*.c: a state file as bytes. No HDF5 here. */
#ifndef DC_BASE_STATE_FILE_H
#define DC_BASE_STATE_FILE_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

enum { DC_STATE_HEADER_BYTES = 512 }; /* the HDF5 user block */

/* What the first bytes of a whole file are: its kind, size, hash and what it is about, as text padded with zeros.
 * `hash` is of all bytes after the header. */
void dc_state_header(uint64_t size_bytes, uint64_t hash, const char *about, char header[DC_STATE_HEADER_BYTES]);

/* Are these bytes of a file whole? DC_ERR_INPUT, naming the path, when not. */
dc_status dc_state_verify_bytes(const char *path, const char *bytes, size_t size_bytes);

/* The same of a file, without holding it in memory. */
dc_status dc_state_verify_file(const char *path);

/* Only kind and size: finds other files and those cut off. */
dc_status dc_state_verify_size(const char *path);

/* Hashes what `path` holds after the header, writes the header, and syncs. */
dc_status dc_state_seal_file(const char *path, const char *about);

/* Writes a whole file (its header is filled in first) and syncs it. */
dc_status dc_state_write_file(const char *path, const char *about, char *bytes, size_t size_bytes);

/* Puts the finished file `temporary` in the place of `path`, durably; with keep_previous what stood there becomes
 * `path`.previous, unless it is damaged: then the older `path`.previous, which may be whole, stays. */
dc_status dc_state_install(const char *temporary, const char *path, int keep_previous);

#endif
