/* Python's pickles, as far as data sets are stored in them: dictionaries, lists, numbers, texts and arrays of numpy.
 *
 * A pickle is a program that may call anything; this reader calls nothing. It knows the few names by which numpy's
 * arrays are written and refuses all others. Protocols 2 to 5. */
#ifndef DC_DATA_PICKLE_H
#define DC_DATA_PICKLE_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct dc_pickle dc_pickle;

/* One value; lives as long as its pickle. */
typedef struct dc_pickle_value dc_pickle_value;

/* bytes must stay while the pickle is used: texts and arrays point into them. where: for messages. Never more memory
 * than some 100 bytes for each one read. */
dc_status dc_pickle_parse(const uint8_t *bytes, size_t n_bytes, const char *where, dc_pickle **pickle);
void dc_pickle_destroy(dc_pickle *pickle); /* NULL is legal */

const dc_pickle_value *dc_pickle_root(const dc_pickle *pickle);

/* What a dictionary has for a key that is a text; NULL: it has none, or is no dictionary. */
const dc_pickle_value *dc_pickle_get(const dc_pickle_value *dictionary, const char *key);

/* Items of a list or tuple; -1 of anything else. */
int64_t dc_pickle_length(const dc_pickle_value *list);
const dc_pickle_value *dc_pickle_item(const dc_pickle_value *list, int64_t i);

/* A whole number; DC_ERR_INPUT of anything else, with a message that does not say where. */
dc_status dc_pickle_integer(const dc_pickle_value *value, int64_t *number);

/* A text (without an end) or bytes. */
dc_status dc_pickle_text(const dc_pickle_value *value, const char **text, size_t *n);

/* An array of bytes of two dimensions, in C's order. */
dc_status dc_pickle_matrix(const dc_pickle_value *value, int64_t *rows, int64_t *columns, const uint8_t **bytes);

#endif
