#include "data/import_files.h"

#include "data/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool matches(const char *base, const dc_import_file *file)
{
    size_t n = strlen(file->wanted);
    return strncmp(base, file->wanted, n) == 0 && (!base[n] || (file->or_gz && strcmp(base + n, ".gz") == 0));
}

static dc_status take(dc_source *source, const char *root, const char *name, dc_import_file *file)
{
    if (file->path)
        return dc_fail(DC_ERR_INPUT, "%s is there twice, the second time as %s/%s", file->path, root, name);
    if (asprintf(&file->path, "%s/%s", root, name) < 0) {
        file->path = NULL;
        return dc_fail(DC_ERR_MEMORY, "%s/%s", root, name);
    }
    DC_TRY(dc_source_read(source, &file->bytes, &file->n_bytes));
    uint8_t *ended = dc_realloc(file->bytes, file->n_bytes + 1);
    if (!ended)
        return DC_ERR_MEMORY;
    file->bytes = ended;
    ended[file->n_bytes] = 0;
    return DC_OK;
}

dc_status dc_import_files_collect(const char *path, int n, dc_import_file *files)
{
    dc_source *source;
    dc_source_entry entry;
    DC_TRY(dc_source_open(path, &source));
    dc_status status;
    while ((status = dc_source_next(source, &entry)) == DC_OK && entry.name) {
        const char *slash = strrchr(entry.name, '/'), *base = slash ? slash + 1 : entry.name;
        for (int i = 0; i < n && status == DC_OK && !entry.folder; i++)
            if (matches(base, &files[i]))
                status = take(source, path, entry.name, &files[i]);
        if (status != DC_OK)
            break;
    }
    dc_source_close(source);
    return status;
}

void dc_import_files_clear(int n, dc_import_file *files)
{
    for (int i = 0; i < n; i++) {
        free(files[i].path);
        free(files[i].bytes);
    }
}
