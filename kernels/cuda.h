/* The GPU's hot code: what kernels/NAME.cu implements, called from C. Beside kernels/NAME.c, which does the same on the
 * CPU, and in the same layout.
 *
 * Layout ("lanes"): x[block][C][H][W][16], block = image / 16, lane = image % 16, as on the CPU (kernels.h). On a GPU
 * it means: neighbouring threads are neighbouring images (vectors of 4 floats or 8 bfloat16), so every access of every
 * kernel is coalesced in whole 32-byte sectors for any channel count (4 channels are not padded), any range of channels
 * of a concat, any kernel, stride and dilation, also for planes of 7x7; a 1x1 convolution is a matrix product [K][C] x
 * [C][H W 16] for each block, whose leading dimension is always a multiple of 16; and the loader, checkpoints and tests
 * know one layout. NHWC would waste half of each sector on ranges of 4 channels, and pad 4 to 8 for tensor cores.
 *
 * Every launcher enqueues on queue->stream, allocates nothing, never waits, and returns the launch's error. Device
 * pointers unless said otherwise. Activations and their gradients are of queue->type (a dck_view's data then points at
 * such elements, its stride counts them); parameters, statistics, losses, sums and dw are float, arithmetic is float.
 * Sums are formed over fixed parts and added in a fixed order: a result depends neither on the GPU nor on timing. n:
 * images; the (n + 15) / 16 blocks in use are computed, all 16 lanes of each; gradients are zero in lanes past n.
 * accumulate: add to dx (or y) instead of writing it. dx.data NULL: not wanted. scratch: at least the bytes that the
 * *_scratch_bytes function of the same operands says, 256-byte aligned. Views that are seen through affine: as in
 * kernels.h, and x of to_nchw. */
#ifndef DCK_CUDA_H
#define DCK_CUDA_H

#include "kernels.h"

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum dck_type { DCK_F32, DCK_BF16 } dck_type;

typedef struct dck_queue {
    cudaStream_t stream;
    dck_type type;
    int multiprocessors;
} dck_queue;

static inline size_t dck_type_bytes(dck_type type)
{
    return type == DCK_BF16 ? 2 : 4;
}

/* What changes from step to step while the launches stay the same, so that a captured step can be replayed; lies in
 * device memory. */
typedef struct dck_moment {
    uint32_t step;        /* counter of the random masks */
    uint32_t first_image; /* the global number of the batch's first */
    float drop_path_rate; /* 0: no drop-path */
} dck_moment;

cudaError_t dck_cuda_set_moment(const dck_queue *queue, dck_moment *moment, dck_moment value); /* moment.cu */

/* ---- depthwise.cu: groups = channels; relu on load ---- */

cudaError_t dck_cuda_depthwise_forward(const dck_queue *queue, const dck_conv *k, dck_view x, const float *w,
                                       dck_view y, int n);
cudaError_t dck_cuda_depthwise_backward_data(const dck_queue *queue, const dck_conv *k, dck_view x, const float *w,
                                             dck_view dy, dck_view dx, bool accumulate, int n);
size_t dck_cuda_depthwise_scratch_bytes(const dck_conv *k, dck_view x, dck_view y, int blocks);
cudaError_t dck_cuda_depthwise_backward_weights(const dck_queue *queue, const dck_conv *k, dck_view x, dck_view dy,
                                                float *dw, int n, void *scratch);

/* ---- sample.cu: what cuDNN cannot read in place ---- */

/* y[c][i][j] = relu?(x)[c][i * stride - pad][j * stride - pad], zero outside: the operand of a strided or shifted 1x1
 * convolution, or (stride 1, pad 0) just relu(x). pad may be negative. Backward: dx (+)= its transpose, masked by
 * x > 0 with relu, zero where nothing was sampled. */
cudaError_t dck_cuda_sample_forward(const dck_queue *queue, int stride, int pad, bool relu, dck_view x, dck_view y,
                                    int n);
cudaError_t dck_cuda_sample_backward(const dck_queue *queue, int stride, int pad, bool relu, dck_view x, dck_view dy,
                                     dck_view dx, bool accumulate, int n);

/* ---- norm.cu: as norm_* of kernels.h ---- */

size_t dck_cuda_norm_scratch_bytes(dck_view x, int blocks);
cudaError_t dck_cuda_norm_forward(const dck_queue *queue, const dck_norm *k, dck_view x, dck_view y, int n,
                                  bool training, void *scratch);
/* The same without passing over y: affine [c][2] makes it of x (dck_view). */
cudaError_t dck_cuda_norm_measure(const dck_queue *queue, const dck_norm *k, dck_view x, float *affine, int n,
                                  bool training, void *scratch);
cudaError_t dck_cuda_norm_backward(const dck_queue *queue, const dck_norm *k, dck_view x, dck_view dy, dck_view dx,
                                   bool accumulate, float *dgamma, float *dbeta, int n, void *scratch);

/* ---- pool.cu, global_pool.cu ---- */

cudaError_t dck_cuda_max_pool_forward(const dck_queue *queue, const dck_pool *k, dck_view x, dck_view y, int n);
/* The gradient goes to the first maximum of a window in row-major order, as PyTorch's. */
cudaError_t dck_cuda_max_pool_backward(const dck_queue *queue, const dck_pool *k, dck_view x, dck_view y, dck_view dy,
                                       dck_view dx, bool accumulate, int n);
cudaError_t dck_cuda_avg_pool_forward(const dck_queue *queue, const dck_pool *k, dck_view x, dck_view y, int n);
cudaError_t dck_cuda_avg_pool_backward(const dck_queue *queue, const dck_pool *k, dck_view dy, dck_view dx,
                                       bool accumulate, int n);
cudaError_t dck_cuda_global_avg_pool_forward(const dck_queue *queue, dck_view x, dck_view y, int n);
cudaError_t dck_cuda_global_avg_pool_backward(const dck_queue *queue, dck_view dy, dck_view dx, bool accumulate, int n);

/* ---- mix.cu ---- */

enum { DCK_MIX_INPUTS = 64 }; /* of one launch; more are the caller's to split, with accumulation */

/* y (+)= sum_i weight[index[i]] * x[i]; weight NULL: all ones. x, index: host arrays, read before the call returns. */
cudaError_t dck_cuda_mix_forward(const dck_queue *queue, int n_x, const dck_view *x, const float *weight,
                                 const int *index, dck_view y, bool accumulate, int n);
size_t dck_cuda_mix_backward_scratch_bytes(int n_x, dck_view y, int blocks);
/* dx[i] (+)= weight[index[i]] * dy; dweight[index[i]] += sum dy * x[i] (NULL: not wanted; x is not read then). */
cudaError_t dck_cuda_mix_backward(const dck_queue *queue, int n_x, const dck_view *x, const float *weight,
                                  const int *index, dck_view dy, const dck_view *dx, const bool *accumulate,
                                  float *dweight, int n, void *scratch);

/* ---- elementwise.cu ---- */

cudaError_t dck_cuda_relu_forward(const dck_queue *queue, dck_view x, dck_view y, int n);
cudaError_t dck_cuda_relu_backward(const dck_queue *queue, dck_view y, dck_view dy, dck_view dx, bool accumulate,
                                   int n);
cudaError_t dck_cuda_copy(const dck_queue *queue, dck_view x, dck_view y, bool accumulate, int n);
cudaError_t dck_cuda_zero(const dck_queue *queue, dck_view y, int n);
/* y (+)= x * mask / keep with one mask bit an image (global number moment->first_image + i), keep = 1 -
 * moment->drop_path_rate: Philox(seed, stream, moment->step), the CPU's bits. */
cudaError_t dck_cuda_drop_path(const dck_queue *queue, dck_view x, dck_view y, bool accumulate,
                               const dck_moment *moment, uint64_t seed, uint64_t stream, int n);
/* The same with one mask bit an element, as dropout in kernels.h. */
cudaError_t dck_cuda_dropout(const dck_queue *queue, dck_view x, dck_view y, bool accumulate, float rate,
                             const dck_moment *moment, uint64_t seed, uint64_t stream, int n);

/* ---- loss.cu ---- */

/* Softmax of each row of alpha, and its gradient. */
cudaError_t dck_cuda_softmax_forward(const dck_queue *queue, const float *alpha, float *p, int rows, int columns);
cudaError_t dck_cuda_softmax_backward(const dck_queue *queue, const float *p, const float *dp, float *dalpha, int rows,
                                      int columns);
/* result[4] as cross_entropy_forward of kernels.h; saved: probabilities, float [blocks][classes][16]; scratch of
 * 4 * 16 * blocks floats. */
cudaError_t dck_cuda_cross_entropy_forward(const dck_queue *queue, dck_view logits, const int32_t *labels,
                                           float smoothing, int n, float *saved, float *result, void *scratch);
cudaError_t dck_cuda_cross_entropy_backward(const dck_queue *queue, const float *saved, const int32_t *labels,
                                            float smoothing, float weight, int n, dck_view dlogits, bool accumulate);

/* ---- linear.cu: y = W x + b over the c*h*w features of x; small beside all else ---- */

cudaError_t dck_cuda_linear_bias(const dck_queue *queue, const float *b, dck_view y, int n); /* y += b */
cudaError_t dck_cuda_linear_backward_bias(const dck_queue *queue, dck_view dy, float *db, int n);

/* ---- optim.cu: one launch for all runs of floats ---- */

typedef struct dck_run {
    float *value;
    const float *grad;
    float *first, *second; /* velocity or first moment; second moment (adam) */
    size_t count;
} dck_run;

/* runs: device array of n_runs; total: floats of all runs together; scale: device, what gradients are multiplied by,
 * or NULL. When *scale is not finite nothing is changed. */
cudaError_t dck_cuda_sgd(const dck_queue *queue, int n_runs, const dck_run *runs, size_t total, float learning_rate,
                         float momentum, float weight_decay, bool nesterov, const float *scale);
cudaError_t dck_cuda_adam(const dck_queue *queue, int n_runs, const dck_run *runs, size_t total, float learning_rate,
                          float beta1, float beta2, float epsilon, float weight_decay, uint32_t step);
/* *sum = sum of squares of all gradients, in double; *scale = 1, but clip / (sqrt(*sum) + 1e-6) where sqrt(*sum) > clip
 * > 0, and NaN when *sum is not finite. scratch: dck_cuda_sum_squares_scratch_bytes(). */
size_t dck_cuda_sum_squares_scratch_bytes(void);
cudaError_t dck_cuda_sum_squares(const dck_queue *queue, int n_runs, const dck_run *runs, size_t total, float clip,
                                 double *sum, float *scale, void *scratch);

/* y = a x + b y; both aligned to 16 bytes */
cudaError_t dck_cuda_blend(const dck_queue *queue, float *y, const float *x, size_t count, float a, float b);

/* y += values, which are the host's: they travel as arguments of launches, so that no copy of them is waited for. */
cudaError_t dck_cuda_add(const dck_queue *queue, float *y, const float *values, size_t count);

/* ---- layout.cu ---- */

cudaError_t dck_cuda_from_nchw(const dck_queue *queue, const float *nchw, int n, dck_view y); /* lanes past n: zero */
cudaError_t dck_cuda_to_nchw(const dck_queue *queue, dck_view x, int n, float *nchw);
cudaError_t dck_cuda_cast(const dck_queue *queue, const float *x, void *y, size_t count); /* to queue->type */

/* ---- widen.cu ---- */

/* y = x, which is bfloat16 whatever queue->type; both 16-byte aligned. */
cudaError_t dck_cuda_widen(const dck_queue *queue, const void *x, float *y, size_t count);

/* ---- augment.cu: from stored bytes to a batch, as dc_augment_assemble in src/data/augment.h ---- */

/* bytes: [n][c][h][w]; table: normalised value of each byte [c][256]; y: lanes past n zero. */
cudaError_t dck_cuda_augment(const dck_queue *queue, const uint8_t *bytes, const dck_augment_draw *draws,
                             const float *table, int pad, dck_view y, int n);

#ifdef __cplusplus
}
#endif

#endif
