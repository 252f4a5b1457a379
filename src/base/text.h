/* Small helpers for texts: one that grows, and the nearest of several names for "did you mean". */
#ifndef DC_BASE_TEXT_H
#define DC_BASE_TEXT_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>

/* A text that grows. Starts as {0}; append fails only for want of memory, which is remembered. */
typedef struct dc_text {
    char *s; /* NULL while empty */
    size_t length, capacity;
    dc_status error;
} dc_text;

void dc_text_append(dc_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void dc_text_clear(dc_text *text); /* frees */

/* Hands the text over (never NULL on success, caller frees) and clears `text`. */
dc_status dc_text_take(dc_text *text, char **s);

/* Is it UTF-8 without control characters? */
bool dc_text_is_plain(const char *s);

/* Edits (insert, delete, replace, swap of neighbours; case ignored) that turn a into b; 64 when either is longer than
 * 63 characters. */
int dc_text_distance(const char *a, const char *b);

/* Keeps the better of two suggestions: call for each candidate with *best = NULL at first. A candidate too far from
 * `name` to be a slip of the pen is not taken. */
void dc_text_nearest(const char *name, const char *candidate, const char **best);

#endif
