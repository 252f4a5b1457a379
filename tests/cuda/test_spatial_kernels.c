/* Depthwise convolutions and sampling on the GPU, against plain loops in double precision. */
#include "tests/cuda/expect.h"

static const int images[] = {BLOCKS * DCK_LANES - 3, 13}; /* a partial last block; a block that is not in use */
enum { IMAGES = sizeof images / sizeof *images };

/* ---- depthwise ---- */

typedef struct conv_case {
    int kernel, stride, dilation, pad, relu, c, h, w;
} conv_case;

static const conv_case conv_cases[] = {
    /* what the DARTS space has: 3x3 and 5x5, dilated by 1 and 2, at strides 1 and 2 */
    {3, 1, 1, 1, 1, 3, 8, 8},
    {3, 1, 1, 1, 0, 2, 7, 7},
    {3, 2, 1, 1, 1, 3, 8, 8},
    {3, 2, 1, 1, 0, 2, 7, 7},
    {5, 1, 1, 2, 1, 3, 8, 8},
    {5, 1, 1, 2, 0, 2, 7, 7},
    {5, 2, 1, 2, 1, 3, 8, 8},
    {5, 2, 1, 2, 0, 2, 7, 7},
    {3, 1, 2, 2, 1, 3, 8, 8},
    {3, 1, 2, 2, 0, 2, 7, 7},
    {3, 2, 2, 2, 1, 3, 8, 8},
    {3, 2, 2, 2, 0, 2, 7, 7},
    {5, 1, 2, 4, 1, 3, 8, 8},
    {5, 1, 2, 4, 0, 2, 7, 7},
    {5, 2, 2, 4, 1, 3, 8, 8},
    {5, 2, 2, 4, 0, 2, 7, 7},
    /* planes of other shapes, other paddings */
    {3, 1, 1, 1, 1, 1, 1, 1},
    {3, 1, 1, 1, 1, 1, 2, 11},
    {5, 1, 1, 2, 1, 1, 13, 2},
    {3, 1, 1, 0, 1, 2, 6, 9},
    {3, 1, 1, 2, 1, 2, 5, 6},
    {5, 2, 1, 1, 1, 2, 9, 6},
    {3, 2, 1, 0, 1, 2, 10, 9},
    {3, 2, 2, 1, 1, 2, 9, 12},
    {5, 1, 2, 3, 1, 2, 10, 7},
    /* kernels, strides and dilations that are not unrolled, in part or at all */
    {1, 1, 1, 0, 1, 2, 5, 5},
    {2, 1, 1, 0, 0, 2, 5, 7},
    {7, 1, 1, 3, 1, 2, 8, 9},
    {7, 2, 1, 3, 1, 2, 9, 8},
    {3, 3, 1, 1, 1, 2, 8, 10},
    {3, 2, 3, 3, 1, 2, 9, 10},
    {3, 4, 2, 2, 1, 2, 9, 11},
    {3, 2, 4, 4, 1, 2, 9, 10},
    {5, 3, 3, 6, 1, 2, 11, 8},
    /* more than one part of a weight's gradient, more than a warp of them, and more than a part for each */
    {5, 1, 1, 2, 1, 1, 33, 34},
    {2, 1, 1, 1, 1, 1, 33, 34},
    {3, 1, 1, 1, 1, 1, 91, 90},
};

enum { CONV_CASES = sizeof conv_cases / sizeof *conv_cases };

typedef struct convolution {
    dck_conv k;
    dck_queue queue;
    int n, taps;
    device_tensor x, y, dy, dx;
    float *w;
    device_memory device_w;
} convolution;

static convolution convolution_create(const conv_case *p, dck_type type, int n, bool seen)
{
    const int reach = (p->kernel - 1) * p->dilation;
    const int h = (p->h + 2 * p->pad - reach - 1) / p->stride + 1, w = (p->w + 2 * p->pad - reach - 1) / p->stride + 1;
    convolution a = {.k = {p->kernel, p->stride, p->pad, p->pad, p->dilation, p->c, p->relu},
                     .queue = device_queue_create(type),
                     .n = n,
                     .taps = p->kernel * p->kernel,
                     .x = device_tensor_create(type, p->c, p->h, p->w),
                     .y = device_tensor_create(type, p->c, h, w),
                     .dy = device_tensor_create(type, p->c, h, w),
                     .dx = device_tensor_create(type, p->c, p->h, p->w)};
    device_tensor_end(&a.dy, n);
    if (seen)
        device_tensor_add_affine(&a.x);
    const size_t weights = (size_t)p->c * a.taps;
    a.w = malloc(weights * sizeof(float));
    assert_non_null(a.w);
    for (size_t i = 0; i < weights; i++)
        a.w[i] = random_float();
    a.device_w = device_create_from(a.w, weights * sizeof(float));
    return a;
}

static void convolution_destroy(convolution *a)
{
    device_tensor *const tensors[] = {&a->x, &a->y, &a->dy, &a->dx};
    for (int i = 0; i < 4; i++)
        device_tensor_destroy(tensors[i]);
    device_destroy(&a->device_w);
    device_queue_destroy(&a->queue);
    free(a->w);
}

/* What one output of an image adds to everything. */
static void add_output(const convolution *a, const int out[4], int lane, expect y, expect dx, expect dw)
{
    const dck_conv *k = &a->k;
    const dck_view x = a->x.host.view, dy = a->dy.host.view;
    const int b = out[0], c = out[1];
    const double gradient = *at(dy, b, c, out[2], out[3], lane);
    for (int tap = 0; tap < a->taps; tap++) {
        const int row = out[2] * k->stride - k->pad_begin + tap / k->kernel * k->dilation;
        const int column = out[3] * k->stride - k->pad_begin + tap % k->kernel * k->dilation;
        if (row < 0 || row >= x.h || column < 0 || column >= x.w)
            continue;
        const double stored = value_at(x, b, c, row, column, lane), read = k->relu ? fmax(stored, 0) : stored;
        const double w = a->w[c * a->taps + tap];
        expect_add(y, flat(dy, b, c, out[2], out[3], lane), w * read);
        if (!k->relu || stored > 0)
            expect_add(dx, flat(x, b, c, row, column, lane), w * gradient);
        if (b * DCK_LANES < a->n)
            expect_add(dw, (size_t)(c * a->taps + tap), read * gradient);
    }
}

static void add_outputs(const convolution *a, expect y, expect dx, expect dw)
{
    const dck_view v = a->dy.host.view;
    for (int b = 0; b < BLOCKS; b++)
        for (int c = 0; c < v.c; c++)
            for (int row = 0; row < v.h; row++)
                for (int column = 0; column < v.w; column++)
                    for (int lane = 0; lane < DCK_LANES; lane++)
                        add_output(a, (int[]){b, c, row, column}, lane, y, dx, dw);
}

static cudaError_t conv_forward(const dck_queue *queue, const void *context, bool accumulate, int n)
{
    const convolution *a = context;
    (void)accumulate;
    return dck_cuda_depthwise_forward(queue, &a->k, a->x.view, a->device_w.data, a->y.view, n);
}

static cudaError_t conv_backward_data(const dck_queue *queue, const void *context, bool accumulate, int n)
{
    const convolution *a = context;
    return dck_cuda_depthwise_backward_data(queue, &a->k, a->x.view, a->device_w.data, a->dy.view, a->dx.view,
                                            accumulate, n);
}

/* Scratch is what as many blocks as there are ask for, and suffices for fewer. */
static void check_weights(const convolution *a, expect right)
{
    const size_t count = (size_t)a->x.view.c * a->taps, bytes = count * sizeof(float);
    device_memory dw = device_create(bytes);
    device_memory scratch = device_create(dck_cuda_depthwise_scratch_bytes(&a->k, a->x.view, a->dy.view, BLOCKS));
    device_ok(
        dck_cuda_depthwise_backward_weights(&a->queue, &a->k, a->x.view, a->dy.view, dw.data, a->n, scratch.data));
    float *is = malloc(bytes);
    assert_non_null(is);
    device_get(dw, is);
    size_t wrong = 0;
    for (size_t i = 0; i < count; i++)
        wrong += !(fabs(is[i] - right.value[i]) <= device_tolerance(DCK_F32, right.value[i], right.size[i]));
    free(is);
    device_destroy(&dw);
    device_destroy(&scratch);
    assert_int_equal(wrong, 0);
}

static void check_case(const conv_case *p, dck_type type, int n)
{
    convolution a = convolution_create(p, type, n, n == images[0]);
    expect y = expect_create(a.y.view), dx = expect_create(a.x.view);
    expect dw = expect_create((dck_view){.c = p->c, .h = p->kernel, .w = p->kernel}); /* has room */
    add_outputs(&a, y, dx, dw);
    check_output(conv_forward, &a, false, &a.queue, &a.y, n, y);
    check_output(conv_backward_data, &a, true, &a.queue, &a.dx, n, dx);
    check_weights(&a, dw);
    expect_destroy(&y);
    expect_destroy(&dx);
    expect_destroy(&dw);
    convolution_destroy(&a);
}

static void test_depthwise(void **state)
{
    (void)state;
    for (int i = 0; i < CONV_CASES; i++)
        for (int j = 0; j < IMAGES; j++) {
            check_case(&conv_cases[i], DCK_F32, images[j]);
            check_case(&conv_cases[i], DCK_BF16, images[j]);
        }
}

/* A network that diverges must be seen to. */
static void test_relu_on_load_lets_not_a_number_pass(void **state)
{
    (void)state;
    convolution a = convolution_create(&(conv_case){3, 1, 1, 1, 1, 1, 4, 4}, DCK_F32, DCK_LANES, false);
    *at(a.x.host.view, 0, 0, 1, 2, 5) = NAN;
    device_tensor_put(&a.x);
    device_ok(conv_forward(&a.queue, &a, false, a.n));
    device_tensor_get(&a.y);
    for (int lane = 0; lane < DCK_LANES; lane++)
        assert_int_equal(isnan(*at(a.y.host.view, 0, 0, 1, 2, lane)) != 0, lane == 5);
    convolution_destroy(&a);
}

/* ---- sampling ---- */

typedef struct sample_case {
    int stride, pad, relu, c, h, w, out_h, out_w;
} sample_case;

static const sample_case sample_cases[] = {
    {2, 0, 1, 3, 8, 8, 4, 4},  {2, -1, 1, 3, 8, 8, 4, 4}, {2, 0, 0, 2, 7, 7, 4, 4}, {2, -1, 0, 2, 7, 7, 4, 4},
    {1, 0, 1, 2, 9, 5, 9, 5},  {1, 1, 1, 2, 5, 6, 7, 8},  {2, 1, 1, 2, 7, 9, 5, 6}, {3, 0, 1, 2, 10, 8, 4, 3},
    {1, -1, 0, 2, 6, 5, 5, 4}, {2, 0, 1, 1, 1, 1, 1, 1},  {3, 2, 1, 2, 9, 7, 5, 4},
};

enum { SAMPLE_CASES = sizeof sample_cases / sizeof *sample_cases };

typedef struct sampling {
    const sample_case *k;
    device_tensor x, y, dy, dx;
} sampling;

static cudaError_t sample_forward(const dck_queue *queue, const void *context, bool accumulate, int n)
{
    const sampling *a = context;
    (void)accumulate;
    return dck_cuda_sample_forward(queue, a->k->stride, a->k->pad, a->k->relu, a->x.view, a->y.view, n);
}

static cudaError_t sample_backward(const dck_queue *queue, const void *context, bool accumulate, int n)
{
    const sampling *a = context;
    return dck_cuda_sample_backward(queue, a->k->stride, a->k->pad, a->k->relu, a->x.view, a->dy.view, a->dx.view,
                                    accumulate, n);
}

static void add_samples(const sampling *a, expect y, expect dx)
{
    const sample_case *k = a->k;
    const dck_view x = a->x.host.view, dy = a->dy.host.view;
    for (int i = 0; i < BLOCKS * k->c * k->out_h * k->out_w * DCK_LANES; i++) {
        const int lane = i % DCK_LANES, j = i / DCK_LANES % k->out_w, r = i / DCK_LANES / k->out_w % k->out_h;
        const int plane = i / DCK_LANES / k->out_w / k->out_h, c = plane % k->c, b = plane / k->c;
        const int row = r * k->stride - k->pad, column = j * k->stride - k->pad;
        if (row < 0 || row >= x.h || column < 0 || column >= x.w)
            continue;
        const double stored = value_at(x, b, c, row, column, lane);
        if (k->relu && stored <= 0)
            continue;
        expect_add(y, i, stored);
        expect_add(dx, flat(x, b, c, row, column, lane), *at(dy, b, c, r, j, lane));
    }
}

static void check_sampling(const sample_case *k, dck_type type, int n)
{
    dck_queue queue = device_queue_create(type);
    sampling a = {.k = k,
                  .x = device_tensor_create(type, k->c, k->h, k->w),
                  .y = device_tensor_create(type, k->c, k->out_h, k->out_w),
                  .dy = device_tensor_create(type, k->c, k->out_h, k->out_w),
                  .dx = device_tensor_create(type, k->c, k->h, k->w)};
    device_tensor_end(&a.dy, n);
    if (n == images[0])
        device_tensor_add_affine(&a.x);
    expect y = expect_create(a.y.view), dx = expect_create(a.x.view);
    add_samples(&a, y, dx);
    check_output(sample_forward, &a, false, &queue, &a.y, n, y);
    check_output(sample_backward, &a, true, &queue, &a.dx, n, dx);
    expect_destroy(&y);
    expect_destroy(&dx);
    device_tensor *const tensors[] = {&a.x, &a.y, &a.dy, &a.dx};
    for (int i = 0; i < 4; i++)
        device_tensor_destroy(tensors[i]);
    device_queue_destroy(&queue);
}

static void test_sample(void **state)
{
    (void)state;
    for (int i = 0; i < SAMPLE_CASES; i++)
        for (int j = 0; j < IMAGES; j++) {
            check_sampling(&sample_cases[i], DCK_F32, images[j]);
            check_sampling(&sample_cases[i], DCK_BF16, images[j]);
        }
}

int main(void)
{
    device_require();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_depthwise),
        cmocka_unit_test(test_relu_on_load_lets_not_a_number_pass),
        cmocka_unit_test(test_sample),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
