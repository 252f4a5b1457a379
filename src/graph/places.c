#include "graph/places.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct gap {
    size_t offset_bytes, bytes;
} gap;

typedef struct arena_state {
    gap *gaps; /* sorted by offset, never adjacent; the last one is endless */
    int n;
    size_t top_bytes;
} arena_state;

static void take(arena_state *arena, dc_interval *span)
{
    int best = arena->n - 1;
    for (int i = 0; i < arena->n; i++)
        if (arena->gaps[i].bytes >= span->bytes && arena->gaps[i].bytes < arena->gaps[best].bytes)
            best = i;
    gap *from = &arena->gaps[best];
    span->offset_bytes = from->offset_bytes;
    from->offset_bytes += span->bytes;
    from->bytes -= span->bytes;
    if (span->offset_bytes + span->bytes > arena->top_bytes)
        arena->top_bytes = span->offset_bytes + span->bytes;
    if (from->bytes == 0) {
        memmove(from, from + 1, (size_t)(arena->n - best - 1) * sizeof *from);
        arena->n--;
    }
}

static void give(arena_state *arena, const dc_interval *span)
{
    int at = 0;
    while (arena->gaps[at].offset_bytes < span->offset_bytes)
        at++;
    gap *after = &arena->gaps[at], *before = at ? after - 1 : NULL;
    bool joins_before = before && before->offset_bytes + before->bytes == span->offset_bytes;
    bool joins_after = span->offset_bytes + span->bytes == after->offset_bytes;
    if (joins_after) {
        after->offset_bytes = span->offset_bytes;
        after->bytes += span->bytes;
        if (joins_before) {
            before->bytes += after->bytes;
            memmove(after, after + 1, (size_t)(arena->n - at - 1) * sizeof *after);
            arena->n--;
        }
    } else if (joins_before) {
        before->bytes += span->bytes;
    } else {
        memmove(after + 1, after, (size_t)(arena->n - at) * sizeof *after);
        *after = (gap){span->offset_bytes, span->bytes};
        arena->n++;
    }
}

static int by_begin(const void *a, const void *b)
{
    const dc_interval *x = *(dc_interval *const *)a, *y = *(dc_interval *const *)b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    if (x->bytes != y->bytes)
        return x->bytes > y->bytes ? -1 : 1;
    return x < y ? -1 : x > y; /* the table's order: the same plan every time */
}

static int by_end(const void *a, const void *b)
{
    const dc_interval *x = *(dc_interval *const *)a, *y = *(dc_interval *const *)b;
    if (x->end != y->end)
        return x->end < y->end ? -1 : 1;
    return x < y ? -1 : x > y;
}

dc_status dc_places_assign(dc_interval *all, int n_all, size_t *arena_bytes)
{
    dc_interval **order = dc_alloc((size_t)n_all * 2 * sizeof *order);
    arena_state arena = {.gaps = dc_alloc(((size_t)n_all + 2) * sizeof(gap)), .n = 1};
    if (!order || !arena.gaps) {
        free(order);
        free(arena.gaps);
        return DC_ERR_MEMORY;
    }
    int n = 0;
    for (int i = 0; i < n_all; i++)
        if (all[i].bytes) {
            /* whole cache lines, and an odd number of them: equal tensors do not start in the same cache set */
            all[i].bytes = ((all[i].bytes + 127) / 128 * 128) + 64;
            order[n++] = &all[i];
        }
    dc_interval **ending = order + n_all;
    memcpy(ending, order, (size_t)n * sizeof *order);
    qsort(order, (size_t)n, sizeof *order, by_begin);
    qsort(ending, (size_t)n, sizeof *ending, by_end);
    arena.gaps[0] = (gap){0, SIZE_MAX / 2};
    for (int i = 0, e = 0; i < n; i++) {
        for (; e < n && ending[e]->end < order[i]->begin; e++)
            give(&arena, ending[e]);
        take(&arena, order[i]);
    }
    *arena_bytes = arena.top_bytes;
    free(order);
    free(arena.gaps);
    return DC_OK;
}
