/* Candidates: within the budgets, each architecture once, from the searches and the best of the lookup graph. */
#include "base/rng.h"
#include "lug/candidates.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct fixture {
    dc_deriver *deriver;
    dc_cost_table tables[DC_METRICS];
    dc_lug lug;
    dc_lug_entry runs[3];
    dc_budgets budgets;
} fixture;

static void must(dc_status status)
{
    if (status != DC_OK)
        fail_msg("%s", dc_status_message());
}

/* A search's end: random alpha, and what the plain rule derives from it. */
static dc_lug_entry random_entry(const fixture *f, uint32_t seed, int point, int seed_index)
{
    dc_lug_entry entry;
    dc_log_probability log_p;
    memset(&entry, 0, sizeof entry);
    entry.point = point;
    entry.seed_index = seed_index;
    for (int k = 0; k < DC_CELL_TYPES * DC_CELL_EDGES * DC_DARTS_N_OPS; k++)
        (&entry.alpha[0][0][0])[k] = dc_rng_normal((dc_rng_key){1, 2}, seed, (uint64_t)k);
    dc_log_probability_of_alpha(entry.alpha, log_p);
    dc_derive_darts(log_p, &entry.genotype);
    for (int m = 0; m < DC_METRICS; m++)
        entry.derived_cost[m] = dc_cost_table_count(&f->tables[m], &entry.genotype);
    entry.validation_accuracy = (double)dc_rng_uniform((dc_rng_key){1, 3}, seed, 0);
    return entry;
}

static int setup(void **state)
{
    static fixture f;
    f = (fixture){0};
    const dc_network_options network = {.input = {3, 16, 16}, .classes = 10, .channels = 8, .cells = 5};
    must(dc_cost_tables_make(&network, f.tables));
    must(dc_deriver_create(&f.deriver));
    for (int i = 0; i < 12; i++) {
        dc_lug_entry entry = random_entry(&f, (uint32_t)i, i / 2, i % 2);
        must(dc_lug_add(&f.lug, &entry));
    }
    for (int i = 0; i < 3; i++)
        f.runs[i] = random_entry(&f, (uint32_t)(100 + i), 0, i);
    dc_limits limits = dc_cost_table_limits(&f.tables[DC_METRIC_PARAMS]);
    f.budgets = (dc_budgets){1, {&f.tables[DC_METRIC_PARAMS]}, {(limits.min + limits.max) / 2}};
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    dc_deriver_destroy(f->deriver);
    dc_lug_clear(&f->lug);
    return 0;
}

static void all_fit_and_are_different(void **state)
{
    fixture *f = *state;
    int n;
    dc_candidate *list;
    must(dc_candidates_make(f->deriver, &f->budgets, f->tables, 3, f->runs, &f->lug, 4, &n, &list));
    assert_int_equal(n, 7);
    for (int i = 0; i < n; i++) {
        char origin[48];
        snprintf(origin, sizeof origin, "run-%d", i);
        if (i < 3)
            assert_string_equal(list[i].origin, origin);
        assert_true(dc_budgets_fit(&f->budgets, &list[i].genotype));
        assert_true(list[i].cost[DC_METRIC_PARAMS] <= f->budgets.limit[0]);
        assert_true(list[i].accuracy == -1);
        for (int m = 0; m < DC_METRICS; m++)
            assert_true(list[i].cost[m] == dc_cost_table_count(&f->tables[m], &list[i].genotype));
        for (int j = 0; j < i; j++)
            assert_false(dc_genotype_equal(&list[i].genotype, &list[j].genotype));
    }
    free(list);
}

static void equal_architectures_are_listed_once(void **state)
{
    fixture *f = *state;
    int n;
    dc_candidate *list;
    f->runs[1] = f->runs[2] = f->runs[0];
    dc_lug_clear(&f->lug);
    for (int i = 0; i < 4; i++) {
        f->runs[0].point = i;
        must(dc_lug_add(&f->lug, &f->runs[0]));
    }
    must(dc_candidates_make(f->deriver, &f->budgets, f->tables, 3, f->runs, &f->lug, 4, &n, &list));
    assert_int_equal(n, 1);
    free(list);
}

/* Of the lookup graph: the sizes closest to the budget from below first, then those above it. */
static void the_closest_from_below_come_first(void **state)
{
    fixture *f = *state;
    int n;
    dc_candidate *list;
    must(dc_candidates_make(f->deriver, &f->budgets, f->tables, 0, NULL, &f->lug, 12, &n, &list));
    assert_int_equal(n, 12);
    double last = f->budgets.limit[0];
    bool fits = true;
    for (int i = 0; i < n; i++) {
        int point, seed_index;
        assert_int_equal(sscanf(list[i].origin, "point-%d-seed-%d", &point, &seed_index), 2);
        const dc_lug_entry *entry = dc_lug_find(&f->lug, point, seed_index);
        double size = entry->derived_cost[DC_METRIC_PARAMS];
        if (fits && size > f->budgets.limit[0]) { /* from here on above it, the closest first */
            fits = false;
            last = size;
        }
        assert_true(fits ? size <= last : size >= last);
        last = size;
        if (fits) /* nothing had to be repaired */
            assert_true(dc_genotype_equal(&list[i].genotype, &entry->genotype));
    }
    assert_false(fits);
    free(list);
}

static void without_a_budget_the_most_accurate_come_first(void **state)
{
    fixture *f = *state;
    int n;
    dc_candidate *list;
    const dc_budgets none = {0};
    must(dc_candidates_make(f->deriver, &none, f->tables, 1, f->runs, &f->lug, 5, &n, &list));
    assert_int_equal(n, 6);
    double last = 1;
    for (int i = 1; i < n; i++) {
        int point, seed_index;
        assert_int_equal(sscanf(list[i].origin, "point-%d-seed-%d", &point, &seed_index), 2);
        double accuracy = dc_lug_find(&f->lug, point, seed_index)->validation_accuracy;
        assert_true(accuracy <= last);
        last = accuracy;
    }
    free(list);
}

static void impossible_budgets_are_an_error(void **state)
{
    fixture *f = *state;
    int n;
    dc_candidate *list;
    f->budgets.limit[0] = dc_cost_table_limits(&f->tables[DC_METRIC_PARAMS]).min - 1;
    assert_int_equal(dc_candidates_make(f->deriver, &f->budgets, f->tables, 3, f->runs, &f->lug, 4, &n, &list),
                     DC_ERR_INPUT);
}

static void the_best_is_the_first_of_the_most_accurate(void **state)
{
    (void)state;
    const dc_candidate list[] = {{.accuracy = 0.5}, {.accuracy = 0.75}, {.accuracy = 0.75}, {.accuracy = -1}};
    assert_int_equal(dc_candidates_best(4, list), 1);
    assert_int_equal(dc_candidates_best(1, list), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(all_fit_and_are_different),         TEST(equal_architectures_are_listed_once),
        TEST(the_closest_from_below_come_first), TEST(without_a_budget_the_most_accurate_come_first),
        TEST(impossible_budgets_are_an_error),   cmocka_unit_test(the_best_is_the_first_of_the_most_accurate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
