/* Private to pickle*.c: the machine that runs a pickle. */
#ifndef DC_DATA_PICKLE_MACHINE_H
#define DC_DATA_PICKLE_MACHINE_H

#include "data/pickle.h"

#include <stdbool.h>
#include <string.h>

typedef enum form {
    NONE,
    INTEGER,
    REAL,
    TEXT,
    LIST,       /* also tuples */
    DICTIONARY, /* items: key, value, key, value */
    NAME,       /* something of a module */
    TYPE,       /* a numpy.dtype */
    ARRAY,
    MARK
} form;

struct dc_pickle_value {
    form form;
    int64_t number; /* INTEGER; NAME: which; TYPE: bytes of an item */
    const char *text;
    size_t n; /* of the text; items in a list or dictionary */
    const dc_pickle_value **items;
    size_t capacity;
    int64_t dims[2]; /* ARRAY */
    bool fortran;
    char kind;                   /* TYPE: 'u', 'i', 'f', 'b' */
    const dc_pickle_value *type; /* ARRAY */
    dc_pickle_value *next;       /* in the list of all */
    char *owned;                 /* text that is not in the bytes */
};

struct dc_pickle {
    const uint8_t *at, *end;
    const char *where;
    dc_pickle_value *all;
    dc_pickle_value **stack, **memo;
    size_t depth, stack_capacity, memo_capacity, n_memo;
    dc_pickle_value *root;
};

/* Fails with "<where>: no pickle of a data set: <what>". */
dc_status dc_pickle_bad(const dc_pickle *p, const char *what);

/* A new value, freed with the pickle; NULL for want of memory, which dc_pickle_push passes on. */
dc_pickle_value *dc_pickle_new(dc_pickle *p, form what);
dc_status dc_pickle_push(dc_pickle *p, dc_pickle_value *value);
dc_status dc_pickle_pop(dc_pickle *p, dc_pickle_value **value);

static inline bool dc_pickle_is(const char *text, size_t n, const char *wanted)
{
    return n == strlen(wanted) && memcmp(text, wanted, n) == 0;
}

/* ---- what a pickle may call (pickle_calls.c) ---- */

/* Pushes something of a module by its name. */
dc_status dc_pickle_push_name(dc_pickle *p, const char *module, size_t n_module, const char *text, size_t n);

/* REDUCE: function(arguments). BUILD: gives an object its state. */
dc_status dc_pickle_reduce(dc_pickle *p, size_t unused);
dc_status dc_pickle_build(dc_pickle *p, size_t unused);

#endif
