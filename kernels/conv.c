/* Convolution: chooses the family of kernels. */
#include "conv.h"

static bool is_depthwise(const dck_conv *k, dck_view x, dck_view y)
{
    return k->groups == x.c && k->groups == y.c;
}

size_t DCK(conv_forward_scratch_bytes)(const dck_conv *k, dck_view x, dck_view y, int blocks, int threads)
{
    (void)blocks;
    return is_depthwise(k, x, y) ? DCK(depthwise_forward_scratch_bytes)(k, x, y, threads)
                                 : DCK(dense_forward_scratch_bytes)(k, x, y, threads);
}

void DCK(conv_forward)(const dck_conv *k, dck_view x, const float *w, dck_view y, int n, dck_moments moments,
                       void *scratch, int threads)
{
    if (is_depthwise(k, x, y))
        DCK(depthwise_forward)(k, x, w, y, dck_blocks_of(n), scratch, threads);
    else
        DCK(dense_forward)(k, x, w, y, n, moments, scratch, threads);
}

int DCK(conv_parts)(const dck_conv *k, dck_view x, dck_view y)
{
    return is_depthwise(k, x, y) ? 0 : DCK(dense_parts)(y);
}

bool DCK(conv_sums)(const dck_conv *k, dck_view x, dck_view y)
{
    return is_depthwise(k, x, y) && k->relu;
}

size_t DCK(conv_backward_scratch_bytes)(const dck_conv *k, dck_view x, dck_view y, int blocks, int threads)
{
    return is_depthwise(k, x, y) ? DCK(depthwise_backward_scratch_bytes)(k, x, y, blocks, threads)
                                 : DCK(dense_backward_scratch_bytes)(k, x, y, blocks, threads);
}

void DCK(conv_backward)(const dck_conv *k, dck_view x, const float *w, dck_grad dy, dck_view dx, bool accumulate,
                        float *dw, dck_sums sums, int n, void *scratch, int threads)
{
    if (is_depthwise(k, x, dy.dz))
        DCK(depthwise_backward)(k, x, w, dy.dz, dx, accumulate, dw, sums, dck_blocks_of(n), scratch, threads);
    else
        DCK(dense_backward)(k, x, w, dy, dx, accumulate, dw, n, scratch, threads);
}
