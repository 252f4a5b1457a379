/* The multiple-choice knapsack: from each stage take one option so that the sum of values is largest and no sum of
 * costs exceeds its limit. Solved to optimality (sums of values compare with a relative tolerance of 1e-12). */
#ifndef DC_SPACE_KNAPSACK_H
#define DC_SPACE_KNAPSACK_H

#include "base/status.h"

#include <stdbool.h>

enum { DC_KNAPSACK_RESOURCES = 4, DC_KNAPSACK_STAGES = 16 };

/* Keeps its storage from problem to problem. Owned by the caller. */
typedef struct dc_knapsack dc_knapsack;

dc_status dc_knapsack_create(dc_knapsack **knapsack);
void dc_knapsack_destroy(dc_knapsack *knapsack);

/* Starts a problem. */
void dc_knapsack_begin(dc_knapsack *knapsack, int n_resources, const double *limits);

/* Starts the next stage (at most DC_KNAPSACK_STAGES), then gives its options (at least one). Values and costs are
 * finite; costs may have either sign. */
void dc_knapsack_stage(dc_knapsack *knapsack);
dc_status dc_knapsack_option(dc_knapsack *knapsack, double value, const double *costs, int tag);

/* tags[stage] of the best choice. *found is false when nothing keeps within the limits. */
dc_status dc_knapsack_solve(dc_knapsack *knapsack, bool *found, int *tags, double *value);

#endif
