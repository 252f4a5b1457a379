/* The monotone fit of a lookup graph: against brute force, and as an inverse. */
#include "base/rng.h"
#include "lug/fit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

/* The least-squares non-decreasing fit is, at i, the max over a <= i of the min over b >= i of the mean of y[a..b]
 * (Robertson, Wright and Dykstra 1988, theorem 1.4.4). */
static double max_min_mean(int n, const double *y, const double *w, int i)
{
    double best = -INFINITY;
    for (int a = 0; a <= i; a++) {
        double least = INFINITY;
        for (int b = i; b < n; b++) {
            double sum = 0, weight = 0;
            for (int j = a; j <= b; j++) {
                sum += w[j] * y[j];
                weight += w[j];
            }
            least = fmin(least, sum / weight);
        }
        best = fmax(best, least);
    }
    return best;
}

static void test_isotonic_equals_its_definition(void **state)
{
    (void)state;
    enum { MOST = 12 };
    for (uint64_t seed = 0; seed < 200; seed++) {
        dc_rng_key key = {seed, dc_rng_stream("isotonic")};
        int n = 1 + (int)(seed % MOST);
        double y[MOST], w[MOST], fitted[MOST];
        for (int i = 0; i < n; i++) {
            y[i] = i * 0.1 + dc_rng_normal(key, 0, (uint64_t)i);
            w[i] = 1 + floor(3 * dc_rng_uniform(key, 1, (uint64_t)i));
        }
        assert_int_equal(dc_isotonic(n, y, w, fitted), DC_OK);
        for (int i = 0; i < n; i++) {
            assert_true(fabs(fitted[i] - max_min_mean(n, y, w, i)) < 1e-9);
            assert_true(i == 0 || fitted[i] >= fitted[i - 1]);
        }
    }
}

static void add(dc_lug *lug, int point, int seed_index, double target, double size)
{
    dc_lug_entry entry = {.point = point, .seed_index = seed_index};
    entry.target[DC_METRIC_PARAMS] = target;
    entry.derived_cost[DC_METRIC_PARAMS] = size;
    assert_int_equal(dc_lug_add(lug, &entry), DC_OK);
}

static void test_lookup_inverts_the_fit(void **state)
{
    (void)state;
    dc_lug lug;
    dc_lug_fit fit;
    dc_lug_identity identity = {{0}, {{0}}};
    dc_lug_init(&lug, &identity);
    const double sizes[5][2] = {{900, 1100}, {1800, 2200}, {3300, 3500}, {3000, 3000}, {5000, 5400}};
    for (int point = 4; point >= 0; point--)
        for (int seed = 0; seed < 2; seed++)
            add(&lug, point, seed, 1000 * (point + 1), sizes[point][seed]);
    assert_int_equal(dc_lug_fit_make(&lug, DC_METRIC_PARAMS, &fit), DC_OK);
    const double expected[5] = {1000, 2000, 3200, 3200, 5200};
    assert_int_equal(fit.n, 5);
    for (int i = 0; i < 5; i++) {
        assert_true(fabs(fit.target[i] - 1000 * (i + 1)) < 1e-9);
        assert_true(fabs(fit.size[i] - expected[i]) < 1e-9);
    }
    double before = 0;
    for (double size = 1000; size <= 5200; size += 50) {
        dc_lug_lookup lookup = dc_lug_fit_lookup(&fit, size);
        assert_true(lookup.target >= before);
        assert_true(fabs(dc_lug_fit_size(&fit, lookup.target) - size) < 1e-9);
        assert_string_equal(lookup.warning, "");
        before = lookup.target;
    }
    /* halfway, and the freest target of the flat stretch */
    assert_true(fabs(dc_lug_fit_lookup(&fit, 1500).target - 1500) < 1e-9);
    assert_true(fabs(dc_lug_fit_lookup(&fit, 3200).target - 4000) < 1e-9);
    dc_lug_fit_clear(&fit);
    dc_lug_clear(&lug);
}

static void test_outside_the_range_warns_and_clamps(void **state)
{
    (void)state;
    dc_lug lug;
    dc_lug_fit fit;
    dc_lug_identity identity = {{0}, {{0}}};
    dc_lug_init(&lug, &identity);
    assert_int_equal(dc_lug_fit_make(&lug, DC_METRIC_PARAMS, &fit), DC_ERR_INPUT); /* no search */
    add(&lug, 0, 0, 1000, 1100);
    add(&lug, 1, 0, 2000, 1900);
    assert_int_equal(dc_lug_fit_make(&lug, DC_METRIC_PARAMS, &fit), DC_OK);
    dc_lug_lookup below = dc_lug_fit_lookup(&fit, 1050), above = dc_lug_fit_lookup(&fit, 2500);
    assert_true(below.target == 1000 && above.target == 2000);
    assert_non_null(strstr(below.warning, "[budget] params = 1,050 lies below"));
    assert_non_null(strstr(above.warning, "[budget] params = 2,500 lies above"));
    assert_non_null(strstr(above.warning, "1,100 to 1,900"));
    assert_true(dc_lug_fit_size(&fit, 500) == 1100 && dc_lug_fit_size(&fit, 9000) == 1900);
    dc_lug_fit_clear(&fit);
    assert_int_equal(dc_lug_fit_make(&lug, DC_METRIC_MACS, &fit), DC_ERR_INPUT); /* no search held to MACs */
    dc_lug_clear(&lug);
}

static void test_quality_of_what_binds(void **state)
{
    (void)state;
    dc_lug lug;
    dc_lug_quality q;
    dc_lug_identity identity = {{0}, {{0}}};
    dc_lug_init(&lug, &identity);
    assert_int_equal(dc_lug_quality_of(&lug, DC_METRIC_PARAMS, &q), DC_OK);
    assert_true(q.n == 0 && q.n_bound == 0 && q.rank_correlation == 0 && q.median_deviation == 0);
    add(&lug, 0, 0, 1000, 1100);
    add(&lug, 1, 0, 2000, 2000);
    add(&lug, 2, 0, 3000, 2400);
    add(&lug, 3, 0, 4000, 4100);
    add(&lug, 4, 0, 5000, 4000); /* no search came to 5000: this target bound nothing */
    assert_int_equal(dc_lug_quality_of(&lug, DC_METRIC_PARAMS, &q), DC_OK);
    assert_true(q.n == 5 && q.n_bound == 4);
    assert_true(fabs(q.rank_correlation - 1) < 1e-12);
    assert_true(fabs(q.median_deviation - (0.025 + 0.1) / 2) < 1e-12); /* of 0, .025, .1, .2 */
    add(&lug, 2, 1, 3000, 1000); /* ranks of K' 0, 1, 2.5, 2.5, 4 and of K 1, 2, 3, 0, 4 */
    assert_int_equal(dc_lug_quality_of(&lug, DC_METRIC_PARAMS, &q), DC_OK);
    assert_int_equal(q.n_bound, 5);
    assert_true(fabs(q.rank_correlation - 5.5 / sqrt(9.5 * 10)) < 1e-12);
    assert_int_equal(dc_lug_quality_of(&lug, DC_METRIC_MACS, &q), DC_OK);
    assert_int_equal(q.n, 0);
    dc_lug_clear(&lug);
}

static void test_points_refine_the_range(void **state)
{
    (void)state;
    const double expected[7] = {300, 200, 400, 150, 350, 250, 450};
    for (int i = 0; i < 7; i++)
        assert_true(fabs(dc_lug_point(100, 500, i) - expected[i]) < 1e-9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_isotonic_equals_its_definition), cmocka_unit_test(test_lookup_inverts_the_fit),
        cmocka_unit_test(test_outside_the_range_warns_and_clamps), cmocka_unit_test(test_points_refine_the_range),
        cmocka_unit_test(test_quality_of_what_binds)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
