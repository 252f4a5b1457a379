/* What a run did, for machines: events.jsonl (one JSON object a line) and CSV files (one row a step or epoch). A line
 * is one write(), so that a crash tears at most the last one, and opening cuts a torn last line off. */
#ifndef DC_BASE_EVENTS_H
#define DC_BASE_EVENTS_H

#include "base/status.h"

#include <cjson/cJSON.h>
#include <stdint.h>

typedef struct dc_events dc_events;

/* Opens to append; creates the file when it is not there. */
dc_status dc_events_open(const char *path, dc_events **events);
void dc_events_close(dc_events *events);

/* {"event": name, "time": seconds since 1970}; add members with cJSON_Add...ToObject. NULL when out of memory, which
 * dc_events_write reports. */
cJSON *dc_event_create(const char *name);

/* Appends one line and frees the event. events == NULL: only frees. Safe from several threads. */
dc_status dc_events_write(dc_events *events, cJSON *event);

typedef struct dc_csv dc_csv;

/* Opens a table whose first column is a step or epoch number. A new file gets the header ("epoch,loss,accuracy").
 * In an existing one rows whose first column is above `last` (those after the checkpoint that a run resumes from) and a
 * torn last line are cut; another header is refused. last = -1: start anew. */
dc_status dc_csv_open(const char *path, const char *header, int64_t last, dc_csv **csv);
void dc_csv_close(dc_csv *csv);

/* Appends one row; the format has no newline. csv == NULL: does nothing. */
dc_status dc_csv_write(dc_csv *csv, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* What was written is on the disk: before a checkpoint after which these rows are not written again. csv == NULL: does
 * nothing. */
dc_status dc_csv_flush(dc_csv *csv);

#endif
