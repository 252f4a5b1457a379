/* What a run ends with: result.json for machines, a summary for people. */
#ifndef DC_APP_RESULT_H
#define DC_APP_RESULT_H

#include "app/pipeline.h"

#include <cjson/cJSON.h>

/* What the phases gave; candidates may be none (a given genotype was trained). */
typedef struct dc_outcome {
    const dc_genotype *genotype;
    int n_candidates, best;
    const dc_candidate *candidates;
    const dc_train_result *training; /* NULL: searched only */
} dc_outcome;

/* Writes result.json. What an earlier one says of the search of this genotype stays. Rank 0's. */
dc_status dc_result_write(const dc_pipeline *p, const dc_outcome *outcome);

/* Prints the lookup graph as a table, the architecture, budget against actual, accuracies, files and what to try next.
 * Rank 0's. */
dc_status dc_summary_print(const dc_pipeline *p, const dc_outcome *outcome, FILE *out);

/* The lookup graph as a table. */
void dc_lug_print(const dc_pipeline *p, FILE *out);

/* Version of the program and of the libraries it runs with. */
void dc_version_print(FILE *out);
void dc_version_add(cJSON *object); /* "versions": {"dcanas": ..., "mpi": ..., ...} */

#endif
