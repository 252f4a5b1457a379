#include "base/config.h"

#include "base/config_values.h"
#include "base/files.h"

#include <ctype.h>
#include <ini.h>
#include <stdlib.h>
#include <string.h>

/* inih reads lines of less than 200 characters through a buffer, does not say which line it is at, and takes an
 * indented key for the continuation of the one above. So we hand it the lines ourselves: counted, without margins and
 * comments, and a long value in pieces, which inih joins to the key above when they begin with a blank. */
enum { LONGEST_LINE = 8192 };

typedef struct reading {
    const dc_schema *schema;
    void *settings;
    const char *name; /* of the file */
    const char *next; /* the text not yet handed on */
    int line;
    char *rest;  /* what is left of a long line, inside `copy` */
    char *copy;  /* the present line, cut to what matters */
    char *value; /* the pieces of the present value */
    const dc_key *key;
    bool *seen; /* per key */
    dc_status status;
} reading;

static dc_status too_long(const reading *r)
{
    return dc_fail(DC_ERR_INPUT, "%.200s:%d: the line is too long (at most %d characters)", r->name, r->line,
                   LONGEST_LINE);
}

static void where(const reading *r, char out[256])
{
    snprintf(out, 256, "%.200s:%d: ", r->name, r->line);
}

/* Stores the value that has been gathered for the key at hand. */
static dc_status finish_key(reading *r)
{
    const dc_key *key = r->key;
    r->key = NULL;
    if (!key)
        return DC_OK;
    char place[256];
    where(r, place);
    return dc_config_assign(key, place, r->value, r->settings);
}

static dc_status begin_key(reading *r, const char *section, const char *name)
{
    char place[256];
    where(r, place);
    if (!*section)
        return dc_fail(DC_ERR_INPUT, "%skey '%s' stands before the first [section]", place, name);
    const dc_key *key = dc_config_find(r->schema, section, name);
    if (!key)
        return dc_config_unknown(r->schema, place, section, name);
    if (r->seen[key - r->schema->keys])
        return dc_fail(DC_ERR_INPUT, "%s[%s] %s is given twice", place, section, name);
    r->seen[key - r->schema->keys] = true;
    r->key = key;
    r->value[0] = 0;
    return DC_OK;
}

/* inih's handler: a key with the first piece of its value, or another piece. */
static int handle(void *user, const char *section, const char *name, const char *piece)
{
    reading *r = user;
    if (!r->status && !r->key)
        r->status = begin_key(r, section, name);
    if (!r->status)
        strcat(r->value, piece);
    return r->status == DC_OK;
}

static bool is_blank(char c)
{
    return isspace((unsigned char)c);
}

/* Takes the next line into `copy`, without margins and comment; false at the end of the text. */
static bool next_line(reading *r)
{
    if (!*r->next)
        return false;
    size_t length = strcspn(r->next, "\n");
    const char *line = r->next;
    r->next += length + (line[length] == '\n');
    r->line++;
    if (r->line == 1 && length >= 3 && !memcmp(line, "\xEF\xBB\xBF", 3)) {
        line += 3;
        length -= 3;
    }
    while (length && is_blank(*line)) {
        line++;
        length--;
    }
    size_t end = 0;
    while (end < length && !(line[end] == ';' && (!end || is_blank(line[end - 1]))) && !(line[0] == '#'))
        end++;
    while (end && is_blank(line[end - 1]))
        end--;
    memcpy(r->copy, line, end);
    r->copy[end] = 0;
    return true;
}

/* A line must be empty, a [section] or a key with '='. */
static dc_status check_line(const reading *r)
{
    const char *line = r->copy;
    size_t length = strlen(line);
    char place[256];
    where(r, place);
    if (!length)
        return DC_OK;
    if (length > LONGEST_LINE)
        return too_long(r);
    if (line[0] == '[') {
        if (line[length - 1] != ']' || length < 3 || length > 48 || strcspn(line, "]") != length - 1)
            return dc_fail(DC_ERR_INPUT, "%s'%.60s' is no [section]", place, line);
        return DC_OK;
    }
    size_t name = strcspn(line, "=:");
    if (!name || line[name] != '=')
        return dc_fail(DC_ERR_INPUT, "%s'%.60s' is neither [section] nor key = value", place, line);
    while (name && is_blank(line[name - 1]))
        name--;
    if (!name || name > 48)
        return dc_fail(DC_ERR_INPUT, "%s'%.60s' begins with no name of a key", place, line);
    return DC_OK;
}

/* The length of the next piece: at most `room`, and cut where inih would neither strip a blank nor see a comment. */
static size_t piece_length(const char *text, size_t room)
{
    size_t length = strlen(text);
    if (length <= room)
        return length;
    for (length = room; length > 1; length--) {
        char before = text[length - 1], after = text[length];
        if (!is_blank(before) && !is_blank(after) && before != '=' && after != ';' && after != '#')
            return length;
    }
    return 0;
}

/* inih's reader, like fgets: NULL at the end and after the first error. */
static char *read_line(char *out, int size, void *user)
{
    reading *r = user;
    bool more = r->rest && *r->rest;
    if (!r->status && !more) {
        r->status = finish_key(r);
        if (!r->status && !next_line(r))
            return NULL;
        if (!r->status)
            r->status = check_line(r);
        r->rest = r->copy;
    }
    size_t length = r->status ? 0 : piece_length(r->rest, (size_t)size - 4);
    if (!r->status && !length && *r->rest)
        r->status = too_long(r);
    if (r->status)
        return NULL;
    snprintf(out, (size_t)size, "%s%.*s\n", more ? " " : "", (int)length, r->rest);
    r->rest += length;
    return out;
}

static dc_status parse(reading *r)
{
    ini_parse_stream(read_line, r, handle, r);
    return r->status;
}

dc_status dc_config_parse_text(const dc_schema *schema, const char *name, const char *text, void *settings)
{
    size_t size = strlen(text) + 1;
    reading r = {.schema = schema, .settings = settings, .name = name, .next = text};
    r.copy = dc_alloc(size);
    r.value = dc_alloc(size);
    r.seen = dc_alloc_zeroed((size_t)schema->n * sizeof *r.seen);
    dc_status status = r.copy && r.value && r.seen ? parse(&r) : DC_ERR_MEMORY;
    free(r.copy);
    free(r.value);
    free(r.seen);
    return status;
}

dc_status dc_config_load(const dc_schema *schema, const char *path, void *settings)
{
    char *text;
    size_t size;
    DC_TRY(dc_file_read(path, &text, &size));
    dc_status status = strlen(text) == size ? dc_config_parse_text(schema, path, text, settings)
                                            : dc_fail(DC_ERR_INPUT, "%s is no text: it holds a 0 byte", path);
    free(text);
    return status;
}
