#include "base/config.h"

#include "base/config_values.h"
#include "base/hash.h"
#include "base/text.h"

#include <ctype.h>
#include <string.h>

const dc_key *dc_config_find(const dc_schema *schema, const char *section, const char *name)
{
    for (int i = 0; i < schema->n; i++) {
        if (!strcmp(schema->keys[i].section, section) && !strcmp(schema->keys[i].name, name))
            return &schema->keys[i];
    }
    return NULL;
}

static dc_status unknown_section(const dc_schema *schema, const char *where, const char *section)
{
    const char *nearest = NULL;
    for (int i = 0; i < schema->n; i++)
        dc_text_nearest(section, schema->keys[i].section, &nearest);
    if (nearest)
        return dc_fail(DC_ERR_INPUT, "%sunknown section [%s]; did you mean [%s]?", where, section, nearest);
    dc_text known = {0};
    for (int i = 0; i < schema->n; i++) {
        if (!i || strcmp(schema->keys[i].section, schema->keys[i - 1].section))
            dc_text_append(&known, "%s[%s]", i ? ", " : "", schema->keys[i].section);
    }
    dc_fail(DC_ERR_INPUT, "%sunknown section [%s]; there are %s", where, section, known.s ? known.s : "none");
    dc_text_clear(&known);
    return DC_ERR_INPUT;
}

dc_status dc_config_unknown(const dc_schema *schema, const char *where, const char *section, const char *name)
{
    const char *nearest = NULL, *elsewhere = NULL;
    bool known_section = false;
    for (int i = 0; i < schema->n; i++) {
        const dc_key *key = &schema->keys[i];
        if (!strcmp(key->section, section)) {
            known_section = true;
            dc_text_nearest(name, key->name, &nearest);
        } else if (!strcmp(key->name, name)) {
            elsewhere = key->section;
        }
    }
    if (!known_section)
        return unknown_section(schema, where, section);
    if (elsewhere && !nearest)
        return dc_fail(DC_ERR_INPUT, "%sunknown key [%s] %s; did you mean [%s] %s?", where, section, name, elsewhere,
                       name);
    if (nearest)
        return dc_fail(DC_ERR_INPUT, "%sunknown key [%s] %s; did you mean '%s'?", where, section, name, nearest);
    return dc_fail(DC_ERR_INPUT, "%sunknown key [%s] %s", where, section, name);
}

dc_status dc_config_defaults(const dc_schema *schema, void *settings)
{
    for (int i = 0; i < schema->n; i++) {
        const dc_key *key = &schema->keys[i];
        if (dc_config_assign(key, "default: ", key->initial, settings))
            return dc_fail_within(DC_ERR_INTERNAL, "schema");
    }
    return DC_OK;
}

/* Appends what stands between two places, without blanks around it. */
static void append_trimmed(dc_text *out, const char *begin, const char *end)
{
    while (begin < end && isspace((unsigned char)*begin))
        begin++;
    while (begin < end && isspace((unsigned char)end[-1]))
        end--;
    dc_text_append(out, "%.*s", (int)(end - begin), begin);
}

dc_status dc_config_set(const dc_schema *schema, const char *assignment, void *settings)
{
    const char *equals = strchr(assignment, '=');
    const char *dot = equals ? memchr(assignment, '.', (size_t)(equals - assignment)) : NULL;
    if (!dot)
        return dc_fail(DC_ERR_INPUT, "--set %s: section.key=value expected", assignment);
    dc_text section = {0}, name = {0}, value = {0};
    append_trimmed(&section, assignment, dot);
    append_trimmed(&name, dot + 1, equals);
    append_trimmed(&value, equals + 1, assignment + strlen(assignment));
    dc_status status = section.error ? section.error : name.error ? name.error : value.error;
    if (!status) {
        const dc_key *key = dc_config_find(schema, section.s, name.s);
        status = key ? dc_config_assign(key, "--set: ", value.s, settings)
                     : dc_config_unknown(schema, "--set: ", section.s, name.s);
    }
    dc_text_clear(&section);
    dc_text_clear(&name);
    dc_text_clear(&value);
    return status;
}

/* Does a list such as "data|space" (NULL: everything) name the section? */
static bool chosen(const char *sections, const char *section)
{
    size_t length = strlen(section);
    for (const char *s = sections; s; s = strchr(s, '|')) {
        s += *s == '|';
        if (!strncmp(s, section, length) && (s[length] == '|' || !s[length]))
            return true;
    }
    return !sections;
}

/* Each key is hashed by itself and the hashes are added, so that their order does not matter. */
uint64_t dc_config_hash(const dc_schema *schema, const void *settings, const char *sections)
{
    uint64_t sum = 0;
    for (int i = 0; i < schema->n; i++) {
        const dc_key *key = &schema->keys[i];
        if (key->flags & DC_KEY_NO_HASH || !chosen(sections, key->section))
            continue;
        char number[DC_VALUE_CHARS];
        dc_hash hash;
        dc_hash_init(&hash);
        dc_hash_text(&hash, key->section);
        dc_hash_text(&hash, key->name);
        dc_hash_text(&hash, dc_config_value(key, settings, number));
        sum += dc_hash_end(&hash);
    }
    return sum;
}

dc_status dc_config_compare(const dc_schema *schema, const void *settings, const void *earlier, const char *sections)
{
    for (int i = 0; i < schema->n; i++) {
        const dc_key *key = &schema->keys[i];
        if (key->flags & DC_KEY_NO_HASH || !chosen(sections, key->section))
            continue;
        char number[DC_VALUE_CHARS], number_earlier[DC_VALUE_CHARS];
        const char *now = dc_config_value(key, settings, number);
        const char *then = dc_config_value(key, earlier, number_earlier);
        if (strcmp(now, then))
            return dc_fail(DC_ERR_INPUT, "[%s] %s is %s, but was %s", key->section, key->name, *now ? now : "empty",
                           *then ? then : "empty");
    }
    return DC_OK;
}

dc_status dc_config_dump(const dc_schema *schema, const void *settings, bool comments, char **text)
{
    dc_text out = {0};
    for (int i = 0; i < schema->n; i++) {
        const dc_key *key = &schema->keys[i];
        char number[DC_VALUE_CHARS];
        if (!i || strcmp(key->section, schema->keys[i - 1].section))
            dc_text_append(&out, "%s[%s]\n", i ? "\n" : "", key->section);
        if (comments && key->help)
            dc_text_append(&out, "; %s\n", key->help);
        dc_text_append(&out, "%s = %s\n", key->name, dc_config_value(key, settings, number));
    }
    return dc_text_take(&out, text);
}

void dc_config_print_help(const dc_schema *schema, FILE *out)
{
    for (int i = 0; i < schema->n; i++) {
        const dc_key *key = &schema->keys[i];
        char range[DC_RANGE_CHARS];
        if (!i || strcmp(key->section, schema->keys[i - 1].section))
            fprintf(out, "%s[%s]\n", i ? "\n" : "", key->section);
        fprintf(out, "  %s = %s", key->name, key->initial);
        dc_config_range(key, range);
        fprintf(out, "%s%s%s\n", *range ? "  (" : "", range, *range ? ")" : "");
        if (key->help)
            fprintf(out, "      %s\n", key->help);
    }
}
