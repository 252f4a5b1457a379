/* The cost tables against the graph's own counter, for random genotypes in several geometries. */
#include "base/rng.h"
#include "graph/cost.h"
#include "space/cost_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static dc_genotype random_genotype(uint64_t seed)
{
    dc_rng_key key = {seed, dc_rng_stream("genotype")};
    dc_genotype genotype;
    for (int type = 0; type < DC_CELL_TYPES; type++) {
        genotype.concat[type] = 0x3c;
        for (int node = 0; node < DC_CELL_NODES; node++) {
            uint32_t draw[4], n = (uint32_t)(DC_CELL_INPUTS + node);
            dc_rng_block(key, 0, (uint64_t)(type * DC_CELL_NODES + node), draw);
            int first = (int)(draw[0] % n), second = (int)((draw[0] % n + 1 + draw[1] % (n - 1)) % n);
            genotype.cell[type][2 * node] = (dc_choice){1 + (int)(draw[2] % (DC_DARTS_N_OPS - 1)), first};
            genotype.cell[type][2 * node + 1] = (dc_choice){1 + (int)(draw[3] % (DC_DARTS_N_OPS - 1)), second};
        }
    }
    return genotype;
}

static void expect_equal_counts(const dc_network_options *options, const dc_cost_table tables[DC_METRICS],
                                const dc_genotype *genotype)
{
    dc_graph *graph;
    assert_int_equal(dc_network_build(genotype, options, &graph), DC_OK);
    dc_cost cost = dc_graph_cost(graph);
    dc_graph_destroy(graph);
    assert_true(dc_cost_table_count(&tables[DC_METRIC_PARAMS], genotype) == (double)cost.params);
    assert_true(dc_cost_table_count(&tables[DC_METRIC_MACS], genotype) == (double)cost.macs);
}

static void test_random_genotypes(void **state)
{
    (void)state;
    const struct {
        dc_network_kind kind;
        dc_shape input;
        int classes, channels, cells;
    } geometries[] = {{DC_NETWORK_CIFAR, {3, 32, 32}, 10, 36, 20},
                      {DC_NETWORK_CIFAR, {1, 28, 28}, 10, 16, 8},
                      {DC_NETWORK_CIFAR, {3, 64, 64}, 200, 10, 5},
                      {DC_NETWORK_IMAGENET, {3, 224, 224}, 1000, 48, 14},
                      {DC_NETWORK_IMAGENET, {3, 96, 96}, 20, 8, 6}};
    for (size_t i = 0; i < sizeof geometries / sizeof *geometries; i++) {
        dc_network_options options = dc_network_defaults(geometries[i].kind);
        options.input = geometries[i].input;
        options.classes = geometries[i].classes;
        options.channels = geometries[i].channels;
        options.cells = geometries[i].cells;
        dc_cost_table tables[DC_METRICS];
        assert_int_equal(dc_cost_tables_make(&options, tables), DC_OK);
        for (uint64_t seed = 0; seed < 12; seed++) {
            dc_genotype genotype = random_genotype(100 * i + seed);
            expect_equal_counts(&options, tables, &genotype);
        }
    }
}

static void test_published_networks(void **state)
{
    (void)state;
    dc_network_options options = dc_network_defaults(DC_NETWORK_CIFAR);
    dc_cost_table tables[DC_METRICS];
    dc_genotype genotype;
    assert_int_equal(dc_cost_tables_make(&options, tables), DC_OK);
    assert_int_equal(dc_genotype_lookup("DARTS_V2", &genotype), DC_OK);
    assert_true(dc_cost_table_count(&tables[DC_METRIC_PARAMS], &genotype) == 3349342);
    assert_true(dc_cost_table_count(&tables[DC_METRIC_MACS], &genotype) == 528359040);
}

static void test_bad_geometry_is_refused(void **state)
{
    (void)state;
    dc_network_options options = dc_network_defaults(DC_NETWORK_CIFAR);
    options.cells = 1;
    dc_cost_table tables[DC_METRICS];
    assert_int_equal(dc_cost_tables_make(&options, tables), DC_ERR_INPUT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random_genotypes),
                                       cmocka_unit_test(test_published_networks),
                                       cmocka_unit_test(test_bad_geometry_is_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
