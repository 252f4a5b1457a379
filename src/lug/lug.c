#include "lug/lug.h"

#include "base/state.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

void dc_lug_init(dc_lug *lug, const dc_lug_identity *identity)
{
    *lug = (dc_lug){.identity = *identity};
}

void dc_lug_clear(dc_lug *lug)
{
    free(lug->entries);
    lug->entries = NULL;
    lug->n = lug->capacity = 0;
}

/* ---- entries ----------------------------------------------------------------------------------------------------- */

/* The position of the first entry that is not before (point, seed_index). */
static int position(const dc_lug *lug, int point, int seed_index)
{
    int i = 0;
    while (i < lug->n && (lug->entries[i].point < point ||
                          (lug->entries[i].point == point && lug->entries[i].seed_index < seed_index)))
        i++;
    return i;
}

const dc_lug_entry *dc_lug_find(const dc_lug *lug, int point, int seed_index)
{
    int i = position(lug, point, seed_index);
    bool there = i < lug->n && lug->entries[i].point == point && lug->entries[i].seed_index == seed_index;
    return there ? &lug->entries[i] : NULL;
}

static dc_status reserve(dc_lug *lug, int n)
{
    if (n <= lug->capacity)
        return DC_OK;
    int capacity = n > 2 * lug->capacity ? n : 2 * lug->capacity;
    dc_lug_entry *grown = dc_realloc(lug->entries, (size_t)capacity * sizeof *grown);
    if (!grown)
        return DC_ERR_MEMORY;
    lug->entries = grown;
    lug->capacity = capacity;
    return DC_OK;
}

dc_status dc_lug_add(dc_lug *lug, const dc_lug_entry *entry)
{
    DC_TRY(reserve(lug, lug->n + 1));
    int i = position(lug, entry->point, entry->seed_index);
    if (!dc_lug_find(lug, entry->point, entry->seed_index)) {
        memmove(&lug->entries[i + 1], &lug->entries[i], (size_t)(lug->n - i) * sizeof *entry);
        lug->n++;
    }
    lug->entries[i] = *entry;
    return DC_OK;
}

/* ---- identity ---------------------------------------------------------------------------------------------------- */

static const char *const part_names[DC_LUG_PARTS] = {
    [DC_LUG_DATASET] = "data set", [DC_LUG_SPACE] = "space", [DC_LUG_RECIPE] = "recipe"};
static const char *const part_keys[DC_LUG_PARTS][2] = {[DC_LUG_DATASET] = {"identity/dataset_hash", "identity/dataset"},
                                                       [DC_LUG_SPACE] = {"identity/space_hash", "identity/space"},
                                                       [DC_LUG_RECIPE] = {"identity/recipe_hash", "identity/recipe"}};

dc_status dc_lug_identity_check(const dc_lug_identity *have, const dc_lug_identity *want, const char *path)
{
    for (int i = 0; i < DC_LUG_PARTS; i++)
        if (have->hash[i] != want->hash[i])
            return dc_fail(
                DC_ERR_INPUT,
                "%s was made for another %s: it has \"%s\" (%016" PRIx64 "), this job has \"%s\" (%016" PRIx64
                "); give another [lug] file or [run] name, or the %s it was made for",
                path, part_names[i], have->text[i], have->hash[i], want->text[i], want->hash[i], part_names[i]);
    return DC_OK;
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

/* One data set: what part of an entry is a row of it. */
typedef struct field {
    const char *name;
    dc_state_type type;
    int rank;
    int64_t dims[DC_STATE_MAX_RANK]; /* dims[0] becomes the number of entries */
    size_t offset, size;
} field;

_Static_assert(sizeof(int) == sizeof(int32_t) && sizeof(dc_choice) == 2 * sizeof(int32_t), "stored as int32");

#define PLACE(member) offsetof(dc_lug_entry, member), sizeof(((dc_lug_entry *)NULL)->member)

static const field fields[] = {
    {"point", DC_STATE_INT32, 1, {0}, PLACE(point)},
    {"seed_index", DC_STATE_INT32, 1, {0}, PLACE(seed_index)},
    {"seed", DC_STATE_UINT64, 1, {0}, PLACE(seed)},
    {"target", DC_STATE_DOUBLE, 2, {0, DC_METRICS}, PLACE(target)},
    {"alpha", DC_STATE_FLOAT, 4, {0, DC_CELL_TYPES, DC_CELL_EDGES, DC_DARTS_N_OPS}, PLACE(alpha)},
    {"genotype", DC_STATE_INT32, 4, {0, DC_CELL_TYPES, DC_CELL_KEPT, 2}, PLACE(genotype.cell)},
    {"concat", DC_STATE_UINT32, 2, {0, DC_CELL_TYPES}, PLACE(genotype.concat)},
    {"derived_cost", DC_STATE_DOUBLE, 2, {0, DC_METRICS}, PLACE(derived_cost)},
    {"validation_accuracy", DC_STATE_DOUBLE, 1, {0}, PLACE(validation_accuracy)},
    {"seconds", DC_STATE_DOUBLE, 1, {0}, PLACE(seconds)},
};

enum { FIELDS = sizeof fields / sizeof *fields };

/* Copies one field of all entries to or from its rows. */
static void gather(const field *f, const dc_lug *lug, unsigned char *rows)
{
    for (int i = 0; i < lug->n; i++)
        memcpy(rows + (size_t)i * f->size, (const unsigned char *)&lug->entries[i] + f->offset, f->size);
}

static void scatter(const field *f, dc_lug *lug, const unsigned char *rows)
{
    for (int i = 0; i < lug->n; i++)
        memcpy((unsigned char *)&lug->entries[i] + f->offset, rows + (size_t)i * f->size, f->size);
}

static void dims_of(const field *f, int n, int64_t dims[DC_STATE_MAX_RANK])
{
    memcpy(dims, f->dims, sizeof f->dims);
    dims[0] = n;
}

dc_status dc_lug_save(const dc_lug *lug, const char *path)
{
    unsigned char *rows = dc_alloc((size_t)lug->n * sizeof(dc_lug_entry));
    if (!rows)
        return DC_ERR_MEMORY;
    dc_state *state;
    dc_status status = dc_state_create(path, &state);
    if (status == DC_OK) {
        dc_state_put_text(state, "kind", "lookup graph");
        dc_state_put_i64(state, "entries", lug->n);
        for (int i = 0; i < DC_LUG_PARTS; i++) {
            dc_state_put_u64(state, part_keys[i][0], lug->identity.hash[i]);
            dc_state_put_text(state, part_keys[i][1], lug->identity.text[i]);
        }
        for (int i = 0; i < FIELDS && lug->n > 0; i++) {
            int64_t dims[DC_STATE_MAX_RANK];
            dims_of(&fields[i], lug->n, dims);
            gather(&fields[i], lug, rows);
            dc_state_put(state, fields[i].name, fields[i].type, fields[i].rank, dims, rows);
        }
        status = dc_state_commit(state, true);
    }
    free(rows);
    return status;
}

static dc_status load_identity(dc_state *state, dc_lug_identity *identity)
{
    for (int i = 0; i < DC_LUG_PARTS; i++) {
        char *text;
        DC_TRY(dc_state_get_u64(state, part_keys[i][0], &identity->hash[i]));
        DC_TRY(dc_state_get_text(state, part_keys[i][1], &text));
        strncat(identity->text[i], text, sizeof identity->text[i] - 1);
        free(text);
    }
    return DC_OK;
}

/* Later code indexes tables by what a genotype holds. */
static bool is_whole(const dc_genotype *genotype)
{
    for (int type = 0; type < DC_CELL_TYPES; type++)
        for (int i = 0; i < DC_CELL_KEPT; i++) {
            dc_choice kept = genotype->cell[type][i];
            if (kept.op < 0 || kept.op >= DC_DARTS_N_OPS || kept.source < 0 || kept.source > i / 2 + 1)
                return false;
        }
    return true;
}

static dc_status load_entries(dc_state *state, dc_lug *lug)
{
    int64_t n;
    DC_TRY(dc_state_get_i64(state, "entries", &n));
    if (n < 0 || n > INT32_MAX / 2)
        return dc_fail(DC_ERR_INPUT, "%s: entries = %" PRId64 " is no number of searches", dc_state_path(state), n);
    if (n == 0)
        return DC_OK;
    DC_TRY(reserve(lug, (int)n));
    unsigned char *rows = dc_alloc((size_t)n * sizeof(dc_lug_entry));
    if (!rows)
        return DC_ERR_MEMORY;
    memset(lug->entries, 0, (size_t)n * sizeof *lug->entries);
    lug->n = (int)n;
    dc_status status = DC_OK;
    for (int i = 0; i < FIELDS && status == DC_OK; i++) {
        int64_t dims[DC_STATE_MAX_RANK];
        dims_of(&fields[i], lug->n, dims);
        status = dc_state_get(state, fields[i].name, fields[i].type, fields[i].rank, dims, rows);
        if (status == DC_OK)
            scatter(&fields[i], lug, rows);
    }
    free(rows);
    for (int i = 0; i < lug->n && status == DC_OK; i++)
        if (!is_whole(&lug->entries[i].genotype) ||
            (i > 0 && position(lug, lug->entries[i].point, lug->entries[i].seed_index) != i))
            status = dc_fail(DC_ERR_INPUT, "%s: entry %d is no search's result: the file was not written by dcanas",
                             dc_state_path(state), i);
    return status;
}

dc_status dc_lug_load(dc_lug *lug, const char *path, dc_log *log)
{
    *lug = (dc_lug){0};
    dc_state *state;
    DC_TRY(dc_state_open_newest(path, &state));
    if (dc_state_warning(state))
        dc_log_warn(log, "%s", dc_state_warning(state));
    dc_status status = load_identity(state, &lug->identity);
    if (status == DC_OK)
        status = load_entries(state, lug);
    if (status == DC_OK)
        return dc_state_close(state);
    dc_state_close(state);
    dc_lug_clear(lug);
    return status;
}
