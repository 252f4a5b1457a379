/* Pools on the GPU against plain loops in double precision. */
#include "tests/cuda/expect.h"

enum { STEPS = 64 }; /* numbers are multiples of 1 / STEPS, bfloat16 too: windows have equal maxima, none but those */

static const int images[] = {BLOCKS * DCK_LANES - 3, 13}; /* a partial last block; a block that is not in use */
enum { IMAGES = sizeof images / sizeof *images };

typedef struct pool_case {
    dck_pool k;
    int c, h, w;
} pool_case;

static const pool_case pool_cases[] = {
    {{3, 1, 1}, 3, 8, 8}, {{3, 1, 1}, 2, 7, 7},  {{3, 1, 1}, 2, 1, 1},  {{3, 1, 1}, 2, 2, 3},  {{3, 1, 1}, 2, 1, 6},
    {{3, 1, 1}, 2, 5, 1}, {{3, 1, 1}, 1, 13, 9}, {{3, 2, 1}, 3, 8, 8},  {{3, 2, 1}, 2, 7, 7},  {{3, 2, 1}, 2, 9, 6},
    {{3, 2, 1}, 2, 1, 1}, {{3, 2, 1}, 2, 2, 3},  {{3, 2, 1}, 1, 17, 9}, {{3, 1, 0}, 2, 7, 6},  {{3, 2, 0}, 2, 7, 8},
    {{3, 1, 2}, 2, 4, 5}, {{3, 2, 2}, 2, 6, 7},  {{2, 2, 0}, 2, 7, 8},  {{5, 3, 2}, 2, 8, 11}, {{3, 3, 1}, 2, 8, 7},
    {{2, 1, 1}, 2, 6, 5}, {{5, 1, 2}, 2, 9, 8},  {{1, 1, 0}, 2, 3, 3},  {{3, 1, 0}, 1, 3, 3},
};

enum { POOL_CASES = sizeof pool_cases / sizeof *pool_cases };

typedef struct pooling {
    dck_pool k;
    bool max;
    device_tensor x, y, dy, dx;
} pooling;

static pooling pooling_create(const pool_case *p, bool max, dck_type type, int n)
{
    const dck_pool *k = &p->k;
    const int h = (p->h + 2 * k->pad - k->kernel) / k->stride + 1, w = (p->w + 2 * k->pad - k->kernel) / k->stride + 1;
    pooling a = {*k,
                 max,
                 device_tensor_create(type, p->c, p->h, p->w),
                 device_tensor_create(type, p->c, h, w),
                 device_tensor_create(type, p->c, h, w),
                 device_tensor_create(type, p->c, p->h, p->w)};
    const dck_view x = a.x.host.view;
    for (size_t i = 0; i < BLOCKS * block_elements(x); i++) {
        float *value = x.data + i / block_elements(x) * x.stride + i % block_elements(x);
        *value = roundf(*value * STEPS) / STEPS;
    }
    device_tensor_put(&a.x);
    device_tensor_end(&a.dy, n);
    if (n == images[0])
        device_tensor_add_affine(&a.x);
    return a;
}

static void pooling_destroy(pooling *a)
{
    device_tensor *const tensors[] = {&a->x, &a->y, &a->dy, &a->dx};
    for (int i = 0; i < 4; i++)
        device_tensor_destroy(tensors[i]);
}

static cudaError_t pool_forward(const dck_queue *queue, const void *context, bool accumulate, int n)
{
    const pooling *a = context;
    (void)accumulate;
    return (a->max ? dck_cuda_max_pool_forward : dck_cuda_avg_pool_forward)(queue, &a->k, a->x.view, a->y.view, n);
}

static cudaError_t pool_backward(const dck_queue *queue, const void *context, bool accumulate, int n)
{
    const pooling *a = context;
    if (a->max)
        return dck_cuda_max_pool_backward(queue, &a->k, a->x.view, a->y.view, a->dy.view, a->dx.view, accumulate, n);
    return dck_cuda_avg_pool_backward(queue, &a->k, a->dy.view, a->dx.view, accumulate, n);
}

/* The positions of x in the window of an output, and what is there. */
typedef struct window {
    int n;
    size_t at[25];
    double value[25];
} window;

static window window_of(const pooling *a, int b, int c, int row, int column, int lane)
{
    const dck_view v = a->x.host.view;
    const int top = row * a->k.stride - a->k.pad, left = column * a->k.stride - a->k.pad;
    window found = {0};
    for (int i = top; i < top + a->k.kernel; i++)
        for (int j = left; j < left + a->k.kernel; j++)
            if (i >= 0 && i < v.h && j >= 0 && j < v.w) {
                found.at[found.n] = flat(v, b, c, i, j, lane);
                found.value[found.n++] = value_at(v, b, c, i, j, lane);
            }
    return found;
}

static void add_output(const pooling *a, const window *w, size_t out, expect y, expect dx)
{
    const double gradient = host_at(&a->dy, out);
    int first = 0;
    for (int i = 1; i < w->n; i++)
        if (w->value[i] > w->value[first])
            first = i;
    if (a->max) {
        expect_add(y, out, w->value[first]);
        expect_add(dx, w->at[first], gradient);
        return;
    }
    for (int i = 0; i < w->n; i++) {
        expect_add(y, out, w->value[i] / w->n);
        expect_add(dx, w->at[i], gradient / w->n);
    }
}

static void check_pool(const pool_case *p, bool max, dck_type type, int n)
{
    dck_queue queue = device_queue_create(type);
    pooling a = pooling_create(p, max, type, n);
    expect y = expect_create(a.y.view), dx = expect_create(a.x.view);
    const dck_view v = a.y.host.view;
    for (size_t i = 0; i < BLOCKS * block_elements(v); i++) {
        const int lane = (int)(i % DCK_LANES), column = (int)(i / DCK_LANES % v.w);
        const int row = (int)(i / DCK_LANES / v.w % v.h), plane = (int)(i / DCK_LANES / v.w / v.h);
        const window w = window_of(&a, plane / v.c, plane % v.c, row, column, lane);
        add_output(&a, &w, i, y, dx);
    }
    check_output(pool_forward, &a, false, &queue, &a.y, n, y);
    check_output(pool_backward, &a, true, &queue, &a.dx, n, dx);
    expect_destroy(&y);
    expect_destroy(&dx);
    pooling_destroy(&a);
    device_queue_destroy(&queue);
}

static void check_pools(bool max)
{
    for (int i = 0; i < POOL_CASES; i++)
        for (int j = 0; j < IMAGES; j++) {
            check_pool(&pool_cases[i], max, DCK_F32, images[j]);
            check_pool(&pool_cases[i], max, DCK_BF16, images[j]);
        }
}

static void max_pools_match_loops(void **state)
{
    (void)state;
    check_pools(true);
}

/* A network that diverges must be seen to. */
static void max_pools_let_not_a_number_pass(void **state)
{
    (void)state;
    dck_queue queue = device_queue_create(DCK_F32);
    pooling a = pooling_create(&(pool_case){{3, 1, 1}, 1, 5, 6}, true, DCK_F32, DCK_LANES);
    *at(a.x.host.view, 0, 0, 1, 2, 5) = NAN;
    device_tensor_put(&a.x);
    device_ok(pool_forward(&queue, &a, false, DCK_LANES));
    device_tensor_get(&a.y);
    for (int lane = 0; lane < DCK_LANES; lane++)
        assert_int_equal(isnan(*at(a.y.host.view, 0, 0, 2, 3, lane)) != 0, lane == 5);
    pooling_destroy(&a);
    device_queue_destroy(&queue);
}

static void average_pools_match_loops(void **state)
{
    (void)state;
    check_pools(false);
}

/* ---- the mean of a plane ---- */

static cudaError_t mean_forward(const dck_queue *queue, const void *context, bool accumulate, int n)
{
    const pooling *a = context;
    (void)accumulate;
    return dck_cuda_global_avg_pool_forward(queue, a->x.view, a->y.view, n);
}

static cudaError_t mean_backward(const dck_queue *queue, const void *context, bool accumulate, int n)
{
    const pooling *a = context;
    return dck_cuda_global_avg_pool_backward(queue, a->dy.view, a->dx.view, accumulate, n);
}

static void check_mean(const int shape[3], dck_type type, int n)
{
    dck_queue queue = device_queue_create(type);
    pooling a = {.x = device_tensor_create(type, shape[0], shape[1], shape[2]),
                 .y = device_tensor_create(type, shape[0], 1, 1),
                 .dy = device_tensor_create(type, shape[0], 1, 1),
                 .dx = device_tensor_create(type, shape[0], shape[1], shape[2])};
    device_tensor_end(&a.dy, n);
    if (n == images[0])
        device_tensor_add_affine(&a.x);
    expect y = expect_create(a.y.view), dx = expect_create(a.x.view);
    const size_t pixels = (size_t)shape[1] * shape[2];
    for (size_t i = 0; i < BLOCKS * block_elements(a.x.view); i++) {
        const size_t out = i / DCK_LANES / pixels * DCK_LANES + i % DCK_LANES;
        expect_add(y, out, host_at(&a.x, i) / (double)pixels);
        expect_add(dx, i, host_at(&a.dy, out) / (double)pixels);
    }
    check_output(mean_forward, &a, false, &queue, &a.y, n, y);
    check_output(mean_backward, &a, true, &queue, &a.dx, n, dx);
    expect_destroy(&y);
    expect_destroy(&dx);
    pooling_destroy(&a);
    device_queue_destroy(&queue);
}

static void global_pools_match_loops(void **state)
{
    (void)state;
    static const int shapes[][3] = {{4, 8, 8}, {5, 7, 7}, {1, 1, 1}, {9, 2, 3}, {3, 3, 11}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int j = 0; j < IMAGES; j++) {
            check_mean(shapes[i], DCK_F32, images[j]);
            check_mean(shapes[i], DCK_BF16, images[j]);
        }
}

int main(void)
{
    device_require();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(max_pools_match_loops),
        cmocka_unit_test(max_pools_let_not_a_number_pass),
        cmocka_unit_test(average_pools_match_loops),
        cmocka_unit_test(global_pools_match_loops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
