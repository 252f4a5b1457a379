#include "base/events.h"

#include "base/clock.h"
#include "base/files.h"
#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A file of lines that grows, shared by both kinds. */
typedef struct lines {
    pthread_mutex_t mutex;
    int fd;
    char path[DC_PATH_CHARS];
} lines;

struct dc_events {
    lines lines;
};

struct dc_csv {
    lines lines;
};

static dc_status open_lines(lines *file, const char *path)
{
    DC_TRY(dc_path_join("", path, file->path));
    file->fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (file->fd < 0)
        return dc_fail(DC_ERR_IO, "cannot open %s: %s", path, strerror(errno));
    pthread_mutex_init(&file->mutex, NULL);
    return DC_OK;
}

static void close_lines(lines *file)
{
    close(file->fd);
    pthread_mutex_destroy(&file->mutex);
}

static dc_status cut(const lines *file, off_t size)
{
    if (ftruncate(file->fd, size))
        return dc_fail(DC_ERR_IO, "cannot shorten %s: %s", file->path, strerror(errno));
    return DC_OK;
}

/* One line in one write(). After a failure (a full disk) no part of it stays. */
static dc_status append(lines *file, const dc_text *line)
{
    struct stat before;
    pthread_mutex_lock(&file->mutex);
    bool known = fstat(file->fd, &before) == 0;
    dc_status status = dc_file_write_all(file->fd, file->path, line->s, line->length);
    if (status && known && ftruncate(file->fd, before.st_size))
        status = dc_fail_within(status, "cannot shorten it either"); /* opening it again will */
    pthread_mutex_unlock(&file->mutex);
    return status;
}

/* Cuts a last line without its newline off, looking backwards for the end of the one before. */
static dc_status cut_torn_line(const lines *file)
{
    struct stat info;
    if (fstat(file->fd, &info))
        return dc_fail(DC_ERR_IO, "cannot read %s: %s", file->path, strerror(errno));
    off_t end = info.st_size;
    char piece[4096];
    while (end > 0) {
        off_t start = end > (off_t)sizeof piece ? end - (off_t)sizeof piece : 0;
        ssize_t n = pread(file->fd, piece, (size_t)(end - start), start);
        if (n != end - start)
            return dc_fail(DC_ERR_IO, "cannot read %s: %s", file->path, n < 0 ? strerror(errno) : "it shrank");
        char *newline = memrchr(piece, '\n', (size_t)n);
        if (newline) {
            end = start + (newline - piece) + 1;
            break;
        }
        end = start;
    }
    return end < info.st_size ? cut(file, end) : DC_OK;
}

dc_status dc_events_open(const char *path, dc_events **events)
{
    dc_events *made = dc_alloc_zeroed(sizeof *made);
    if (!made)
        return DC_ERR_MEMORY;
    dc_status status = open_lines(&made->lines, path);
    if (status) {
        free(made);
        return status;
    }
    status = cut_torn_line(&made->lines);
    if (status) {
        dc_events_close(made);
        return status;
    }
    *events = made;
    return DC_OK;
}

void dc_events_close(dc_events *events)
{
    if (!events)
        return;
    close_lines(&events->lines);
    free(events);
}

cJSON *dc_event_create(const char *name)
{
    cJSON *event = cJSON_CreateObject();
    if (cJSON_AddStringToObject(event, "event", name) && cJSON_AddNumberToObject(event, "time", dc_clock_wall()))
        return event;
    cJSON_Delete(event);
    return NULL;
}

dc_status dc_events_write(dc_events *events, cJSON *event)
{
    if (!events) {
        cJSON_Delete(event);
        return DC_OK;
    }
    dc_text line = {0};
    char *json = event ? cJSON_PrintUnformatted(event) : NULL;
    cJSON_Delete(event);
    if (!json)
        return dc_fail(DC_ERR_MEMORY, "out of memory for an event of %s", events->lines.path);
    dc_text_append(&line, "%s\n", json);
    cJSON_free(json);
    dc_status status = line.error ? line.error : append(&events->lines, &line);
    dc_text_clear(&line);
    return status;
}

/* How much of a table to keep: the header and the rows up to `last`. Later rows stand at the end, since steps rise. */
static size_t rows_through(const char *text, int64_t last)
{
    const char *row = strchr(text, '\n') + 1, *newline;
    for (; (newline = strchr(row, '\n')); row = newline + 1) {
        char *end;
        long long step = strtoll(row, &end, 10);
        if (end == row || step > last)
            break;
    }
    return (size_t)(row - text);
}

/* Brings an existing table to where the run resumes, or writes a new one's header. */
static dc_status begin_table(lines *file, const char *header, int64_t last)
{
    char *text = NULL;
    size_t size, length = strlen(header);
    DC_TRY(dc_file_read(file->path, &text, &size));
    const char *newline = strchr(text, '\n');
    dc_status status = DC_OK;
    if (last < 0 || !newline) {
        dc_text line = {0};
        dc_text_append(&line, "%s\n", header);
        status = line.error ? line.error : cut(file, 0);
        status = status ? status : append(file, &line);
        dc_text_clear(&line);
    } else if ((size_t)(newline - text) != length || memcmp(text, header, length)) {
        status = dc_fail(DC_ERR_INPUT, "%s has the columns %.*s, not %s: it is another version's", file->path,
                         (int)(newline - text), text, header);
    } else {
        size_t kept = rows_through(text, last);
        status = kept < size ? cut(file, (off_t)kept) : DC_OK;
    }
    free(text);
    return status;
}

dc_status dc_csv_open(const char *path, const char *header, int64_t last, dc_csv **csv)
{
    dc_csv *made = dc_alloc_zeroed(sizeof *made);
    if (!made)
        return DC_ERR_MEMORY;
    dc_status status = open_lines(&made->lines, path);
    if (status) {
        free(made);
        return status;
    }
    status = begin_table(&made->lines, header, last);
    if (status) {
        dc_csv_close(made);
        return status;
    }
    *csv = made;
    return DC_OK;
}

void dc_csv_close(dc_csv *csv)
{
    if (!csv)
        return;
    close_lines(&csv->lines);
    free(csv);
}

dc_status dc_csv_write(dc_csv *csv, const char *format, ...)
{
    if (!csv)
        return DC_OK;
    char row[4096];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(row, sizeof row - 1, format, arguments);
    va_end(arguments);
    if (length < 0 || length >= (int)sizeof row - 1)
        return dc_fail(DC_ERR_INTERNAL, "a row of %s is too long", csv->lines.path);
    row[length] = '\n';
    return append(&csv->lines, &(dc_text){.s = row, .length = (size_t)length + 1});
}

dc_status dc_csv_flush(dc_csv *csv)
{
    if (csv && fsync(csv->lines.fd))
        return dc_fail(DC_ERR_IO, "cannot write %s: %s", csv->lines.path, strerror(errno));
    return DC_OK;
}
