/* The parameter store: values by name, whatever the order and the rest of the network; files that fit or are refused.
 */
#include "nn/params.h"
#include "tests/support/temp_dir.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

static void must(dc_status status)
{
    if (status != DC_OK)
        fail_msg("%s", dc_status_message());
}

static int setup(void **state)
{
    dc_backend *backend;
    must(dc_backend_create("cpu", &(dc_backend_options){.threads = 1}, &backend));
    *state = backend;
    return 0;
}

static int teardown(void **state)
{
    dc_backend_destroy(*state);
    return 0;
}

/* Convolutions named by letters, each with a norm, and alpha. */
static dc_graph *letters(const char *text, bool alpha)
{
    dc_graph *g = dc_graph_create((dc_shape){3, 8, 8});
    int x = g->input;
    if (alpha)
        dc_graph_softmax(g, "alpha", 14, 8, 1e-3f);
    for (; *text; text++) {
        char name[4] = {*text, 0}, norm[4] = {*text, 'n', 0};
        x = dc_graph_batch_norm(g, norm, dc_graph_conv(g, name, x, 3, 3, 1, 1, 1, 1, 1), true);
    }
    g->logits = dc_graph_linear(g, "classifier", dc_graph_global_avg_pool(g, "pool", x), 5);
    must(dc_graph_check(g));
    return g;
}

static dc_params *store(dc_backend *backend, const char *text, bool alpha, uint64_t seed)
{
    dc_params *params;
    dc_graph *g = letters(text, alpha);
    must(dc_params_create(backend, &params));
    must(dc_params_add_graph(params, g));
    must(dc_params_allocate(params, seed));
    dc_graph_destroy(g);
    return params;
}

static const float *values_of(const dc_params *params, const char *name, size_t *count)
{
    int i = dc_params_find(params, name);
    if (i < 0)
        fail_msg("no %s", name);
    *count = params->items[i].param.count;
    return params->values + params->items[i].offset;
}

static bool same_values(const dc_params *a, const dc_params *b, const char *name)
{
    size_t n, m;
    const float *x = values_of(a, name, &n), *y = values_of(b, name, &m);
    assert_int_equal(n, m);
    return memcmp(x, y, n * sizeof *x) == 0;
}

static void values_depend_on_seed_and_name_only(void **state)
{
    dc_params *a = store(*state, "abc", false, 7), *b = store(*state, "zcyab", true, 7);
    dc_params *other = store(*state, "abc", false, 8);
    const char *const same[] = {"a.weight", "b.weight", "c.weight", "cn.weight", "an.running_var", "classifier.bias"};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        assert_true(same_values(a, b, same[i]));
    assert_false(same_values(a, other, "a.weight"));
    size_t n;
    const float *x = values_of(a, "a.weight", &n), *y = values_of(a, "b.weight", &n);
    assert_true(memcmp(x, y, n * sizeof *x) != 0);
    dc_params_destroy(a);
    dc_params_destroy(b);
    dc_params_destroy(other);
}

static void values_have_their_distributions(void **state)
{
    dc_params *params = store(*state, "abcdefgh", true, 1);
    size_t n;
    double sum = 0, squares = 0, count = 0, bound = 1 / sqrt(27), largest = 0;
    for (char c = 'a'; c <= 'h'; c++) {
        char name[16];
        snprintf(name, sizeof name, "%c.weight", c);
        const float *x = values_of(params, name, &n);
        for (size_t i = 0; i < n; i++, count++) {
            sum += (double)x[i];
            squares += (double)x[i] * (double)x[i];
            largest = fmax(largest, fabs((double)x[i]));
        }
    }
    assert_true(largest <= bound && largest > 0.98 * bound);
    assert_true(fabs(sum / count) < 4 * bound / sqrt(3 * count));
    assert_true(fabs(squares / count / (bound * bound / 3) - 1) < 0.15);
    const float *alpha = values_of(params, "alpha", &n);
    squares = 0;
    for (size_t i = 0; i < n; i++)
        squares += (double)alpha[i] * (double)alpha[i];
    assert_true(fabs(sqrt(squares / (double)n) / 1e-3 - 1) < 0.25);
    assert_true(values_of(params, "an.running_var", &n)[2] == 1 && values_of(params, "an.running_mean", &n)[2] == 0);
    assert_true(values_of(params, "an.weight", &n)[1] == 1 && values_of(params, "an.bias", &n)[1] == 0);
    for (size_t i = 0; i < params->count; i++)
        assert_true(params->grads[i] == 0 && params->first[i] == 0 && params->second[i] == 0);
    dc_params_destroy(params);
}

static void graphs_share_by_name(void **state)
{
    dc_params *params;
    dc_graph *large = letters("abcd", true), *small = letters("db", true);
    must(dc_params_create(*state, &params));
    assert_int_equal(dc_params_find(params, "a.weight"), -1);
    must(dc_params_add_graph(params, large));
    int n = params->n;
    size_t count = params->count;
    must(dc_params_add_graph(params, small));
    assert_int_equal(params->n, n);
    assert_int_equal(params->count, count);
    must(dc_params_allocate(params, 1));
    float **values = calloc(2 * (size_t)large->n_params, sizeof *values), **grads = values + large->n_params;
    must(dc_params_bind(params, small, values, grads));
    for (int i = 0; i < small->n_params; i++) {
        const dc_param *param = &small->params[i];
        int item = dc_params_find(params, param->name);
        assert_string_equal(params->items[item].param.name, param->name);
        assert_int_equal(params->items[item].offset % 16, 0);
        assert_ptr_equal(values[i], params->values + params->items[item].offset);
        if (param->role == DC_ROLE_STATE)
            assert_null(grads[i]);
        else
            assert_ptr_equal(grads[i], params->grads + params->items[item].offset);
    }
    dc_segment *segments;
    must(dc_params_segments(params, small, DC_ROLE_WEIGHT, &n, &segments));
    assert_int_equal(n, 2 * 3 + 2); /* two convolutions with norms, the classifier */
    for (int i = 1; i < n; i++)
        assert_true(segments[i - 1].value < segments[i].value);
    free(segments);
    must(dc_params_segments(params, small, DC_ROLE_ALPHA, &n, &segments));
    assert_int_equal(n, 1);
    assert_int_equal(segments[0].count, 14 * 8);
    free(segments);
    free(values);
    dc_graph *stranger = letters("x", false);
    assert_int_equal(dc_params_segments(params, stranger, DC_ROLE_WEIGHT, &n, &segments), DC_ERR_INTERNAL);
    assert_int_equal(dc_params_add_graph(params, stranger), DC_ERR_INTERNAL); /* after the memory was allocated */
    dc_graph_destroy(stranger);
    dc_graph_destroy(large);
    dc_graph_destroy(small);
    dc_params_destroy(params);
}

static void one_name_has_one_shape(void **state)
{
    dc_params *params;
    dc_graph *a = letters("a", false), *b = dc_graph_create((dc_shape){3, 8, 8});
    dc_graph_conv(b, "a", b->input, 4, 3, 1, 1, 1, 1, 1);
    must(dc_params_create(*state, &params));
    must(dc_params_add_graph(params, a));
    assert_int_equal(dc_params_add_graph(params, b), DC_ERR_INTERNAL);
    assert_non_null(strstr(dc_status_message(), "a.weight"));
    dc_params_destroy(params);
    dc_graph_destroy(a);
    dc_graph_destroy(b);
}

/* More names than the table begins with, found again one and all. */
static void many_names_are_found(void **state)
{
    enum { N = 1500 };
    dc_params *params;
    dc_graph *g = dc_graph_create((dc_shape){1, 1, 1});
    char name[24];
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "node%d", i);
        dc_graph_conv(g, name, g->input, 1, 1, 1, 0, 0, 1, 1);
    }
    must(dc_params_create(*state, &params));
    must(dc_params_add_graph(params, g));
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "node%d.weight", i);
        assert_int_equal(dc_params_find(params, name), i);
    }
    assert_int_equal(dc_params_find(params, "node1500.weight"), -1);
    dc_params_destroy(params);
    dc_graph_destroy(g);
}

static void write_state(const dc_params *params, const char *path, bool moments)
{
    dc_state *state;
    must(dc_state_create(path, &state));
    must(dc_params_save(params, state, "params", moments));
    must(dc_state_commit(state, false));
}

static dc_status read_state(dc_params *params, const char *path, bool moments)
{
    dc_state *state;
    must(dc_state_open(path, &state));
    dc_status status = dc_params_load(params, state, "params", moments);
    dc_state_abandon(state);
    return status;
}

static void files_bring_everything_back(void **state)
{
    temp_dir dir = temp_dir_make();
    temp_path path = temp_dir_path(&dir, "p.h5");
    dc_params *a = store(*state, "abc", true, 1), *b = store(*state, "abc", true, 2);
    for (size_t i = 0; i < a->count; i++) {
        a->first[i] = (float)i;
        a->second[i] = (float)i / 2;
    }
    write_state(a, path.s, true);
    must(read_state(b, path.s, true));
    assert_memory_equal(a->values, b->values, a->count * sizeof(float));
    assert_memory_equal(a->first, b->first, a->count * sizeof(float));
    assert_memory_equal(a->second, b->second, a->count * sizeof(float));
    dc_params *c = store(*state, "abc", true, 3);
    must(read_state(c, path.s, false));
    assert_memory_equal(a->values, c->values, a->count * sizeof(float));
    assert_true(c->first[5] == 0);
    write_state(a, path.s, false); /* weights alone: no moments to resume from */
    assert_int_equal(read_state(c, path.s, true), DC_ERR_INPUT);
    dc_params_destroy(a);
    dc_params_destroy(b);
    dc_params_destroy(c);
    temp_dir_remove(&dir);
}

static void files_of_other_networks_are_refused(void **state)
{
    temp_dir dir = temp_dir_make();
    temp_path path = temp_dir_path(&dir, "p.h5");
    dc_params *a = store(*state, "abc", false, 1);
    write_state(a, path.s, true);
    const char *const others[] = {"ab", "abd", "acb"}; /* the last one: the same sizes in another order */
    for (int i = 0; i < 3; i++) {
        dc_params *b = store(*state, others[i], false, 1);
        float first = b->values[0];
        assert_int_equal(read_state(b, path.s, true), DC_ERR_INPUT);
        assert_non_null(strstr(dc_status_message(), "p.h5"));
        assert_non_null(strstr(dc_status_message(), "another network"));
        assert_true(b->values[0] == first);
        dc_params_destroy(b);
    }
    dc_params_destroy(a);
    dc_params_destroy(NULL);
    temp_dir_remove(&dir);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(values_depend_on_seed_and_name_only),
        TEST(values_have_their_distributions),
        TEST(graphs_share_by_name),
        TEST(one_name_has_one_shape),
        TEST(many_names_are_found),
        TEST(files_bring_everything_back),
        TEST(files_of_other_networks_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
