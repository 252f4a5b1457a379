/* Private to import*.c: the few files that an archive of arrays is made of. */
#ifndef DC_DATA_IMPORT_FILES_H
#define DC_DATA_IMPORT_FILES_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct dc_import_file {
    const char *wanted; /* its name without folders */
    bool or_gz;         /* also with ".gz" behind it */
    char *path;         /* where it was found, for messages; NULL: nowhere */
    uint8_t *bytes;     /* followed by a 0 */
    size_t n_bytes;
} dc_import_file;

/* Looks for n files in a folder or an archive, at any depth, and reads those that are there. DC_ERR_INPUT when one is
 * there twice. Cleared by dc_import_files_clear in any case. */
dc_status dc_import_files_collect(const char *source, int n, dc_import_file *files);
void dc_import_files_clear(int n, dc_import_file *files);

#endif
