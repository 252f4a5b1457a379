/* Every function of the dck_kernels table of one instruction set; kernels.h says what each does. */
#ifndef DCK_INTERNAL_H
#define DCK_INTERNAL_H

#include "vector.h"

size_t DCK(conv_forward_scratch_bytes)(const dck_conv *k, dck_view x, dck_view y, int blocks, int threads);
void DCK(conv_forward)(const dck_conv *k, dck_view x, const float *w, dck_view y, int n, dck_moments moments,
                       void *scratch, int threads);
int DCK(conv_parts)(const dck_conv *k, dck_view x, dck_view y);
bool DCK(conv_sums)(const dck_conv *k, dck_view x, dck_view y);
size_t DCK(conv_backward_scratch_bytes)(const dck_conv *k, dck_view x, dck_view y, int blocks, int threads);
void DCK(conv_backward)(const dck_conv *k, dck_view x, const float *w, dck_grad dy, dck_view dx, bool accumulate,
                        float *dw, dck_sums sums, int n, void *scratch, int threads);
void DCK(siblings_forward)(const dck_conv *k, dck_view x, int branches, const dck_branch *branch, int n, void *scratch,
                           int threads);
void DCK(siblings_backward)(const dck_conv *k, dck_view x, int branches, const dck_branch *branch, dck_view dx,
                            bool accumulate, int n, void *scratch, int threads);
size_t DCK(separable_scratch_bytes)(const dck_conv *depthwise, dck_view x, dck_view y, int threads);
void DCK(separable_forward)(const dck_conv *depthwise, dck_view x, const float *w, const float *v, dck_view y, int n,
                            dck_moments moments, void *scratch, int threads);
size_t DCK(norm_scratch_bytes)(dck_view x, int blocks, int parts);
void DCK(norm_forward)(const dck_norm *k, dck_view x, dck_view y, int n, bool training, void *scratch, int threads);
void DCK(norm_backward)(const dck_norm *k, dck_view x, dck_view dy, dck_view dx, bool accumulate, float *dgamma,
                        float *dbeta, int n, void *scratch, int threads);
void DCK(norm_measure)(const dck_norm *k, dck_view x, float *affine, int n, bool training, int parts, void *scratch,
                       int threads);
void DCK(norm_factors)(const dck_norm *k, dck_view x, dck_view dy, float *factors, float *dgamma, float *dbeta, int n,
                       bool summed, void *scratch, int threads);
void DCK(relu_forward)(dck_view x, dck_view y, int blocks, int threads);
void DCK(relu_backward)(dck_view y, dck_view dy, dck_view dx, bool accumulate, int blocks, int threads);
void DCK(max_pool_forward)(const dck_pool *k, dck_view x, dck_view y, int blocks, int threads);
void DCK(max_pool_backward)(const dck_pool *k, dck_view x, dck_view y, dck_view dy, dck_view dx, bool accumulate,
                            int blocks, int threads);
void DCK(avg_pool_forward)(const dck_pool *k, dck_view x, dck_view y, int blocks, int threads);
void DCK(avg_pool_backward)(const dck_pool *k, dck_view dy, dck_view dx, bool accumulate, int blocks, int threads);
void DCK(global_avg_pool_forward)(dck_view x, dck_view y, int blocks, int threads);
void DCK(global_avg_pool_backward)(dck_view dy, dck_view dx, bool accumulate, int blocks, int threads);
void DCK(linear_forward)(dck_view x, const float *w, const float *b, dck_view y, int blocks, int threads);
void DCK(linear_backward)(dck_view x, const float *w, dck_view dy, dck_view dx, bool accumulate, float *dw, float *db,
                          int blocks, int threads);
void DCK(mix_forward)(int n_x, const dck_view *x, const float *weight, const int *index, dck_view y, int blocks,
                      int threads);
size_t DCK(mix_backward_scratch_bytes)(int n_x, dck_view y, int blocks, int threads);
void DCK(mix_backward)(int n_x, const dck_view *x, int readers, const dck_reader *reader, const dck_view *dx,
                       const bool *accumulate, const dck_sums *sums, int blocks, void *scratch, int threads);
void DCK(copy)(dck_view x, dck_view y, bool accumulate, int blocks, int threads);
void DCK(zero)(dck_view y, int blocks, int threads);
void DCK(scale_images)(dck_view x, const float *factor, dck_view y, bool accumulate, dck_view of, dck_sums sums,
                       int blocks, int threads);
void DCK(dropout)(dck_view x, dck_view y, bool accumulate, float rate, uint64_t seed, uint64_t stream, uint32_t step,
                  uint32_t first_image, int blocks, int threads);
void DCK(cross_entropy_forward)(dck_view logits, const int32_t *labels, float smoothing, int n, float *saved,
                                float result[4]);
void DCK(cross_entropy_backward)(const float *saved, const int32_t *labels, float smoothing, float weight, int n,
                                 dck_view dlogits, bool accumulate);
void DCK(from_nchw)(const float *nchw, int n, dck_view y);
void DCK(to_nchw)(dck_view x, int n, float *nchw);
void DCK(sgd)(float *value, const float *grad, float *velocity, size_t count, float learning_rate, float momentum,
              float weight_decay, bool nesterov, float grad_scale, int threads);
void DCK(adam)(float *value, const float *grad, float *first, float *second, size_t count, float learning_rate,
               float beta1, float beta2, float epsilon, float weight_decay, uint32_t step, int threads);
double DCK(sum_squares)(const float *x, size_t count, int threads);
void DCK(blend)(float *y, const float *x, size_t count, float a, float b, int threads);
void DCK(resample_rows)(const uint8_t *rows, ptrdiff_t stride, int taps, const float *weight, size_t n, float *out);
void DCK(resample_columns)(const float *row, int channels, const int *first, int taps, const float *weight, int w,
                           uint8_t *out, size_t plane);
void DCK(scale_bytes)(uint8_t *x, size_t n, float centre, float factor, float offset);
uint64_t DCK(sum_grey)(const uint8_t *planes, size_t n);
void DCK(saturate)(uint8_t *planes, size_t n, float factor);
void DCK(shift_hue)(uint8_t *planes, size_t n, float turns);
double DCK(ceiling)(long repeats, int threads);

#endif
