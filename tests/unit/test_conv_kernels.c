/* The convolution kernels of every instruction set that this machine runs, against plain loops in double precision. */
#include "tests/support/lanes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

static const float sentinel = 12345.0f;

/* ---- reference ---- */

typedef struct problem {
    dck_conv k;
    int in, out, h, w;
} problem;

/* Visits every product of one image: y += x * w, dx += dy * w, dw += dy * x. size: the sums of absolute values. */
typedef struct reference {
    double *y, *dx, *dw, *y_size, *dx_size, *dw_size;
} reference;

static int out_extent(const dck_conv *k, int n)
{
    return (n + k->pad_begin + k->pad_end - k->dilation * (k->kernel - 1) - 1) / k->stride + 1;
}

/* As a factor of a product. */
static double rounded(const dck_conv *k, dck_view x, dck_view y, double value)
{
    int exponent;
    if (!k->bf16 || (k->groups == x.c && k->groups == y.c))
        return value;
    const double mantissa = frexp(value, &exponent); /* 8 bits of it */
    return ldexp(nearbyint(ldexp(mantissa, 8)), exponent - 8);
}

static void add_product(const dck_conv *k, const reference *r, dck_view x, dck_view y, const float *w, dck_view dy,
                        const int out[4], const int in[3], size_t weight)
{
    for (int lane = 0; lane < DCK_LANES; lane++) {
        double raw = value_at(x, out[0], in[0], in[1], in[2], lane);
        double value = rounded(k, x, y, k->relu && raw < 0 ? 0 : raw), factor = rounded(k, x, y, w[weight]);
        double gradient = rounded(k, x, y, *at(dy, out[0], out[1], out[2], out[3], lane));
        double masked = k->relu && raw <= 0 ? 0 : gradient * factor;
        size_t to = flat(y, out[0], out[1], out[2], out[3], lane), from = flat(x, out[0], in[0], in[1], in[2], lane);
        r->y[to] += value * factor;
        r->y_size[to] += fabs(value * factor);
        r->dx[from] += masked;
        r->dx_size[from] += fabs(masked);
        r->dw[weight] += gradient * value;
        r->dw_size[weight] += fabs(gradient * value);
    }
}

static void compute_reference(const dck_conv *k, const reference *r, dck_view x, const float *w, dck_view dy)
{
    int in = x.c / k->groups, out = dy.c / k->groups;
    for (int b = 0; b < BLOCKS; b++)
        for (int o = 0; o < dy.c; o++)
            for (int oy = 0; oy < dy.h; oy++)
                for (int ox = 0; ox < dy.w; ox++)
                    for (int i = 0; i < in; i++)
                        for (int t = 0; t < k->kernel * k->kernel; t++) {
                            int iy = oy * k->stride - k->pad_begin + t / k->kernel * k->dilation;
                            int ix = ox * k->stride - k->pad_begin + t % k->kernel * k->dilation;
                            if (iy < 0 || iy >= x.h || ix < 0 || ix >= x.w)
                                continue;
                            add_product(k, r, x, dy, w, dy, (int[]){b, o, oy, ox}, (int[]){o / out * in + i, iy, ix},
                                        ((size_t)o * in + i) * k->kernel * k->kernel + t);
                        }
}

/* ---- one problem on one instruction set ---- */

/* Plain; or lazy, as a network has it: x by its affine, images that end within a block, the moments of y, dy as batch
 * norm leaves it: what dz, y and factors stand for is in dy, which the reference computes with. */
typedef struct data {
    bool lazy;
    const int *split; /* [DCK_BRANCHES]: computed as siblings with so many outputs each; 0 first: as what it is */
    int n;
    tensor x, y, dy, dx, lazy_dz, lazy_y;
    float *factors, *w, *dw;
    size_t weights;
    reference right;
} data;

static void make_lazy(data *d)
{
    const dck_view dy = d->dy.view;
    const size_t plane = (size_t)dy.h * dy.w * DCK_LANES;
    d->n -= 5;
    tensor_add_affine(&d->x);
    d->lazy_dz = tensor_create(dy.c, dy.h, dy.w);
    d->lazy_y = tensor_create(dy.c, dy.h, dy.w);
    tensor_randomize(d->lazy_dz);
    tensor_randomize(d->lazy_y);
    d->factors = malloc(3 * dy.c * sizeof(float));
    for (int i = 0; i < 3 * dy.c; i++)
        d->factors[i] = random_float();
    for (int b = 0; b < BLOCKS; b++)
        for (size_t i = 0; i < dy.c * plane; i++) {
            const float *f = d->factors + 3 * (i / plane);
            const size_t at = b * dy.stride + i;
            const bool image = b * DCK_LANES + (int)(i % DCK_LANES) < d->n;
            dy.data[at] = image ? f[0] * d->lazy_dz.view.data[at] + f[1] * d->lazy_y.view.data[at] + f[2] : 0;
        }
}

static data data_create(const problem *p, bool lazy)
{
    const dck_conv *k = &p->k;
    int oh = out_extent(k, p->h), ow = out_extent(k, p->w);
    data d = {.lazy = lazy,
              .n = BLOCKS * DCK_LANES,
              .x = tensor_create(p->in, p->h, p->w),
              .y = tensor_create(p->out, oh, ow),
              .dy = tensor_create(p->out, oh, ow),
              .dx = tensor_create(p->in, p->h, p->w),
              .weights = (size_t)p->out * (p->in / k->groups) * k->kernel * k->kernel};
    tensor_randomize(d.x);
    tensor_randomize(d.dy);
    if (lazy)
        make_lazy(&d);
    d.w = malloc(d.weights * sizeof(float));
    d.dw = malloc((d.weights + 1) * sizeof(float));
    for (size_t i = 0; i < d.weights; i++)
        d.w[i] = random_float();
    double **sums[] = {&d.right.y, &d.right.y_size, &d.right.dx, &d.right.dx_size, &d.right.dw, &d.right.dw_size};
    size_t counts[] = {d.y.count, d.y.count, d.dx.count, d.dx.count, d.weights, d.weights};
    for (int i = 0; i < 6; i++)
        *sums[i] = calloc(counts[i], sizeof(double));
    compute_reference(k, &d.right, d.x.view, d.w, d.dy.view);
    return d;
}

static void data_destroy(data *d)
{
    tensor *tensors[] = {&d->x, &d->y, &d->dy, &d->dx, &d->lazy_dz, &d->lazy_y};
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
        tensor_destroy(tensors[i]);
    void *all[] = {d->factors,       d->w,        d->dw,           d->right.y, d->right.y_size, d->right.dx,
                   d->right.dx_size, d->right.dw, d->right.dw_size};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

/* Sums over the images of each part add up to those of y. sums: [BLOCKS * parts][channels][2]; y's channels begin at
 * 1 of these, what lies beside them is left as it was. */
static void assert_moments(const double *sums, int parts, int channels, const data *d)
{
    const dck_view y = d->y.view;
    for (int c = 0; c < channels; c++) {
        double want[2] = {0}, got[2] = {0}, size = 0;
        for (int part = 0; part < BLOCKS * parts; part++)
            for (int i = 0; i < 2; i++)
                got[i] += sums[2 * (part * channels + c) + i];
        if (c < 1 || c > y.c) {
            assert_true(got[0] == BLOCKS * parts * (double)sentinel && got[1] == got[0]);
            continue;
        }
        for (int image = 0; image < d->n; image++)
            for (int i = 0; i < y.h * y.w; i++) {
                double value = *at(y, image / DCK_LANES, c - 1, i / y.w, i % y.w, image % DCK_LANES);
                want[0] += value;
                want[1] += value * value;
                size += fabs(value);
            }
        assert_true(fabs(got[0] - want[0]) <= 2e-6 * size);
        assert_true(fabs(got[1] - want[1]) <= 1e-5 * want[1]);
    }
}

/* ---- one convolution, or siblings of which each has some of its outputs ---- */

static dck_view range_of(dck_view whole, int first, int channels)
{
    whole.data += (size_t)first * whole.h * whole.w * DCK_LANES;
    whole.c = channels;
    return whole;
}

static int branches_of(const problem *p, const data *d, dck_moments moments, dck_grad dy, float *dw, dck_branch *branch)
{
    const size_t row = d->weights / p->out;
    int n = 0;
    for (int first = 0; n < DCK_BRANCHES && d->split[n]; first += d->split[n++]) {
        dck_branch *b = &branch[n];
        *b = (dck_branch){.w = d->w + first * row,
                          .y = range_of(d->y.view, first, d->split[n]),
                          .moments = moments,
                          .dy = {.dz = range_of(dy.dz, first, d->split[n])},
                          .dw = dw ? dw + first * row : NULL};
        b->moments.sums += moments.sums ? 2 * first : 0;
        if (dy.factors) {
            b->dy.y = range_of(dy.y, first, d->split[n]);
            b->dy.factors = dy.factors + 3 * first;
        }
    }
    return n;
}

static size_t scratch_bytes(const problem *p, const data *d,
                            size_t (*of)(const dck_conv *, dck_view, dck_view, int, int), int threads)
{
    size_t bytes = d->split[0] ? 0 : of(&p->k, d->x.view, d->y.view, BLOCKS, threads);
    for (int i = 0; i < DCK_BRANCHES && d->split[i]; i++)
        bytes += of(&p->k, d->x.view, range_of(d->y.view, 0, d->split[i]), BLOCKS, threads);
    return bytes;
}

static void check_forward(const dck_kernels *call, const problem *p, const data *d)
{
    const dck_view x = d->x.view;
    const int parts = d->lazy ? call->conv_parts(&p->k, x, d->y.view) : 0, channels = p->out + 3;
    const size_t n_sums = (size_t)2 * BLOCKS * parts * channels;
    float *first = malloc(d->y.count * sizeof(float));
    double *sums = malloc((n_sums + 1) * sizeof(double)), *first_sums = malloc((n_sums + 1) * sizeof(double));
    for (int threads = 1; threads <= 3; threads++) {
        size_t bytes = scratch_bytes(p, d, call->conv_forward_scratch_bytes, threads);
        void *scratch = scratch_create(bytes);
        for (size_t i = 0; i <= n_sums; i++)
            sums[i] = sentinel;
        const dck_moments moments = {parts > 0 ? sums + 2 : NULL, channels};
        dck_branch branch[DCK_BRANCHES];
        const int n = branches_of(p, d, moments, (dck_grad){.dz = d->dy.view}, NULL, branch);
        if (n > 0)
            call->siblings_forward(&p->k, x, n, branch, d->n, scratch, threads);
        else
            call->conv_forward(&p->k, x, d->w, d->y.view, d->n, moments, scratch, threads);
        scratch_destroy(scratch, bytes);
        assert_guards(d->y);
        assert_view(d->y.view, d->right.y, d->right.y_size, NULL);
        if (parts > 0)
            assert_moments(sums, parts, channels, d);
        if (threads == 1) {
            memcpy(first, d->y.all, d->y.count * sizeof(float));
            memcpy(first_sums, sums, (n_sums + 1) * sizeof(double));
        }
        assert_memory_equal(first, d->y.all, d->y.count * sizeof(float));
        assert_memory_equal(first_sums, sums, (n_sums + 1) * sizeof(double));
    }
    free(first);
    free(sums);
    free(first_sums);
}

static void run_backward(const dck_kernels *call, const problem *p, const data *d, bool want_dx, bool want_dw,
                         bool accumulate, int threads)
{
    dck_view dx = d->dx.view;
    dx.data = want_dx ? dx.data : NULL;
    size_t bytes = scratch_bytes(p, d, call->conv_backward_scratch_bytes, threads);
    void *scratch = scratch_create(bytes);
    d->dw[d->weights] = sentinel;
    dck_grad dy = {.dz = d->dy.view};
    if (d->lazy && call->conv_parts(&p->k, d->x.view, d->dy.view) > 0)
        dy = (dck_grad){d->lazy_dz.view, d->lazy_y.view, d->factors};
    float *dw = want_dw ? d->dw : NULL;
    dck_branch branch[DCK_BRANCHES];
    const int n = branches_of(p, d, (dck_moments){NULL, 0}, dy, dw, branch);
    if (n > 0)
        call->siblings_backward(&p->k, d->x.view, n, branch, dx, accumulate, d->n, scratch, threads);
    else
        call->conv_backward(&p->k, d->x.view, d->w, dy, dx, accumulate, dw, (dck_sums){NULL, NULL}, d->n, scratch,
                            threads);
    assert_true(d->dw[d->weights] == sentinel);
    scratch_destroy(scratch, bytes);
}

static void check_backward(const dck_kernels *call, const problem *p, const data *d, bool accumulate)
{
    float *before = malloc(d->dx.count * sizeof(float)), *first = malloc(d->dx.count * sizeof(float));
    float *first_dw = malloc(d->weights * sizeof(float));
    tensor_randomize(d->dx);
    memcpy(before, d->dx.all, d->dx.count * sizeof(float));
    const float *added = accumulate ? before + (d->dx.view.data - d->dx.all) : NULL;
    for (int threads = 1; threads <= 3; threads++) {
        memcpy(d->dx.all, before, d->dx.count * sizeof(float));
        memset(d->dw, 0xff, d->weights * sizeof(float));
        run_backward(call, p, d, true, true, accumulate, threads);
        assert_guards(d->dx);
        assert_view(d->dx.view, d->right.dx, d->right.dx_size, added);
        for (size_t i = 0; i < d->weights; i++)
            assert_true(fabs(d->dw[i] - d->right.dw[i]) <= 2e-6 * (d->right.dw_size[i] + 1));
        if (threads == 1) {
            memcpy(first, d->dx.all, d->dx.count * sizeof(float));
            memcpy(first_dw, d->dw, d->weights * sizeof(float));
        }
        assert_memory_equal(first, d->dx.all, d->dx.count * sizeof(float));
        assert_memory_equal(first_dw, d->dw, d->weights * sizeof(float));
    }
    /* Each gradient alone is the same one, and the other is left as it was. */
    memcpy(d->dx.all, before, d->dx.count * sizeof(float));
    run_backward(call, p, d, false, true, accumulate, 2);
    assert_memory_equal(before, d->dx.all, d->dx.count * sizeof(float));
    assert_memory_equal(first_dw, d->dw, d->weights * sizeof(float));
    memset(d->dw, 0, d->weights * sizeof(float));
    run_backward(call, p, d, true, false, accumulate, 2);
    assert_memory_equal(first, d->dx.all, d->dx.count * sizeof(float));
    for (size_t i = 0; i < d->weights; i++)
        assert_true(d->dw[i] == 0);
    free(before);
    free(first);
    free(first_dw);
}

/* With ReLU or not, as a graph has it or deferred, in float or bfloat16. */
enum { VARIANTS = 8 };

static void check_variant(problem p, const int *split, int variant)
{
    p.k.relu = variant % 2;
    p.k.bf16 = variant >= 4;
    random_floats_have(p.k.bf16 ? 10 : 0); /* what is rounded is then the same number in any arithmetic */
    data d = data_create(&p, variant / 2 % 2);
    d.split = split;
    for (size_t i = 0; i < ISAS; i++) {
        const dck_kernels *call = dck_kernels_for(isas[i]);
        if (!call)
            continue;
        check_forward(call, &p, &d);
        check_backward(call, &p, &d, false);
        check_backward(call, &p, &d, true);
    }
    data_destroy(&d);
}

static void check(problem p, const int *split)
{
    for (int variant = 0; variant < VARIANTS; variant++)
        check_variant(p, split, variant);
}

/* kernel, stride, pad_begin, pad_end, dilation, groups */
#define CONV(kernel, stride, begin, end, dilation, groups)                                                             \
    {                                                                                                                  \
        kernel, stride, begin, end, dilation, groups, false, false                                                     \
    }

static void check_all(const problem *problems, size_t n)
{
    static const int whole[DCK_BRANCHES] = {0};
    for (size_t i = 0; i < n; i++)
        check(problems[i], whole);
}

#define CHECK_ALL(problems) check_all(problems, sizeof(problems) / sizeof *(problems))

/* ---- tests ---- */

static void test_dispatch(void **state)
{
    (void)state;
    assert_non_null(dck_kernels_for(NULL));
    assert_non_null(dck_kernels_for("portable"));
    assert_null(dck_kernels_for("avx9000"));
    for (size_t i = 0; i < ISAS; i++)
        if (dck_kernels_for(isas[i]))
            assert_string_equal(dck_kernels_for(isas[i])->isa, isas[i]);
}

static void test_pointwise(void **state)
{
    (void)state;
    static const problem problems[] = {
        {CONV(1, 1, 0, 0, 1, 1), 1, 1, 1, 1},    {CONV(1, 1, 0, 0, 1, 1), 3, 5, 7, 7},
        {CONV(1, 1, 0, 0, 1, 1), 17, 16, 5, 9},  {CONV(1, 1, 0, 0, 1, 1), 64, 36, 8, 8},
        {CONV(1, 1, 0, 0, 1, 1), 80, 75, 4, 11}, {CONV(1, 1, 0, 0, 1, 1), 4, 16, 1, 3},
        {CONV(1, 2, 0, 0, 1, 1), 5, 12, 9, 9},   {CONV(1, 3, 0, 0, 1, 1), 3, 7, 10, 8},
        {CONV(1, 1, 1, 2, 1, 1), 2, 3, 4, 4},    {CONV(1, 1, 0, 0, 1, 1), 160, 21, 7, 6},
        {CONV(1, 1, 0, 0, 1, 1), 8, 8, 16, 16},  {CONV(1, 1, 0, 0, 1, 1), 37, 150, 3, 3},
    };
    CHECK_ALL(problems);
}

/* Panels of one range and of several, of dy and of x; a branch of more rows than a panel has. */
static void test_siblings(void **state)
{
    (void)state;
    static const problem problems[] = {
        {CONV(1, 1, 0, 0, 1, 1), 2, 2, 1, 1},     {CONV(1, 1, 0, 0, 1, 1), 17, 12, 5, 9},
        {CONV(1, 1, 0, 0, 1, 1), 64, 72, 8, 8},   {CONV(1, 1, 0, 0, 1, 1), 150, 33, 3, 3},
        {CONV(1, 1, 0, 0, 1, 1), 80, 100, 4, 11}, {CONV(1, 1, 0, 0, 1, 1), 9, 144, 7, 6},
        {CONV(1, 1, 0, 0, 1, 1), 90, 144, 2, 3},
    };
    static const int splits[][DCK_BRANCHES] = {{1, 1},   {4, 8},       {24, 24, 24},    {5, 17, 10, 1},
                                               {60, 40}, {100, 41, 3}, {36, 36, 36, 36}};
    for (size_t i = 0; i < sizeof problems / sizeof *problems; i++)
        check(problems[i], splits[i]);
}

/* Its two halves: the pixels at even and at odd positions. */
static void test_factorized_reduce(void **state)
{
    (void)state;
    static const problem problems[] = {
        {CONV(1, 2, 0, 0, 1, 1), 16, 8, 8, 8},
        {CONV(1, 2, -1, 1, 1, 1), 16, 8, 8, 8},
        {CONV(1, 2, -1, 1, 1, 1), 5, 3, 7, 7},
        {CONV(1, 2, -1, 1, 1, 1), 3, 17, 5, 9},
    };
    for (size_t i = 0; i < sizeof problems / sizeof *problems; i++)
        assert_int_equal(out_extent(&problems[i].k, problems[i].h), (problems[i].h + 1) / 2);
    CHECK_ALL(problems);
}

static void test_depthwise(void **state)
{
    (void)state;
    static const problem problems[] = {
        {CONV(3, 1, 1, 1, 1, 4), 4, 4, 8, 8},    {CONV(5, 1, 2, 2, 1, 3), 3, 3, 7, 7},
        {CONV(3, 1, 2, 2, 2, 5), 5, 5, 5, 9},    {CONV(5, 1, 4, 4, 2, 3), 3, 3, 9, 17},
        {CONV(3, 2, 1, 1, 1, 3), 3, 3, 8, 8},    {CONV(5, 2, 2, 2, 1, 3), 3, 3, 7, 7},
        {CONV(3, 2, 2, 2, 2, 2), 2, 2, 9, 5},    {CONV(5, 2, 4, 4, 2, 3), 3, 3, 8, 8},
        {CONV(5, 1, 4, 4, 2, 2), 2, 2, 2, 2},    {CONV(3, 3, 0, 0, 1, 2), 2, 2, 11, 10},
        {CONV(2, 2, -1, 1, 1, 2), 2, 2, 7, 7},   {CONV(7, 1, 3, 3, 1, 1), 1, 1, 9, 9},
        {CONV(3, 2, 0, 1, 3, 17), 17, 17, 9, 9}, {CONV(1, 2, -1, 1, 1, 3), 3, 3, 5, 6},
        {CONV(3, 1, 0, 0, 1, 2), 2, 2, 3, 3},    {CONV(4, 3, 5, 4, 2, 2), 2, 2, 6, 5},
        {CONV(5, 1, 2, 2, 1, 2), 2, 2, 3, 28},   {CONV(3, 1, 1, 1, 1, 2), 2, 2, 14, 14},
        {CONV(3, 2, 1, 1, 1, 2), 2, 2, 4, 26},   {CONV(5, 2, 2, 2, 1, 2), 2, 2, 12, 25},
        {CONV(5, 1, 2, 2, 1, 2), 2, 2, 1, 1},    {CONV(5, 3, 2, 2, 1, 2), 2, 2, 13, 16},
        {CONV(6, 1, 2, 3, 1, 2), 2, 2, 6, 12},   {CONV(3, 1, 3, 3, 3, 2), 2, 2, 8, 11},
        {CONV(3, 2, -2, 1, 1, 2), 2, 2, 9, 12},
    };
    CHECK_ALL(problems);
}

static void test_dense(void **state)
{
    (void)state;
    static const problem problems[] = {
        {CONV(3, 1, 1, 1, 1, 1), 3, 48, 8, 8},  {CONV(3, 1, 1, 1, 1, 1), 1, 17, 7, 7},
        {CONV(3, 2, 2, 2, 2, 1), 3, 5, 9, 8},   {CONV(2, 3, 0, 0, 1, 1), 3, 5, 9, 8}, /* pixels that no tap reaches */
        {CONV(3, 2, 1, 1, 1, 1), 3, 24, 9, 9},  {CONV(3, 1, 1, 1, 1, 1), 16, 16, 5, 9},
        {CONV(2, 1, 0, 0, 1, 1), 20, 80, 2, 2}, {CONV(3, 2, 0, 0, 1, 1), 3, 7, 3, 3},
        {CONV(2, 1, 0, 1, 1, 1), 3, 7, 2, 2},   {CONV(5, 1, 4, 4, 2, 1), 3, 5, 7, 7},
        {CONV(3, 2, -1, 1, 1, 1), 2, 3, 8, 8},  {CONV(4, 3, 1, 2, 2, 1), 3, 2, 11, 10},
        {CONV(3, 1, 1, 1, 1, 1), 33, 9, 4, 4},
    };
    CHECK_ALL(problems);
}

static void test_grouped(void **state)
{
    (void)state;
    static const problem problems[] = {
        {CONV(3, 1, 1, 1, 1, 2), 4, 6, 5, 9},
        {CONV(1, 1, 0, 0, 1, 3), 9, 15, 7, 7},
        {CONV(3, 2, 1, 1, 1, 5), 5, 10, 8, 8}, /* depthwise with two outputs a channel */
        {CONV(3, 1, 2, 2, 2, 4), 8, 4, 6, 6},
    };
    CHECK_ALL(problems);
}

/* Tensors that are written past the caches. Not ReLU and affine at once: of so many numbers some are so near to 0 that
 * float and double disagree about their side. */
static void test_large(void **state)
{
    (void)state;
    static const problem problems[] = {
        {CONV(1, 1, 0, 0, 1, 1), 4, 5, 96, 96},  {CONV(1, 2, 0, 0, 1, 1), 4, 2, 96, 95},
        {CONV(1, 2, -1, 1, 1, 1), 4, 2, 95, 96}, {CONV(3, 1, 1, 1, 1, 4), 4, 4, 96, 96},
        {CONV(3, 2, 1, 1, 1, 4), 4, 4, 96, 96},  {CONV(2, 1, 0, 1, 1, 1), 3, 4, 110, 110},
        {CONV(3, 2, 1, 1, 1, 1), 4, 3, 96, 96},
    };
    static const problem several[] = {/* panels: written first, added to then */
                                      {CONV(1, 1, 0, 0, 1, 1), 80, 4, 48, 47},
                                      {CONV(1, 1, 0, 0, 1, 1), 4, 150, 46, 46}};
    static const int whole[DCK_BRANCHES] = {0}, halves[DCK_BRANCHES] = {2, 3};
    for (size_t i = 0; i < sizeof problems / sizeof *problems; i++)
        check_variant(problems[i], whole, 1);
    for (size_t i = 0; i < sizeof several / sizeof *several; i++)
        check_variant(several[i], whole, 1);
    check_variant(problems[0], whole, 2);
    check_variant(problems[0], whole, 5);
    check_variant(problems[0], halves, 2);
}

/* Five blocks are summed in more units than seven are. */
static void test_scratch_of_a_larger_batch(void **state)
{
    (void)state;
    enum { PLANNED = 7, N = 80, SIDE = 14, MOST = 96, FLOATS = PLANNED * MOST * SIDE * SIDE * DCK_LANES };
    const dck_conv convs[] = {CONV(1, 1, 0, 0, 1, 1), CONV(3, 1, 1, 1, 1, 1)};
    const int channels[] = {MOST, MOST / 3}; /* as many weights */
    float *memory[3], w[MOST * MOST] = {0.5f}, dw[MOST * MOST];
    for (int i = 0; i < 3; i++) {
        assert_int_equal(posix_memalign((void **)&memory[i], 64, FLOATS * sizeof(float)), 0);
        for (int j = 0; j < FLOATS; j++)
            memory[i][j] = random_float();
    }
    for (size_t i = 0; i < 2 * ISAS; i++) {
        const dck_kernels *call = dck_kernels_for(isas[i / 2]);
        const int c = channels[i % 2];
        dck_view view[3];
        for (int j = 0; j < 3; j++)
            view[j] = (dck_view){memory[j], c, SIDE, SIDE, (size_t)c * SIDE * SIDE * DCK_LANES, NULL};
        if (!call)
            continue;
        size_t bytes = call->conv_backward_scratch_bytes(&convs[i % 2], view[0], view[1], PLANNED, 1);
        void *scratch = scratch_create(bytes);
        call->conv_backward(&convs[i % 2], view[0], w, (dck_grad){.dz = view[1]}, view[2], false, dw,
                            (dck_sums){NULL, NULL}, N, scratch, 1);
        scratch_destroy(scratch, bytes);
    }
    for (int i = 0; i < 3; i++)
        free(memory[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scratch_of_a_larger_batch),
        cmocka_unit_test(test_dispatch),
        cmocka_unit_test(test_pointwise),
        cmocka_unit_test(test_siblings),
        cmocka_unit_test(test_factorized_reduce),
        cmocka_unit_test(test_depthwise),
        cmocka_unit_test(test_dense),
        cmocka_unit_test(test_grouped),
        cmocka_unit_test(test_large),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
