/* Many searches, handed out to ranks: those that build a lookup graph, and those at the target that it gives. */
#ifndef DC_LUG_SEARCHES_H
#define DC_LUG_SEARCHES_H

#include "comm/farm.h"
#include "lug/lug.h"
#include "search/search.h"

enum { DC_SEARCH_NAME_CHARS = 48 };

/* One search to make. */
typedef struct dc_search_spec {
    char name[DC_SEARCH_NAME_CHARS]; /* also the name of its files: "point-003-seed-0" */
    uint64_t seed;
    double target[DC_METRICS]; /* K', 0: not constrained */
    int point, seed_index;     /* copied to the entry */
} dc_search_spec;

/* The name of a lookup graph's search. */
void dc_search_point_name(int point, int seed_index, char name[DC_SEARCH_NAME_CHARS]);

typedef struct dc_searches {
    const dc_comm *comm;
    int ranks_per_search;
    const dc_search_job *common; /* name, comm, targets, seed, identity, files and hooks are set for each search */
    uint64_t identity;           /* of configuration and data set; each search adds its own */
    const char *heading;         /* "lookup graph" */
    const char *directory;       /* of the searches' checkpoints (NAME.h5) and traces (NAME.csv); exists */
    double lock_timeout_s;       /* of the searches' locks (NAME.lock) */
} dc_searches;

/* Makes the searches that are not done (NULL: none is) and fills entries[0..n) of those, the same on every rank.
 * A search whose checkpoint is complete is not made again. Each is locked while it is made, so that several jobs may
 * share the directory: one that meets a search which another one makes fails with DC_ERR_INPUT. DC_INTERRUPTED after a
 * signal: all are saved. Collective. */
dc_status dc_searches_run(const dc_searches *searches, int n, const dc_search_spec *specs, const bool *done,
                          dc_lug_entry *entries);

#endif
