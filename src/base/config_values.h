/* Private to config*.c: one key's value as text. `where` ("demo.ini:3: ") begins every message. */
#ifndef DC_BASE_CONFIG_VALUES_H
#define DC_BASE_CONFIG_VALUES_H

#include "base/config.h"

enum { DC_VALUE_CHARS = 64, DC_RANGE_CHARS = 256 };

/* NULL when there is none. */
const dc_key *dc_config_find(const dc_schema *schema, const char *section, const char *name);

/* The error of a key that is not there, with the nearest one. */
dc_status dc_config_unknown(const dc_schema *schema, const char *where, const char *section, const char *name);

/* Parses and stores one value. */
dc_status dc_config_assign(const dc_key *key, const char *where, const char *value, void *settings);

/* The stored value as text; numbers are written into `number` so that they are read back exactly. */
const char *dc_config_value(const dc_key *key, const void *settings, char number[DC_VALUE_CHARS]);

/* "1 to 100", "at least 1", "derived, soft" or "". */
void dc_config_range(const dc_key *key, char range[DC_RANGE_CHARS]);

#endif
