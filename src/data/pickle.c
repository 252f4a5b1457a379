#include "data/pickle_machine.h"

#include <stdlib.h>

dc_status dc_pickle_bad(const dc_pickle *p, const char *what)
{
    return dc_fail(DC_ERR_INPUT, "%s: no pickle of a data set: %s", p->where, what);
}

/* ---- values ---- */

dc_pickle_value *dc_pickle_new(dc_pickle *p, form what)
{
    dc_pickle_value *value = dc_alloc_zeroed(sizeof *value);
    if (!value)
        return NULL;
    value->form = what;
    value->next = p->all;
    p->all = value;
    return value;
}

dc_status dc_pickle_push(dc_pickle *p, dc_pickle_value *value)
{
    if (!value)
        return DC_ERR_MEMORY;
    if (p->depth == p->stack_capacity) {
        size_t capacity = p->stack_capacity ? 2 * p->stack_capacity : 64;
        dc_pickle_value **stack = dc_realloc(p->stack, capacity * sizeof(dc_pickle_value *));
        if (!stack)
            return DC_ERR_MEMORY;
        p->stack = stack;
        p->stack_capacity = capacity;
    }
    p->stack[p->depth++] = value;
    return DC_OK;
}

static dc_status push_number(dc_pickle *p, int64_t number)
{
    dc_pickle_value *value = dc_pickle_new(p, INTEGER);
    if (value)
        value->number = number;
    return dc_pickle_push(p, value);
}

dc_status dc_pickle_pop(dc_pickle *p, dc_pickle_value **value)
{
    if (!p->depth || p->stack[p->depth - 1]->form == MARK)
        return dc_pickle_bad(p, "it takes what is not there");
    *value = p->stack[--p->depth];
    return DC_OK;
}

static dc_status top(const dc_pickle *p, form wanted, dc_pickle_value **value)
{
    if (!p->depth || p->stack[p->depth - 1]->form != wanted)
        return dc_pickle_bad(p, "it adds to what is not there");
    *value = p->stack[p->depth - 1];
    return DC_OK;
}

static dc_status append(dc_pickle_value *list, const dc_pickle_value *item)
{
    if (list->n == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 4;
        const dc_pickle_value **items = dc_realloc(list->items, capacity * sizeof(dc_pickle_value *));
        if (!items)
            return DC_ERR_MEMORY;
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->n++] = item;
    return DC_OK;
}

/* Where the items after the last mark begin; the mark goes. */
static dc_status find_mark(const dc_pickle *p, size_t *begin)
{
    for (size_t i = p->depth; i-- > 0;)
        if (p->stack[i]->form == MARK) {
            *begin = i + 1;
            return DC_OK;
        }
    return dc_pickle_bad(p, "it takes what is not there");
}

/* All after the mark into the list (or dictionary) before it. */
static dc_status append_marked(dc_pickle *p, size_t form_)
{
    form into = (form)form_;
    size_t begin = 0;
    dc_pickle_value *list = NULL;
    DC_TRY(find_mark(p, &begin));
    size_t end = p->depth;
    p->depth = begin - 1;
    DC_TRY(top(p, into, &list));
    if (into == DICTIONARY && (end - begin) % 2)
        return dc_pickle_bad(p, "a key without a value");
    for (size_t i = begin; i < end; i++)
        DC_TRY(append(list, p->stack[i]));
    return DC_OK;
}

/* The last n into a new list. */
static dc_status make_tuple(dc_pickle *p, size_t n)
{
    dc_pickle_value *list = dc_pickle_new(p, LIST), *item = NULL;
    if (!list)
        return DC_ERR_MEMORY;
    if (n > p->depth)
        return dc_pickle_bad(p, "it takes what is not there");
    for (size_t i = p->depth - n; i < p->depth; i++)
        DC_TRY(append(list, p->stack[i]));
    for (size_t i = 0; i < n; i++)
        DC_TRY(dc_pickle_pop(p, &item));
    return dc_pickle_push(p, list);
}

static dc_status make_marked_tuple(dc_pickle *p, size_t unused)
{
    (void)unused;
    size_t begin = 0;
    DC_TRY(find_mark(p, &begin));
    size_t n = p->depth - begin;
    dc_pickle_value *list = NULL;
    DC_TRY(make_tuple(p, n));
    DC_TRY(dc_pickle_pop(p, &list));
    p->depth--; /* the mark */
    return dc_pickle_push(p, list);
}

/* ---- bytes ---- */

static dc_status take(dc_pickle *p, size_t n, const uint8_t **bytes)
{
    if (n > (size_t)(p->end - p->at))
        return dc_pickle_bad(p, "cut short");
    *bytes = p->at;
    p->at += n;
    return DC_OK;
}

/* A number of n bytes, little end first. */
static dc_status take_number(dc_pickle *p, size_t n, uint64_t *number)
{
    const uint8_t *bytes = NULL;
    DC_TRY(take(p, n, &bytes));
    *number = 0;
    for (size_t i = 0; i < n; i++)
        *number |= (uint64_t)bytes[i] << (8 * i);
    return DC_OK;
}

static dc_status push_text(dc_pickle *p, size_t length_bytes)
{
    uint64_t n = 0;
    const uint8_t *bytes = NULL;
    DC_TRY(take_number(p, length_bytes, &n));
    DC_TRY(take(p, n, &bytes));
    dc_pickle_value *value = dc_pickle_new(p, TEXT);
    if (value) {
        value->text = (const char *)bytes;
        value->n = n;
    }
    return dc_pickle_push(p, value);
}

static dc_status take_line(dc_pickle *p, const char **text, size_t *n)
{
    const uint8_t *end = memchr(p->at, '\n', (size_t)(p->end - p->at));
    if (!end)
        return dc_pickle_bad(p, "cut short");
    *text = (const char *)p->at;
    *n = (size_t)(end - p->at);
    p->at = end + 1;
    return DC_OK;
}

/* LONG1: of n bytes, with a sign. */
static dc_status push_long(dc_pickle *p, size_t unused)
{
    (void)unused;
    uint64_t n = 0, number = 0;
    DC_TRY(take_number(p, 1, &n));
    if (n > 8)
        return dc_pickle_bad(p, "a number of more than 8 bytes");
    DC_TRY(take_number(p, n, &number));
    if (n && n < 8 && number >> (8 * n - 1)) /* negative */
        number |= ~(uint64_t)0 << (8 * n);
    return push_number(p, (int64_t)number);
}

/* ---- names ---- */

static dc_status push_global(dc_pickle *p, size_t unused)
{
    (void)unused;
    const char *module = NULL, *text = NULL;
    size_t n_module = 0, n = 0;
    DC_TRY(take_line(p, &module, &n_module));
    DC_TRY(take_line(p, &text, &n));
    return dc_pickle_push_name(p, module, n_module, text, n);
}

static dc_status push_stack_global(dc_pickle *p, size_t unused)
{
    (void)unused;
    dc_pickle_value *module = NULL, *text = NULL;
    DC_TRY(dc_pickle_pop(p, &text));
    DC_TRY(dc_pickle_pop(p, &module));
    if (module->form != TEXT || text->form != TEXT)
        return dc_pickle_bad(p, "a name that is no text");
    return dc_pickle_push_name(p, module->text, module->n, text->text, text->n);
}

/* ---- memory of what was made ---- */

static dc_status memorise(dc_pickle *p, uint64_t index)
{
    if (!p->depth)
        return dc_pickle_bad(p, "it takes what is not there");
    if (index > 2 * (uint64_t)p->n_memo + 1024) /* Python counts from 0 */
        return dc_pickle_bad(p, "numbers of its parts that are out of order");
    if (index >= p->memo_capacity) {
        size_t capacity = 2 * (size_t)index + 64;
        dc_pickle_value **memo = dc_realloc(p->memo, capacity * sizeof(dc_pickle_value *));
        if (!memo)
            return DC_ERR_MEMORY;
        memset(memo + p->memo_capacity, 0, (capacity - p->memo_capacity) * sizeof(dc_pickle_value *));
        p->memo = memo;
        p->memo_capacity = capacity;
    }
    p->memo[index] = p->stack[p->depth - 1];
    p->n_memo = index >= p->n_memo ? (size_t)index + 1 : p->n_memo;
    return DC_OK;
}

static dc_status recall(dc_pickle *p, size_t length_bytes)
{
    uint64_t index = 0;
    DC_TRY(take_number(p, length_bytes, &index));
    if (index >= p->n_memo || !p->memo[index])
        return dc_pickle_bad(p, "it takes what is not there");
    return dc_pickle_push(p, p->memo[index]);
}

static dc_status memorise_numbered(dc_pickle *p, size_t length_bytes)
{
    uint64_t index = 0;
    DC_TRY(take_number(p, length_bytes, &index));
    return memorise(p, index);
}

/* ---- the program ---- */

static dc_status append_one(dc_pickle *p, size_t unused)
{
    (void)unused;
    dc_pickle_value *item = NULL, *list = NULL;
    DC_TRY(dc_pickle_pop(p, &item));
    DC_TRY(top(p, LIST, &list));
    return append(list, item);
}

static dc_status set_one(dc_pickle *p, size_t unused)
{
    (void)unused;
    dc_pickle_value *item = NULL, *key = NULL, *dictionary = NULL;
    DC_TRY(dc_pickle_pop(p, &item));
    DC_TRY(dc_pickle_pop(p, &key));
    DC_TRY(top(p, DICTIONARY, &dictionary));
    DC_TRY(append(dictionary, key));
    return append(dictionary, item);
}

static dc_status push_fixed(dc_pickle *p, size_t n_bytes)
{
    uint64_t number = 0;
    DC_TRY(take_number(p, n_bytes, &number));
    return push_number(p, n_bytes == 4 ? (int32_t)(uint32_t)number : (int64_t)number);
}

static dc_status skip(dc_pickle *p, size_t n)
{
    const uint8_t *bytes = NULL;
    return take(p, n, &bytes);
}

static dc_status push_real(dc_pickle *p, size_t unused)
{
    (void)unused;
    DC_TRY(skip(p, 8));
    return dc_pickle_push(p, dc_pickle_new(p, REAL));
}

static dc_status discard(dc_pickle *p, size_t unused)
{
    (void)unused;
    dc_pickle_value *value = NULL;
    return dc_pickle_pop(p, &value);
}

static dc_status push_number_of(dc_pickle *p, size_t number)
{
    return push_number(p, (int64_t)number);
}

static dc_status push_new(dc_pickle *p, size_t what)
{
    return dc_pickle_push(p, dc_pickle_new(p, (form)what));
}

static dc_status memorise_next(dc_pickle *p, size_t unused)
{
    (void)unused;
    return memorise(p, p->n_memo);
}

/* By their codes; names are those of Python's pickletools. */
typedef struct instruction {
    dc_status (*run)(dc_pickle *p, size_t argument);
    size_t argument;
} instruction;

static const instruction instructions[256] = {
    [0x80] = {skip, 1},                  /* PROTO */
    [0x95] = {skip, 8},                  /* FRAME */
    ['('] = {push_new, MARK},            /* MARK */
    ['N'] = {push_new, NONE},            /* NONE */
    [0x88] = {push_number_of, 1},        /* NEWTRUE */
    [0x89] = {push_number_of, 0},        /* NEWFALSE */
    ['K'] = {push_fixed, 1},             /* BININT1 */
    ['M'] = {push_fixed, 2},             /* BININT2 */
    ['J'] = {push_fixed, 4},             /* BININT */
    [0x8a] = {push_long, 0},             /* LONG1 */
    ['G'] = {push_real, 0},              /* BINFLOAT */
    ['U'] = {push_text, 1},              /* SHORT_BINSTRING */
    ['C'] = {push_text, 1},              /* SHORT_BINBYTES */
    [0x8c] = {push_text, 1},             /* SHORT_BINUNICODE */
    ['T'] = {push_text, 4},              /* BINSTRING */
    ['B'] = {push_text, 4},              /* BINBYTES */
    ['X'] = {push_text, 4},              /* BINUNICODE */
    [0x8e] = {push_text, 8},             /* BINBYTES8 */
    [0x8d] = {push_text, 8},             /* BINUNICODE8 */
    [0x96] = {push_text, 8},             /* BYTEARRAY8 */
    [']'] = {push_new, LIST},            /* EMPTY_LIST */
    [')'] = {push_new, LIST},            /* EMPTY_TUPLE */
    ['}'] = {push_new, DICTIONARY},      /* EMPTY_DICT */
    ['a'] = {append_one, 0},             /* APPEND */
    ['e'] = {append_marked, LIST},       /* APPENDS */
    ['s'] = {set_one, 0},                /* SETITEM */
    ['u'] = {append_marked, DICTIONARY}, /* SETITEMS */
    [0x85] = {make_tuple, 1},            /* TUPLE1 */
    [0x86] = {make_tuple, 2},            /* TUPLE2 */
    [0x87] = {make_tuple, 3},            /* TUPLE3 */
    ['t'] = {make_marked_tuple, 0},      /* TUPLE */
    ['c'] = {push_global, 0},            /* GLOBAL */
    [0x93] = {push_stack_global, 0},     /* STACK_GLOBAL */
    ['R'] = {dc_pickle_reduce, 0},       /* REDUCE */
    ['b'] = {dc_pickle_build, 0},        /* BUILD */
    ['0'] = {discard, 0},                /* POP */
    ['q'] = {memorise_numbered, 1},      /* BINPUT */
    ['r'] = {memorise_numbered, 4},      /* LONG_BINPUT */
    [0x94] = {memorise_next, 0},         /* MEMOIZE */
    ['h'] = {recall, 1},                 /* BINGET */
    ['j'] = {recall, 4},                 /* LONG_BINGET */
};

static dc_status run(dc_pickle *p)
{
    if (p->end - p->at < 2 || p->at[0] != 0x80)
        return dc_pickle_bad(p, "it does not begin as one of protocol 2 or later");
    for (;;) {
        if (p->at == p->end)
            return dc_pickle_bad(p, "cut short");
        uint8_t code = *p->at++;
        if (code == '.')
            return dc_pickle_pop(p, &p->root);
        const instruction *i = &instructions[code];
        if (!i->run)
            return dc_fail(DC_ERR_INPUT, "%s: no pickle of a data set: the instruction 0x%02x is not known", p->where,
                           code);
        DC_TRY(i->run(p, i->argument));
    }
}

dc_status dc_pickle_parse(const uint8_t *bytes, size_t n_bytes, const char *where, dc_pickle **out)
{
    *out = NULL;
    dc_pickle *p = dc_alloc_zeroed(sizeof *p);
    if (!p)
        return DC_ERR_MEMORY;
    p->at = bytes;
    p->end = bytes + n_bytes;
    p->where = where;
    dc_status status = run(p);
    if (status != DC_OK) {
        dc_pickle_destroy(p);
        return status;
    }
    *out = p;
    return DC_OK;
}

void dc_pickle_destroy(dc_pickle *p)
{
    if (!p)
        return;
    for (dc_pickle_value *value = p->all, *next; value; value = next) {
        next = value->next;
        free(value->items);
        free(value->owned);
        free(value);
    }
    free(p->stack);
    free(p->memo);
    free(p);
}

/* ---- what was read ---- */

const dc_pickle_value *dc_pickle_root(const dc_pickle *pickle)
{
    return pickle->root;
}

const dc_pickle_value *dc_pickle_get(const dc_pickle_value *dictionary, const char *key)
{
    for (size_t i = 0; dictionary->form == DICTIONARY && i + 1 < dictionary->n; i += 2) {
        const dc_pickle_value *k = dictionary->items[i];
        if (k->form == TEXT && dc_pickle_is(k->text, k->n, key))
            return dictionary->items[i + 1];
    }
    return NULL;
}

int64_t dc_pickle_length(const dc_pickle_value *list)
{
    return list->form == LIST ? (int64_t)list->n : -1;
}

const dc_pickle_value *dc_pickle_item(const dc_pickle_value *list, int64_t i)
{
    return list->items[i];
}

dc_status dc_pickle_integer(const dc_pickle_value *value, int64_t *number)
{
    if (value->form != INTEGER)
        return dc_fail(DC_ERR_INPUT, "no whole number");
    *number = value->number;
    return DC_OK;
}

dc_status dc_pickle_text(const dc_pickle_value *value, const char **text, size_t *n)
{
    if (value->form != TEXT)
        return dc_fail(DC_ERR_INPUT, "no text");
    *text = value->text;
    *n = value->n;
    return DC_OK;
}

dc_status dc_pickle_matrix(const dc_pickle_value *value, int64_t *rows, int64_t *columns, const uint8_t **bytes)
{
    if (value->form != ARRAY || !value->type || value->type->kind != 'u' || value->type->number != 1 || value->fortran)
        return dc_fail(DC_ERR_INPUT, "no array of bytes in C's order");
    *rows = value->dims[0];
    *columns = value->dims[1];
    *bytes = (const uint8_t *)value->text;
    return DC_OK;
}
