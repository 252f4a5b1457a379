/* Typed configuration: an INI file (inih), read into a settings struct by a table of keys.
 *
 *     typedef struct settings { int epochs; char name[64]; } settings;
 *     static const dc_key keys[] = {
 *         {.section = "search", .name = "epochs", .type = DC_KEY_INT, .offset = offsetof(settings, epochs),
 *          .initial = "50", .minimum = 1, .maximum = 10000, .help = "passes over the training half"},
 *         {.section = "run", .name = "name", .type = DC_KEY_TEXT, .offset = offsetof(settings, name),
 *          .size = sizeof ((settings *)0)->name, .initial = "demo", .flags = DC_KEY_NO_HASH, .help = "..."}};
 *     static const dc_schema schema = {keys, sizeof keys / sizeof keys[0]};
 *
 * Every error is DC_ERR_INPUT (DC_ERR_IO for an unreadable file) with one line that names file, line, key, value and
 * what would be right: "a.ini:3: unknown key [search] chanels; did you mean 'channels'?". */
#ifndef DC_BASE_CONFIG_H
#define DC_BASE_CONFIG_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef enum dc_key_type {
    DC_KEY_INT,       /* int */
    DC_KEY_FLOAT,     /* double */
    DC_KEY_BOOL,      /* bool: yes/no, true/false, on/off, 1/0 */
    DC_KEY_TEXT,      /* char[size] inside the settings */
    DC_KEY_CHOICE,    /* int (or an enum): the position in `choices` */
    DC_KEY_COUNT,     /* int64_t: "3.5M", "600M", "40k" (units.h) */
    DC_KEY_DURATION_S /* double, seconds: "90", "15m", "2h" */
} dc_key_type;

enum { DC_KEY_NO_HASH = 1 }; /* does not change the result (output directory, threads, logging) */

typedef struct dc_key {
    const char *section, *name;
    dc_key_type type;
    size_t offset;           /* in the settings struct */
    size_t size;             /* TEXT: bytes of the array, with the final 0 */
    const char *initial;     /* the default, as in a file */
    double minimum, maximum; /* inclusive; both 0: any. TEXT: minimum 1 means "may not be empty" */
    const char *choices;     /* CHOICE: "derived|soft" */
    unsigned flags;          /* DC_KEY_NO_HASH */
    const char *help;
} dc_key;

typedef struct dc_schema {
    const dc_key *keys; /* keys of one section stand together */
    int n;
} dc_schema;

/* Sets every key to its default. DC_ERR_INTERNAL when the schema itself is wrong (a default that it refuses). */
dc_status dc_config_defaults(const dc_schema *schema, void *settings);

/* Overwrites the settings with what the file gives; keys that it does not name stay as they are. Unknown sections and
 * keys, wrong types, values out of range, duplicates and lines that are no INI are refused. */
dc_status dc_config_load(const dc_schema *schema, const char *path, void *settings);

/* The same from a text; `name` stands for the file in messages. */
dc_status dc_config_parse_text(const dc_schema *schema, const char *name, const char *text, void *settings);

/* Applies "section.key=value" (from --set). */
dc_status dc_config_set(const dc_schema *schema, const char *assignment, void *settings);

/* All settings as INI text, in the schema's order; parsing it gives equal settings. comments: help above each key.
 * *text is the caller's to free. */
dc_status dc_config_dump(const dc_schema *schema, const void *settings, bool comments, char **text);

/* Hash of the resolved values of the keys without DC_KEY_NO_HASH in `sections` ("data|space|search"; NULL: all). Does
 * not depend on the order of keys or on how a value was written. */
uint64_t dc_config_hash(const dc_schema *schema, const void *settings, const char *sections);

/* DC_OK when dc_config_hash would be equal, else DC_ERR_INPUT naming the first difference:
 * "[search] epochs is 60, but was 50". Callers put the context before it (dc_fail_within). */
dc_status dc_config_compare(const dc_schema *schema, const void *settings, const void *earlier, const char *sections);

/* The keys with defaults, ranges and help, for --help. */
void dc_config_print_help(const dc_schema *schema, FILE *out);

#endif
