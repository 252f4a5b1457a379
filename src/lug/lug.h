/* The lookup graph (LUG) of DCA-NAS: searches at tightened targets K', each with what it derived. A search that is held
 * to K' derives a network of some size K; the graph K' -> K, inverted, tells which K' to search at for a user's budget.
 *
 * A LUG belongs to a data set, a space (with the target network's geometry) and a recipe; it keeps their hashes, serves
 * any budget, and later runs may extend it by further points and seeds. */
#ifndef DC_LUG_LUG_H
#define DC_LUG_LUG_H

#include "base/log.h"
#include "search/constraint.h"

/* One search. */
typedef struct dc_lug_entry {
    int point;                       /* which target; entries are kept sorted by (point, seed_index) */
    int seed_index;                  /* which repetition at this target */
    uint64_t seed;                   /* the search's random seed */
    double target[DC_METRICS];       /* K' of each metric; 0: not constrained */
    dc_alpha alpha;                  /* at the end of the search */
    dc_genotype genotype;            /* by the plain DARTS rule: nothing repaired by a budget */
    double derived_cost[DC_METRICS]; /* K: the genotype's exact cost in the target geometry */
    double validation_accuracy;      /* of the supernet at the end of the search, 0..1 */
    double seconds;                  /* wall time; the only part that may differ between equal runs */
} dc_lug_entry;

typedef enum dc_lug_part {
    DC_LUG_DATASET,
    DC_LUG_SPACE, /* space and geometry of the target network */
    DC_LUG_RECIPE,
    DC_LUG_PARTS
} dc_lug_part;

/* What a LUG was made for. Two fit together when all hashes are equal; the texts are for people. */
typedef struct dc_lug_identity {
    uint64_t hash[DC_LUG_PARTS];
    char text[DC_LUG_PARTS][160]; /* "Fashion-MNIST, 60000 images", "darts, C=16, 8 cells, 1x28x28", ... */
} dc_lug_identity;

typedef struct dc_lug {
    dc_lug_identity identity;
    int n, capacity;
    dc_lug_entry *entries;
} dc_lug;

void dc_lug_init(dc_lug *lug, const dc_lug_identity *identity);
void dc_lug_clear(dc_lug *lug);

/* Adds one search at its place, replacing an entry of the same (point, seed_index). */
dc_status dc_lug_add(dc_lug *lug, const dc_lug_entry *entry);

/* The entry of (point, seed_index), or NULL. Valid until the next dc_lug_add. */
const dc_lug_entry *dc_lug_find(const dc_lug *lug, int point, int seed_index);

/* DC_ERR_INPUT naming the part (data set, space or recipe) that differs and both texts; `path` is for the message. */
dc_status dc_lug_identity_check(const dc_lug_identity *have, const dc_lug_identity *want, const char *path);

/* Writes and reads lug.h5 (one data set a field, one row an entry; base/state.h: atomic, checksummed). Equal searches
 * write equal bytes in every data set but `seconds`. Not collective. dc_lug_load initialises *lug; where only the
 * file's predecessor is whole it reads that, with a warning in the log. */
dc_status dc_lug_save(const dc_lug *lug, const char *path);
dc_status dc_lug_load(dc_lug *lug, const char *path, dc_log *log);

#endif
