/* The depthwise convolution that is computed on the way of a pointwise one is the two of them one after the other. */
#include "tests/support/lanes.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

enum { N_IMAGES = BLOCKS * DCK_LANES - 5, CHANNELS_BESIDE = 3 };

typedef struct problem {
    dck_conv depthwise;
    int c, out, h, w;
} problem;

typedef struct result {
    tensor y;
    double *sums; /* [parts of all blocks][channels][2] */
    size_t n_sums;
    int parts;
} result;

static float *random_floats(size_t n)
{
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = random_float();
    return x;
}

static result result_create(const dck_kernels *call, const problem *p, int h, int w)
{
    result r = {.y = tensor_create(p->out, h, w)};
    const dck_conv pointwise = {.kernel = 1, .stride = 1, .dilation = 1, .groups = 1, .bf16 = p->depthwise.bf16};
    const dck_view two_channels = {NULL, 2, h, w, (size_t)2 * h * w * DCK_LANES, NULL}; /* any that is not depthwise */
    r.parts = call->conv_parts(&pointwise, two_channels, r.y.view);
    r.n_sums = (size_t)2 * BLOCKS * r.parts * (p->out + CHANNELS_BESIDE);
    r.sums = calloc(r.n_sums, sizeof *r.sums);
    for (size_t i = 0; i < r.n_sums; i++)
        r.sums[i] = 1e9;
    return r;
}

static void result_destroy(result *r)
{
    tensor_destroy(&r->y);
    free(r->sums);
}

static dck_moments moments_of(const result *r, const problem *p)
{
    return (dck_moments){r->sums + 2, p->out + CHANNELS_BESIDE};
}

static double total(const result *r, const problem *p, int channel, int which)
{
    double sum = 0;
    for (int part = 0; part < BLOCKS * r->parts; part++)
        sum += r->sums[2 * (part * (p->out + CHANNELS_BESIDE) + 1 + channel) + which];
    return sum;
}

static void run_apart(const dck_kernels *call, const problem *p, const tensor *x, const float *w, const float *v,
                      result *r)
{
    const dck_conv pointwise = {.kernel = 1, .stride = 1, .dilation = 1, .groups = 1, .bf16 = p->depthwise.bf16};
    tensor t = tensor_create(p->c, r->y.view.h, r->y.view.w);
    size_t bytes = call->conv_forward_scratch_bytes(&p->depthwise, x->view, t.view, BLOCKS, 1);
    void *scratch = scratch_create(bytes);
    call->conv_forward(&p->depthwise, x->view, w, t.view, N_IMAGES, (dck_moments){NULL, 0}, scratch, 1);
    scratch_destroy(scratch, bytes);
    bytes = call->conv_forward_scratch_bytes(&pointwise, t.view, r->y.view, BLOCKS, 1);
    scratch = scratch_create(bytes);
    call->conv_forward(&pointwise, t.view, v, r->y.view, N_IMAGES, moments_of(r, p), scratch, 1);
    scratch_destroy(scratch, bytes);
    tensor_destroy(&t);
}

static void compare(const result *together, const result *apart, const problem *p)
{
    const dck_view a = together->y.view, b = apart->y.view;
    for (int block = 0; block < BLOCKS; block++)
        for (size_t i = 0; i < (size_t)a.c * a.h * a.w * DCK_LANES; i++)
            if (block * DCK_LANES + (int)(i % DCK_LANES) < N_IMAGES)
                assert_true(fabsf(a.data[block * a.stride + i] - b.data[block * b.stride + i]) < 2e-5f);
    for (int c = 0; c < p->out; c++) {
        assert_true(fabs(total(together, p, c, 0) - total(apart, p, c, 0)) <= 1e-5 * total(apart, p, c, 1) + 1e-4);
        assert_true(fabs(total(together, p, c, 1) - total(apart, p, c, 1)) <= 1e-5 * total(apart, p, c, 1) + 1e-4);
    }
    assert_true(together->sums[0] == 1e9); /* of a channel beside y's */
}

static void check(const dck_kernels *call, const problem *p)
{
    const dck_conv *k = &p->depthwise;
    const int reach = (k->kernel - 1) * k->dilation, pads = k->pad_begin + k->pad_end;
    const int h = (p->h + pads - reach - 1) / k->stride + 1, w = (p->w + pads - reach - 1) / k->stride + 1;
    tensor x = tensor_create(p->c, p->h, p->w);
    tensor_randomize(x);
    tensor_add_affine(&x);
    float *weights = random_floats((size_t)p->c * k->kernel * k->kernel), *v = random_floats((size_t)p->c * p->out);
    result apart = result_create(call, p, h, w), first = {0};
    run_apart(call, p, &x, weights, v, &apart);
    for (int threads = 1; threads <= 3; threads++) {
        result together = result_create(call, p, h, w);
        size_t bytes = call->separable_scratch_bytes(k, x.view, together.y.view, threads);
        assert_true(bytes > 0);
        void *scratch = scratch_create(bytes);
        call->separable_forward(k, x.view, weights, v, together.y.view, N_IMAGES, moments_of(&together, p), scratch,
                                threads);
        scratch_destroy(scratch, bytes);
        assert_guards(together.y);
        compare(&together, &apart, p);
        if (threads == 1) {
            first = together;
            continue;
        }
        assert_memory_equal(first.y.all, together.y.all, first.y.count * sizeof(float));
        assert_memory_equal(first.sums, together.sums, first.n_sums * sizeof(double));
        result_destroy(&together);
    }
    result_destroy(&first);
    result_destroy(&apart);
    tensor_destroy(&x);
    free(weights);
    free(v);
}

static void together_is_one_after_the_other(void **state)
{
    (void)state;
    static const problem problems[] = {
        {{3, 1, 1, 1, 1, 4, true, false}, 4, 4, 32, 32},    {{5, 1, 2, 2, 1, 6, true, false}, 6, 5, 9, 7},
        {{3, 1, 2, 2, 2, 16, true, false}, 16, 16, 8, 8},   {{5, 1, 4, 4, 2, 3, false, false}, 3, 7, 16, 16},
        {{5, 2, 2, 2, 1, 8, true, false}, 8, 8, 15, 14},    {{3, 2, 2, 2, 2, 5, true, false}, 5, 9, 16, 16},
        {{3, 1, 1, 1, 1, 80, true, false}, 80, 75, 7, 7},   {{3, 1, 1, 1, 1, 2, true, false}, 2, 1, 1, 1},
        {{3, 1, 1, 1, 1, 48, true, false}, 48, 40, 28, 28}, {{3, 1, 1, 1, 1, 400, true, false}, 400, 8, 4, 4},
        {{3, 1, 1, 1, 1, 6, true, false}, 6, 20, 60, 60}};
    for (size_t i = 0; i < ISAS; i++)
        for (size_t j = 0; dck_kernels_for(isas[i]) && j < 2 * sizeof problems / sizeof *problems; j++) {
            problem p = problems[j / 2];
            p.depthwise.bf16 = j % 2;
            check(dck_kernels_for(isas[i]), &p);
        }
}

static void what_does_not_fit_a_cache_is_refused(void **state)
{
    (void)state;
    const dck_conv k = {3, 1, 1, 1, 1, 4096, true, false};
    const dck_view x = {NULL, 4096, 32, 32, (size_t)4096 * 32 * 32 * DCK_LANES, NULL};
    assert_int_equal(dck_kernels_for(NULL)->separable_scratch_bytes(&k, x, x, 2), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(together_is_one_after_the_other),
        cmocka_unit_test(what_does_not_fit_a_cache_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
