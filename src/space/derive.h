/* From architecture weights to an architecture, exactly within budgets.
 *
 * Every node of a cell keeps two different incoming edges with one operation other than 'none' each. The value of an
 * architecture is the sum of log p over what it keeps, p being the softmax over all operations of an edge. Without
 * budgets its maximum is the derivation of DARTS (Liu, Simonyan, Yang 2019: per node the two edges with the strongest
 * operation other than 'none'); with them it is a multiple-choice knapsack, solved to optimality here. */
#ifndef DC_SPACE_DERIVE_H
#define DC_SPACE_DERIVE_H

#include "space/cost_table.h"

/* log p [type][edge][operation]; -infinity excludes an operation. */
typedef double dc_log_probability[DC_CELL_TYPES][DC_CELL_EDGES][DC_DARTS_N_OPS];

/* log softmax over the operations of each edge. */
void dc_log_probability_of_alpha(const float alpha[DC_CELL_TYPES][DC_CELL_EDGES][DC_DARTS_N_OPS],
                                 dc_log_probability log_p);

/* The sum of log p of what a genotype keeps. */
double dc_genotype_log_probability(const dc_log_probability log_p, const dc_genotype *genotype);

/* The derivation of DARTS, without a budget. Ties go to the first operation and the first edge, as in its code. The
 * two edges of a node are written in the order of their sources, so that equal architectures are equal genotypes. */
void dc_derive_darts(const dc_log_probability log_p, dc_genotype *genotype);

/* The budgets to stay within: fits when table[m]'s count <= limit[m] for each m < n. */
typedef struct dc_budgets {
    int n;
    const dc_cost_table *table[DC_METRICS];
    double limit[DC_METRICS];
} dc_budgets;

bool dc_budgets_fit(const dc_budgets *budgets, const dc_genotype *genotype);

/* Working storage, reused from call to call so that a derivation in each search step allocates nothing after the
 * first few. One per thread. Owned by the caller. */
typedef struct dc_deriver dc_deriver;
dc_status dc_deriver_create(dc_deriver **deriver);
void dc_deriver_destroy(dc_deriver *deriver);

/* The genotype of largest log probability within the budgets; *log_probability may be NULL. Equals dc_derive_darts
 * whenever that fits. DC_ERR_INPUT when nothing fits: the message names the budget, and what the space needs. */
dc_status dc_derive(dc_deriver *deriver, const dc_log_probability log_p, const dc_budgets *budgets,
                    dc_genotype *genotype, double *log_probability);

/* The exact smallest and largest cost over the whole space. */
typedef struct dc_limits {
    double min, max;
} dc_limits;

dc_limits dc_cost_table_limits(const dc_cost_table *table);

/* Refuses budgets that nothing can meet, alone or together, and budgets above the largest network, which would
 * constrain nothing: DC_ERR_INPUT naming the key, the value, and the space's minimum and maximum. */
dc_status dc_budgets_check(dc_deriver *deriver, const dc_budgets *budgets);

#endif
