#include "nn/params.h"

#include "base/hash.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT_FLOATS = 16, TABLE_SIZE_MINIMUM = 256 };

/* Open addressing from the hash of a name to item + 1. */
typedef struct name_table {
    int size; /* a power of two, at most half full */
    int *slots;
} name_table;

static uint64_t name_hash(const char *name)
{
    return dc_hash_of(name, strlen(name));
}

static int *slot_of(const dc_params *params, const char *name)
{
    const name_table *table = params->lookup;
    for (uint64_t at = name_hash(name);; at++) {
        int *slot = &table->slots[at & (uint64_t)(table->size - 1)];
        if (*slot == 0 || strcmp(params->items[*slot - 1].param.name, name) == 0)
            return slot;
    }
}

static dc_status reserve_names(dc_params *params, int n)
{
    name_table *table = params->lookup;
    int size = TABLE_SIZE_MINIMUM;
    while (size < 2 * n)
        size *= 2;
    if (size <= table->size)
        return DC_OK;
    int *slots = dc_alloc_zeroed((size_t)size * sizeof *slots);
    dc_stored_param *items = dc_realloc(params->items, (size_t)size / 2 * sizeof *items);
    if (items)
        params->items = items;
    if (!slots || !items) {
        free(slots);
        return DC_ERR_MEMORY;
    }
    free(table->slots);
    *table = (name_table){size, slots};
    for (int i = 0; i < params->n; i++)
        *slot_of(params, params->items[i].param.name) = i + 1;
    return DC_OK;
}

dc_status dc_params_create(dc_backend *backend, dc_params **params_out)
{
    dc_params *params = dc_alloc_zeroed(sizeof *params);
    if (!params)
        return DC_ERR_MEMORY;
    params->backend = backend;
    params->lookup = dc_alloc_zeroed(sizeof(name_table));
    if (!params->lookup) {
        free(params);
        return DC_ERR_MEMORY;
    }
    *params_out = params;
    return DC_OK;
}

void dc_params_destroy(dc_params *params)
{
    if (!params)
        return;
    float *buffers[] = {params->values, params->grads, params->first, params->second};
    for (int i = 0; i < 4; i++)
        if (buffers[i])
            params->backend->call->release(params->backend, buffers[i], params->count * sizeof(float));
    free(((name_table *)params->lookup)->slots);
    free(params->lookup);
    free(params->items);
    free(params);
}

int dc_params_find(const dc_params *params, const char *name)
{
    return params->n ? *slot_of(params, name) - 1 : -1;
}

dc_status dc_params_add_graph(dc_params *params, const dc_graph *graph)
{
    if (params->values)
        return dc_fail(DC_ERR_INTERNAL, "parameters are added after their memory was allocated");
    DC_TRY(reserve_names(params, params->n + graph->n_params));
    for (int i = 0; i < graph->n_params; i++) {
        const dc_param *param = &graph->params[i];
        int *slot = slot_of(params, param->name);
        if (*slot) {
            const dc_param *have = &params->items[*slot - 1].param;
            if (have->role != param->role || memcmp(have->shape, param->shape, sizeof have->shape) != 0)
                return dc_fail(DC_ERR_INTERNAL, "parameter '%s' has two shapes or roles", param->name);
            continue;
        }
        params->items[params->n] = (dc_stored_param){*param, params->count};
        params->count += (param->count + ALIGNMENT_FLOATS - 1) / ALIGNMENT_FLOATS * ALIGNMENT_FLOATS;
        *slot = ++params->n;
    }
    return DC_OK;
}

static float initial_value(const dc_param *param, dc_rng_key key, size_t element)
{
    switch (param->init) {
    case DC_INIT_ONE:
        return 1;
    case DC_INIT_UNIFORM:
        return (2 * dc_rng_uniform(key, 0, element) - 1) * param->scale;
    case DC_INIT_NORMAL:
        return dc_rng_normal(key, 0, element) * param->scale;
    default:
        return 0;
    }
}

static dc_status initialise(dc_params *params, uint64_t seed)
{
    float *host = dc_alloc_zeroed(params->count * sizeof *host);
    if (!host)
        return DC_ERR_MEMORY;
    for (int i = 0; i < params->n; i++) {
        const dc_stored_param *item = &params->items[i];
        dc_rng_key key = {seed, dc_rng_stream(item->param.name)};
        for (size_t e = 0; e < item->param.count; e++)
            host[item->offset + e] = initial_value(&item->param, key, e);
    }
    dc_status status =
        params->backend->call->copy_in(params->backend, params->values, host, params->count * sizeof *host);
    free(host);
    return status;
}

dc_status dc_params_allocate(dc_params *params, uint64_t seed)
{
    dc_backend *backend = params->backend;
    size_t bytes = params->count * sizeof(float);
    bool alpha = false;
    for (int i = 0; i < params->n; i++)
        alpha |= params->items[i].param.role == DC_ROLE_ALPHA;
    DC_TRY(backend->call->alloc(backend, bytes, (void **)&params->values));
    DC_TRY(backend->call->alloc(backend, bytes, (void **)&params->grads));
    DC_TRY(backend->call->alloc(backend, bytes, (void **)&params->first));
    if (alpha)
        DC_TRY(backend->call->alloc(backend, bytes, (void **)&params->second));
    return initialise(params, seed);
}

static dc_status copy_items(dc_params *copy, const dc_params *params)
{
    DC_TRY(reserve_names(copy, params->n));
    copy->count = params->count;
    for (; copy->n < params->n; copy->n++) {
        copy->items[copy->n] = params->items[copy->n];
        *slot_of(copy, params->items[copy->n].param.name) = copy->n + 1;
    }
    return DC_OK;
}

dc_status dc_params_copy(const dc_params *params, dc_params **copy)
{
    dc_backend *backend = params->backend;
    DC_TRY(dc_params_create(backend, copy));
    dc_status status = copy_items(*copy, params);
    if (status == DC_OK)
        status = backend->call->alloc(backend, params->count * sizeof(float), (void **)&(*copy)->values);
    if (status == DC_OK)
        status = backend->call->blend(backend, (*copy)->values, params->values, params->count, 1, 0);
    if (status != DC_OK) {
        dc_params_destroy(*copy);
        *copy = NULL;
    }
    return status;
}

dc_status dc_params_average(dc_params *average, const dc_params *params, double decay)
{
    const float keep = (float)decay; /* 1 - keep is exact in float: the two shares are 1 together */
    return params->backend->call->blend(params->backend, average->values, params->values, params->count, 1 - keep,
                                        keep);
}

static dc_status find(const dc_params *params, const char *name, const dc_stored_param **item)
{
    int i = dc_params_find(params, name);
    if (i < 0)
        return dc_fail(DC_ERR_INTERNAL, "parameter '%s' was never registered", name);
    *item = &params->items[i];
    return DC_OK;
}

dc_status dc_params_bind(const dc_params *params, const dc_graph *graph, float **values, float **grads)
{
    for (int i = 0; i < graph->n_params; i++) {
        const dc_stored_param *item = NULL;
        DC_TRY(find(params, graph->params[i].name, &item));
        values[i] = params->values + item->offset;
        if (grads)
            grads[i] = item->param.role == DC_ROLE_STATE || !params->grads ? NULL : params->grads + item->offset;
    }
    return DC_OK;
}

static int by_address(const void *a, const void *b)
{
    const dc_segment *x = a, *y = b;
    return x->value < y->value ? -1 : x->value > y->value;
}

dc_status dc_params_segments(const dc_params *params, const dc_graph *graph, dc_role role, int *n,
                             dc_segment **segments)
{
    dc_segment *found = dc_alloc(((size_t)graph->n_params + 1) * sizeof *found);
    if (!found)
        return DC_ERR_MEMORY;
    int count = 0;
    for (int i = 0; i < graph->n_params; i++) {
        const dc_stored_param *item = NULL;
        if (graph->params[i].role != role)
            continue;
        dc_status status = find(params, graph->params[i].name, &item);
        if (status != DC_OK) {
            free(found);
            return status;
        }
        size_t at = item->offset;
        found[count++] = (dc_segment){params->values + at, params->grads + at, params->first + at,
                                      params->second ? params->second + at : NULL, item->param.count};
    }
    qsort(found, (size_t)count, sizeof *found, by_address);
    *n = count;
    *segments = found;
    return DC_OK;
}

/* ---- state files ---- */

/* Of names, shapes, roles and order: what makes two stores' buffers interchangeable. */
static uint64_t layout_hash(const dc_params *params)
{
    dc_hash hash;
    dc_hash_init(&hash);
    for (int i = 0; i < params->n; i++) {
        const dc_param *param = &params->items[i].param;
        dc_hash_text(&hash, param->name);
        dc_hash_bytes(&hash, param->shape, sizeof param->shape);
        dc_hash_i64(&hash, (int64_t)param->role);
    }
    return dc_hash_end(&hash);
}

static const char *const buffer_names[] = {"values", "first", "second"};

dc_status dc_params_save(const dc_params *params, dc_state *state, const char *prefix, bool moments)
{
    float *host = dc_alloc(params->count * sizeof *host);
    if (!host)
        return DC_ERR_MEMORY;
    const float *buffers[] = {params->values, params->first, params->second};
    char name[128];
    dc_status status = DC_OK;
    for (int b = 0; b < (moments ? 3 : 1) && status == DC_OK; b++) {
        if (!buffers[b])
            continue;
        status = params->backend->call->copy_out(params->backend, host, buffers[b], params->count * sizeof *host);
        snprintf(name, sizeof name, "%s/%s", prefix, buffer_names[b]);
        if (status == DC_OK)
            dc_state_put_floats(state, name, 1, (int64_t[]){(int64_t)params->count}, host);
    }
    free(host);
    DC_TRY(status);
    snprintf(name, sizeof name, "%s/layout", prefix);
    dc_state_put_u64(state, name, layout_hash(params));
    return dc_state_check(state);
}

dc_status dc_params_load(dc_params *params, dc_state *state, const char *prefix, bool moments)
{
    char name[128];
    uint64_t layout = 0;
    snprintf(name, sizeof name, "%s/layout", prefix);
    DC_TRY(dc_state_get_u64(state, name, &layout));
    if (layout != layout_hash(params))
        return dc_fail(DC_ERR_INPUT, "%s: its parameters (%s) are those of another network", dc_state_path(state),
                       prefix);
    float *host = dc_alloc(params->count * sizeof *host);
    if (!host)
        return DC_ERR_MEMORY;
    float *buffers[] = {params->values, params->first, params->second};
    dc_status status = DC_OK;
    for (int b = 0; b < (moments ? 3 : 1) && status == DC_OK; b++) {
        if (!buffers[b])
            continue;
        snprintf(name, sizeof name, "%s/%s", prefix, buffer_names[b]);
        status = dc_state_get_floats(state, name, 1, (int64_t[]){(int64_t)params->count}, host);
        if (status == DC_OK)
            status = params->backend->call->copy_in(params->backend, buffers[b], host, params->count * sizeof *host);
    }
    free(host);
    return status;
}

dc_status dc_params_read(const dc_params *params, int item, float *host)
{
    const dc_stored_param *stored = &params->items[item];
    return params->backend->call->copy_out(params->backend, host, params->values + stored->offset,
                                           stored->param.count * sizeof *host);
}

dc_status dc_params_write(dc_params *params, int item, const float *host)
{
    const dc_stored_param *stored = &params->items[item];
    return params->backend->call->copy_in(params->backend, params->values + stored->offset, host,
                                          stored->param.count * sizeof *host);
}
