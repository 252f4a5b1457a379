/* The size constraint of the search (DCA-NAS, Eq 3 and 4): L = L_val + sum over metrics of lambda_m * g_m with
 * g_m = k_m / K'_m - 1, where K' is the target, k the present estimate of the size, and lambda a multiplier that grows
 * while the size is above the target.
 *
 * The multiplier follows the augmented Lagrangian: the gradient sees max(0, lambda + rho * g), then
 * lambda <- max(0, lambda + eta * g). */
#ifndef DC_SEARCH_CONSTRAINT_H
#define DC_SEARCH_CONSTRAINT_H

#include "space/derive.h"

typedef float dc_alpha[DC_CELL_TYPES][DC_CELL_EDGES][DC_DARTS_N_OPS];

typedef enum dc_estimate {
    DC_ESTIMATE_DERIVED, /* value: the size of the architecture that the DARTS rule derives now; gradient: through the
                            softmax of the kept edges only (straight through) */
    DC_ESTIMATE_SOFT     /* Eq 3: fixed + sum over all edges of sum_o p_o * B_o */
} dc_estimate;

const char *dc_estimate_name(dc_estimate estimate); /* "derived", "soft": constraint.estimate */

typedef struct dc_constraint_options {
    dc_estimate estimate;
    double rho; /* constraint.rho, 3: strength of the immediate answer to g */
    double eta; /* constraint.eta, 4: what lambda gathers over the whole search at g = 1. A step adds eta / steps, so
                   that a search of another length settles alike (4 is 0.02 a step over 200 steps) */
} dc_constraint_options;

/* Per metric; all of it state that a checkpoint keeps (lambda) or a log shows. */
typedef struct dc_constraint_metric {
    const dc_cost_table *table;
    double target;    /* K' */
    double lambda;    /* multiplier */
    double k;         /* the last estimate */
    double effective; /* the last multiplier in the gradient: max(0, lambda + rho * g) */
} dc_constraint_metric;

typedef struct dc_constraint {
    dc_constraint_options options;
    double eta_step;
    int n_metrics;
    dc_constraint_metric metrics[DC_METRICS];
} dc_constraint;

/* Targets K' are taken from targets->limit. steps: how many alpha steps the search will make. lambda = 0.
 * The tables are borrowed. */
void dc_constraint_init(dc_constraint *constraint, const dc_constraint_options *options, const dc_budgets *targets,
                        int64_t steps);

/* The estimate k of one metric, and dk/dalpha in grad (overwritten; may be NULL). */
double dc_constraint_estimate(dc_estimate estimate, const dc_cost_table *table, const dc_alpha alpha,
                              double grad[DC_CELL_TYPES][DC_CELL_EDGES][DC_DARTS_N_OPS]);

/* One step: adds the gradient of sum_m effective_m * g_m at alpha to grad, then moves each lambda. */
void dc_constraint_step(dc_constraint *constraint, const dc_alpha alpha, dc_alpha grad);

#endif
