#include "search/constraint.h"

#include <math.h>
#include <string.h>

typedef double weights[DC_CELL_TYPES][DC_CELL_EDGES][DC_DARTS_N_OPS];

const char *dc_estimate_name(dc_estimate estimate)
{
    return estimate == DC_ESTIMATE_DERIVED ? "derived" : "soft";
}

void dc_constraint_init(dc_constraint *constraint, const dc_constraint_options *options, const dc_budgets *targets,
                        int64_t steps)
{
    *constraint = (dc_constraint){
        .options = *options, .eta_step = options->eta / (double)(steps > 0 ? steps : 1), .n_metrics = targets->n};
    for (int m = 0; m < targets->n; m++) {
        constraint->metrics[m].table = targets->table[m];
        constraint->metrics[m].target = targets->limit[m];
    }
}

/* The expected cost sum_o p_o B_o of one edge; its gradient, dE/dalpha_o = p_o (B_o - E), is added to grad. */
static double expected_cost(const double p[DC_DARTS_N_OPS], const double cost[DC_DARTS_N_OPS],
                            double grad[DC_DARTS_N_OPS])
{
    double expected = 0;
    for (int op = 0; op < DC_DARTS_N_OPS; op++)
        expected += p[op] * cost[op];
    for (int op = 0; op < DC_DARTS_N_OPS; op++)
        grad[op] += p[op] * (cost[op] - expected);
    return expected;
}

static double soft_size(const dc_cost_table *table, const weights p, weights grad)
{
    double k = table->fixed;
    for (int type = 0; type < DC_CELL_TYPES; type++)
        for (int edge = 0; edge < DC_CELL_EDGES; edge++)
            k += expected_cost(p[type][edge], table->cost[type][edge], grad[type][edge]);
    return k;
}

static double derived_size(const dc_cost_table *table, const dc_genotype *genotype, const weights p, weights grad)
{
    for (int type = 0; type < DC_CELL_TYPES; type++)
        for (int i = 0; i < DC_CELL_KEPT; i++) {
            int edge = dc_cell_first_edge(i / 2) + genotype->cell[type][i].source;
            expected_cost(p[type][edge], table->cost[type][edge], grad[type][edge]);
        }
    return dc_cost_table_count(table, genotype);
}

/* What all metrics of one step share. */
typedef struct view {
    weights p;
    dc_genotype derived;
} view;

static void look(view *v, const dc_alpha alpha)
{
    dc_log_probability_of_alpha(alpha, v->p);
    dc_derive_darts(v->p, &v->derived);
    double *p = &v->p[0][0][0];
    for (size_t i = 0; i < sizeof v->p / sizeof *p; i++)
        p[i] = exp(p[i]);
}

static double estimate_size(dc_estimate estimate, const dc_cost_table *table, const view *v, weights grad)
{
    memset(grad, 0, sizeof(weights));
    return estimate == DC_ESTIMATE_SOFT ? soft_size(table, v->p, grad) : derived_size(table, &v->derived, v->p, grad);
}

double dc_constraint_estimate(dc_estimate estimate, const dc_cost_table *table, const dc_alpha alpha, weights grad)
{
    view v;
    weights ignored;
    look(&v, alpha);
    return estimate_size(estimate, table, &v, grad ? grad : ignored);
}

void dc_constraint_step(dc_constraint *constraint, const dc_alpha alpha, dc_alpha grad)
{
    view v;
    weights dk;
    look(&v, alpha);
    for (int m = 0; m < constraint->n_metrics; m++) {
        dc_constraint_metric *metric = &constraint->metrics[m];
        metric->k = estimate_size(constraint->options.estimate, metric->table, &v, dk);
        double g = metric->k / metric->target - 1;
        metric->effective = fmax(0, metric->lambda + constraint->options.rho * g);
        metric->lambda = fmax(0, metric->lambda + constraint->eta_step * g);
        if (metric->effective == 0)
            continue;
        float *to = &grad[0][0][0];
        const double *from = &dk[0][0][0];
        for (size_t i = 0; i < sizeof dk / sizeof *from; i++)
            to[i] += (float)(metric->effective / metric->target * from[i]);
    }
}
