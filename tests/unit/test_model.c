/* A model's update of its weights, and the schedules of its rate. (Values against PyTorch: test_golden.c.) */
#include "nn/model.h"
#include "nn/schedule.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

typedef struct fixture {
    dc_backend *backend;
    dc_params *params;
    dc_step_arena arena;
    dc_model *model;
} fixture;

static void must(dc_status status)
{
    if (status != DC_OK)
        fail_msg("%s", dc_status_message());
}

static dc_graph *small_graph(int classes)
{
    dc_graph *g = dc_graph_create((dc_shape){3, 4, 4});
    int x = dc_graph_conv(g, "conv", g->input, 4, 3, 1, 1, 1, 1, 1);
    g->logits = dc_graph_linear(g, "classifier", dc_graph_global_avg_pool(g, "pool", x), classes);
    dc_graph_cross_entropy(g, "loss", g->logits, 0, 1);
    return g;
}

static int setup(void **state)
{
    static fixture f;
    f = (fixture){0};
    must(dc_backend_create("cpu", &(dc_backend_options){.threads = 1}, &f.backend));
    f.arena.backend = f.backend;
    dc_graph *g = small_graph(5);
    must(dc_params_create(f.backend, &f.params));
    must(dc_params_add_graph(f.params, g));
    must(dc_params_allocate(f.params, 1));
    must(dc_model_create(g, &(dc_plan_options){.batch = 16, .training = true}, &f.arena, f.params, &f.model));
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    dc_model_destroy(f->model);
    dc_model_destroy(NULL);
    dc_step_arena_clear(&f->arena);
    dc_params_destroy(f->params);
    dc_backend_destroy(f->backend);
    return 0;
}

/* Sets every gradient so that their norm is given; returns one weight. */
static float *set_gradients(fixture *f, double norm)
{
    size_t n = 0;
    for (int i = 0; i < f->model->n_weights; i++)
        n += f->model->weights[i].count;
    for (int i = 0; i < f->model->n_weights; i++)
        for (size_t k = 0; k < f->model->weights[i].count; k++)
            f->model->weights[i].grad[k] = (float)(norm / sqrt((double)n));
    return f->model->weights[0].value;
}

static void long_gradients_are_clipped(void **state)
{
    fixture *f = *state;
    const dc_sgd_options options = {.clip = 2};
    for (int i = 0; i < 3; i++) {
        double norm = 1 + i, told = 0; /* shorter than the clip, as long, longer */
        float *weight = set_gradients(f, norm), before = *weight, grad = *f->model->weights[0].grad;
        must(dc_model_sgd(f->model, &options, 0.5, &told));
        double expected = (double)before - 0.5 * (double)grad * fmin(1, 2 / norm);
        assert_true(fabs((double)*weight - expected) < 1e-6);
        assert_true(fabs(told - norm) < 1e-5);
    }
}

static void without_a_clip_nothing_is_clipped(void **state)
{
    fixture *f = *state;
    const dc_sgd_options options = {0};
    float *weight = set_gradients(f, 1000), before = *weight, grad = *f->model->weights[0].grad;
    must(dc_model_sgd(f->model, &options, 0.001, NULL));
    assert_true(fabs((double)*weight - ((double)before - 0.001 * (double)grad)) < 1e-5);
}

static void a_gradient_that_is_not_finite_is_an_error(void **state)
{
    fixture *f = *state;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 6; i++) {
        const dc_sgd_options options = {.clip = i < 3 ? 5 : 0};
        float *weight = set_gradients(f, 1), before = *weight;
        f->model->weights[f->model->n_weights - 1].grad[1] = bad[i % 3];
        assert_int_equal(dc_model_sgd(f->model, &options, 0.25, NULL), DC_ERR_INPUT);
        assert_non_null(strstr(dc_status_message(), "learning_rate (now 0.25)"));
        assert_true(*weight == before);
    }
}

static void a_model_that_cannot_be_made_frees_its_graph(void **state)
{
    fixture *f = *state;
    dc_model *model = NULL;
    const dc_plan_options options = {.batch = 16, .training = true};
    dc_graph *stranger = dc_graph_create((dc_shape){3, 4, 4});
    stranger->logits = dc_graph_linear(stranger, "other", stranger->input, 5);
    dc_graph_cross_entropy(stranger, "loss", stranger->logits, 0, 1);
    assert_int_equal(dc_model_create(stranger, &options, &f->arena, f->params, &model), DC_ERR_INTERNAL);
    dc_graph *wrong = small_graph(0);
    assert_int_equal(dc_model_create(wrong, &options, &f->arena, f->params, &model), DC_ERR_INPUT);
    assert_null(model);
}

/* ---- schedules ---- */

static void schedules_begin_and_end_where_they_should(void **state)
{
    (void)state;
    for (int kind = DC_SCHEDULE_COSINE; kind <= DC_SCHEDULE_LINEAR; kind++) {
        const dc_schedule s = {(dc_schedule_kind)kind, 0.5, 0.01, 20, 4, 0, 0};
        assert_true(dc_schedule_rate(&s, 0) == 0);
        assert_true(fabs(dc_schedule_rate(&s, 1) - 0.125) < 1e-12);
        assert_true(dc_schedule_rate(&s, 4) == 0.5);
        assert_true(fabs(dc_schedule_rate(&s, 12) - 0.255) < 1e-12); /* half-way of both */
        assert_true(fabs(dc_schedule_rate(&s, 20) - 0.01) < 1e-12);
        assert_true(fabs(dc_schedule_rate(&s, 25) - 0.01) < 1e-12);
        for (double t = 4; t < 20; t += 0.125)
            assert_true(dc_schedule_rate(&s, t + 0.125) < dc_schedule_rate(&s, t));
    }
    const dc_schedule step = {DC_SCHEDULE_STEP, 0.5, 0, 20, 2, 5, 0.1};
    assert_true(fabs(dc_schedule_rate(&step, 1) - 0.25) < 1e-12);
    assert_true(dc_schedule_rate(&step, 2) == 0.5);
    assert_true(dc_schedule_rate(&step, 4.99) == 0.5);
    assert_true(fabs(dc_schedule_rate(&step, 5) - 0.05) < 1e-12);
    assert_true(fabs(dc_schedule_rate(&step, 19) - 0.0005) < 1e-12);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(long_gradients_are_clipped),
        TEST(without_a_clip_nothing_is_clipped),
        TEST(a_gradient_that_is_not_finite_is_an_error),
        TEST(a_model_that_cannot_be_made_frees_its_graph),
        cmocka_unit_test(schedules_begin_and_end_where_they_should),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
