/* The description of networks: shapes, errors that stick, costs and hashes. */
#include "graph/cost.h"
#include "graph/graph.h"
#include "tests/support/random_graph.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void assert_shape(const dc_graph *g, int id, int c, int h, int w)
{
    if (id < 0)
        fail_msg("%s", dc_graph_check(g) ? dc_status_message() : "no node");
    dc_shape s = g->nodes[id].shape;
    assert_int_equal(s.c, c);
    assert_int_equal(s.h, h);
    assert_int_equal(s.w, w);
}

/* Where windows of a dilated kernel begin that fit between the paddings: the definition, counted. */
static int windows(int in, int kernel, int stride, int pad_begin, int pad_end, int dilation)
{
    int n = 0;
    for (int at = -pad_begin; at + dilation * (kernel - 1) < in + pad_end; at += stride)
        n++;
    return n;
}

static void shapes_are_counted_windows(void **state)
{
    (void)state;
    dc_graph *g = dc_graph_create((dc_shape){6, 13, 10});
    int n = 0;
    for (int kernel = 1; kernel <= 5; kernel += 2)
        for (int stride = 1; stride <= 3; stride++)
            for (int dilation = 1; dilation <= 2; dilation++)
                for (int begin = -1; begin <= 2; begin++)
                    for (int end = 0; end <= 2; end++) {
                        char name[16];
                        snprintf(name, sizeof name, "c%d", n++);
                        int x = dc_graph_conv(g, name, g->input, 4, kernel, stride, begin, end, dilation, 2);
                        assert_shape(g, x, 4, windows(13, kernel, stride, begin, end, dilation),
                                     windows(10, kernel, stride, begin, end, dilation));
                    }
    assert_shape(g, dc_graph_max_pool(g, "max", g->input, 3, 2, 1), 6, 7, 5);
    int avg = dc_graph_avg_pool(g, "avg", g->input, 3, 1, 1);
    assert_shape(g, avg, 6, 13, 10);
    assert_shape(g, dc_graph_zero(g, "zero", g->input, 2), 6, 7, 5);
    assert_shape(g, dc_graph_concat(g, "concat", 3, (int[]){g->input, avg, g->input}), 18, 13, 10);
    assert_shape(g, dc_graph_linear(g, "linear", g->input, 5), 5, 1, 1);
    assert_shape(g, dc_graph_global_avg_pool(g, "pool", g->input), 6, 1, 1);
    assert_shape(g, dc_graph_softmax(g, "alpha", 14, 8, 1e-3f), 14, 1, 8);
    assert_int_equal(dc_graph_check(g), DC_OK);
    dc_graph_destroy(g);
}

/* One wrong call each, on a graph with a 4x8x8 node 1, a softmax of 2x3 node 2 and a linear node 3. */
static int wrong(dc_graph *g, int i)
{
    switch (i) {
    case 0:
        return dc_graph_conv(g, "bad", 1, 4, 9, 1, 0, 0, 1, 1); /* does not fit */
    case 1:
        return dc_graph_conv(g, "bad", 1, 6, 3, 1, 1, 1, 1, 4); /* groups */
    case 2:
        return dc_graph_conv(g, "bad", 1, 4, 3, 0, 1, 1, 1, 1); /* stride */
    case 3:
        return dc_graph_max_pool(g, "bad", 1, 3, 1, 3); /* a window of padding alone */
    case 4:
        return dc_graph_add(g, "bad", 2, (int[]){1, 0}); /* channels */
    case 5:
        return dc_graph_add(g, "bad", 0, NULL);
    case 6:
        return dc_graph_concat(g, "bad", 2, (int[]){1, 3}); /* sizes */
    case 7:
        return dc_graph_mix(g, "bad", 2, 1, (int[]){1}, (int[]){6}); /* outside the softmax */
    case 8:
        return dc_graph_mix(g, "bad", 1, 1, (int[]){1}, (int[]){0}); /* no softmax */
    case 9:
        return dc_graph_mix(g, "bad", 2, 2, (int[]){1, 0}, (int[]){0, 1});
    case 10:
        return dc_graph_dropout(g, "bad", 1, 1);
    case 11:
        return dc_graph_cross_entropy(g, "bad", 1, 0, 1); /* not logits */
    case 12:
        return dc_graph_cross_entropy(g, "bad", 3, 1, 1); /* smoothing */
    case 13:
        return dc_graph_relu(g, "bad", 4); /* no such node yet */
    case 14:
        return dc_graph_relu(g, "bad", -1);
    case 15:
        return dc_graph_linear(g, "bad", 1, 0);
    case 16:
        return dc_graph_softmax(g, "bad", 0, 3, 1);
    case 17:
        return dc_graph_zero(g, "bad", 1, 0);
    case 18:
        return dc_graph_fail(g, "bad: a builder's own reason");
    default:
        return 0;
    }
}

static void the_first_error_sticks(void **state)
{
    (void)state;
    int i = 0;
    for (;; i++) {
        dc_graph *g = dc_graph_create((dc_shape){3, 8, 8});
        dc_graph_conv(g, "conv", g->input, 4, 3, 1, 1, 1, 1, 1);
        dc_graph_softmax(g, "alpha", 2, 3, 1e-3f);
        dc_graph_linear(g, "linear", 1, 5);
        assert_int_equal(dc_graph_check(g), DC_OK);
        if (wrong(g, i) == 0) {
            dc_graph_destroy(g);
            break;
        }
        assert_int_equal(dc_graph_check(g), DC_ERR_INPUT);
        assert_non_null(strstr(dc_status_message(), "bad"));
        assert_null(strchr(dc_status_message(), '\n'));
        char first[512];
        snprintf(first, sizeof first, "%s", dc_status_message());
        int n = g->n_nodes;
        assert_int_equal(dc_graph_relu(g, "next", 1), -1);
        assert_int_equal(dc_graph_mix(g, "next", 2, 1, (int[]){1}, (int[]){0}), -1);
        dc_graph_fail(g, "another");
        assert_int_equal(g->n_nodes, n);
        assert_int_equal(dc_graph_check(g), DC_ERR_INPUT);
        assert_string_equal(dc_status_message(), first);
        dc_graph_destroy(g);
    }
    assert_int_equal(i, 19);
    dc_graph *g = dc_graph_create((dc_shape){3, 0, 8});
    assert_int_equal(dc_graph_check(g), DC_ERR_INPUT);
    dc_graph_destroy(g);
    dc_graph_destroy(NULL);
}

/* Many nodes with many inputs: storage that grows keeps what was pointed at. */
static void inputs_stay_where_they_are(void **state)
{
    (void)state;
    enum { N = 700 };
    dc_graph *g = dc_graph_create((dc_shape){1, 2, 2});
    int all[N + 1] = {g->input};
    for (int i = 1; i <= N; i++) {
        char name[16];
        snprintf(name, sizeof name, "add%d", i);
        all[i] = dc_graph_add(g, name, i < 9 ? i : 9, all + (i < 9 ? 0 : i - 9));
    }
    int sum = dc_graph_add(g, "sum", N, all);
    assert_int_equal(dc_graph_check(g), DC_OK);
    for (int i = 1; i <= N; i++)
        for (int k = 0; k < g->nodes[all[i]].n_inputs; k++)
            assert_int_equal(g->nodes[all[i]].inputs[k], all[(i < 9 ? 0 : i - 9) + k]);
    assert_int_equal(g->nodes[sum].inputs[N - 1], all[N - 1]);
    dc_graph_add(g, "huge", N, all);
    dc_graph_destroy(g);
}

/* conv, its norm or none, dropout, classifier: what each argument changes. */
static uint64_t hash_of(int out_c, int stride, int dilation, const char *name, float rate, float smoothing, int x)
{
    dc_graph *g = dc_graph_create((dc_shape){4, 8, 8});
    int a = dc_graph_conv(g, name, g->input, out_c, 3, stride, dilation, dilation, dilation, 1);
    int b = dc_graph_relu(g, "relu", a);
    int c = dc_graph_dropout(g, "dropout", x ? a : b, rate);
    g->logits = dc_graph_linear(g, "classifier", dc_graph_global_avg_pool(g, "pool", c), 3);
    dc_graph_cross_entropy(g, "loss", g->logits, smoothing, 1);
    uint64_t hash = dc_graph_hash(g);
    assert_int_equal(dc_graph_check(g), DC_OK);
    dc_graph_destroy(g);
    return hash;
}

static void the_hash_sees_what_matters(void **state)
{
    (void)state;
    const uint64_t h[] = {hash_of(4, 1, 1, "conv", 0.1f, 0, 0),    hash_of(5, 1, 1, "conv", 0.1f, 0, 0),
                          hash_of(4, 2, 1, "conv", 0.1f, 0, 0),    hash_of(4, 1, 2, "conv", 0.1f, 0, 0),
                          hash_of(4, 1, 1, "conw", 0.1f, 0, 0),    hash_of(4, 1, 1, "conv", 0.2f, 0, 0),
                          hash_of(4, 1, 1, "conv", 0.1f, 0.1f, 0), hash_of(4, 1, 1, "conv", 0.1f, 0, 1)};
    assert_true(h[0] == hash_of(4, 1, 1, "conv", 0.1f, 0, 0));
    for (size_t i = 0; i < sizeof h / sizeof *h; i++)
        for (size_t j = 0; j < i; j++)
            assert_true(h[i] != h[j]);
    uint64_t random[100];
    for (uint64_t seed = 0; seed < 100; seed++) {
        dc_graph *g = random_graph(seed), *again = random_graph(seed);
        random[seed] = dc_graph_hash(g);
        assert_true(random[seed] == dc_graph_hash(again));
        for (uint64_t j = 0; j < seed; j++)
            assert_true(random[seed] != random[j]);
        dc_graph_destroy(g);
        dc_graph_destroy(again);
    }
    dc_graph *masks[2]; /* masks are drawn by name */
    for (int i = 0; i < 2; i++) {
        masks[i] = dc_graph_create((dc_shape){4, 8, 8});
        dc_graph_drop_path(masks[i], i ? "one" : "other", masks[i]->input);
    }
    assert_true(dc_graph_hash(masks[0]) != dc_graph_hash(masks[1]));
    dc_graph_destroy(masks[0]);
    dc_graph_destroy(masks[1]);
}

static void costs_are_counted_by_hand(void **state)
{
    (void)state;
    dc_graph *g = dc_graph_create((dc_shape){4, 8, 8});
    int a = dc_graph_conv(g, "a", g->input, 8, 3, 2, 1, 1, 1, 4); /* 8*1*9 weights on 4x4 */
    int b = dc_graph_relu(g, "b", dc_graph_batch_norm(g, "n", a, true));
    g->building_auxiliary = true;
    int side = dc_graph_linear(g, "side", b, 3); /* 3*128 + 3 */
    dc_graph_cross_entropy(g, "side.loss", side, 0, 0.4f);
    g->building_auxiliary = false;
    dc_graph_softmax(g, "alpha", 2, 2, 1e-3f);
    g->logits = dc_graph_linear(g, "classifier", dc_graph_global_avg_pool(g, "pool", b), 3);
    dc_cost cost = dc_graph_cost(g);
    assert_int_equal(cost.params, 72 + 16 + 27);
    assert_int_equal(cost.params_with_auxiliary, 72 + 16 + 27 + 387);
    assert_int_equal(cost.macs, 72 * 16 + 24);
    assert_int_equal(cost.macs_with_auxiliary, 72 * 16 + 24 + 384);
    assert_int_equal(cost.peak_activation_bytes, 4 * (4 * 64 + 8 * 16)); /* the image and the convolution's output */
    dc_graph_destroy(g);
}

/* ImageNet at its largest here: nothing overflows 32 bits. */
static void large_costs_do_not_overflow(void **state)
{
    (void)state;
    dc_graph *g = dc_graph_create((dc_shape){512, 1024, 1024});
    dc_graph_conv(g, "conv", g->input, 1024, 3, 1, 1, 1, 1, 1);
    dc_cost cost = dc_graph_cost(g);
    assert_true(cost.macs == 512ll * 1024 * 9 * 1024 * 1024);
    assert_true(cost.peak_activation_bytes == 4ll * (512 + 1024) * 1024 * 1024);
    assert_int_equal(dc_graph_linear(g, "linear", 1 << 0, 10), 2);
    assert_int_equal(dc_graph_check(g), DC_OK);
    dc_graph_destroy(g);
    g = dc_graph_create((dc_shape){4096, 1024, 1024});
    assert_int_equal(dc_graph_linear(g, "linear", g->input, 10), -1);
    assert_int_equal(dc_graph_check(g), DC_ERR_INPUT);
    dc_graph_destroy(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes_are_counted_windows), cmocka_unit_test(the_first_error_sticks),
        cmocka_unit_test(inputs_stay_where_they_are), cmocka_unit_test(the_hash_sees_what_matters),
        cmocka_unit_test(costs_are_counted_by_hand),  cmocka_unit_test(large_costs_do_not_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
