/* The knapsack against brute force: random values, random and few-valued costs, one to three resources. */
#include "base/rng.h"
#include "space/knapsack.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>

enum { STAGES = 5, OPTIONS = 6 };

typedef struct problem {
    int n_resources;
    double limit[DC_KNAPSACK_RESOURCES];
    double value[STAGES][OPTIONS], cost[STAGES][OPTIONS][DC_KNAPSACK_RESOURCES];
} problem;

static double best_by_trying_all(const problem *p)
{
    double best = -INFINITY;
    int choices = 1;
    for (int t = 0; t < STAGES; t++)
        choices *= OPTIONS;
    for (int c = 0; c < choices; c++) {
        double value = 0, cost[DC_KNAPSACK_RESOURCES] = {0};
        for (int t = 0, rest = c; t < STAGES; t++, rest /= OPTIONS) {
            value += p->value[t][rest % OPTIONS];
            for (int r = 0; r < p->n_resources; r++)
                cost[r] += p->cost[t][rest % OPTIONS][r];
        }
        bool fits = true;
        for (int r = 0; r < p->n_resources; r++)
            fits = fits && cost[r] <= p->limit[r];
        if (fits && value > best)
            best = value;
    }
    return best;
}

static void solve(dc_knapsack *k, const problem *p, bool *found, int *tags, double *value)
{
    dc_knapsack_begin(k, p->n_resources, p->limit);
    for (int t = 0; t < STAGES; t++) {
        dc_knapsack_stage(k);
        for (int i = 0; i < OPTIONS; i++)
            assert_int_equal(dc_knapsack_option(k, p->value[t][i], p->cost[t][i], i), DC_OK);
    }
    assert_int_equal(dc_knapsack_solve(k, found, tags, value), DC_OK);
}

static problem random_problem(uint64_t seed, int n_resources, bool coarse)
{
    dc_rng_key key = {seed, dc_rng_stream("knapsack")};
    problem p = {.n_resources = n_resources};
    uint64_t draw = 0;
    for (int t = 0; t < STAGES; t++)
        for (int i = 0; i < OPTIONS; i++) {
            float v = dc_rng_uniform(key, 0, draw++);
            p.value[t][i] = coarse ? -floor(v * 4) : -v; /* many ties */
            for (int r = 0; r < n_resources; r++)
                p.cost[t][i][r] = floor(dc_rng_uniform(key, 0, draw++) * (coarse ? 4 : 1000));
        }
    for (int r = 0; r < n_resources; r++)
        p.limit[r] = floor(dc_rng_uniform(key, 0, draw++) * STAGES * (coarse ? 3 : 600));
    return p;
}

static void test_equals_trying_all(void **state)
{
    (void)state;
    dc_knapsack *k;
    assert_int_equal(dc_knapsack_create(&k), DC_OK);
    int n_found = 0, n_impossible = 0;
    for (uint64_t seed = 0; seed < 600; seed++) {
        problem p = random_problem(seed, 1 + (int)(seed % 3), seed % 2);
        bool found;
        int tags[STAGES];
        double value, best = best_by_trying_all(&p), sum = 0, cost[DC_KNAPSACK_RESOURCES] = {0};
        solve(k, &p, &found, tags, &value);
        assert_int_equal(found, best > -INFINITY);
        n_found += found;
        n_impossible += !found;
        if (!found)
            continue;
        for (int t = 0; t < STAGES; t++) {
            sum += p.value[t][tags[t]];
            for (int r = 0; r < p.n_resources; r++)
                cost[r] += p.cost[t][tags[t]][r];
        }
        for (int r = 0; r < p.n_resources; r++)
            assert_true(cost[r] <= p.limit[r]);
        assert_true(fabs(sum - best) <= 1e-9);
        assert_true(fabs(value - best) <= 1e-9);
    }
    assert_true(n_found > 100 && n_impossible > 20); /* both kinds were seen */
    dc_knapsack_destroy(k);
}

static void test_no_resource(void **state)
{
    (void)state;
    dc_knapsack *k;
    assert_int_equal(dc_knapsack_create(&k), DC_OK);
    problem p = random_problem(7, 0, false);
    bool found;
    int tags[STAGES];
    double value;
    solve(k, &p, &found, tags, &value);
    assert_true(found);
    assert_true(fabs(value - best_by_trying_all(&p)) < 1e-12);
    dc_knapsack_destroy(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_equals_trying_all), cmocka_unit_test(test_no_resource)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
