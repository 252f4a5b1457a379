/* What the pooling files share: windows, and one plane of 3x3 pooling. */
#ifndef DCK_POOL_H
#define DCK_POOL_H

#include "internal.h"
#include "plane.h"

typedef struct dck_range {
    int begin, end;
} dck_range;

/* The positions inside [0, size) of the window of output `at`. */
static inline dck_range dck_window(const dck_pool *k, int at, int size)
{
    int begin = at * k->stride - k->pad, end = begin + k->kernel;
    return (dck_range){begin < 0 ? 0 : begin, end > size ? size : end};
}

/* The outputs in [0, out_size) whose windows hold input `at`. */
static inline dck_range dck_windows_over(const dck_pool *k, int at, int out_size)
{
    int last = (at + k->pad) / k->stride, before = at + k->pad - k->kernel;
    int begin = before < 0 ? 0 : before / k->stride + 1;
    return (dck_range){begin, last + 1 > out_size ? out_size : last + 1};
}

DCK_INLINE dck_vec dck_join(bool max, dck_vec a, dck_vec b)
{
    if (max)
        return dck_max(a, b);
    return a + b;
}

/* 3x3 at strides 1 and 2, with any padding that makes sense. */
static inline bool dck_is_pool3(const dck_pool *k)
{
    return k->kernel == 3 && k->stride <= 2 && k->pad <= 2;
}

/* One plane each. */
void DCK(pool3_forward)(bool max, const dck_pool *k, dck_view x, dck_view y, int block, int channel);
void DCK(max_pool3_backward)(const dck_pool *k, dck_view x, dck_view y, dck_view dy, dck_view dx, bool accumulate,
                             int block, int channel);
void DCK(avg_pool3_backward)(const dck_pool *k, dck_view dy, dck_view dx, bool accumulate, int block, int channel);

#endif
