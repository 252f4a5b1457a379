#include "data/pickle_machine.h"

#include <stdlib.h>

typedef enum name { RECONSTRUCT, FROMBUFFER, NDARRAY, DTYPE, ENCODE } name;

dc_status dc_pickle_push_name(dc_pickle *p, const char *module, size_t n_module, const char *text, size_t n)
{
    bool arrays = dc_pickle_is(module, n_module, "numpy.core.multiarray") ||
                  dc_pickle_is(module, n_module, "numpy._core.multiarray");
    bool numeric =
        dc_pickle_is(module, n_module, "numpy.core.numeric") || dc_pickle_is(module, n_module, "numpy._core.numeric");
    dc_pickle_value *value = dc_pickle_new(p, NAME);
    if (!value)
        return DC_ERR_MEMORY;
    if (arrays && dc_pickle_is(text, n, "_reconstruct"))
        value->number = RECONSTRUCT;
    else if (numeric && dc_pickle_is(text, n, "_frombuffer"))
        value->number = FROMBUFFER;
    else if (dc_pickle_is(module, n_module, "numpy") && dc_pickle_is(text, n, "ndarray"))
        value->number = NDARRAY;
    else if (dc_pickle_is(module, n_module, "numpy") && dc_pickle_is(text, n, "dtype"))
        value->number = DTYPE;
    else if (dc_pickle_is(module, n_module, "_codecs") && dc_pickle_is(text, n, "encode"))
        value->number = ENCODE;
    else
        return dc_fail(DC_ERR_INPUT, "%s: no pickle of a data set: it calls %.*s.%.*s", p->where,
                       (int)(n_module < 64 ? n_module : 64), module, (int)(n < 64 ? n : 64), text);
    return dc_pickle_push(p, value);
}

/* Text of Latin-1 that Python wrote as UTF-8: back to bytes. */
static dc_status encode_latin1(dc_pickle *p, const dc_pickle_value *text, dc_pickle_value *out)
{
    if (!(out->owned = dc_alloc(text->n + 1)))
        return DC_ERR_MEMORY;
    for (size_t i = 0; i < text->n; i++) {
        uint8_t c = (uint8_t)text->text[i];
        if (c >= 0x80) {
            if ((c & 0xfc) != 0xc0 || ++i == text->n)
                return dc_pickle_bad(p, "bytes that are no Latin-1");
            c = (uint8_t)(c << 6 | ((uint8_t)text->text[i] & 0x3f));
        }
        out->owned[out->n++] = (char)c;
    }
    out->text = out->owned;
    return DC_OK;
}

/* "u1", "i8", "f4". */
static dc_status read_type(const dc_pickle *p, const dc_pickle_value *text, dc_pickle_value *type)
{
    const char *s = text->text;
    if (text->form != TEXT || text->n < 2 || text->n > 4)
        return dc_pickle_bad(p, "a type of numbers that is not known");
    size_t skip = *s == '|' || *s == '<';
    if (text->n != skip + 2 || !strchr("uifb", s[skip]) || s[skip + 1] < '1' || s[skip + 1] > '8')
        return dc_pickle_bad(p, "a type of numbers that is not known");
    type->kind = s[skip];
    type->number = s[skip + 1] - '0';
    return DC_OK;
}

static dc_status set_array(const dc_pickle *p, dc_pickle_value *array, const dc_pickle_value *shape,
                           const dc_pickle_value *type, bool fortran, const dc_pickle_value *bytes)
{
    if (shape->form != LIST || shape->n > 2 || type->form != TYPE || bytes->form != TEXT)
        return dc_pickle_bad(p, "an array of numpy that is not known");
    array->type = type;
    array->fortran = fortran;
    array->dims[0] = array->dims[1] = 1;
    uint64_t n = 1;
    for (size_t i = 0; i < shape->n; i++) {
        int64_t dim = shape->items[i]->form == INTEGER ? shape->items[i]->number : -1;
        if (dim < 0 || (dim && n > bytes->n / (uint64_t)dim))
            return dc_pickle_bad(p, "an array whose shape does not fit its bytes");
        array->dims[i] = dim;
        n *= (uint64_t)dim;
    }
    if (n * (uint64_t)type->number != bytes->n)
        return dc_pickle_bad(p, "an array whose shape does not fit its bytes");
    array->text = bytes->text;
    array->n = bytes->n;
    return DC_OK;
}

/* An array's state: (version, shape, type, whether in Fortran's order, bytes). */
static dc_status build_array(const dc_pickle *p, dc_pickle_value *array, const dc_pickle_value *state)
{
    if (state->form != LIST || state->n != 5 || state->items[3]->form != INTEGER)
        return dc_pickle_bad(p, "an array of numpy that is not known");
    return set_array(p, array, state->items[1], state->items[2], state->items[3]->number != 0, state->items[4]);
}

/* Protocol 5: (bytes, type, shape, order). */
static dc_status from_buffer(const dc_pickle *p, const dc_pickle_value *arguments, dc_pickle_value *array)
{
    if (arguments->n != 4 || arguments->items[3]->form != TEXT)
        return dc_pickle_bad(p, "an array of numpy that is not known");
    bool fortran = !dc_pickle_is(arguments->items[3]->text, arguments->items[3]->n, "C");
    return set_array(p, array, arguments->items[2], arguments->items[1], fortran, arguments->items[0]);
}

/* function(arguments) */
dc_status dc_pickle_reduce(dc_pickle *p, size_t unused)
{
    (void)unused;
    dc_pickle_value *arguments = NULL, *function = NULL, *made = NULL;
    DC_TRY(dc_pickle_pop(p, &arguments));
    DC_TRY(dc_pickle_pop(p, &function));
    if (function->form != NAME || arguments->form != LIST)
        return dc_pickle_bad(p, "it calls what cannot be called");
    if (function->number != RECONSTRUCT && (!arguments->n || arguments->items[0]->form != TEXT))
        return dc_pickle_bad(p, "arguments that are not known");
    switch (function->number) {
    case RECONSTRUCT:
        made = dc_pickle_new(p, ARRAY);
        break;
    case FROMBUFFER:
        if ((made = dc_pickle_new(p, ARRAY)))
            DC_TRY(from_buffer(p, arguments, made));
        break;
    case DTYPE:
        if ((made = dc_pickle_new(p, TYPE)))
            DC_TRY(read_type(p, arguments->items[0], made));
        break;
    case ENCODE:
        if ((made = dc_pickle_new(p, TEXT)))
            DC_TRY(encode_latin1(p, arguments->items[0], made));
        break;
    default:
        return dc_pickle_bad(p, "it calls what cannot be called");
    }
    return dc_pickle_push(p, made);
}

dc_status dc_pickle_build(dc_pickle *p, size_t unused)
{
    (void)unused;
    dc_pickle_value *state = NULL, *object = NULL;
    DC_TRY(dc_pickle_pop(p, &state));
    DC_TRY(dc_pickle_pop(p, &object));
    DC_TRY(dc_pickle_push(p, object));
    if (object->form == ARRAY)
        return build_array(p, object, state);
    if (object->form != TYPE || state->form != LIST || state->n < 2 || state->items[1]->form != TEXT)
        return dc_pickle_bad(p, "a state of what has none");
    if (object->number > 1 && dc_pickle_is(state->items[1]->text, state->items[1]->n, ">"))
        return dc_pickle_bad(p, "numbers with the big end first");
    return DC_OK;
}
