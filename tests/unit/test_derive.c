/* The exact derivation: against brute force on small spaces, against the DARTS rule where the budgets are slack, and
 * its properties on the whole space. */
#include "base/rng.h"
#include "space/derive.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

enum { STAGES = DC_CELL_TYPES * DC_CELL_NODES, MOST_OPTIONS = 64 };

/* Draws of one test case. */
typedef struct draws {
    dc_rng_key key;
    uint64_t n;
} draws;

static double uniform(draws *d)
{
    return dc_rng_uniform(d->key, 0, d->n++);
}

static draws draws_of(uint64_t seed)
{
    return (draws){{seed, dc_rng_stream("derive")}, 0};
}

static void random_log_p(draws *d, double scale, dc_log_probability log_p)
{
    float alpha[DC_CELL_TYPES][DC_CELL_EDGES][DC_DARTS_N_OPS], *a = &alpha[0][0][0];
    for (size_t i = 0; i < sizeof alpha / sizeof *a; i++)
        a[i] = (float)(scale * dc_rng_normal(d->key, 1, d->n++));
    dc_log_probability_of_alpha(alpha, log_p);
}

static void random_table(draws *d, dc_metric metric, dc_cost_table *table)
{
    *table = (dc_cost_table){.metric = metric, .fixed = 500};
    for (int type = 0; type < DC_CELL_TYPES; type++)
        for (int edge = 0; edge < DC_CELL_EDGES; edge++)
            for (int op = 1; op < DC_DARTS_N_OPS; op++)
                table->cost[type][edge][op] = floor(1000 * uniform(d));
}

static void random_budgets(draws *d, int n, const dc_cost_table tables[DC_METRICS], dc_budgets *budgets)
{
    *budgets = (dc_budgets){.n = n};
    for (int m = 0; m < n; m++) {
        dc_limits limits = dc_cost_table_limits(&tables[m]);
        budgets->table[m] = &tables[m];
        budgets->limit[m] = floor(limits.min + (0.15 + 0.4 * uniform(d)) * (limits.max - limits.min));
    }
}

/* ---- brute force ------------------------------------------------------------------------------------------------- */

typedef struct stage {
    int n;
    double value[MOST_OPTIONS], cost[MOST_OPTIONS][DC_METRICS];
} stage;

static void list_options(const dc_log_probability log_p, const dc_budgets *budgets, stage stages[STAGES])
{
    for (int t = 0; t < STAGES; t++) {
        int type = t / DC_CELL_NODES, node = t % DC_CELL_NODES, first = dc_cell_first_edge(node);
        stages[t].n = 0;
        for (int a = first; a < first + DC_CELL_INPUTS + node; a++)
            for (int b = a + 1; b < first + DC_CELL_INPUTS + node; b++)
                for (int oa = 1; oa < DC_DARTS_N_OPS; oa++)
                    for (int ob = 1; ob < DC_DARTS_N_OPS; ob++) {
                        double value = log_p[type][a][oa] + log_p[type][b][ob];
                        if (value == -INFINITY)
                            continue;
                        int i = stages[t].n++;
                        assert_true(i < MOST_OPTIONS);
                        stages[t].value[i] = value;
                        for (int m = 0; m < budgets->n; m++)
                            stages[t].cost[i][m] =
                                budgets->table[m]->cost[type][a][oa] + budgets->table[m]->cost[type][b][ob];
                    }
    }
}

static double best_of(const stage stages[STAGES], int t, int n_metrics, const double *room)
{
    if (t == STAGES)
        return 0;
    double best = -INFINITY;
    for (int i = 0; i < stages[t].n; i++) {
        double left[DC_METRICS];
        bool fits = true;
        for (int m = 0; m < n_metrics; m++) {
            left[m] = room[m] - stages[t].cost[i][m];
            fits = fits && left[m] >= 0;
        }
        if (fits)
            best = fmax(best, stages[t].value[i] + best_of(stages, t + 1, n_metrics, left));
    }
    return best;
}

/* Leaves two operations on each edge and few edges, so that all architectures can be tried. */
static void make_small(draws *d, dc_log_probability log_p)
{
    for (int type = 0; type < DC_CELL_TYPES; type++)
        for (int node = 0; node < DC_CELL_NODES; node++) {
            int n = DC_CELL_INPUTS + node, first = dc_cell_first_edge(node);
            int edges = node == 1 ? 3 : 2, skip = (int)(uniform(d) * n);
            for (int e = 0; e < n; e++) {
                int one = 1 + (int)(uniform(d) * 7), other = 1 + (int)(uniform(d) * 7);
                bool used = (e - skip + n) % n < edges;
                for (int op = 0; op < DC_DARTS_N_OPS; op++)
                    if (!used || (op != one && op != other))
                        log_p[type][first + e][op] = -INFINITY;
            }
        }
}

static void test_equals_brute_force(void **state)
{
    (void)state;
    dc_deriver *deriver;
    assert_int_equal(dc_deriver_create(&deriver), DC_OK);
    int n_found = 0;
    for (uint64_t seed = 0; seed < 24; seed++) {
        draws d = draws_of(seed);
        dc_log_probability log_p;
        dc_cost_table tables[DC_METRICS];
        dc_budgets budgets;
        stage stages[STAGES];
        random_log_p(&d, 1, log_p);
        make_small(&d, log_p);
        for (int m = 0; m < DC_METRICS; m++)
            random_table(&d, (dc_metric)m, &tables[m]);
        random_budgets(&d, 1 + (int)(seed % 2), tables, &budgets);
        double room[DC_METRICS], value;
        for (int m = 0; m < budgets.n; m++)
            room[m] = budgets.limit[m] - tables[m].fixed;
        list_options(log_p, &budgets, stages);
        double best = best_of(stages, 0, budgets.n, room);
        dc_genotype genotype;
        dc_status status = dc_derive(deriver, log_p, &budgets, &genotype, &value);
        assert_int_equal(status, best > -INFINITY ? DC_OK : DC_ERR_INPUT);
        if (status != DC_OK)
            continue;
        n_found++;
        assert_true(fabs(value - best) < 1e-9);
        assert_true(fabs(dc_genotype_log_probability(log_p, &genotype) - best) < 1e-9);
        assert_true(dc_budgets_fit(&budgets, &genotype));
    }
    assert_true(n_found >= 8);
    dc_deriver_destroy(deriver);
}

/* ---- the DARTS rule ---------------------------------------------------------------------------------------------- */

/* genotype() of DARTS' model_search.py, word for word: sorted() is stable, `none` is never taken. */
static void darts_reference(const dc_log_probability log_p, dc_genotype *genotype)
{
    for (int type = 0; type < DC_CELL_TYPES; type++) {
        genotype->concat[type] = 0x3c;
        int start = 0, n = 2;
        for (int i = 0; i < DC_CELL_NODES; i++) {
            const double(*w)[DC_DARTS_N_OPS] = &log_p[type][start];
            int order[DC_CELL_STATES], best_op[DC_CELL_STATES];
            for (int x = 0; x < n; x++) {
                best_op[x] = -1;
                for (int k = 1; k < DC_DARTS_N_OPS; k++)
                    if (best_op[x] < 0 || w[x][k] > w[x][best_op[x]])
                        best_op[x] = k;
                int at = x;
                while (at > 0 && w[order[at - 1]][best_op[order[at - 1]]] < w[x][best_op[x]]) {
                    order[at] = order[at - 1];
                    at--;
                }
                order[at] = x;
            }
            for (int j = 0; j < 2; j++)
                genotype->cell[type][2 * i + j] = (dc_choice){best_op[order[j]], order[j]};
            start += n++;
        }
    }
}

static void test_slack_budgets_give_the_darts_rule(void **state)
{
    (void)state;
    dc_deriver *deriver;
    assert_int_equal(dc_deriver_create(&deriver), DC_OK);
    for (uint64_t seed = 0; seed < 300; seed++) {
        draws d = draws_of(seed);
        dc_log_probability log_p;
        random_log_p(&d, 1, log_p);
        if (seed % 3 == 0) /* ties */
            for (int i = 0; i < DC_CELL_TYPES * DC_CELL_EDGES * DC_DARTS_N_OPS; i++)
                (&log_p[0][0][0])[i] = floor((&log_p[0][0][0])[i]);
        dc_cost_table table;
        random_table(&d, DC_METRIC_PARAMS, &table);
        dc_genotype expected, genotype;
        darts_reference(log_p, &expected);
        dc_budgets none = {0}, exact = {1, {&table}, {dc_cost_table_count(&table, &expected)}};
        assert_int_equal(dc_derive(deriver, log_p, &none, &genotype, NULL), DC_OK);
        assert_true(dc_genotype_equal(&genotype, &expected));
        assert_int_equal(dc_derive(deriver, log_p, &exact, &genotype, NULL), DC_OK);
        assert_true(dc_genotype_equal(&genotype, &expected));
        for (int i = 0; i < DC_CELL_KEPT; i += 2) /* one way to write an architecture */
            assert_true(genotype.cell[0][i].source < genotype.cell[0][i + 1].source);
    }
    dc_deriver_destroy(deriver);
}

/* ---- the whole space --------------------------------------------------------------------------------------------- */

/* No other choice at a single node is better and still fits. */
static void expect_locally_best(const dc_log_probability log_p, const dc_budgets *budgets, const dc_genotype *genotype)
{
    double value = dc_genotype_log_probability(log_p, genotype);
    for (int t = 0; t < STAGES; t++) {
        int type = t / DC_CELL_NODES, node = t % DC_CELL_NODES, n = DC_CELL_INPUTS + node;
        for (int a = 0; a < n; a++)
            for (int b = a + 1; b < n; b++)
                for (int oa = 1; oa < DC_DARTS_N_OPS; oa++)
                    for (int ob = 1; ob < DC_DARTS_N_OPS; ob++) {
                        dc_genotype other = *genotype;
                        other.cell[type][2 * node] = (dc_choice){oa, a};
                        other.cell[type][2 * node + 1] = (dc_choice){ob, b};
                        assert_true(!dc_budgets_fit(budgets, &other) ||
                                    dc_genotype_log_probability(log_p, &other) <= value + 1e-9);
                    }
    }
}

static void test_whole_space(void **state)
{
    (void)state;
    dc_network_options options = dc_network_defaults(DC_NETWORK_CIFAR);
    dc_cost_table tables[DC_METRICS];
    dc_deriver *deriver;
    assert_int_equal(dc_deriver_create(&deriver), DC_OK);
    assert_int_equal(dc_cost_tables_make(&options, tables), DC_OK);
    for (uint64_t seed = 0; seed < 30; seed++) {
        draws d = draws_of(seed);
        dc_log_probability log_p;
        dc_budgets budgets;
        dc_genotype genotype, larger;
        double value, value_larger;
        random_log_p(&d, seed % 2 ? 1e-3 : 1, log_p);
        random_budgets(&d, 1 + (int)(seed % DC_METRICS), tables, &budgets);
        assert_int_equal(dc_derive(deriver, log_p, &budgets, &genotype, &value), DC_OK);
        assert_true(dc_budgets_fit(&budgets, &genotype));
        assert_true(fabs(value - dc_genotype_log_probability(log_p, &genotype)) < 1e-9);
        expect_locally_best(log_p, &budgets, &genotype);
        budgets.limit[0] *= 1.1; /* more room is never worse */
        assert_int_equal(dc_derive(deriver, log_p, &budgets, &larger, &value_larger), DC_OK);
        assert_true(value_larger >= value - 1e-9);
    }
    dc_deriver_destroy(deriver);
}

static void test_limits_are_reached(void **state)
{
    (void)state;
    dc_deriver *deriver;
    assert_int_equal(dc_deriver_create(&deriver), DC_OK);
    for (uint64_t seed = 0; seed < 20; seed++) {
        draws d = draws_of(seed);
        dc_cost_table table;
        dc_genotype genotype;
        random_table(&d, DC_METRIC_MACS, &table);
        dc_limits limits = dc_cost_table_limits(&table);
        dc_budgets budgets = {1, {&table}, {limits.min}};
        dc_log_probability log_p;
        random_log_p(&d, 1, log_p);
        assert_int_equal(dc_derive(deriver, log_p, &budgets, &genotype, NULL), DC_OK);
        assert_true(dc_cost_table_count(&table, &genotype) == limits.min);
        budgets.limit[0] = limits.min - 1;
        assert_int_equal(dc_derive(deriver, log_p, &budgets, &genotype, NULL), DC_ERR_INPUT);
        memcpy(log_p, table.cost, sizeof log_p); /* the dearest architecture is the most probable one */
        dc_derive_darts(log_p, &genotype);
        assert_true(dc_cost_table_count(&table, &genotype) == limits.max);
    }
    dc_deriver_destroy(deriver);
}

static void expect_refused(dc_deriver *deriver, const dc_budgets *budgets, const char *const *words)
{
    assert_int_equal(dc_budgets_check(deriver, budgets), DC_ERR_INPUT);
    for (; *words; words++)
        if (!strstr(dc_status_message(), *words))
            fail_msg("\"%s\" does not say \"%s\"", dc_status_message(), *words);
}

static void test_impossible_budgets_are_explained(void **state)
{
    (void)state;
    dc_network_options options = dc_network_defaults(DC_NETWORK_CIFAR);
    dc_cost_table tables[DC_METRICS];
    dc_deriver *deriver;
    assert_int_equal(dc_deriver_create(&deriver), DC_OK);
    assert_int_equal(dc_cost_tables_make(&options, tables), DC_OK);
    dc_budgets budgets = {1, {&tables[DC_METRIC_PARAMS]}, {1000000}};
    expect_refused(deriver, &budgets, (const char *[]){"[budget] params", "1,000,000", "1,370,134", "5,144,086", NULL});
    budgets.limit[0] = 6000000;
    expect_refused(deriver, &budgets, (const char *[]){"[budget] params", "6,000,000", "1,370,134", "5,144,086", NULL});
    budgets.limit[0] = 2000000;
    assert_int_equal(dc_budgets_check(deriver, &budgets), DC_OK);

    /* each alone is possible, both are not: what is cheap in one is dear in the other */
    draws d = draws_of(1);
    random_table(&d, DC_METRIC_PARAMS, &tables[0]);
    tables[1] = (dc_cost_table){.metric = DC_METRIC_MACS, .fixed = 500};
    for (int type = 0; type < DC_CELL_TYPES; type++)
        for (int edge = 0; edge < DC_CELL_EDGES; edge++)
            for (int op = 1; op < DC_DARTS_N_OPS; op++) {
                tables[0].cost[type][edge][op] = 100 * floor(tables[0].cost[type][edge][op] / 100);
                tables[1].cost[type][edge][op] = 1000 - tables[0].cost[type][edge][op];
            }
    dc_budgets both = {2, {&tables[0], &tables[1]}, {5000, 5000}};
    dc_genotype genotype;
    dc_log_probability log_p;
    random_log_p(&d, 1, log_p);
    expect_refused(deriver, &both, (const char *[]){"[budget] params", "together", "12,000", NULL});
    assert_int_equal(dc_derive(deriver, log_p, &both, &genotype, NULL), DC_ERR_INPUT);
    both.limit[0] = both.limit[1] = 12000; /* 500 + 500 fixed + 16 edges of 1000 = 17000 in all */
    assert_int_equal(dc_budgets_check(deriver, &both), DC_OK);
    dc_deriver_destroy(deriver);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_equals_brute_force),
                                       cmocka_unit_test(test_slack_budgets_give_the_darts_rule),
                                       cmocka_unit_test(test_whole_space), cmocka_unit_test(test_limits_are_reached),
                                       cmocka_unit_test(test_impossible_budgets_are_explained)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
