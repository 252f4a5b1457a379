/* Device memory, queues and tensors for the tests of the GPU's kernels, on the emulated device and on a real one. What
 * is on the device lies between guards that are not numbers: who reads them gives no number either. Whatever fails here
 * fails the test. */
#ifndef DC_TESTS_CUDA_DEVICE_H
#define DC_TESTS_CUDA_DEVICE_H

#include "cuda.h"
#include "tests/support/lanes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

enum { DEVICE_GUARD_BYTES = 256 };

/* First in main(): without a GPU ends the program, as skipped, or as failed where REQUIRE_GPU=1 asks for one. */
static inline void device_require(void)
{
    int count = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error == cudaSuccess && count > 0)
        return;
    const char *require = getenv("REQUIRE_GPU");
    const bool fails = require && strcmp(require, "1") == 0;
    printf(fails ? "Bail out! no GPU: %s\n" : "1..0 # SKIP no GPU: %s\n", cudaGetErrorString(error));
    fprintf(stderr, "no GPU is found: %s: nothing was tested\n", cudaGetErrorString(error));
    exit(fails);
}

static inline void device_ok(cudaError_t error)
{
    if (error != cudaSuccess)
        fail_msg("CUDA: %s", cudaGetErrorString(error));
}

/* ---- queues ---- */

/* With a stream of its own; few multiprocessors, so that whoever goes by their number has several rounds. */
static inline dck_queue device_queue_create(dck_type type)
{
    dck_queue queue = {.type = type, .multiprocessors = 4};
    device_ok(cudaStreamCreateWithFlags(&queue.stream, cudaStreamNonBlocking));
    return queue;
}

static inline void device_queue_destroy(dck_queue *queue)
{
    device_ok(cudaStreamSynchronize(queue->stream));
    device_ok(cudaStreamDestroy(queue->stream));
}

/* ---- memory ---- */

typedef struct device_memory {
    char *all;
    void *data; /* 256-byte aligned; what kernels get */
    size_t bytes;
} device_memory;

/* Holds no numbers at first. */
static inline device_memory device_create(size_t bytes)
{
    device_memory m = {.bytes = bytes};
    device_ok(cudaMalloc((void **)&m.all, bytes + 2 * DEVICE_GUARD_BYTES));
    device_ok(cudaMemset(m.all, 0xff, bytes + 2 * DEVICE_GUARD_BYTES));
    device_ok(cudaDeviceSynchronize());
    m.data = m.all + DEVICE_GUARD_BYTES;
    return m;
}

static inline void device_put(device_memory m, const void *from)
{
    if (m.bytes == 0)
        return;
    device_ok(cudaDeviceSynchronize());
    device_ok(cudaMemcpy(m.data, from, m.bytes, cudaMemcpyHostToDevice));
    device_ok(cudaDeviceSynchronize());
}

static inline device_memory device_create_from(const void *from, size_t bytes)
{
    device_memory m = device_create(bytes);
    device_put(m, from);
    return m;
}

/* Waits for all that was enqueued. to: `bytes` of the memory, NULL: only sees to it that the guards are intact. */
static inline void device_get(device_memory m, void *to)
{
    const size_t after = DEVICE_GUARD_BYTES + m.bytes, whole = after + DEVICE_GUARD_BYTES;
    unsigned char *all = malloc(whole);
    assert_non_null(all);
    device_ok(cudaDeviceSynchronize());
    device_ok(cudaMemcpy(all, m.all, whole, cudaMemcpyDeviceToHost));
    if (to)
        memcpy(to, all + DEVICE_GUARD_BYTES, m.bytes);
    int wrong = 0;
    for (int i = 0; i < DEVICE_GUARD_BYTES; i++)
        wrong += (all[i] != 0xff) + (all[after + i] != 0xff);
    free(all);
    assert_int_equal(wrong, 0);
}

/* Nothing has been written beside it. */
static inline void device_destroy(device_memory *m)
{
    device_get(*m, NULL);
    device_ok(cudaFree(m->all));
    *m = (device_memory){0};
}

/* ---- tensors ---- */

/* To the nearest, ties to even, as the GPU rounds; numbers only. */
static inline uint16_t device_bf16_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static inline float device_float_of(uint16_t bf16)
{
    const uint32_t bits = (uint32_t)bf16 << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Floats on the host for elements on the device, both a range of channels of a larger tensor. */
typedef struct device_tensor {
    tensor host;
    dck_type type;
    device_memory memory, affine;
    dck_view view; /* what kernels get */
} device_tensor;

/* Uploads what the host has, which is rounded to what the device can hold. */
static inline void device_tensor_put(device_tensor *t)
{
    const size_t count = t->host.count;
    if (t->type == DCK_F32) {
        device_put(t->memory, t->host.all);
        return;
    }
    uint16_t *raw = malloc(count * sizeof *raw);
    assert_non_null(raw);
    for (size_t i = 0; i < count; i++) {
        raw[i] = device_bf16_of(t->host.all[i]);
        t->host.all[i] = device_float_of(raw[i]);
    }
    device_put(t->memory, raw);
    free(raw);
}

/* Downloads; nothing but the view's channels may have changed. */
static inline void device_tensor_get(device_tensor *t)
{
    const size_t count = t->host.count;
    if (t->type == DCK_F32)
        device_get(t->memory, t->host.all);
    else {
        uint16_t *raw = malloc(count * sizeof *raw);
        assert_non_null(raw);
        device_get(t->memory, raw);
        for (size_t i = 0; i < count; i++)
            t->host.all[i] = device_float_of(raw[i]);
        free(raw);
    }
    assert_guards(t->host);
}

/* BLOCKS blocks of random numbers, uploaded. */
static inline device_tensor device_tensor_create(dck_type type, int c, int h, int w)
{
    device_tensor t = {.host = tensor_create(c, h, w), .type = type};
    const size_t bytes = dck_type_bytes(type), before = (size_t)(t.host.view.data - t.host.all);
    t.memory = device_create(t.host.count * bytes);
    t.view = t.host.view;
    t.view.data = (float *)((char *)t.memory.data + before * bytes);
    tensor_randomize(t.host);
    device_tensor_put(&t);
    return t;
}

/* From now on it is seen through a batch norm. Its factors lose no bit of a number of eight. */
static inline void device_tensor_add_affine(device_tensor *t)
{
    static const float scales[] = {-1, 2, 0.5f, -2, 1, -0.5f};
    tensor_add_affine(&t->host);
    for (int c = 0; c < t->view.c; c++) {
        t->host.affine[2 * c] = scales[c % 6];
        t->host.affine[2 * c + 1] = roundf(64 * t->host.affine[2 * c + 1]) / 64;
    }
    t->affine = device_create_from(t->host.affine, 2 * (size_t)t->view.c * sizeof(float));
    t->view.affine = t->affine.data;
}

static inline void device_tensor_destroy(device_tensor *t)
{
    if (t->affine.all)
        device_destroy(&t->affine);
    tensor_destroy(&t->host);
    device_destroy(&t->memory);
}

/* As gradients are: zero in lanes past n. */
static inline void device_tensor_end(device_tensor *t, int n)
{
    const dck_view v = t->host.view;
    for (int i = n; i < BLOCKS * DCK_LANES; i++)
        for (int e = 0; e < v.c * v.h * v.w; e++)
            v.data[i / DCK_LANES * v.stride + (size_t)e * DCK_LANES + i % DCK_LANES] = 0;
    device_tensor_put(t);
}

/* How far a computed number may be from the right one; size: the sum of the sizes of what was added up for it. */
static inline double device_tolerance(dck_type type, double right, double size)
{
    return 2e-6 * (size + 1) + (type == DCK_BF16 ? fabs(right) / 256 : 0);
}

/* Downloads and compares: right and size are indexed by flat(); before: host.all as it was, which is added to, or
 * NULL. Blocks from the blocks-th on must still hold `kept` (host.all as it was). */
static inline void assert_device_tensor(device_tensor *t, const double *right, const double *size, const float *before,
                                        int blocks, const float *kept)
{
    device_tensor_get(t);
    const dck_view v = t->host.view;
    const size_t image = (size_t)v.c * v.h * v.w * DCK_LANES, first = (size_t)(v.data - t->host.all);
    size_t wrong = 0;
    for (int b = 0; b < BLOCKS; b++)
        for (size_t i = 0; i < image; i++) {
            const size_t at = first + b * v.stride + i;
            const double old = before ? before[at] : 0, want = right[b * image + i] + old, is = t->host.all[at];
            if (b >= blocks)
                wrong += t->host.all[at] != kept[at];
            else
                wrong += !(fabs(is - want) <= device_tolerance(t->type, want, size[b * image + i] + fabs(old)));
        }
    assert_int_equal(wrong, 0);
}

#endif
