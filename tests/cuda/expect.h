/* What a launcher should leave in a tensor, and calling it so that it writes and so that it adds. */
#ifndef DC_TESTS_CUDA_EXPECT_H
#define DC_TESTS_CUDA_EXPECT_H

#include "tests/cuda/device.h"

/* By flat(): the right number, and the size of what is added up for it. */
typedef struct expect {
    double *value, *size;
} expect;

static inline size_t block_elements(dck_view v)
{
    return (size_t)v.c * (size_t)v.h * (size_t)v.w * DCK_LANES;
}

static inline expect expect_create(dck_view v)
{
    const size_t n = BLOCKS * block_elements(v);
    const expect e = {calloc(n, sizeof(double)), calloc(n, sizeof(double))};
    assert_true(e.value && e.size);
    return e;
}

static inline void expect_destroy(expect *e)
{
    free(e->value);
    free(e->size);
    *e = (expect){0};
}

static inline void expect_add(expect e, size_t i, double x)
{
    e.value[i] += x;
    e.size[i] += fabs(x);
}

static inline int channel_of(dck_view v, size_t i)
{
    return (int)(i % block_elements(v) / DCK_LANES / ((size_t)v.h * (size_t)v.w));
}

/* What the host has at flat(), as a reader takes it. */
static inline double host_at(const device_tensor *t, size_t i)
{
    const dck_view v = t->host.view;
    const double stored = (double)v.data[i / block_elements(v) * v.stride + i % block_elements(v)];
    const float *f = v.affine ? v.affine + 2 * channel_of(v, i) : NULL;
    return f ? (double)f[0] * stored + (double)f[1] : stored;
}

static inline int image_of(dck_view v, size_t i)
{
    return (int)(i / block_elements(v) * DCK_LANES + i % DCK_LANES);
}

typedef cudaError_t call_with(const dck_queue *queue, const void *context, bool accumulate, int n);

/* Calls it to write and, if it can, to add, for n images. */
static inline void check_output(call_with *call, const void *context, bool adds, const dck_queue *queue,
                                device_tensor *out, int n, expect right)
{
    const size_t bytes = out->host.count * sizeof(float);
    float *was = malloc(bytes);
    assert_non_null(was);
    for (int accumulate = 0; accumulate < (adds ? 2 : 1); accumulate++) {
        tensor_randomize(out->host);
        device_tensor_end(out, n); /* what is added to a gradient */
        memcpy(was, out->host.all, bytes);
        device_ok(call(queue, context, accumulate, n));
        assert_device_tensor(out, right.value, right.size, accumulate ? was : NULL, (n + DCK_LANES - 1) / DCK_LANES,
                             was);
    }
    free(was);
}

/* ---- tensors of one shape, for both types and several shapes and numbers of images ---- */

typedef struct shape_case {
    int c, h, w, n;
} shape_case;

/* Less than a block of threads; several, the last in part; one block of images in part; all of two. */
static const shape_case shape_cases[] = {{3, 5, 7, 21}, {5, 12, 11, 19}, {1, 1, 1, 9}, {2, 4, 4, 32}};
enum { SHAPE_CASES = sizeof shape_cases / sizeof *shape_cases };

enum { OPERANDS = 3 };

typedef struct operands {
    dck_queue queue;
    shape_case s;
    device_tensor x[OPERANDS], out;
    expect right;
} operands;

static inline operands operands_create(dck_type type, shape_case s)
{
    operands o = {.queue = device_queue_create(type), .s = s, .out = device_tensor_create(type, s.c, s.h, s.w)};
    for (int i = 0; i < OPERANDS; i++)
        o.x[i] = device_tensor_create(type, s.c, s.h, s.w);
    o.right = expect_create(o.out.host.view);
    return o;
}

static inline void operands_destroy(operands *o)
{
    for (int i = 0; i < OPERANDS; i++)
        device_tensor_destroy(&o->x[i]);
    device_tensor_destroy(&o->out);
    device_queue_destroy(&o->queue);
    expect_destroy(&o->right);
}

static inline size_t elements_of(const operands *o)
{
    return BLOCKS * block_elements(o->out.host.view);
}

/* Calls test(operands) for both types and each shape. */
static inline void for_each_case(void (*test)(operands *o))
{
    for (int type = DCK_F32; type <= DCK_BF16; type++)
        for (int i = 0; i < SHAPE_CASES; i++) {
            operands o = operands_create((dck_type)type, shape_cases[i]);
            test(&o);
            operands_destroy(&o);
        }
}

#endif
