/* Which architecture to train: candidates within the budget, compared by a short training of the derived network. */
#ifndef DC_LUG_CANDIDATES_H
#define DC_LUG_CANDIDATES_H

#include "comm/farm.h"
#include "lug/lug.h"
#include "train/train.h"

typedef struct dc_candidate {
    char origin[48];         /* the search it comes from: "run-0", "point-003-seed-0" */
    dc_genotype genotype;    /* derived within the budget, exactly */
    double cost[DC_METRICS]; /* in the target geometry */
    double accuracy;         /* on the validation images, after the short training; -1: not trained */
    double seconds;
} dc_candidate;

/* Derives candidates within the budgets: one from each of the n_runs entries, and up to n_more from the lookup graph,
 * those whose derived size comes closest to the first budget from below (or, without a budget, the most accurate).
 * Equal architectures are listed once. *candidates: the caller's to free. */
dc_status dc_candidates_make(dc_deriver *deriver, const dc_budgets *budgets, const dc_cost_table *tables, int n_runs,
                             const dc_lug_entry *runs, const dc_lug *lug, int n_more, int *n,
                             dc_candidate **candidates);

/* Trains each candidate shortly, one rank a candidate, and fills accuracy and seconds, the same on every rank.
 * common: name, comm, genotype, seed, identity, files and hooks are set for each. directory: of their files (NAME.h5,
 * NAME.csv). DC_INTERRUPTED after a signal. Collective. */
dc_status dc_candidates_train(const dc_comm *comm, const dc_train_job *common, const char *directory, int n,
                              dc_candidate *candidates);

/* The most accurate; of equals the first. */
int dc_candidates_best(int n, const dc_candidate *candidates);

#endif
