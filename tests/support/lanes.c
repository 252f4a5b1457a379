#include "tests/support/lanes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

enum { GUARD_CHANNELS = 2, GUARD_BYTES = 256 };

static const float sentinel = 12352.0f; /* a bfloat16 too */
static uint32_t random_state = 1;
static int bits_behind_point;

float random_float(void)
{
    random_state = random_state * 1664525u + 1013904223u;
    const float x = (float)(random_state >> 8) / (1 << 23) - 1.0f;
    return bits_behind_point ? floorf(ldexpf(x, bits_behind_point)) * ldexpf(1, -bits_behind_point) : x;
}

void random_floats_have(int bits)
{
    bits_behind_point = bits;
}

tensor tensor_create(int c, int h, int w)
{
    size_t plane = (size_t)h * w * DCK_LANES, stride = (size_t)(c + 2 * GUARD_CHANNELS) * plane;
    tensor t = {NULL, BLOCKS * stride, {NULL, c, h, w, stride, NULL}, NULL};
    assert_int_equal(posix_memalign((void **)&t.all, 64, t.count * sizeof(float)), 0);
    for (size_t i = 0; i < t.count; i++)
        t.all[i] = sentinel;
    t.view.data = t.all + GUARD_CHANNELS * plane;
    return t;
}

void tensor_destroy(tensor *t)
{
    free(t->all);
    free(t->affine);
}

void tensor_randomize(tensor t)
{
    for (int b = 0; b < BLOCKS; b++)
        for (int i = 0; i < t.view.c * t.view.h * t.view.w * DCK_LANES; i++)
            t.view.data[b * t.view.stride + i] = random_float();
}

void tensor_add_affine(tensor *t)
{
    t->affine = malloc(2 * t->view.c * sizeof(float));
    assert_non_null(t->affine);
    for (int i = 0; i < 2 * t->view.c; i++)
        t->affine[i] = random_float();
    t->view.affine = t->affine;
}

void assert_guards(tensor t)
{
    size_t inside = (size_t)t.view.c * t.view.h * t.view.w * DCK_LANES, before = t.view.data - t.all, wrong = 0;
    for (size_t i = 0; i < t.count; i++) {
        size_t within = i % t.view.stride;
        if (within < before || within >= before + inside)
            wrong += t.all[i] != sentinel;
    }
    assert_int_equal(wrong, 0);
}

float *at(dck_view v, int block, int c, int y, int x, int lane)
{
    return v.data + block * v.stride + (((size_t)c * v.h + y) * v.w + x) * DCK_LANES + lane;
}

double value_at(dck_view v, int block, int c, int y, int x, int lane)
{
    double stored = *at(v, block, c, y, x, lane);
    return v.affine ? stored * v.affine[2 * c] + v.affine[2 * c + 1] : stored;
}

size_t flat(dck_view v, int block, int c, int y, int x, int lane)
{
    return ((((size_t)block * v.c + c) * v.h + y) * v.w + x) * DCK_LANES + lane;
}

void assert_view(dck_view v, const double *right, const double *size, const float *before)
{
    size_t image = (size_t)v.c * v.h * v.w * DCK_LANES, wrong = 0;
    for (int b = 0; b < BLOCKS; b++)
        for (size_t i = 0; i < image; i++) {
            double want = right[b * image + i] + (before ? before[b * v.stride + i] : 0);
            wrong += !(fabs(v.data[b * v.stride + i] - want) <= 2e-6 * (size[b * image + i] + 1));
        }
    assert_int_equal(wrong, 0);
}

void *scratch_create(size_t bytes)
{
    char *scratch;
    assert_int_equal(posix_memalign((void **)&scratch, 64, bytes + GUARD_BYTES), 0);
    memset(scratch, 0xff, bytes); /* not a number */
    memset(scratch + bytes, 0x5a, GUARD_BYTES);
    return scratch;
}

void scratch_destroy(void *scratch, size_t bytes)
{
    for (int i = 0; i < GUARD_BYTES; i++)
        assert_int_equal(((unsigned char *)scratch)[bytes + i], 0x5a);
    free(scratch);
}
