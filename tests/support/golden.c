#include "golden.h"

#include <hdf5.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { PROJECTIONS = 16 };

float golden_draw(uint64_t stream, size_t i)
{
    uint64_t x = stream + (i + 1) * 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    x ^= x >> 31;
    return (float)(x >> 40) / 16777216.0f - 0.5f;
}

/* A whole one-dimensional data set of group/name in memory, with `extra` bytes after it. */
static void *read_all(hid_t file, const char *group, const char *name, hid_t type, size_t extra, size_t *count)
{
    char path[2 * DC_NAME_CHARS];
    snprintf(path, sizeof path, "%s/%s", group, name);
    hid_t set = H5Dopen2(file, path, H5P_DEFAULT);
    if (set < 0)
        fail_msg("no golden values '%s': run tests/golden/generate.py", path);
    hid_t space = H5Dget_space(set);
    *count = (size_t)H5Sget_simple_extent_npoints(space);
    void *data = calloc(*count * H5Tget_size(type) + extra, 1);
    assert_non_null(data);
    assert_true(H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    H5Sclose(space);
    H5Dclose(set);
    return data;
}

golden *golden_open(const char *file, const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "tests/golden/%s.h5", file);
    hid_t id = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (id < 0)
        fail_msg("cannot open %s: tests run in the repository's root", path);
    golden *g = calloc(1, sizeof *g);
    assert_non_null(g);
    size_t chars, count;
    char *index = read_all(id, name, "index", H5T_NATIVE_UCHAR, 1, &chars);
    g->values = read_all(id, name, "values", H5T_NATIVE_FLOAT, 0, &count);
    H5Fclose(id);
    for (const char *c = index; *c; c++)
        g->n += *c == '\n';
    g->entries = calloc((size_t)g->n, sizeof *g->entries);
    assert_non_null(g->entries);
    const char *line = index;
    for (int i = 0; i < g->n; i++, line = strchr(line, '\n') + 1) {
        golden_entry *e = &g->entries[i];
        char form[8];
        size_t offset;
        assert_int_equal(sscanf(line, "%15s %95s %zu %7s %zu", e->kind, e->name, &e->count, form, &offset), 5);
        e->sketch = strcmp(form, "sketch") == 0;
        assert_true(offset + (e->sketch ? 1 + PROJECTIONS : e->count) <= count);
        e->stored = g->values + offset;
    }
    free(index);
    return g;
}

void golden_close(golden *g)
{
    if (!g)
        return;
    free(g->entries);
    free(g->values);
    free(g);
}

const golden_entry *golden_find(const golden *g, const char *kind, const char *name)
{
    for (int i = 0; i < g->n; i++)
        if (strcmp(g->entries[i].kind, kind) == 0 && strcmp(g->entries[i].name, name) == 0)
            return &g->entries[i];
    return NULL;
}

static const golden_entry *find_or_fail(const golden *g, const char *kind, const char *name)
{
    const golden_entry *entry = golden_find(g, kind, name);
    if (!entry)
        fail_msg("no golden %s of '%s'", kind, name);
    return entry;
}

double golden_number(const golden *g, const char *kind, const char *name)
{
    return (double)find_or_fail(g, kind, name)->stored[0];
}

static double sketch_error(const golden_entry *entry, const float *x)
{
    double squares = 0;
    for (int k = 0; k < PROJECTIONS; k++) {
        char name[32];
        snprintf(name, sizeof name, "projection.%d", k);
        uint64_t stream = dc_rng_stream(name);
        double product = 0;
        for (size_t i = 0; i < entry->count; i++)
            product += golden_draw(stream, i) < 0 ? -(double)x[i] : (double)x[i];
        double difference = product - (double)entry->stored[1 + k];
        squares += difference * difference;
    }
    return sqrt(squares / PROJECTIONS) / (double)entry->stored[0];
}

double golden_error(const golden_entry *entry, const float *x)
{
    if (entry->sketch)
        return sketch_error(entry, x);
    double squares = 0, norm = 0;
    for (size_t i = 0; i < entry->count; i++) {
        double g = (double)entry->stored[i], difference = (double)x[i] - g;
        squares += difference * difference;
        norm += g * g;
    }
    return norm > 0 ? sqrt(squares / norm) : sqrt(squares);
}

void golden_check(const golden *g, const char *kind, const char *name, const float *x, size_t count, double tolerance)
{
    const golden_entry *entry = find_or_fail(g, kind, name);
    if (entry->count != count)
        fail_msg("%s of '%s' has %zu elements, its golden values %zu", kind, name, count, entry->count);
    double error = golden_error(entry, x);
    if (!(error <= tolerance))
        fail_msg("%s of '%s': relative error %.2e (first value %g)", kind, name, error, (double)x[0]);
}

void golden_fill_params(dc_params *params)
{
    for (int i = 0; i < params->n; i++) {
        const dc_param *param = &params->items[i].param;
        float *values = malloc(param->count * sizeof *values);
        assert_non_null(values);
        uint64_t stream = dc_rng_stream(param->name);
        for (size_t k = 0; k < param->count; k++)
            values[k] = golden_draw(stream, k) + (param->init == DC_INIT_ONE ? 1.0f : 0.0f);
        assert_int_equal(dc_params_write(params, i, values), DC_OK);
        free(values);
    }
}

static uint64_t seeded_stream(const char *what, const char *seed)
{
    char name[64];
    snprintf(name, sizeof name, "%s.%s", what, seed);
    return dc_rng_stream(name);
}

void golden_images(const char *seed, size_t count, float *images)
{
    uint64_t stream = seeded_stream("images", seed);
    for (size_t i = 0; i < count; i++)
        images[i] = 4 * golden_draw(stream, i);
}

void golden_labels(const char *seed, int n, int classes, int32_t *labels)
{
    uint64_t stream = seeded_stream("labels", seed);
    for (int i = 0; i < n; i++)
        labels[i] = (int32_t)(((double)golden_draw(stream, (size_t)i) + 0.5) * classes);
}
