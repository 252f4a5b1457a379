#include "base/rng.h"
#include "data/dataset.h"

#include <math.h>
#include <stdlib.h>

enum { UNUSED, IN_A, IN_B };

/* Images of a class that a portion takes: its fraction, and no more than the class's even part of max_count. */
static uint32_t portion_of_class(dc_portion portion, uint32_t fractional, int label, int n_classes)
{
    if (!portion.max_count)
        return fractional;
    uint32_t n = (uint32_t)n_classes;
    uint32_t limit = portion.max_count / n + ((uint32_t)label < portion.max_count % n);
    return fractional < limit ? fractional : limit;
}

static dc_status collect(const uint8_t *use, uint32_t n, uint8_t wanted, dc_indices *list)
{
    list->n = 0;
    for (uint32_t i = 0; i < n; i++)
        list->n += use[i] == wanted;
    if (!(list->items = dc_alloc(list->n * sizeof *list->items)))
        return DC_ERR_MEMORY;
    for (uint32_t i = 0, k = 0; i < n; i++)
        if (use[i] == wanted)
            list->items[k++] = i;
    return DC_OK;
}

/* Marks the images of both lists. members, order: work of n each; start: zeroed, n_classes + 1. */
static void choose(const dc_dataset *dataset, uint64_t seed, dc_portion a, dc_portion b, uint8_t *use,
                   uint32_t *members, uint32_t *order, uint32_t *start)
{
    const dc_images *train = &dataset->split[DC_SPLIT_TRAIN];
    for (uint32_t i = 0; i < train->n; i++)
        start[train->labels[i] + 1]++;
    for (int label = 0; label < dataset->n_classes; label++)
        start[label + 1] += start[label];
    for (uint32_t i = train->n;
         i-- > 0;) /* backwards from the ends: afterwards start[label + 1] is the class's start */
        members[--start[train->labels[i] + 1]] = i;
    dc_rng_key key = {seed, dc_rng_stream("split")};
    for (int label = 0; label < dataset->n_classes; label++) {
        const uint32_t *member = members + start[label + 1];
        uint32_t end = label + 1 < dataset->n_classes ? start[label + 2] : train->n, count = end - start[label + 1];
        dc_rng_permutation(key, (uint32_t)label, count, order);
        /* 1e-9: 0.1 * 30 must be 3 although it is below in binary */
        uint32_t share_a = (uint32_t)floor(a.fraction * count + 1e-9);
        uint32_t share_b = (uint32_t)floor((a.fraction + b.fraction) * count + 1e-9) - share_a;
        uint32_t n_a = portion_of_class(a, share_a, label, dataset->n_classes);
        uint32_t n_b = portion_of_class(b, share_b, label, dataset->n_classes);
        for (uint32_t i = 0; i < n_a; i++)
            use[member[order[i]]] = IN_A;
        for (uint32_t i = n_a; i < n_a + n_b; i++)
            use[member[order[i]]] = IN_B;
    }
}

dc_status dc_split_indices(const dc_dataset *dataset, uint64_t seed, dc_portion portion_a, dc_portion portion_b,
                           dc_indices *list_a, dc_indices *list_b)
{
    *list_a = *list_b = (dc_indices){0};
    double a = portion_a.fraction, b = portion_b.fraction;
    if (!(a >= 0 && a <= 1 && b >= 0 && b <= 1 && a + b <= 1 + 1e-9))
        return dc_fail(DC_ERR_INPUT,
                       "%s: cannot split the training images into fractions %g and %g: each must lie in "
                       "0..1 and their sum must not exceed 1",
                       dataset->path, a, b);
    uint32_t n = dataset->split[DC_SPLIT_TRAIN].n;
    uint8_t *use = dc_alloc_zeroed(n);
    uint32_t *work = dc_alloc(2 * (size_t)n * sizeof *work);
    uint32_t *start = dc_alloc_zeroed(((size_t)dataset->n_classes + 1) * sizeof *start);
    dc_status status = use && work && start ? DC_OK : DC_ERR_MEMORY;
    if (status == DC_OK) {
        choose(dataset, seed, portion_a, portion_b, use, work, work + n, start);
        status = collect(use, n, IN_A, list_a);
    }
    if (status == DC_OK)
        status = collect(use, n, IN_B, list_b);
    if (status == DC_OK && (!list_a->n || !list_b->n))
        status = dc_fail(DC_ERR_INPUT,
                         "%s: fractions %g and %g of each class leave a list of %u and one of %u of the "
                         "%u training images: neither may be empty",
                         dataset->path, a, b, list_a->n, list_b->n, n);
    if (status != DC_OK) {
        dc_indices_clear(list_a);
        dc_indices_clear(list_b);
    }
    free(use);
    free(work);
    free(start);
    return status;
}

void dc_indices_clear(dc_indices *indices)
{
    free(indices->items);
    *indices = (dc_indices){0};
}
