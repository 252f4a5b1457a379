/* Pools and elementwise kernels of every instruction set that this machine runs, against plain loops in double
 * precision; with x as it is stored and behind an affine that is left to the reader. */
#include "tests/support/lanes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

enum { STEPS = 64 }; /* numbers are multiples of 1 / STEPS: windows have equal maxima, none but those */

static void randomize_in_steps(tensor t)
{
    tensor_randomize(t);
    for (int b = 0; b < BLOCKS; b++)
        for (int i = 0; i < t.view.c * t.view.h * t.view.w * DCK_LANES; i++) {
            float *x = t.view.data + b * t.view.stride + i;
            *x = roundf(*x * STEPS) / STEPS;
        }
}

/* What a kernel should give, and the size of what is added up for it. */
typedef struct result {
    double *value, *size;
} result;

static result result_create(dck_view v)
{
    size_t n = (size_t)BLOCKS * v.c * v.h * v.w * DCK_LANES;
    result r = {calloc(n, sizeof(double)), calloc(n, sizeof(double))};
    assert_true(r.value && r.size);
    return r;
}

static void result_destroy(result r)
{
    free(r.value);
    free(r.size);
}

static void add_to(result r, size_t i, double x)
{
    r.value[i] += x;
    r.size[i] += fabs(x);
}

/* Calls it with 1, 2 and 3 threads, writing and adding, and compares. */
typedef void call_with(const dck_kernels *call, const void *context, bool accumulate, int threads);

static void check(call_with *run, const void *context, bool adds, tensor out, result right)
{
    float *before = malloc(out.count * sizeof(float)), *first = malloc(out.count * sizeof(float));
    assert_true(before && first);
    tensor_randomize(out);
    memcpy(before, out.all, out.count * sizeof(float));
    for (int i = 0; i < ISAS; i++) {
        const dck_kernels *call = dck_kernels_for(isas[i]);
        for (int accumulate = 0; call && accumulate < (adds ? 2 : 1); accumulate++)
            for (int threads = 1; threads <= 3; threads++) {
                memcpy(out.all, before, out.count * sizeof(float));
                run(call, context, accumulate, threads);
                assert_guards(out);
                assert_view(out.view, right.value, right.size, accumulate ? before + (out.view.data - out.all) : NULL);
                if (threads == 1)
                    memcpy(first, out.all, out.count * sizeof(float));
                assert_memory_equal(first, out.all, out.count * sizeof(float));
            }
    }
    free(before);
    free(first);
}

/* ---- pools ---- */

typedef struct pool_case {
    dck_pool k;
    int c, h, w;
} pool_case;

static const pool_case pool_cases[] = {
    {{3, 1, 1}, 3, 8, 8},  {{3, 1, 1}, 2, 7, 9},  {{3, 1, 1}, 2, 1, 1},  {{3, 1, 1}, 2, 2, 2},   {{3, 1, 1}, 2, 1, 6},
    {{3, 1, 1}, 2, 5, 1},  {{3, 1, 1}, 2, 3, 2},  {{3, 1, 1}, 1, 2, 12}, {{3, 1, 1}, 5, 33, 34}, {{3, 2, 1}, 3, 8, 8},
    {{3, 2, 1}, 2, 9, 7},  {{3, 2, 1}, 2, 1, 1},  {{3, 2, 1}, 2, 2, 3},  {{3, 2, 1}, 2, 17, 19}, {{3, 1, 0}, 2, 7, 6},
    {{3, 2, 0}, 2, 7, 8},  {{3, 1, 2}, 2, 4, 5},  {{2, 2, 0}, 2, 7, 8},  {{5, 3, 2}, 2, 8, 11},  {{3, 3, 1}, 2, 8, 7},
    {{2, 1, 1}, 2, 6, 5},  {{5, 1, 2}, 2, 9, 8},  {{1, 1, 0}, 2, 3, 3},  {{3, 1, 0}, 1, 3, 3},   {{3, 2, 1}, 1, 5, 33},
    {{3, 2, 1}, 1, 4, 34}, {{3, 2, 1}, 1, 3, 65}, {{3, 2, 1}, 1, 6, 66}, {{3, 2, 0}, 1, 5, 35},  {{3, 2, 0}, 1, 4, 66},
    {{3, 2, 2}, 2, 5, 5},  {{3, 2, 2}, 1, 4, 33}, {{3, 2, 2}, 1, 3, 34}, {{3, 1, 2}, 1, 3, 65},
};

enum { POOL_CASES = sizeof pool_cases / sizeof *pool_cases };

typedef struct pooling {
    dck_pool k;
    bool max;
    tensor x, y, dy, dx;
} pooling;

static pooling pooling_create(const pool_case *p, bool max, bool affine)
{
    const dck_pool *k = &p->k;
    int h = (p->h + 2 * k->pad - k->kernel) / k->stride + 1, w = (p->w + 2 * k->pad - k->kernel) / k->stride + 1;
    pooling a = {*k,
                 max,
                 tensor_create(p->c, p->h, p->w),
                 tensor_create(p->c, h, w),
                 tensor_create(p->c, h, w),
                 tensor_create(p->c, p->h, p->w)};
    randomize_in_steps(a.x);
    tensor_randomize(a.dy);
    if (affine)
        tensor_add_affine(&a.x);
    return a;
}

static void pooling_destroy(pooling *a)
{
    tensor *tensors[] = {&a->x, &a->y, &a->dy, &a->dx};
    for (int i = 0; i < 4; i++)
        tensor_destroy(tensors[i]);
}

static void pool_forward(const dck_kernels *call, const void *context, bool accumulate, int threads)
{
    const pooling *a = context;
    (void)accumulate;
    (a->max ? call->max_pool_forward : call->avg_pool_forward)(&a->k, a->x.view, a->y.view, BLOCKS, threads);
}

static void pool_backward(const dck_kernels *call, const void *context, bool accumulate, int threads)
{
    const pooling *a = context;
    if (a->max) {
        call->max_pool_forward(&a->k, a->x.view, a->y.view, BLOCKS, threads);
        call->max_pool_backward(&a->k, a->x.view, a->y.view, a->dy.view, a->dx.view, accumulate, BLOCKS, threads);
    } else
        call->avg_pool_backward(&a->k, a->dy.view, a->dx.view, accumulate, BLOCKS, threads);
}

/* One output of one image: its value, and where its gradient goes. */
static void pool_window(const pooling *a, result y, result dx, const int out[4], int lane)
{
    const dck_view v = a->x.view;
    const int b = out[0], c = out[1], top = out[2] * a->k.stride - a->k.pad, left = out[3] * a->k.stride - a->k.pad;
    double sum = 0, size = 0, most = -INFINITY;
    int n = 0;
    size_t first = 0;
    for (int i = top; i < top + a->k.kernel; i++)
        for (int j = left; j < left + a->k.kernel; j++) {
            if (i < 0 || i >= v.h || j < 0 || j >= v.w)
                continue;
            double value = value_at(v, b, c, i, j, lane);
            n++;
            sum += value;
            size += fabs(value);
            if (value > most) {
                most = value;
                first = flat(v, b, c, i, j, lane);
            }
        }
    size_t to = flat(a->y.view, b, c, out[2], out[3], lane);
    double gradient = *at(a->dy.view, b, c, out[2], out[3], lane);
    y.value[to] = a->max ? most : sum / n;
    y.size[to] = a->max ? fabs(most) : size / n;
    if (a->max)
        add_to(dx, first, gradient);
    for (int i = top; !a->max && i < top + a->k.kernel; i++)
        for (int j = left; j < left + a->k.kernel; j++)
            if (i >= 0 && i < v.h && j >= 0 && j < v.w)
                add_to(dx, flat(v, b, c, i, j, lane), gradient / n);
}

static void check_pool(const pool_case *p, bool max, bool affine)
{
    pooling a = pooling_create(p, max, affine);
    result y = result_create(a.y.view), dx = result_create(a.dx.view);
    for (int b = 0; b < BLOCKS; b++)
        for (int c = 0; c < p->c; c++)
            for (int i = 0; i < a.y.view.h; i++)
                for (int j = 0; j < a.y.view.w; j++)
                    for (int lane = 0; lane < DCK_LANES; lane++)
                        pool_window(&a, y, dx, (int[]){b, c, i, j}, lane);
    check(pool_forward, &a, false, a.y, y);
    check(pool_backward, &a, true, a.dx, dx);
    result_destroy(y);
    result_destroy(dx);
    pooling_destroy(&a);
}

static void test_pools(void **state)
{
    (void)state;
    for (int i = 0; i < POOL_CASES; i++)
        for (int variant = 0; variant < 4; variant++)
            check_pool(&pool_cases[i], variant % 2, variant / 2);
}

/* Backward must find the very maximum that forward found, however the affine rounds: nothing of dy is lost. */
static void test_maximum_is_found(void **state)
{
    (void)state;
    for (int i = 0; i < ISAS * POOL_CASES; i++) {
        const dck_kernels *call = dck_kernels_for(isas[i % ISAS]);
        if (!call)
            continue;
        pooling a = pooling_create(&pool_cases[i / ISAS], true, true);
        tensor_randomize(a.x);
        for (int c = 0; c < a.x.view.c; c++)
            a.x.affine[2 * c] *= c % 2 ? 1e-3f : 1e3f;
        pool_backward(call, &a, false, 1);
        for (int b = 0; b < BLOCKS; b++)
            for (int c = 0; c < a.x.view.c; c++)
                for (int lane = 0; lane < DCK_LANES; lane++) {
                    double lost = 0;
                    for (int e = 0; e < a.dy.view.h * a.dy.view.w; e++)
                        lost += *at(a.dy.view, b, c, 0, e, lane);
                    for (int e = 0; e < a.dx.view.h * a.dx.view.w; e++)
                        lost -= *at(a.dx.view, b, c, 0, e, lane);
                    assert_true(fabs(lost) < 1e-4);
                }
        pooling_destroy(&a);
    }
}

/* ---- each element by itself, and the mean of a plane ---- */

typedef enum elementwise { RELU, COPY, SCALE, GLOBAL_AVG, MIX, MIX_OF_FIVE, MIX_BACKWARD, KINDS } elementwise;

typedef struct element_call {
    elementwise kind;
    tensor x, y;
    _Alignas(64) float factor[BLOCKS * DCK_LANES];
} element_call;

static const float mix_weights[] = {2, -0.5f};
static const int mix_index[] = {1, 0, 0, 0, 0};

/* Of x and x again, once or four times; backward x is the gradient, and y that of the first of two. */
static void run_mix(const dck_kernels *call, const element_call *a, bool accumulate, int threads)
{
    const dck_view one = a->x.view, x[] = {one, one, one, one, one}, y[] = {a->y.view, {NULL, 0, 0, 0, 0, NULL}};
    const dck_reader reader = {.dy = a->x.view, .weight = mix_weights, .index = mix_index};
    if (a->kind != MIX_BACKWARD)
        call->mix_forward(a->kind == MIX ? 2 : 5, x, mix_weights, mix_index, a->y.view, BLOCKS, threads);
    else
        call->mix_backward(2, x, 1, &reader, y, (const bool[]){accumulate, false}, NULL, BLOCKS, NULL, threads);
}

static void run_element(const dck_kernels *call, const void *context, bool accumulate, int threads)
{
    const element_call *a = context;
    switch (a->kind) {
    case RELU:
        call->relu_forward(a->x.view, a->y.view, BLOCKS, threads);
        break;
    case COPY:
        call->copy(a->x.view, a->y.view, accumulate, BLOCKS, threads);
        break;
    case SCALE:
        call->scale_images(a->x.view, a->factor, a->y.view, accumulate, a->x.view, (dck_sums){NULL, NULL}, BLOCKS,
                           threads);
        break;
    case GLOBAL_AVG:
        call->global_avg_pool_forward(a->x.view, a->y.view, BLOCKS, threads);
        break;
    default:
        run_mix(call, a, accumulate, threads);
    }
}

static void expect_element(const element_call *a, result y, const int at_x[4], int lane)
{
    double x = value_at(a->x.view, at_x[0], at_x[1], at_x[2], at_x[3], lane);
    size_t to = flat(a->x.view, at_x[0], at_x[1], at_x[2], at_x[3], lane);
    if (a->kind == GLOBAL_AVG)
        add_to(y, flat(a->y.view, at_x[0], at_x[1], 0, 0, lane), x / (a->x.view.h * a->x.view.w));
    else if (a->kind == RELU)
        add_to(y, to, x > 0 ? x : 0);
    else if (a->kind == MIX)
        add_to(y, to, x * 1.5);
    else if (a->kind == MIX_OF_FIVE)
        add_to(y, to, x * 7.5);
    else if (a->kind == MIX_BACKWARD)
        add_to(y, to, x * -0.5);
    else
        add_to(y, to, a->kind == SCALE ? x * a->factor[at_x[0] * DCK_LANES + lane] : x);
}

static void check_element(elementwise kind, int c, int h, int w, bool affine)
{
    bool mean = kind == GLOBAL_AVG;
    element_call a = {.kind = kind, .x = tensor_create(c, h, w), .y = tensor_create(c, mean ? 1 : h, mean ? 1 : w)};
    tensor_randomize(a.x);
    if (affine)
        tensor_add_affine(&a.x);
    for (int i = 0; i < BLOCKS * DCK_LANES; i++)
        a.factor[i] = i % 3 ? random_float() : 0;
    result y = result_create(a.y.view);
    for (int b = 0; b < BLOCKS; b++)
        for (int i = 0; i < c * h * w; i++)
            for (int lane = 0; lane < DCK_LANES; lane++)
                expect_element(&a, y, (int[]){b, i / (h * w), i / w % h, i % w}, lane);
    check(run_element, &a, kind == COPY || kind == SCALE || kind == MIX_BACKWARD, a.y, y);
    result_destroy(y);
    tensor_destroy(&a.x);
    tensor_destroy(&a.y);
}

static void test_elementwise(void **state)
{
    (void)state;
    static const int shapes[][3] = {{3, 5, 7},   {1, 1, 1},  {9, 1, 1},    {5, 17, 23},
                                    {2, 40, 41}, {70, 5, 6}, {3, 110, 110}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int kind = 0; kind < KINDS; kind++)
            for (int affine = 0; affine < 2; affine++)
                if (kind != MIX_BACKWARD || !affine) /* a gradient has none */
                    check_element(kind, shapes[i][0], shapes[i][1], shapes[i][2], affine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pools),
        cmocka_unit_test(test_maximum_is_found),
        cmocka_unit_test(test_elementwise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
