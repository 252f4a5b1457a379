#include "space/derive.h"

#include "base/units.h"
#include "space/knapsack.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

_Static_assert((int)DC_METRICS <= (int)DC_KNAPSACK_RESOURCES, "a resource for each metric");

struct dc_deriver {
    dc_knapsack *knapsack; /* a stage for each node of each cell type */
};

void dc_log_probability_of_alpha(const float alpha[DC_CELL_TYPES][DC_CELL_EDGES][DC_DARTS_N_OPS],
                                 dc_log_probability log_p)
{
    for (int type = 0; type < DC_CELL_TYPES; type++)
        for (int edge = 0; edge < DC_CELL_EDGES; edge++) {
            const float *a = alpha[type][edge];
            double most = a[0], sum = 0;
            for (int op = 1; op < DC_DARTS_N_OPS; op++)
                most = fmax(most, a[op]);
            for (int op = 0; op < DC_DARTS_N_OPS; op++)
                sum += exp(a[op] - most);
            for (int op = 0; op < DC_DARTS_N_OPS; op++)
                log_p[type][edge][op] = a[op] - most - log(sum);
        }
}

double dc_genotype_log_probability(const dc_log_probability log_p, const dc_genotype *genotype)
{
    double sum = 0;
    for (int type = 0; type < DC_CELL_TYPES; type++)
        for (int i = 0; i < DC_CELL_KEPT; i++) {
            dc_choice kept = genotype->cell[type][i];
            sum += log_p[type][dc_cell_first_edge(i / 2) + kept.source][kept.op];
        }
    return sum;
}

/* The channel concat of a derived cell: all its nodes. */
enum { ALL_NODES = ((1 << DC_CELL_NODES) - 1) << DC_CELL_INPUTS };

static int strongest(const double log_p[DC_DARTS_N_OPS])
{
    int best = DC_DARTS_NONE + 1;
    for (int op = best + 1; op < DC_DARTS_N_OPS; op++)
        if (log_p[op] > log_p[best])
            best = op;
    return best;
}

/* Of a node's edges but `except` the first with the strongest operation. */
static dc_choice strongest_edge(const double (*edges)[DC_DARTS_N_OPS], int n, int except)
{
    dc_choice best = {DC_DARTS_NONE, -1};
    for (int source = 0; source < n; source++) {
        if (source == except)
            continue;
        int op = strongest(edges[source]);
        if (best.source < 0 || edges[source][op] > edges[best.source][best.op])
            best = (dc_choice){op, source};
    }
    return best;
}

void dc_derive_darts(const dc_log_probability log_p, dc_genotype *genotype)
{
    for (int type = 0; type < DC_CELL_TYPES; type++) {
        genotype->concat[type] = ALL_NODES;
        for (int node = 0; node < DC_CELL_NODES; node++) {
            const double(*edges)[DC_DARTS_N_OPS] = &log_p[type][dc_cell_first_edge(node)];
            dc_choice first = strongest_edge(edges, DC_CELL_INPUTS + node, -1);
            dc_choice second = strongest_edge(edges, DC_CELL_INPUTS + node, first.source);
            bool in_order = first.source < second.source;
            genotype->cell[type][2 * node] = in_order ? first : second;
            genotype->cell[type][2 * node + 1] = in_order ? second : first;
        }
    }
}

bool dc_budgets_fit(const dc_budgets *budgets, const dc_genotype *genotype)
{
    for (int m = 0; m < budgets->n; m++)
        if (dc_cost_table_count(budgets->table[m], genotype) > budgets->limit[m])
            return false;
    return true;
}

dc_status dc_deriver_create(dc_deriver **deriver)
{
    dc_deriver *d = dc_alloc_zeroed(sizeof *d);
    *deriver = NULL;
    if (!d)
        return DC_ERR_MEMORY;
    dc_status status = dc_knapsack_create(&d->knapsack);
    if (status != DC_OK) {
        free(d);
        return status;
    }
    *deriver = d;
    return DC_OK;
}

void dc_deriver_destroy(dc_deriver *deriver)
{
    if (!deriver)
        return;
    dc_knapsack_destroy(deriver->knapsack);
    free(deriver);
}

/* ---- the knapsack ------------------------------------------------------------------------------------------------ */

/* The operations of one edge that no other one beats in value and every cost: all that an optimum can need. */
static int useful_ops(const double log_p[DC_DARTS_N_OPS], const dc_budgets *budgets, int type, int edge,
                      int ops[DC_DARTS_N_OPS])
{
    int n = 0;
    for (int op = DC_DARTS_NONE + 1; op < DC_DARTS_N_OPS; op++) {
        bool useful = log_p[op] > -INFINITY;
        for (int other = DC_DARTS_NONE + 1; other < DC_DARTS_N_OPS && useful; other++) {
            bool better = log_p[other] > log_p[op], no_worse = log_p[other] >= log_p[op];
            for (int m = 0; m < budgets->n; m++) {
                const double *cost = budgets->table[m]->cost[type][edge];
                better = better || cost[other] < cost[op];
                no_worse = no_worse && cost[other] <= cost[op];
            }
            useful = !(no_worse && (better || other < op));
        }
        if (useful)
            ops[n++] = op;
    }
    return n;
}

static int pack(dc_choice a, dc_choice b)
{
    return ((a.source * DC_CELL_STATES + b.source) * DC_DARTS_N_OPS + a.op) * DC_DARTS_N_OPS + b.op;
}

static void unpack(int tag, dc_choice *a, dc_choice *b)
{
    b->op = tag % DC_DARTS_N_OPS;
    tag /= DC_DARTS_N_OPS;
    a->op = tag % DC_DARTS_N_OPS;
    tag /= DC_DARTS_N_OPS;
    b->source = tag % DC_CELL_STATES;
    a->source = tag / DC_CELL_STATES;
}

/* Gives the knapsack every pair of useful operations on two different edges into a node. */
static dc_status add_node(dc_knapsack *knapsack, const dc_log_probability log_p, const dc_budgets *budgets, int type,
                          int node)
{
    int ops[DC_CELL_STATES][DC_DARTS_N_OPS], n_ops[DC_CELL_STATES];
    int first = dc_cell_first_edge(node), n = DC_CELL_INPUTS + node;
    for (int source = 0; source < n; source++)
        n_ops[source] = useful_ops(log_p[type][first + source], budgets, type, first + source, ops[source]);
    dc_knapsack_stage(knapsack);
    for (int s = 0; s < n; s++)
        for (int t = s + 1; t < n; t++)
            for (int i = 0; i < n_ops[s]; i++)
                for (int j = 0; j < n_ops[t]; j++) {
                    dc_choice a = {ops[s][i], s}, b = {ops[t][j], t};
                    double value = log_p[type][first + s][a.op] + log_p[type][first + t][b.op], cost[DC_METRICS];
                    for (int m = 0; m < budgets->n; m++)
                        cost[m] = budgets->table[m]->cost[type][first + s][a.op] +
                                  budgets->table[m]->cost[type][first + t][b.op];
                    DC_TRY(dc_knapsack_option(knapsack, value, cost, pack(a, b)));
                }
    return DC_OK;
}

static dc_status solve(dc_deriver *deriver, const dc_log_probability log_p, const dc_budgets *budgets, bool *found,
                       dc_genotype *genotype, double *value)
{
    double limits[DC_METRICS];
    for (int m = 0; m < budgets->n; m++)
        limits[m] = budgets->limit[m] - budgets->table[m]->fixed;
    dc_knapsack_begin(deriver->knapsack, budgets->n, limits);
    for (int type = 0; type < DC_CELL_TYPES; type++)
        for (int node = 0; node < DC_CELL_NODES; node++)
            DC_TRY(add_node(deriver->knapsack, log_p, budgets, type, node));
    int tags[DC_CELL_TYPES * DC_CELL_NODES];
    DC_TRY(dc_knapsack_solve(deriver->knapsack, found, tags, value));
    if (*found)
        for (int type = 0; type < DC_CELL_TYPES; type++) {
            genotype->concat[type] = ALL_NODES;
            for (int node = 0; node < DC_CELL_NODES; node++)
                unpack(tags[type * DC_CELL_NODES + node], &genotype->cell[type][2 * node],
                       &genotype->cell[type][2 * node + 1]);
        }
    return DC_OK;
}

dc_status dc_derive(dc_deriver *deriver, const dc_log_probability log_p, const dc_budgets *budgets,
                    dc_genotype *genotype, double *log_probability)
{
    double value;
    dc_derive_darts(log_p, genotype);
    bool found = dc_budgets_fit(budgets, genotype);
    if (found) {
        value = dc_genotype_log_probability(log_p, genotype);
    } else {
        DC_TRY(solve(deriver, log_p, budgets, &found, genotype, &value));
        if (!found) {
            DC_TRY(dc_budgets_check(deriver, budgets));
            return dc_fail(DC_ERR_INPUT, "no architecture of the restricted space fits the budgets");
        }
    }
    if (log_probability)
        *log_probability = value;
    return DC_OK;
}

/* ---- limits and checks ------------------------------------------------------------------------------------------- */

/* The two smallest sums that a node can keep: its edges are independent, so is each node of each type. */
static double least_of_node(const dc_cost_table *table, double sign, int type, int node)
{
    double least = INFINITY, second = INFINITY;
    for (int source = 0; source < DC_CELL_INPUTS + node; source++) {
        const double *cost = table->cost[type][dc_cell_first_edge(node) + source];
        double edge = INFINITY;
        for (int op = DC_DARTS_NONE + 1; op < DC_DARTS_N_OPS; op++)
            edge = fmin(edge, sign * cost[op]);
        if (edge < least) {
            second = least;
            least = edge;
        } else {
            second = fmin(second, edge);
        }
    }
    return sign * (least + second);
}

dc_limits dc_cost_table_limits(const dc_cost_table *table)
{
    dc_limits limits = {table->fixed, table->fixed};
    for (int type = 0; type < DC_CELL_TYPES; type++)
        for (int node = 0; node < DC_CELL_NODES; node++) {
            limits.min += least_of_node(table, 1, type, node);
            limits.max += least_of_node(table, -1, type, node);
        }
    return limits;
}

static const char *text_of(dc_units_text *text, double count)
{
    *text = dc_format_count((int64_t)count);
    return text->s;
}

static dc_status check_alone(const dc_cost_table *table, double budget)
{
    dc_limits limits = dc_cost_table_limits(table);
    if (budget >= limits.min && budget <= limits.max)
        return DC_OK;
    dc_units_text given, min, max;
    return dc_fail(DC_ERR_INPUT, "[budget] %s = %s: %s; networks of this space have %s to %s %s",
                   dc_metric_name(table->metric), text_of(&given, budget),
                   budget < limits.min ? "no network is that small"
                                       : "every network is smaller, so this would constrain nothing",
                   text_of(&min, limits.min), text_of(&max, limits.max), dc_metric_name(table->metric));
}

/* Smallest value of metric m within all the other budgets. */
static dc_status least_within_others(dc_deriver *deriver, const dc_budgets *budgets, int m, bool *found, double *least)
{
    dc_log_probability value;
    dc_budgets others = {0};
    for (int i = 0; i < budgets->n; i++)
        if (i != m) {
            others.table[others.n] = budgets->table[i];
            others.limit[others.n++] = budgets->limit[i];
        }
    for (int type = 0; type < DC_CELL_TYPES; type++)
        for (int edge = 0; edge < DC_CELL_EDGES; edge++)
            for (int op = 0; op < DC_DARTS_N_OPS; op++)
                value[type][edge][op] = -budgets->table[m]->cost[type][edge][op];
    dc_genotype genotype;
    double best;
    DC_TRY(solve(deriver, value, &others, found, &genotype, &best));
    if (*found)
        *least = dc_cost_table_count(budgets->table[m], &genotype);
    return DC_OK;
}

dc_status dc_budgets_check(dc_deriver *deriver, const dc_budgets *budgets)
{
    for (int m = 0; m < budgets->n; m++)
        DC_TRY(check_alone(budgets->table[m], budgets->limit[m]));
    for (int m = 0; m < budgets->n; m++) {
        bool found;
        double least;
        DC_TRY(least_within_others(deriver, budgets, m, &found, &least));
        if (!found || least <= budgets->limit[m])
            continue;
        dc_limits limits = dc_cost_table_limits(budgets->table[m]);
        dc_units_text given, needed, min, max;
        return dc_fail(DC_ERR_INPUT,
                       "[budget] %s = %s: too small together with the other budgets, which need at least %s; alone, "
                       "networks of this space have %s to %s %s",
                       dc_metric_name(budgets->table[m]->metric), text_of(&given, budgets->limit[m]),
                       text_of(&needed, least), text_of(&min, limits.min), text_of(&max, limits.max),
                       dc_metric_name(budgets->table[m]->metric));
    }
    return DC_OK;
}
