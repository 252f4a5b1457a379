/* The sums that whoever computes the gradient of a batch norm's output leaves for it, of every instruction set that
 * this machine runs: those of the gradient that was written, and what batch norm makes of them. */
#include "tests/support/lanes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

enum { MOST_CHANNELS = 8, IMAGES = BLOCKS * DCK_LANES - 3 };

/* Who leaves them. */
typedef enum maker { MIX, MIX_OF_THREE_READERS, DROP_PATH, DEPTHWISE } maker;

typedef struct sums_case {
    dck_conv conv; /* of DEPTHWISE */
    int c, h, w;
} sums_case;

#define CONV(kernel, stride, pad, dilation, channels)                                                                  \
    {                                                                                                                  \
        kernel, stride, pad, pad, dilation, channels, true, false                                                      \
    }

static const sums_case cases[] = {
    {CONV(3, 1, 1, 1, 4), 4, 8, 8},   {CONV(5, 1, 2, 1, 3), 3, 7, 9},   {CONV(3, 1, 2, 2, 5), 5, 5, 9},
    {CONV(5, 1, 4, 2, 2), 2, 33, 20}, {CONV(3, 2, 1, 1, 3), 3, 8, 8},   {CONV(5, 2, 2, 1, 3), 3, 7, 7},
    {CONV(3, 2, 2, 2, 2), 2, 9, 5},   {CONV(3, 1, 1, 1, 1), 1, 1, 1},   {CONV(3, 1, 1, 1, 2), 2, 40, 41},
    {CONV(7, 1, 3, 1, 2), 2, 6, 11},  {CONV(1, 2, 0, 1, 3), 3, 5, 6},   {CONV(2, 3, 0, 1, 2), 2, 8, 7},
    {CONV(3, 1, 1, 1, 8), 8, 40, 41}, {CONV(3, 1, 1, 1, 8), 8, 66, 66}, /* past the caches: by few threads, by all */
};

/* x: what batch norm reads, behind an affine; dx: the gradient of what it makes of it. */
typedef struct network {
    maker maker;
    dck_conv conv;
    tensor x, dx, dy, dy_of_others[2];
    _Alignas(64) float factor[BLOCKS * DCK_LANES];
    float w[MOST_CHANNELS * 7 * 7], mean[MOST_CHANNELS];
} network;

static tensor gradient_create(int c, int h, int w)
{
    tensor t = tensor_create(c, h, w);
    tensor_randomize(t);
    for (int i = 0; i < c * h * w; i++)
        for (int lane = IMAGES % DCK_LANES; lane < DCK_LANES; lane++)
            *at(t.view, BLOCKS - 1, i / (h * w), i / w % h, i % w, lane) = 0;
    return t;
}

static network network_create(const sums_case *of, maker by)
{
    const dck_conv *k = &of->conv;
    const int reach = (k->kernel - 1) * k->dilation;
    const int h = by == DEPTHWISE ? (of->h + 2 * k->pad_begin - reach - 1) / k->stride + 1 : of->h;
    const int w = by == DEPTHWISE ? (of->w + 2 * k->pad_begin - reach - 1) / k->stride + 1 : of->w;
    network n = {.maker = by,
                 .conv = *k,
                 .x = tensor_create(of->c, of->h, of->w),
                 .dx = gradient_create(of->c, of->h, of->w),
                 .dy = gradient_create(of->c, h, w),
                 .dy_of_others = {gradient_create(of->c, h, w), gradient_create(of->c, h, w)}};
    tensor_randomize(n.x);
    tensor_add_affine(&n.x);
    for (int i = 0; i < BLOCKS * DCK_LANES; i++)
        n.factor[i] = i % 3 ? 1.25f : 0;
    for (int i = 0; i < of->c * k->kernel * k->kernel; i++)
        n.w[i] = random_float();
    for (int i = 0; i < of->c; i++)
        n.mean[i] = random_float();
    return n;
}

static void network_destroy(network *n)
{
    tensor *all[] = {&n->x, &n->dx, &n->dy, &n->dy_of_others[0], &n->dy_of_others[1]};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        tensor_destroy(all[i]);
}

/* Of x and one feature beside it, whose sums nobody wants. */
static void run_mix(const dck_kernels *call, const network *n, dck_sums sums, int threads)
{
    static const float weights[] = {0.5f, -2, 1.5f};
    static const int index[][2] = {{1, 0}, {2, 0}, {0, 1}};
    const int readers = n->maker == MIX ? 1 : 3;
    const dck_view x[] = {n->x.view, n->x.view}, dx[] = {n->dx.view, {NULL, 0, 0, 0, 0, NULL}};
    const dck_view dy[] = {n->dy.view, n->dy_of_others[0].view, n->dy_of_others[1].view};
    const dck_sums of[] = {sums, {NULL, NULL}};
    dck_reader reader[3];
    for (int r = 0; r < readers; r++)
        reader[r] = (dck_reader){.dy = dy[r], .weight = weights, .index = index[r]};
    size_t bytes = call->mix_backward_scratch_bytes(2, n->x.view, BLOCKS, threads);
    void *scratch = scratch_create(bytes);
    call->mix_backward(2, x, readers, reader, dx, (const bool[]){false, false}, of, BLOCKS, scratch, threads);
    scratch_destroy(scratch, bytes);
}

static void run(const dck_kernels *call, const network *n, bool accumulate, dck_sums sums, int threads)
{
    const dck_view x = n->x.view, dy = n->dy.view;
    if (n->maker == DROP_PATH) {
        call->scale_images(dy, n->factor, n->dx.view, accumulate, x, sums, BLOCKS, threads);
    } else if (n->maker == DEPTHWISE) {
        assert_true(call->conv_sums(&n->conv, x, dy));
        size_t bytes = call->conv_backward_scratch_bytes(&n->conv, x, dy, BLOCKS, threads);
        void *scratch = scratch_create(bytes);
        call->conv_backward(&n->conv, x, n->w, (dck_grad){.dz = dy}, n->dx.view, accumulate, NULL, sums, IMAGES,
                            scratch, threads);
        scratch_destroy(scratch, bytes);
    } else {
        run_mix(call, n, sums, threads);
    }
}

/* sums: [BLOCKS][channels][2] */
static void assert_sums(const network *n, const double *sums)
{
    const dck_view x = n->x.view;
    for (int c = 0; c < x.c; c++) {
        double want[2] = {0}, size[2] = {0}, got[2] = {0};
        for (int b = 0; b < BLOCKS; b++)
            for (int i = 0; i < x.h * x.w * DCK_LANES; i++) {
                const int lane = i % DCK_LANES, pixel = i / DCK_LANES;
                const double dx = *at(n->dx.view, b, c, pixel / x.w, pixel % x.w, lane);
                const double product = dx * (*at(x, b, c, pixel / x.w, pixel % x.w, lane) - n->mean[c]);
                want[0] += dx, want[1] += product;
                size[0] += fabs(dx), size[1] += fabs(product);
            }
        for (int b = 0; b < BLOCKS; b++)
            for (int i = 0; i < 2; i++)
                got[i] += sums[2 * (b * x.c + c) + i];
        for (int i = 0; i < 2; i++)
            assert_true(fabs(got[i] - want[i]) <= 2e-6 * size[i]);
    }
}

/* Batch norm makes of the sums what it makes of those that it finds itself. */
static void assert_norm(const dck_kernels *call, const network *n, const double *sums)
{
    enum { SAVED = 2 * MOST_CHANNELS, FACTORS = 3 * MOST_CHANNELS };
    const dck_view x = n->x.view;
    float saved[SAVED], gamma[MOST_CHANNELS], unused[2][MOST_CHANNELS] = {{0}};
    float dgamma[2][MOST_CHANNELS], dbeta[2][MOST_CHANNELS], factors[2][FACTORS];
    for (int c = 0; c < x.c; c++) {
        saved[c] = n->mean[c];
        saved[x.c + c] = 1.5f;
        gamma[c] = 0.25f + (float)c;
    }
    const dck_norm norm = {.gamma = gamma, .beta = gamma, .mean = unused[0], .variance = unused[1], .saved = saved};
    const size_t bytes = call->norm_scratch_bytes(x, BLOCKS, 0);
    for (int summed = 0; summed < 2; summed++) {
        double *scratch = scratch_create(bytes);
        if (summed)
            memcpy(scratch, sums, (size_t)2 * BLOCKS * x.c * sizeof *sums);
        call->norm_factors(&norm, x, n->dx.view, factors[summed], dgamma[summed], dbeta[summed], IMAGES, summed,
                           scratch, 2);
        scratch_destroy(scratch, bytes);
    }
    const double most = (double)x.h * x.w * BLOCKS * DCK_LANES;
    for (int c = 0; c < x.c; c++) {
        assert_true(fabs(dgamma[0][c] - dgamma[1][c]) <= 1e-6 * most);
        assert_true(fabs(dbeta[0][c] - dbeta[1][c]) <= 1e-6 * most);
    }
    for (int i = 0; i < 3 * x.c; i++)
        assert_true(fabsf(factors[0][i] - factors[1][i]) <= 1e-5f * (1 + fabsf(factors[0][i])));
}

static void check(const dck_kernels *call, network *n, bool accumulate)
{
    const size_t n_sums = (size_t)2 * BLOCKS * n->x.view.c, bytes = n->dx.count * sizeof(float);
    double *sums = scratch_create(n_sums * sizeof *sums), first[2 * BLOCKS * MOST_CHANNELS];
    float *before = malloc(bytes), *without = malloc(bytes);
    assert_true(before && without);
    memcpy(before, n->dx.all, bytes);
    run(call, n, accumulate, (dck_sums){NULL, NULL}, 1);
    memcpy(without, n->dx.all, bytes);
    for (int threads = 1; threads <= 3; threads++) {
        memcpy(n->dx.all, before, bytes);
        memset(sums, 0xff, n_sums * sizeof *sums); /* whoever leaves them does not add to what was there */
        run(call, n, accumulate, (dck_sums){n->mean, sums}, threads);
        assert_guards(n->dx);
        assert_memory_equal(n->dx.all, without, bytes);
        assert_sums(n, sums);
        if (threads == 1)
            memcpy(first, sums, n_sums * sizeof *sums);
        assert_memory_equal(first, sums, n_sums * sizeof *sums);
    }
    assert_norm(call, n, sums);
    memcpy(n->dx.all, before, bytes);
    scratch_destroy(sums, n_sums * sizeof *sums);
    free(before);
    free(without);
}

static void check_maker(maker by)
{
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        network n = network_create(&cases[i], by);
        for (int isa = 0; isa < ISAS; isa++)
            for (int accumulate = 0; accumulate < (by == DEPTHWISE || by == DROP_PATH ? 2 : 1); accumulate++)
                if (dck_kernels_for(isas[isa]))
                    check(dck_kernels_for(isas[isa]), &n, accumulate);
        network_destroy(&n);
    }
}

static void mixes_leave_sums(void **state)
{
    (void)state;
    check_maker(MIX);
    check_maker(MIX_OF_THREE_READERS);
}

static void drop_path_leaves_sums(void **state)
{
    (void)state;
    check_maker(DROP_PATH);
}

static void depthwise_convolutions_leave_sums(void **state)
{
    (void)state;
    check_maker(DEPTHWISE);
}

/* What would not is told apart. */
static void other_convolutions_do_not(void **state)
{
    (void)state;
    const dck_view x = {.c = 4, .h = 8, .w = 8};
    const dck_conv pointwise = {1, 1, 0, 0, 1, 1, true, false}, unmasked = {3, 1, 1, 1, 1, 4, false, false};
    for (int i = 0; i < ISAS; i++) {
        const dck_kernels *call = dck_kernels_for(isas[i]);
        if (!call)
            continue;
        assert_false(call->conv_sums(&pointwise, x, x));
        assert_false(call->conv_sums(&unmasked, x, x));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mixes_leave_sums),
        cmocka_unit_test(drop_path_leaves_sums),
        cmocka_unit_test(depthwise_convolutions_leave_sums),
        cmocka_unit_test(other_convolutions_do_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
