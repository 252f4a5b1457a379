/* JSON for machines on standard output. */
#ifndef DC_APP_JSON_H
#define DC_APP_JSON_H

#include "base/status.h"

#include <cjson/cJSON.h>
#include <stdio.h>

/* Prints and frees what a command gathered. DC_ERR_MEMORY when root, or its text, is NULL. */
dc_status dc_json_print(cJSON *root, FILE *out);

#endif
