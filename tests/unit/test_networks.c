/* The networks' sizes against published and independently counted figures, and their structure. */
#include "graph/cost.h"
#include "graph/graph.h"
#include "search/supernet.h"
#include "space/cell.h"
#include "space/network.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static dc_genotype genotype_of(const char *name)
{
    dc_genotype genotype;
    assert_int_equal(dc_genotype_lookup(name, &genotype), DC_OK);
    return genotype;
}

static dc_graph *target(const char *name, const dc_network_options *options)
{
    dc_genotype genotype = genotype_of(name);
    dc_graph *g = NULL;
    if (dc_network_build(&genotype, options, &g) != DC_OK)
        fail_msg("%s", dc_status_message());
    return g;
}

static dc_graph *supernet(const dc_supernet_options *options, const dc_genotype *derived)
{
    dc_graph *g = NULL;
    if (dc_supernet_build(options, derived, true, &g) != DC_OK)
        fail_msg("%s", dc_status_message());
    return g;
}

static int find_node(const dc_graph *g, const char *name)
{
    for (int i = 0; i < g->n_nodes; i++)
        if (strcmp(g->nodes[i].name, name) == 0)
            return i;
    return -1;
}

static const dc_param *find_param(const dc_graph *g, const char *name)
{
    for (int i = 0; i < g->n_params; i++)
        if (strcmp(g->params[i].name, name) == 0)
            return &g->params[i];
    return NULL;
}

static int count_nodes(const dc_graph *g, dc_op op)
{
    int n = 0;
    for (int i = 0; i < g->n_nodes; i++)
        n += g->nodes[i].op == op;
    return n;
}

static void assert_unique_params(const dc_graph *g)
{
    for (int i = 0; i < g->n_params; i++)
        if (find_param(g, g->params[i].name) != &g->params[i])
            fail_msg("two parameters are named %s", g->params[i].name);
}

static void assert_size(const char *name, dc_network_kind kind, int64_t params, int64_t macs)
{
    dc_network_options options = dc_network_defaults(kind);
    options.auxiliary = false;
    dc_graph *g = target(name, &options);
    dc_cost cost = dc_graph_cost(g);
    assert_int_equal(cost.params, params);
    assert_int_equal(cost.params_with_auxiliary, params);
    assert_int_equal(cost.macs, macs);
    assert_unique_params(g);
    dc_graph_destroy(g);

    /* The head adds to its own figures only. */
    options.auxiliary = options.losses = true;
    g = target(name, &options);
    dc_cost with_head = dc_graph_cost(g);
    assert_int_equal(with_head.params, params);
    assert_int_equal(with_head.macs, macs);
    assert_true(with_head.params_with_auxiliary > params);
    assert_int_equal(with_head.peak_activation_bytes, cost.peak_activation_bytes);
    assert_unique_params(g);
    dc_graph_destroy(g);
}

static void test_published_sizes_cifar(void **state)
{
    (void)state;
    assert_size("DARTS_V2", DC_NETWORK_CIFAR, 3349342, 528359040);
    assert_size("PC_DARTS_cifar", DC_NETWORK_CIFAR, 3634678, 556670592);
    assert_size("PDARTS", DC_NETWORK_CIFAR, 3433798, 532174464);
}

static void test_published_sizes_imagenet(void **state)
{
    (void)state;
    assert_size("DARTS_V2", DC_NETWORK_IMAGENET, 4718752, 529911552);
    assert_size("PC_DARTS_cifar", DC_NETWORK_IMAGENET, 5270560, 571137408);
    assert_size("PDARTS", DC_NETWORK_IMAGENET, 4944352, 542819328);
}

static void test_auxiliary_head_size(void **state)
{
    (void)state;
    dc_network_options options = dc_network_defaults(DC_NETWORK_CIFAR);
    dc_graph *g = target("DARTS_V2", &options);
    assert_int_equal(dc_graph_cost(g).params_with_auxiliary, 3825768);
    assert_non_null(find_param(g, "auxiliary.bn2.weight"));
    dc_graph_destroy(g);

    /* 768 channels at cell 9: 1x1 to 128 and its batch norm, 2x2 to 768 without one, linear. */
    options = dc_network_defaults(DC_NETWORK_IMAGENET);
    g = target("DARTS_V2", &options);
    dc_cost cost = dc_graph_cost(g);
    assert_int_equal(cost.params_with_auxiliary - cost.params, 768 * 128 + 2 * 128 + 4 * 128 * 768 + (768 + 1) * 1000);
    assert_null(find_param(g, "auxiliary.bn2.weight"));
    dc_graph_destroy(g);
}

static void test_head_size_does_not_depend_on_images(void **state)
{
    (void)state;
    const int sides[] = {28, 30, 32, 40, 48, 64, 96};
    dc_network_options options = dc_network_defaults(DC_NETWORK_CIFAR);
    options.channels = 8;
    options.cells = 6;
    for (size_t i = 0; i < sizeof sides / sizeof sides[0]; i++) {
        options.input = (dc_shape){3, sides[i], sides[i]};
        dc_graph *g = target("DARTS_V1", &options);
        dc_cost cost = dc_graph_cost(g);
        assert_int_equal(cost.params_with_auxiliary - cost.params,
                         128 * 128 + 2 * 128 + 4 * 128 * 768 + 2 * 768 + (768 + 1) * 10);
        dc_graph_destroy(g);
    }
}

static void test_losses_and_drop_path(void **state)
{
    (void)state;
    dc_network_options options = dc_network_defaults(DC_NETWORK_CIFAR);
    dc_graph *g = target("DARTS_V2", &options);
    assert_int_equal(count_nodes(g, DC_OP_CROSS_ENTROPY), 0);
    /* DARTS_V2: 6 of 8 operations of a normal cell are no identity; of a reduction cell 5 (its three skips read
     * node 0). */
    assert_int_equal(count_nodes(g, DC_OP_DROP_PATH), 18 * 6 + 2 * 5);
    assert_string_equal(g->nodes[g->logits].name, "classifier");
    dc_graph_destroy(g);

    options.losses = true;
    options.drop_path = false;
    options.label_smoothing = 0.1f;
    options.dropout = 0.2f;
    g = target("DARTS_V2", &options);
    assert_int_equal(count_nodes(g, DC_OP_DROP_PATH), 0);
    assert_int_equal(count_nodes(g, DC_OP_DROPOUT), 1);
    const dc_node *loss = &g->nodes[find_node(g, "loss")], *head = &g->nodes[find_node(g, "auxiliary.loss")];
    assert_int_equal(loss->inputs[0], g->logits);
    assert_false(loss->auxiliary);
    assert_float_equal(loss->attr.weight, 1, 0);
    assert_true(head->auxiliary);
    assert_float_equal(head->attr.weight, 0.4, 1e-6);
    assert_float_equal(head->attr.smoothing, 0.1, 1e-6);
    dc_graph_destroy(g);
}

/* Without the head the network must be complete: none of its nodes may read one of the head's. */
static void test_nothing_depends_on_the_head(void **state)
{
    (void)state;
    for (int kind = DC_NETWORK_CIFAR; kind <= DC_NETWORK_IMAGENET; kind++) {
        dc_network_options options = dc_network_defaults((dc_network_kind)kind);
        options.losses = true;
        dc_graph *g = target("PDARTS", &options);
        for (int i = 0; i < g->n_nodes; i++)
            for (int k = 0; k < g->nodes[i].n_inputs; k++)
                assert_true(g->nodes[i].auxiliary || !g->nodes[g->nodes[i].inputs[k]].auxiliary);
        dc_graph_destroy(g);
    }
}

static void test_shapes(void **state)
{
    (void)state;
    dc_network_options options = dc_network_defaults(DC_NETWORK_IMAGENET);
    dc_graph *g = target("DARTS_V2", &options);
    const struct {
        const char *name;
        dc_shape shape;
    } expected[] = {{"stem0.bn2", {48, 56, 56}}, {"stem1.bn", {48, 28, 28}},  {"cells.0.preprocess0.bn", {48, 28, 28}},
                    {"cells.0", {192, 28, 28}},  {"cells.4", {384, 14, 14}},  {"cells.9", {768, 7, 7}},
                    {"cells.13", {768, 7, 7}},   {"classifier", {1000, 1, 1}}};
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        int id = find_node(g, expected[i].name);
        assert_true(id >= 0);
        assert_memory_equal(&g->nodes[id].shape, &expected[i].shape, sizeof(dc_shape));
    }
    dc_graph_destroy(g);
}

/* A search on ImageNet has the stem of its target network. */
static void test_supernet_of_imagenet(void **state)
{
    (void)state;
    dc_supernet_options options = dc_supernet_defaults(DC_NETWORK_IMAGENET);
    dc_graph *g;
    options.sharing = options.bottleneck = true;
    assert_int_equal(dc_supernet_build(&options, NULL, true, &g), DC_OK);
    const struct {
        const char *name;
        dc_shape shape;
    } expected[] = {{"stem0.conv1", {8, 112, 112}}, {"stem0.bn2", {16, 56, 56}}, {"stem1.bn", {16, 28, 28}},
                    {"cells.0", {64, 28, 28}},      {"cells.2", {128, 14, 14}},  {"cells.5", {256, 7, 7}},
                    {"cells.7", {256, 7, 7}},       {"classifier", {1000, 1, 1}}};
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        int id = find_node(g, expected[i].name);
        assert_true(id >= 0);
        assert_memory_equal(&g->nodes[id].shape, &expected[i].shape, sizeof(dc_shape));
    }
    dc_graph_destroy(g);
}

static void test_odd_inputs(void **state)
{
    (void)state;
    const dc_shape inputs[] = {{1, 28, 28}, {1, 7, 7}, {3, 33, 47}, {5, 64, 64}};
    for (size_t i = 0; i < sizeof inputs / sizeof inputs[0]; i++) {
        dc_network_options options = dc_network_defaults(DC_NETWORK_CIFAR);
        options.input = inputs[i];
        options.cells = 5;
        options.channels = 6;
        dc_graph *g = target("PDARTS", &options);
        dc_shape out = g->nodes[find_node(g, "cells.4")].shape;
        assert_int_equal(out.h, (inputs[i].h + 3) / 4);
        assert_int_equal(out.w, (inputs[i].w + 3) / 4);
        dc_graph_destroy(g);

        dc_supernet_options search = dc_supernet_defaults(DC_NETWORK_CIFAR);
        search.input = inputs[i];
        search.channels = 4;
        search.sharing = search.bottleneck = true;
        dc_graph_destroy(supernet(&search, NULL));
    }
    /* 2x2 images leave 1x1 at the head. */
    dc_network_options options = dc_network_defaults(DC_NETWORK_CIFAR);
    dc_genotype genotype = genotype_of("DARTS_V1");
    dc_graph *g = NULL;
    options.input = (dc_shape){3, 2, 2};
    assert_int_equal(dc_network_build(&genotype, &options, &g), DC_ERR_INPUT);
    assert_null(g);
    assert_non_null(strstr(dc_status_message(), "auxiliary head"));
    options.auxiliary = false;
    dc_graph_destroy(target("DARTS_V1", &options));
}

static void test_none_contributes_nothing(void **state)
{
    (void)state;
    dc_genotype genotype = genotype_of("DARTS_V1");
    genotype.cell[DC_CELL_NORMAL][0].op = DC_DARTS_NONE;
    genotype.cell[DC_CELL_REDUCE][0].op = genotype.cell[DC_CELL_REDUCE][1].op = DC_DARTS_NONE;
    dc_network_options options = dc_network_defaults(DC_NETWORK_CIFAR);
    dc_graph *g = NULL;
    assert_int_equal(dc_network_build(&genotype, &options, &g), DC_OK);
    assert_int_equal(g->nodes[find_node(g, "cells.0.node.0")].n_inputs, 1);
    assert_int_equal(count_nodes(g, DC_OP_ZERO), 2);
    int zero = find_node(g, "cells.6.node.0");
    assert_int_equal(g->nodes[zero].op, DC_OP_ZERO);
    assert_int_equal(g->nodes[zero].shape.h, 16);
    dc_graph_destroy(g);
}

static void test_darts_supernet(void **state)
{
    (void)state;
    dc_supernet_options options = dc_supernet_defaults(DC_NETWORK_CIFAR);
    dc_graph *g = supernet(&options, NULL);
    dc_cost cost = dc_graph_cost(g);
    assert_int_equal(cost.params, 1930618);
    assert_int_equal(cost.params_with_auxiliary, 1930618);
    assert_unique_params(g);

    const dc_param *alpha = find_param(g, "alpha.reduce");
    assert_non_null(alpha);
    assert_int_equal(alpha->role, DC_ROLE_ALPHA);
    assert_int_equal(alpha->shape[0], 14);
    assert_int_equal(alpha->shape[1], 8);

    /* Node 3 of a cell mixes 7 operations on each of 5 sources, with the rows 9 to 13 of alpha. */
    const dc_node *mix = &g->nodes[find_node(g, "cells.5.node.3")];
    assert_int_equal(mix->op, DC_OP_MIX);
    assert_int_equal(mix->n_inputs, 1 + 5 * 7);
    for (int edge = 0; edge < 5; edge++)
        for (int op = 1; op < 8; op++)
            assert_int_equal(mix->index[edge * 7 + op], (9 + edge) * 8 + op);
    assert_int_equal(mix->inputs[0], find_node(g, "alpha.reduce"));
    assert_int_equal(g->nodes[find_node(g, "cells.6.node.0")].inputs[0], find_node(g, "alpha.normal"));
    dc_graph_destroy(g);
}

/* Independent count of one cell's weights (as the reference prototype's): operations, preprocessing, bottleneck. */
static int64_t expected_cell_params(const dc_supernet_options *o, int cpp, int cp, int channels, bool reduction)
{
    int64_t c = o->bottleneck ? channels / 4 : channels, sum = (int64_t)(cpp + cp) * channels;
    if (o->bottleneck)
        sum += 5 * channels * c + 4 * c * channels;
    for (int node = 0; node < (o->sharing ? 1 : 4); node++)
        for (int source = 0; source < (o->sharing ? 5 : 2 + node); source++) {
            sum += 2 * (9 * c + c * c) + 2 * (25 * c + c * c) + 9 * c + c * c + 25 * c + c * c;
            if (reduction && source < 2)
                sum += c * c;
        }
    return sum;
}

static void test_supernet_switches(void **state)
{
    (void)state;
    for (int kind = DC_NETWORK_CIFAR; kind <= DC_NETWORK_IMAGENET; kind++)
        for (int switches = 0; switches < 4; switches++) {
            dc_supernet_options o = dc_supernet_defaults((dc_network_kind)kind);
            o.sharing = switches & 1;
            o.bottleneck = switches & 2;
            bool cifar = kind == DC_NETWORK_CIFAR;
            int c = o.channels, cpp = cifar ? 3 * c : c, cp = cpp;
            int64_t expected =
                cifar ? 3 * 9 * 48 + 2 * 48 : 3 * 9 * 8 + 2 * 8 + 8 * 9 * 16 + 2 * 16 + 16 * 9 * 16 + 2 * 16;
            for (int i = 0; i < o.cells; i++) {
                bool reduction = i == 2 || i == 5;
                c *= reduction ? 2 : 1;
                expected += expected_cell_params(&o, cpp, cp, c, reduction);
                cpp = cp;
                cp = 4 * c;
            }
            expected += (int64_t)(cp + 1) * o.classes;
            dc_graph *g = supernet(&o, NULL);
            assert_int_equal(dc_graph_cost(g).params, expected);
            assert_unique_params(g);
            dc_graph_destroy(g);
        }
}

static void assert_subset(const dc_graph *part, const dc_graph *whole)
{
    for (int i = 0; i < part->n_params; i++) {
        const dc_param *p = &part->params[i], *q = find_param(whole, p->name);
        if (!q)
            fail_msg("%s is not in the union", p->name);
        assert_int_equal(p->role, q->role);
        assert_memory_equal(p->shape, q->shape, sizeof p->shape);
    }
}

static void test_derived_params_are_in_the_union(void **state)
{
    (void)state;
    for (int switches = 0; switches < 4; switches++) {
        dc_supernet_options o = dc_supernet_defaults(DC_NETWORK_CIFAR);
        o.sharing = switches & 1;
        o.bottleneck = switches & 2;
        o.derived_cells = true;
        dc_graph *whole = supernet(&o, NULL);
        for (int i = 0; dc_genotype_builtin_name(i); i++) {
            dc_genotype genotype = genotype_of(dc_genotype_builtin_name(i));
            dc_graph *part = supernet(&o, &genotype);
            assert_true(part->n_params < whole->n_params);
            assert_subset(part, whole);
            assert_unique_params(part);
            /* Only the engines mix: cells 0 and 2. */
            assert_int_equal(count_nodes(part, DC_OP_MIX), 2 * 4);
            assert_int_equal(part->nodes[find_node(part, "cells.0.node.1")].op, DC_OP_MIX);
            assert_int_equal(part->nodes[find_node(part, "cells.2.node.1")].op, DC_OP_MIX);
            dc_graph_destroy(part);
        }
        dc_graph_destroy(whole);
    }
}

static void test_shared_operations_are_computed_once(void **state)
{
    (void)state;
    dc_supernet_options o = dc_supernet_defaults(DC_NETWORK_CIFAR);
    o.sharing = o.derived_cells = true;
    dc_genotype genotype = genotype_of("DARTS_V2"); /* sep_conv_3x3 on source 1 in three nodes of the normal cell */
    dc_graph *g = supernet(&o, &genotype);
    int y = find_node(g, "cells.1.source.1.sep_conv_3x3.bn2");
    assert_true(y >= 0);
    int readers = 0;
    for (int i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_inputs; k++)
            readers += g->nodes[i].inputs[k] == y;
    assert_int_equal(readers, 3);
    dc_graph_destroy(g);

    /* The switch off: `derived` is not looked at. */
    o.derived_cells = false;
    dc_graph *with = supernet(&o, &genotype), *without = supernet(&o, NULL);
    assert_true(dc_graph_hash(with) == dc_graph_hash(without));
    dc_graph_destroy(with);
    dc_graph_destroy(without);
}

static void test_bad_options(void **state)
{
    (void)state;
    dc_graph *g = NULL;
    dc_genotype genotype = genotype_of("SNAS");
    dc_supernet_options s = dc_supernet_defaults(DC_NETWORK_CIFAR);
    s.bottleneck = true;
    s.channels = 18;
    assert_int_equal(dc_supernet_build(&s, NULL, false, &g), DC_ERR_INPUT);
    assert_non_null(strstr(dc_status_message(), "channels = 18"));
    s.channels = 16;
    s.cells = 2;
    assert_int_equal(dc_supernet_build(&s, NULL, false, &g), DC_ERR_INPUT);
    dc_network_options o = dc_network_defaults(DC_NETWORK_CIFAR);
    o.cells = 2;
    assert_int_equal(dc_network_build(&genotype, &o, &g), DC_ERR_INPUT);
    o = dc_network_defaults(DC_NETWORK_CIFAR);
    o.classes = 1;
    assert_int_equal(dc_network_build(&genotype, &o, &g), DC_ERR_INPUT);
    o = dc_network_defaults(DC_NETWORK_CIFAR);
    o.channels = 0;
    assert_int_equal(dc_network_build(&genotype, &o, &g), DC_ERR_INPUT);
    o = dc_network_defaults(DC_NETWORK_CIFAR);
    o.input.h = 0;
    assert_int_equal(dc_network_build(&genotype, &o, &g), DC_ERR_INPUT);
    assert_null(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_sizes_cifar),
        cmocka_unit_test(test_published_sizes_imagenet),
        cmocka_unit_test(test_auxiliary_head_size),
        cmocka_unit_test(test_head_size_does_not_depend_on_images),
        cmocka_unit_test(test_losses_and_drop_path),
        cmocka_unit_test(test_nothing_depends_on_the_head),
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_supernet_of_imagenet),
        cmocka_unit_test(test_odd_inputs),
        cmocka_unit_test(test_none_contributes_nothing),
        cmocka_unit_test(test_darts_supernet),
        cmocka_unit_test(test_supernet_switches),
        cmocka_unit_test(test_derived_params_are_in_the_union),
        cmocka_unit_test(test_shared_operations_are_computed_once),
        cmocka_unit_test(test_bad_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
