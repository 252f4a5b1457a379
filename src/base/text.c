#include "base/text.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void dc_text_append(dc_text *text, const char *format, ...)
{
    if (text->error)
        return;
    va_list arguments;
    va_start(arguments, format);
    int added = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (added < 0) {
        text->error = dc_fail(DC_ERR_INTERNAL, "a text could not be formatted");
        return;
    }
    size_t needed = text->length + (size_t)added + 1;
    if (needed > text->capacity) {
        size_t capacity = needed < 128 ? 256 : 2 * needed;
        char *s = dc_realloc(text->s, capacity);
        if (!s) {
            text->error = DC_ERR_MEMORY;
            return;
        }
        text->s = s;
        text->capacity = capacity;
    }
    va_start(arguments, format);
    vsnprintf(text->s + text->length, text->capacity - text->length, format, arguments);
    va_end(arguments);
    text->length += (size_t)added;
}

void dc_text_clear(dc_text *text)
{
    free(text->s);
    *text = (dc_text){0};
}

dc_status dc_text_take(dc_text *text, char **s)
{
    dc_text_append(text, "%s", ""); /* an empty text is a text */
    dc_status status = text->error;
    if (status) {
        dc_text_clear(text);
        return status;
    }
    *s = text->s;
    *text = (dc_text){0};
    return DC_OK;
}

/* Bytes of the character that s begins with; 0: none, or a control character. */
static size_t character_bytes(const unsigned char *s)
{
    static const struct {
        unsigned char first, last, low, high; /* of the first byte and of the second one */
        size_t n;
    } forms[] = {{0x20, 0x7e, 0, 0, 1},       {0xc2, 0xc2, 0xa0, 0xbf, 2}, {0xc3, 0xdf, 0x80, 0xbf, 2},
                 {0xe0, 0xe0, 0xa0, 0xbf, 3}, {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3},
                 {0xee, 0xef, 0x80, 0xbf, 3}, {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4},
                 {0xf4, 0xf4, 0x80, 0x8f, 4}};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (*s < forms[i].first || *s > forms[i].last)
            continue;
        if (forms[i].n > 1 && (s[1] < forms[i].low || s[1] > forms[i].high))
            return 0;
        for (size_t k = 2; k < forms[i].n; k++)
            if ((s[k] & 0xc0) != 0x80)
                return 0;
        return forms[i].n;
    }
    return 0;
}

bool dc_text_is_plain(const char *s)
{
    for (size_t n = 1; *s && n; s += n)
        n = character_bytes((const unsigned char *)s);
    return !*s;
}

enum { LONGEST = 63 };

static int least(int a, int b)
{
    return a < b ? a : b;
}

/* Optimal string alignment (Damerau-Levenshtein without overlapping swaps). */
int dc_text_distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    if (n > LONGEST || m > LONGEST)
        return LONGEST + 1;
    unsigned char d[LONGEST + 1][LONGEST + 1];
    for (size_t i = 0; i <= n; i++)
        d[i][0] = (unsigned char)i;
    for (size_t j = 0; j <= m; j++)
        d[0][j] = (unsigned char)j;
    for (size_t i = 1; i <= n; i++) {
        for (size_t j = 1; j <= m; j++) {
            int x = tolower((unsigned char)a[i - 1]), y = tolower((unsigned char)b[j - 1]);
            int best = least(d[i - 1][j - 1] + (x != y), least(d[i - 1][j], d[i][j - 1]) + 1);
            if (i > 1 && j > 1 && x == tolower((unsigned char)b[j - 2]) && y == tolower((unsigned char)a[i - 2]))
                best = least(best, d[i - 2][j - 2] + 1);
            d[i][j] = (unsigned char)best;
        }
    }
    return d[n][m];
}

void dc_text_nearest(const char *name, const char *candidate, const char **best)
{
    size_t length = strlen(name);
    int limit = least(3, 1 + (int)(length / 4)), distance = dc_text_distance(name, candidate);
    if (distance > limit || (size_t)distance >= length)
        return;
    if (!*best || distance < dc_text_distance(name, *best))
        *best = candidate;
}
