/* The table of one instruction set; dispatch.c knows them all. */
#include "internal.h"

#define DCK_TEXT_(x) #x
#define DCK_TEXT(x)  DCK_TEXT_(x)

extern const dck_kernels DCK_JOIN(table, DCK_ISA);

const dck_kernels DCK_JOIN(table, DCK_ISA) = {
    .isa = DCK_TEXT(DCK_ISA),
    .conv_forward_scratch_bytes = DCK(conv_forward_scratch_bytes),
    .conv_forward = DCK(conv_forward),
    .conv_parts = DCK(conv_parts),
    .conv_backward_scratch_bytes = DCK(conv_backward_scratch_bytes),
    .conv_backward = DCK(conv_backward),
    .siblings_forward = DCK(siblings_forward),
    .siblings_backward = DCK(siblings_backward),
    .separable_scratch_bytes = DCK(separable_scratch_bytes),
    .separable_forward = DCK(separable_forward),
    .norm_scratch_bytes = DCK(norm_scratch_bytes),
    .norm_forward = DCK(norm_forward),
    .norm_backward = DCK(norm_backward),
    .norm_measure = DCK(norm_measure),
    .norm_factors = DCK(norm_factors),
    .relu_forward = DCK(relu_forward),
    .relu_backward = DCK(relu_backward),
    .max_pool_forward = DCK(max_pool_forward),
    .max_pool_backward = DCK(max_pool_backward),
    .avg_pool_forward = DCK(avg_pool_forward),
    .avg_pool_backward = DCK(avg_pool_backward),
    .global_avg_pool_forward = DCK(global_avg_pool_forward),
    .global_avg_pool_backward = DCK(global_avg_pool_backward),
    .linear_forward = DCK(linear_forward),
    .linear_backward = DCK(linear_backward),
    .mix_forward = DCK(mix_forward),
    .mix_backward_scratch_bytes = DCK(mix_backward_scratch_bytes),
    .mix_backward = DCK(mix_backward),
    .copy = DCK(copy),
    .zero = DCK(zero),
    .scale_images = DCK(scale_images),
    .dropout = DCK(dropout),
    .cross_entropy_forward = DCK(cross_entropy_forward),
    .cross_entropy_backward = DCK(cross_entropy_backward),
    .from_nchw = DCK(from_nchw),
    .to_nchw = DCK(to_nchw),
    .sgd = DCK(sgd),
    .adam = DCK(adam),
    .sum_squares = DCK(sum_squares),
    .blend = DCK(blend),
    .resample_rows = DCK(resample_rows),
    .resample_columns = DCK(resample_columns),
    .ceiling = DCK(ceiling),
};
