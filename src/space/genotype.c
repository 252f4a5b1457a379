#include "space/genotype.h"

#include "base/rng.h"

#include <ctype.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const op_names[DC_DARTS_N_OPS] = {
    "none",         "max_pool_3x3", "avg_pool_3x3", "skip_connect",
    "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5",
};

const char *dc_darts_op_name(int op)
{
    return op >= 0 && op < DC_DARTS_N_OPS ? op_names[op] : NULL;
}

int dc_darts_op_find(const char *name)
{
    for (int op = 0; op < DC_DARTS_N_OPS; op++)
        if (strcmp(op_names[op], name) == 0)
            return op;
    return -1;
}

/* ---- reading ---- */

enum { WORD_CHARS = 32, FIELDS = 2 * DC_CELL_TYPES };

/* Field 2t is the choices of cell type t, field 2t+1 its concat. */
static const char *const field_names[FIELDS] = {"normal", "normal_concat", "reduce", "reduce_concat"};

typedef struct reader {
    const char *text, *at;
} reader;

/* "genotype, line 1, column 12 ('sep_co...'): <message>" */
__attribute__((format(printf, 2, 3))) static dc_status wrong(const reader *r, const char *format, ...)
{
    char message[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    int line = 1, column = 1;
    for (const char *p = r->text; p < r->at; p++) {
        column++;
        if (*p == '\n') {
            line++;
            column = 1;
        }
    }
    char found[17];
    int n = 0;
    while (n < 16 && isprint((unsigned char)r->at[n])) {
        found[n] = r->at[n];
        n++;
    }
    found[n] = '\0';
    if (!*r->at)
        return dc_fail(DC_ERR_INPUT, "genotype, line %d, column %d, at the end of the text: %s", line, column, message);
    return dc_fail(DC_ERR_INPUT, "genotype, line %d, column %d, at \"%s\": %s", line, column, found, message);
}

static void skip_space(reader *r)
{
    for (;;) {
        while (isspace((unsigned char)*r->at))
            r->at++;
        if (*r->at != '#')
            return;
        while (*r->at && *r->at != '\n')
            r->at++;
    }
}

/* Takes the character if it is next. */
static bool take(reader *r, char c)
{
    skip_space(r);
    if (*r->at != c)
        return false;
    r->at++;
    return true;
}

static dc_status expect(reader *r, char c)
{
    return take(r, c) ? DC_OK : wrong(r, "expected '%c'", c);
}

/* Opens a Python list or tuple: *close is what ends it. */
static dc_status expect_opening(reader *r, const char *what, char *close)
{
    *close = take(r, '[') ? ']' : take(r, '(') ? ')' : '\0';
    return *close ? DC_OK : wrong(r, "expected %s", what);
}

/* After an element: a comma, or the end, or both; *done tells. */
static dc_status next_element(reader *r, char close, bool *done)
{
    bool comma = take(r, ',');
    *done = take(r, close);
    return comma || *done ? DC_OK : wrong(r, "expected ',' or '%c'", close);
}

/* An identifier; empty when there is none. Longer ones are cut, which no valid one is. */
static void take_word(reader *r, char word[WORD_CHARS])
{
    skip_space(r);
    int n = 0;
    if (isalpha((unsigned char)*r->at) || *r->at == '_')
        for (; isalnum((unsigned char)*r->at) || *r->at == '_'; r->at++)
            if (n < WORD_CHARS - 1)
                word[n++] = *r->at;
    word[n] = '\0';
}

static dc_status read_int(reader *r, int low, int high, const char *what, int *value)
{
    skip_space(r);
    long v = 0;
    const char *start = r->at;
    for (; isdigit((unsigned char)*r->at); r->at++)
        v = v > INT_MAX / 16 ? v : 10 * v + (*r->at - '0');
    if (r->at == start || v < low || v > high) {
        r->at = start;
        return wrong(r, "expected %s, %d to %d", what, low, high);
    }
    *value = (int)v;
    return DC_OK;
}

static dc_status read_op(reader *r, int *op)
{
    skip_space(r);
    const char *start = r->at;
    char quote = *r->at, word[WORD_CHARS];
    if (quote != '\'' && quote != '"')
        return wrong(r, "expected an operation in quotes");
    r->at++;
    take_word(r, word);
    *op = *r->at == quote ? dc_darts_op_find(word) : -1;
    if (*op < 0) {
        r->at = start;
        return wrong(r, "expected an operation: none, max_pool_3x3, avg_pool_3x3, skip_connect, sep_conv_3x3, "
                        "sep_conv_5x5, dil_conv_3x3 or dil_conv_5x5");
    }
    r->at++;
    return DC_OK;
}

/* ('sep_conv_3x3', 0) */
static dc_status read_choice(reader *r, int node, dc_choice *choice)
{
    char close;
    bool done;
    DC_TRY(expect_opening(r, "('operation', source)", &close));
    DC_TRY(read_op(r, &choice->op));
    DC_TRY(expect(r, ','));
    char what[48];
    snprintf(what, sizeof what, "a source of node %d", node);
    DC_TRY(read_int(r, 0, node + 1, what, &choice->source));
    DC_TRY(next_element(r, close, &done));
    return done ? DC_OK : wrong(r, "expected '%c'", close);
}

static dc_status read_cell(reader *r, dc_choice cell[DC_CELL_KEPT])
{
    char close;
    DC_TRY(expect_opening(r, "a list of 8 operations", &close));
    bool done = false;
    for (int i = 0; i < DC_CELL_KEPT; i++) {
        if (done)
            return wrong(r, "expected 8 operations, two for each of 4 nodes, not %d", i);
        DC_TRY(read_choice(r, i / 2, &cell[i]));
        DC_TRY(next_element(r, close, &done));
    }
    return done ? DC_OK : wrong(r, "expected '%c' after 8 operations, two for each of 4 nodes", close);
}

/* The states of a concat. A reduction cell's inputs keep the resolution that its nodes halve. */
static dc_status read_concat(reader *r, dc_cell_type type, unsigned *mask)
{
    int low = type == DC_CELL_REDUCE ? DC_CELL_INPUTS : 0, first, last;
    char close, word[WORD_CHARS];
    skip_space(r);
    const char *start = r->at;
    *mask = 0;
    take_word(r, word);
    if (strcmp(word, "range") == 0) {
        DC_TRY(expect(r, '('));
        DC_TRY(read_int(r, low, DC_CELL_STATES - 1, "a state", &first));
        DC_TRY(expect(r, ','));
        DC_TRY(read_int(r, first + 1, DC_CELL_STATES, "an end of the range", &last));
        for (int s = first; s < last; s++)
            *mask |= 1u << s;
        return expect(r, ')');
    }
    r->at = start;
    DC_TRY(expect_opening(r, "range(2, 6) or a list of states", &close));
    for (bool done = false; !done;) {
        int state;
        DC_TRY(read_int(r, low, DC_CELL_STATES - 1, "a state", &state));
        if (*mask >> state & 1)
            return wrong(r, "expected each state once, %d is listed twice", state);
        *mask |= 1u << state;
        DC_TRY(next_element(r, close, &done));
    }
    return DC_OK;
}

static dc_status read_field(reader *r, bool seen[FIELDS], dc_genotype *genotype)
{
    char word[WORD_CHARS];
    skip_space(r);
    const char *start = r->at;
    take_word(r, word);
    int field = 0;
    while (field < FIELDS && strcmp(field_names[field], word) != 0)
        field++;
    if (field == FIELDS || seen[field]) {
        r->at = start;
        return wrong(r, "expected normal=, normal_concat=, reduce= and reduce_concat=, each once");
    }
    seen[field] = true;
    DC_TRY(expect(r, '='));
    dc_cell_type type = (dc_cell_type)(field / 2);
    return field % 2 ? read_concat(r, type, &genotype->concat[type]) : read_cell(r, genotype->cell[type]);
}

/* [NAME =] Genotype( */
static dc_status read_head(reader *r)
{
    char word[WORD_CHARS];
    skip_space(r);
    const char *start = r->at;
    take_word(r, word);
    if (*word && take(r, '=')) {
        skip_space(r);
        start = r->at;
        take_word(r, word);
    }
    if (strcmp(word, "Genotype") == 0)
        return expect(r, '(');
    r->at = start;
    return wrong(r, "expected Genotype(normal=[...], normal_concat=..., reduce=[...], reduce_concat=...)");
}

dc_status dc_genotype_parse(const char *text, dc_genotype *genotype)
{
    reader r = {text, text};
    dc_genotype read = {0};
    bool seen[FIELDS] = {false}, done = false;
    DC_TRY(read_head(&r));
    while (!done) {
        DC_TRY(read_field(&r, seen, &read));
        DC_TRY(next_element(&r, ')', &done));
    }
    for (int field = 0; field < FIELDS; field++)
        if (!seen[field])
            return wrong(&r, "expected also %s=...", field_names[field]);
    skip_space(&r);
    if (*r.at)
        return wrong(&r, "expected nothing after the genotype");
    *genotype = read;
    return DC_OK;
}

/* ---- writing, comparing ---- */

void dc_genotype_format(const dc_genotype *genotype, char text[DC_GENOTYPE_CHARS])
{
    size_t n = 0;
#define PUT(...) (n += (size_t)snprintf(text + n, DC_GENOTYPE_CHARS - n, __VA_ARGS__))
    PUT("Genotype(");
    for (int type = 0; type < DC_CELL_TYPES; type++) {
        PUT("%s%s=[", type ? ", " : "", field_names[2 * type]);
        for (int i = 0; i < DC_CELL_KEPT; i++)
            PUT("%s('%s', %d)", i ? ", " : "", op_names[genotype->cell[type][i].op], genotype->cell[type][i].source);
        PUT("], %s=[", field_names[2 * type + 1]);
        const char *comma = "";
        for (int s = 0; s < DC_CELL_STATES; s++)
            if (genotype->concat[type] >> s & 1) {
                PUT("%s%d", comma, s);
                comma = ", ";
            }
        PUT("]");
    }
    PUT(")");
#undef PUT
}

/* The order of a node's two choices does not matter: the earlier source (then operation) first. */
static dc_genotype canonical(const dc_genotype *genotype)
{
    dc_genotype sorted = *genotype;
    for (int type = 0; type < DC_CELL_TYPES; type++)
        for (int i = 0; i < DC_CELL_KEPT; i += 2) {
            dc_choice *pair = &sorted.cell[type][i], first = pair[0];
            if (pair[1].source < first.source || (pair[1].source == first.source && pair[1].op < first.op)) {
                pair[0] = pair[1];
                pair[1] = first;
            }
        }
    return sorted;
}

bool dc_genotype_equal(const dc_genotype *a, const dc_genotype *b)
{
    dc_genotype x = canonical(a), y = canonical(b);
    for (int type = 0; type < DC_CELL_TYPES; type++) {
        if (x.concat[type] != y.concat[type])
            return false;
        for (int i = 0; i < DC_CELL_KEPT; i++)
            if (x.cell[type][i].op != y.cell[type][i].op || x.cell[type][i].source != y.cell[type][i].source)
                return false;
    }
    return true;
}

uint64_t dc_genotype_hash(const dc_genotype *genotype)
{
    char text[DC_GENOTYPE_CHARS];
    dc_genotype sorted = canonical(genotype);
    dc_genotype_format(&sorted, text);
    return dc_rng_stream(text);
}
