/* The size constraint: estimates and gradients against finite differences, the multiplier, and whether the derived
 * size follows its target on a loss that wants large operations. */
#include "base/rng.h"
#include "search/constraint.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

enum { COUNT = DC_CELL_TYPES * DC_CELL_EDGES * DC_DARTS_N_OPS };

typedef double gradient[DC_CELL_TYPES][DC_CELL_EDGES][DC_DARTS_N_OPS];

static void random_alpha(uint64_t seed, double scale, dc_alpha alpha)
{
    dc_rng_key key = {seed, dc_rng_stream("alpha")};
    for (int i = 0; i < COUNT; i++)
        (&alpha[0][0][0])[i] = (float)scale * dc_rng_normal(key, 0, (uint64_t)i);
}

static void make_tables(dc_cost_table tables[DC_METRICS])
{
    dc_network_options options = dc_network_defaults(DC_NETWORK_CIFAR);
    options.channels = 16;
    options.cells = 8;
    assert_int_equal(dc_cost_tables_make(&options, tables), DC_OK);
}

/* Eq 3 written out, over all edges or over those that a genotype keeps. */
static double expected_size(const dc_cost_table *table, const dc_alpha alpha, const dc_genotype *kept)
{
    bool counts[DC_CELL_TYPES][DC_CELL_EDGES];
    for (int type = 0; type < DC_CELL_TYPES; type++) {
        for (int edge = 0; edge < DC_CELL_EDGES; edge++)
            counts[type][edge] = !kept;
        for (int i = 0; i < DC_CELL_KEPT && kept; i++)
            counts[type][dc_cell_first_edge(i / 2) + kept->cell[type][i].source] = true;
    }
    double k = table->fixed;
    for (int type = 0; type < DC_CELL_TYPES; type++)
        for (int edge = 0; edge < DC_CELL_EDGES; edge++) {
            double sum = 0, cost = 0;
            for (int op = 0; op < DC_DARTS_N_OPS; op++) {
                sum += exp(alpha[type][edge][op]);
                cost += exp(alpha[type][edge][op]) * table->cost[type][edge][op];
            }
            k += counts[type][edge] ? cost / sum : 0;
        }
    return k;
}

static void expect_gradient(dc_estimate estimate, const dc_cost_table *table, dc_alpha alpha)
{
    gradient grad;
    dc_genotype kept;
    dc_log_probability log_p;
    dc_log_probability_of_alpha(alpha, log_p);
    dc_derive_darts(log_p, &kept);
    const dc_genotype *frozen = estimate == DC_ESTIMATE_DERIVED ? &kept : NULL;
    double k = dc_constraint_estimate(estimate, table, alpha, grad);
    double value = frozen ? dc_cost_table_count(table, &kept) : expected_size(table, alpha, NULL);
    assert_true(fabs(k / value - 1) < 1e-12);
    for (int i = 0; i < COUNT; i++) {
        float *a = &(&alpha[0][0][0])[i], at = *a, step = 1.0f / 256;
        *a = at + step;
        float above = *a;
        double up = expected_size(table, alpha, frozen);
        *a = at - step;
        float below = *a;
        double down = expected_size(table, alpha, frozen);
        *a = at;
        double slope = (up - down) / ((double)above - below);
        assert_true(fabs((&grad[0][0][0])[i] - slope) < 1e-4 * table->cost[0][13][DC_DARTS_SEP_CONV_5X5]);
    }
}

static void test_gradients(void **state)
{
    (void)state;
    dc_cost_table tables[DC_METRICS];
    make_tables(tables);
    for (uint64_t seed = 0; seed < 4; seed++) {
        dc_alpha alpha;
        random_alpha(seed, seed % 2 ? 1 : 1e-3, alpha);
        for (int m = 0; m < DC_METRICS; m++) {
            expect_gradient(DC_ESTIMATE_SOFT, &tables[m], alpha);
            expect_gradient(DC_ESTIMATE_DERIVED, &tables[m], alpha);
        }
    }
}

static void test_step_adds_its_gradient_and_moves_lambda(void **state)
{
    (void)state;
    dc_cost_table tables[DC_METRICS];
    make_tables(tables);
    dc_alpha alpha, grad, before;
    random_alpha(3, 0.5, alpha);
    random_alpha(4, 1, grad);
    memcpy(before, grad, sizeof grad);
    gradient dk[DC_METRICS];
    dc_constraint constraint;
    dc_constraint_options options = {DC_ESTIMATE_SOFT, 3, 4};
    dc_budgets targets = {.n = DC_METRICS};
    double k[DC_METRICS], effective[DC_METRICS];
    for (int m = 0; m < DC_METRICS; m++) {
        k[m] = dc_constraint_estimate(DC_ESTIMATE_SOFT, &tables[m], alpha, dk[m]);
        targets.table[m] = &tables[m];
        targets.limit[m] = k[m] / (m == 0 ? 1.25 : 0.9); /* g = 0.25: above; g = -0.1: below */
    }
    dc_constraint_init(&constraint, &options, &targets, 200);
    constraint.metrics[1].lambda = 0.001;
    effective[0] = 3 * 0.25;
    effective[1] = 0; /* 0.001 - 0.3 < 0 */
    dc_constraint_step(&constraint, alpha, grad);
    assert_true(fabs(constraint.metrics[0].lambda - 0.02 * 0.25) < 1e-12);
    assert_true(constraint.metrics[1].lambda == 0);
    for (int m = 0; m < DC_METRICS; m++) {
        assert_true(fabs(constraint.metrics[m].effective - effective[m]) < 1e-9);
        assert_true(fabs(constraint.metrics[m].k / k[m] - 1) < 1e-12);
    }
    for (int i = 0; i < COUNT; i++) {
        double expected = (&before[0][0][0])[i] + effective[0] * (&dk[0][0][0][0])[i] / targets.limit[0];
        assert_true(fabs((&grad[0][0][0])[i] - expected) < 1e-5);
    }
}

/* A search in little: Adam on alpha, whose loss is the expected loss of operations that are the better the dearer they
 * are, with noise as a small batch has. Returns the size derived at the end by the plain rule over its target. */
static double simulate(dc_estimate estimate, const dc_cost_table *table, double target, uint64_t seed, int steps)
{
    dc_alpha alpha;
    random_alpha(seed, 1e-3, alpha);
    dc_constraint constraint;
    dc_constraint_options options = {estimate, 3, 4};
    dc_budgets targets = {1, {table}, {target}};
    dc_constraint_init(&constraint, &options, &targets, steps);
    double first[COUNT] = {0}, second[COUNT] = {0};
    dc_rng_key key = {seed, dc_rng_stream("loss")};
    const double want[DC_DARTS_N_OPS] = {0, 0.005, 0.005, 0.015, 0.025, 0.03, 0.015, 0.02};
    for (int s = 1; s <= steps; s++) {
        dc_alpha grad;
        dc_log_probability log_p;
        dc_log_probability_of_alpha(alpha, log_p);
        for (int e = 0; e < COUNT; e += DC_DARTS_N_OPS) {
            double mean = 0;
            for (int op = 0; op < DC_DARTS_N_OPS; op++)
                mean += exp((&log_p[0][0][0])[e + op]) * want[op];
            for (int op = 0; op < DC_DARTS_N_OPS; op++)
                (&grad[0][0][0])[e + op] = (float)(exp((&log_p[0][0][0])[e + op]) * (mean - want[op])) +
                                           0.01f * dc_rng_normal(key, (uint32_t)s, (uint64_t)(e + op));
        }
        dc_constraint_step(&constraint, alpha, grad);
        for (int i = 0; i < COUNT; i++) {
            double g = (&grad[0][0][0])[i] + 1e-3 * (&alpha[0][0][0])[i];
            first[i] = 0.5 * first[i] + 0.5 * g;
            second[i] = 0.999 * second[i] + 0.001 * g * g;
            (&alpha[0][0][0])[i] -=
                (float)(0.01 * first[i] / (1 - pow(0.5, s)) / (sqrt(second[i] / (1 - pow(0.999, s))) + 1e-8));
        }
    }
    return dc_constraint_estimate(DC_ESTIMATE_DERIVED, table, alpha, NULL) / target;
}

static void test_derived_size_follows_the_target(void **state)
{
    (void)state;
    dc_cost_table tables[DC_METRICS];
    make_tables(tables);
    double sum = 0;
    int n = 0;
    for (int m = 0; m < DC_METRICS; m++) {
        dc_limits limits = dc_cost_table_limits(&tables[m]);
        for (int i = 1; i <= 4; i++) {
            double ratio = simulate(DC_ESTIMATE_DERIVED, &tables[m], limits.min + 0.2 * i * (limits.max - limits.min),
                                    (uint64_t)i, 300);
            if (fabs(ratio - 1) >= 0.2)
                fail_msg("%s: K/K' = %.3f at target %d", dc_metric_name((dc_metric)m), ratio, i);
            sum += fabs(ratio - 1);
            n++;
        }
    }
    if (sum / n >= 0.1)
        fail_msg("|K/K' - 1| is %.3f on average", sum / n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_gradients),
                                       cmocka_unit_test(test_step_adds_its_gradient_and_moves_lambda),
                                       cmocka_unit_test(test_derived_size_follows_the_target)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
