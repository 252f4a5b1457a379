#include "base/config_values.h"

#include "base/text.h"
#include "base/units.h"

#include <errno.h>
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The i-th of "a|b|c", with its length; NULL after the last. */
static const char *choice(const char *choices, int i, int *length)
{
    for (; i > 0 && choices; i--) {
        choices = strchr(choices, '|');
        choices = choices ? choices + 1 : NULL;
    }
    if (choices)
        *length = (int)strcspn(choices, "|");
    return choices;
}

/* The shortest decimal that reads back as the same double. */
static void shortest(char *out, double value)
{
    for (int digits = 1; digits <= DBL_DECIMAL_DIG; digits++) {
        snprintf(out, DC_VALUE_CHARS, "%.*g", digits, value);
        if (digits >= 6 && strtod(out, NULL) == value)
            return;
    }
}

static void bound(const dc_key *key, double value, char out[DC_VALUE_CHARS])
{
    if (key->type == DC_KEY_COUNT && fabs(value) < 0x1p53)
        snprintf(out, DC_VALUE_CHARS, "%s", dc_format_count((int64_t)value).s);
    else
        shortest(out, value);
}

void dc_config_range(const dc_key *key, char range[DC_RANGE_CHARS])
{
    range[0] = 0;
    if (key->type == DC_KEY_CHOICE) {
        int length, used = 0;
        const char *name;
        for (int i = 0; (name = choice(key->choices, i, &length)) && used < DC_RANGE_CHARS; i++)
            used += snprintf(range + used, (size_t)(DC_RANGE_CHARS - used), "%s%.*s", i ? ", " : "", length, name);
    } else if (key->type == DC_KEY_BOOL) {
        snprintf(range, DC_RANGE_CHARS, "yes, no");
    } else if (key->type != DC_KEY_TEXT && (key->minimum != 0 || key->maximum != 0)) {
        char low[DC_VALUE_CHARS], high[DC_VALUE_CHARS];
        bound(key, key->minimum, low);
        bound(key, key->maximum, high);
        bool open = key->maximum >= (key->type == DC_KEY_INT ? INT_MAX : key->type == DC_KEY_COUNT ? 0x1p63 : DBL_MAX);
        if (open)
            snprintf(range, DC_RANGE_CHARS, "at least %s", low);
        else
            snprintf(range, DC_RANGE_CHARS, "%s to %s", low, high);
    }
}

static dc_status wrong(const dc_key *key, const char *where, const char *value, const char *expected)
{
    return dc_fail(DC_ERR_INPUT, "%s[%s] %s = %.200s: %s expected", where, key->section, key->name, value, expected);
}

static dc_status check_range(const dc_key *key, const char *where, const char *value, double number)
{
    bool any = key->minimum == 0 && key->maximum == 0;
    if (any || (number >= key->minimum && number <= key->maximum))
        return DC_OK;
    char range[DC_RANGE_CHARS];
    dc_config_range(key, range);
    return dc_fail(DC_ERR_INPUT, "%s[%s] %s = %.200s is out of range: %s", where, key->section, key->name, value,
                   range);
}

static dc_status assign_int(const dc_key *key, const char *where, const char *value, int *out)
{
    char *end;
    errno = 0;
    long number = strtol(value, &end, 10);
    if (end == value || *end)
        return wrong(key, where, value, "a whole number");
    if (errno || number < INT_MIN || number > INT_MAX) {
        return wrong(key, where, value, "a number of at most 2,147,483,647");
    }
    DC_TRY(check_range(key, where, value, (double)number));
    *out = (int)number;
    return DC_OK;
}

static dc_status assign_float(const dc_key *key, const char *where, const char *value, double *out)
{
    char *end;
    double number = strtod(value, &end);
    if (end == value || *end || !isfinite(number))
        return wrong(key, where, value, "a number");
    DC_TRY(check_range(key, where, value, number));
    *out = number;
    return DC_OK;
}

static dc_status assign_bool(const dc_key *key, const char *where, const char *value, bool *out)
{
    static const char *const words[] = {"no", "yes", "false", "true", "off", "on", "0", "1"};
    for (int i = 0; i < 8; i++) {
        if (!strcmp(value, words[i])) {
            *out = i % 2;
            return DC_OK;
        }
    }
    return wrong(key, where, value, "yes or no");
}

static dc_status assign_choice(const dc_key *key, const char *where, const char *value, int *out)
{
    const char *name, *nearest = NULL;
    int length;
    char names[16][DC_VALUE_CHARS];
    for (int i = 0; i < 16 && (name = choice(key->choices, i, &length)); i++) {
        if ((size_t)length == strlen(value) && !memcmp(name, value, (size_t)length)) {
            *out = i;
            return DC_OK;
        }
        snprintf(names[i], sizeof names[i], "%.*s", length, name);
        dc_text_nearest(value, names[i], &nearest);
    }
    char range[DC_RANGE_CHARS];
    dc_config_range(key, range);
    return dc_fail(DC_ERR_INPUT, "%s[%s] %s = %.200s is not one of %s%s%s%s", where, key->section, key->name, value,
                   range, nearest ? "; did you mean '" : "", nearest ? nearest : "", nearest ? "'?" : "");
}

/* A text that would not survive being written to an INI file and read again is refused. */
static dc_status assign_text(const dc_key *key, const char *where, const char *value, char *out)
{
    size_t length = strlen(value);
    for (size_t i = 0; i < length; i++) {
        if ((unsigned char)value[i] < ' ' || value[i] == 0x7f)
            return wrong(key, where, "...", "a text without control characters");
        if (value[i] == ';' && (!i || value[i - 1] == ' '))
            return wrong(key, where, value, "a text without ' ;' (it begins a comment)");
    }
    if (key->minimum > 0 && !length)
        return dc_fail(DC_ERR_INPUT, "%s[%s] %s may not be empty", where, key->section, key->name);
    if (length >= key->size)
        return dc_fail(DC_ERR_INPUT, "%s[%s] %s = %.40s... is too long: at most %zu characters", where, key->section,
                       key->name, value, key->size - 1);
    memset(out, 0, key->size); /* equal settings are equal bytes */
    memcpy(out, value, length);
    return DC_OK;
}

static dc_status assign_count(const dc_key *key, const char *where, const char *value, int64_t *out)
{
    int64_t number = 0;
    if (dc_parse_count(value, &number))
        return dc_fail_within(DC_ERR_INPUT, "%s[%s] %s", where, key->section, key->name);
    DC_TRY(check_range(key, where, value, (double)number));
    *out = number;
    return DC_OK;
}

static dc_status assign_duration(const dc_key *key, const char *where, const char *value, double *out)
{
    double number = 0;
    if (dc_parse_duration(value, &number))
        return dc_fail_within(DC_ERR_INPUT, "%s[%s] %s", where, key->section, key->name);
    DC_TRY(check_range(key, where, value, number));
    *out = number;
    return DC_OK;
}

dc_status dc_config_assign(const dc_key *key, const char *where, const char *value, void *settings)
{
    void *field = (char *)settings + key->offset;
    switch (key->type) {
    case DC_KEY_INT:
        return assign_int(key, where, value, field);
    case DC_KEY_FLOAT:
        return assign_float(key, where, value, field);
    case DC_KEY_BOOL:
        return assign_bool(key, where, value, field);
    case DC_KEY_TEXT:
        return assign_text(key, where, value, field);
    case DC_KEY_CHOICE:
        return assign_choice(key, where, value, field);
    case DC_KEY_COUNT:
        return assign_count(key, where, value, field);
    case DC_KEY_DURATION_S:
        return assign_duration(key, where, value, field);
    }
    return dc_fail(DC_ERR_INTERNAL, "[%s] %s has an unknown type", key->section, key->name);
}

const char *dc_config_value(const dc_key *key, const void *settings, char number[DC_VALUE_CHARS])
{
    const void *field = (const char *)settings + key->offset;
    const char *name;
    int length;
    number[0] = 0;
    switch (key->type) {
    case DC_KEY_INT:
        snprintf(number, DC_VALUE_CHARS, "%d", *(const int *)field);
        break;
    case DC_KEY_FLOAT:
        shortest(number, *(const double *)field);
        break;
    case DC_KEY_BOOL:
        return *(const bool *)field ? "yes" : "no";
    case DC_KEY_TEXT:
        return field;
    case DC_KEY_CHOICE:
        if ((name = choice(key->choices, *(const int *)field, &length)))
            snprintf(number, DC_VALUE_CHARS, "%.*s", length, name);
        break;
    case DC_KEY_COUNT:
        snprintf(number, DC_VALUE_CHARS, "%lld", (long long)*(const int64_t *)field);
        break;
    case DC_KEY_DURATION_S:
        /* the parser of durations knows no exponents */
        snprintf(number, DC_VALUE_CHARS, "%.9f", *(const double *)field);
        number[strspn(number, "0123456789.")] = 0;
        length = (int)strlen(number);
        while (length > 1 && number[length - 1] == '0')
            number[--length] = 0;
        if (number[length - 1] == '.')
            number[length - 1] = 0;
        break;
    }
    return number;
}
