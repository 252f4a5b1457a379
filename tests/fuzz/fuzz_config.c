/* Any bytes as a configuration: refused in one line, or read; what was read survives being written and read again. */
#include "base/config.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct settings {
    int channels, estimate;
    double rate, limit_s;
    bool sharing;
    int64_t params;
    char name[16], genotype[512];
} settings;

#define AT(field) .offset = offsetof(settings, field), .size = sizeof((settings *)0)->field

static const dc_key keys[] = {
    {"run", "name", DC_KEY_TEXT, AT(name), .initial = "demo", .minimum = 1, .flags = DC_KEY_NO_HASH, .help = "name"},
    {"run", "limit", DC_KEY_DURATION_S, AT(limit_s), .initial = "2h", .help = "time"},
    {"search", "channels", DC_KEY_INT, AT(channels), .initial = "16", .minimum = 4, .maximum = 512},
    {"search", "rate", DC_KEY_FLOAT, AT(rate), .initial = "0.2"},
    {"search", "sharing", DC_KEY_BOOL, AT(sharing), .initial = "yes", .help = "Eq 5"},
    {"constraint", "estimate", DC_KEY_CHOICE, AT(estimate), .initial = "derived", .choices = "derived|soft"},
    {"constraint", "params", DC_KEY_COUNT, AT(params), .initial = "3.5M"},
    {"constraint", "genotype", DC_KEY_TEXT, AT(genotype), .initial = ""},
};
static const dc_schema schema = {keys, sizeof keys / sizeof keys[0]};

static void round_trip(const settings *read)
{
    char *text;
    settings again;
    if (dc_config_dump(&schema, read, true, &text) || dc_config_defaults(&schema, &again) ||
        dc_config_parse_text(&schema, "dump", text, &again) ||
        dc_config_hash(&schema, read, NULL) != dc_config_hash(&schema, &again, NULL))
        abort();
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    settings s;
    char *text = malloc(size + 1);
    memcpy(text, data, size);
    text[size] = 0;
    memset(&s, 0, sizeof s);
    if (dc_config_defaults(&schema, &s))
        abort();
    if (dc_config_parse_text(&schema, "fuzz", text, &s)) {
        if (strchr(dc_status_message(), '\n') || !*dc_status_message())
            abort();
    } else {
        round_trip(&s);
    }
    if (dc_config_defaults(&schema, &s))
        abort();
    if (!dc_config_set(&schema, text, &s))
        round_trip(&s);
    free(text);
    return 0;
}
