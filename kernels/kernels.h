/* The CPU's hot code. Every kernel source is compiled once per instruction set (avx512_bf16, avx512, avx2, portable)
 * from the same text; a dck_kernels table of each is linked in and one is chosen when the program starts.
 *
 * Layout ("lanes"): x[block][C][H][W][16], block = image / 16, lane = image % 16. The body of every loop is a vector of
 * neighbouring images, so any channel count, kernel, stride and dilation runs at full width. Weights are plain
 * (PyTorch's order). Lanes past the last image hold finite numbers on input; gradients there are zero.
 *
 * Every kernel: `threads` OpenMP threads; results do not depend on their number (partial sums are formed over fixed
 * blocks and added in a fixed order). No kernel allocates; scratch comes from the caller, 64-byte aligned, its size
 * from the *_scratch_bytes function. dx with data NULL: not wanted. accumulate: add to dx instead of writing it. */
#ifndef DCK_KERNELS_H
#define DCK_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { DCK_LANES = 16, DCK_BRANCHES = 4, DCK_READERS = 4, DCK_SIBLING_ROWS = 144, DCK_PIXEL_SLACK = 4 };

/* A channel range of a stored tensor: stride floats from one block of 16 images to the next.
 *
 * A tensor that batch norm has normalised is not stored: a view of batch norm's own input stands for it, with what its
 * readers do on load: affine[2 c] * stored + affine[2 c + 1] for channel c of the range. Only x operands of conv, mix,
 * relu, pools, copy and scale_images may have it; what is written, and gradients, never do. */
typedef struct dck_view {
    float *data;
    int c, h, w;
    size_t stride;
    const float *affine; /* NULL: the tensor is what is stored */
} dck_view;

/* What happens to one image of a batch when it is assembled (data/augment.h). Identity: offsets equal to the padding,
 * no flip, an empty square. */
typedef struct dck_augment_draw {
    int offset_y, offset_x;             /* of the crop in the padded image, 0 .. 2 * padding */
    int flip;                           /* 0, 1 */
    int cut_y0, cut_y1, cut_x0, cut_x1; /* half-open; set to 0 after normalisation */
} dck_augment_draw;

/* The gradient of a convolution's output y. Behind a batch norm it is not stored either: dz is the gradient of what
 * batch norm made of y, and for channel c of the range dy = f[3 c] * dz + f[3 c + 1] * y + f[3 c + 2], zero in lanes
 * past the last image. factors NULL: dy is dz itself, y is not read. */
typedef struct dck_grad {
    dck_view dz, y;
    const float *factors;
} dck_grad;

/* Where a convolution leaves the sums of y and y^2 over the images of each part of a block, for batch norm:
 * sums[2 * (part * channels + c)], part = block * conv_parts + i. */
typedef struct dck_moments {
    double *sums; /* NULL: not wanted */
    int channels; /* of the tensor that is normalised, of which y may be a range; sums points at the range's first */
} dck_moments;

/* One of the convolutions that read the same x: the operands that are its own. y, moments: forward; dy, dw: backward.
 */
typedef struct dck_branch {
    const float *w;
    dck_view y;
    dck_moments moments;
    dck_grad dy;
    float *dw; /* NULL: not wanted */
} dck_branch;

/* One of the mixes that read the same features: the gradient of what it made of them, and what is its own. */
typedef struct dck_reader {
    dck_view dy;
    const float *weight; /* NULL: all ones (add) */
    const int *index;    /* of each feature's weight */
    float *dweight;      /* NULL: of none of them is it wanted; x is not read then */
} dck_reader;

/* Sums over a gradient dx for the batch norm that x is the input of: of dx and of dx * (x as stored - mean), as
 * norm_factors takes them. */
typedef struct dck_sums {
    const float *mean; /* [channels] */
    double *sums;      /* [blocks][channels][2]; NULL: not wanted */
} dck_sums;

typedef struct dck_conv {
    int kernel, stride, pad_begin, pad_end, dilation, groups; /* weight [out_c][in_c/groups][kernel][kernel] */
    bool relu; /* x is max(x, 0) on load (after its affine); dx is masked by x > 0 */
    bool bf16; /* but for depthwise ones: the factors of all products (x, w, dy as they are read) are rounded to
                  bfloat16; sums are float, as is all that is stored */
} dck_conv;

typedef struct dck_pool {
    int kernel, stride, pad; /* average divides by the number of positions inside the image */
} dck_pool;

typedef struct dck_norm {
    const float *gamma, *beta; /* NULL: not affine */
    float *mean, *variance;    /* running statistics */
    float momentum, epsilon;   /* running = (1 - momentum) * running + momentum * batch (variance unbiased) */
    float *saved;              /* [2][c]: batch mean, 1/sqrt(variance + epsilon) */
} dck_norm;

typedef struct dck_kernels {
    const char *isa; /* "avx512_bf16", "avx512", "avx2", "portable" */

    /* y = conv(relu?(x), w). Pointwise (kernel 1, groups 1), depthwise (groups = channels) and general are chosen
     * inside. */
    size_t (*conv_forward_scratch_bytes)(const dck_conv *k, dck_view x, dck_view y, int blocks, int threads);
    void (*conv_forward)(const dck_conv *k, dck_view x, const float *w, dck_view y, int n, dck_moments moments,
                         void *scratch, int threads);
    /* Parts of a block in `moments`; 0: this family of convolutions cannot leave them, nor take a dck_grad's factors.
     */
    int (*conv_parts)(const dck_conv *k, dck_view x, dck_view y);
    /* dx (+)= gradient of x (masked by relu; of x as read, after its affine), dw = gradient of w (written); either may
     * be absent (dw NULL). sums: of dx as it is then, where conv_sums says that this family can leave them. */
    bool (*conv_sums)(const dck_conv *k, dck_view x, dck_view y);
    size_t (*conv_backward_scratch_bytes)(const dck_conv *k, dck_view x, dck_view y, int blocks, int threads);
    void (*conv_backward)(const dck_conv *k, dck_view x, const float *w, dck_grad dy, dck_view dx, bool accumulate,
                          float *dw, dck_sums sums, int n, void *scratch, int threads);

    /* Up to DCK_BRANCHES pointwise convolutions (kernel 1, stride 1, no padding, one group, x of more than one channel)
     * of the same x, with DCK_SIBLING_ROWS channels of output between them: x is gathered once, and its gradient,
     * which is the sum of theirs, written once. Scratch: what conv_*_scratch_bytes asks for each of them, added up. */
    void (*siblings_forward)(const dck_conv *k, dck_view x, int branches, const dck_branch *branch, int n,
                             void *scratch, int threads);
    void (*siblings_backward)(const dck_conv *k, dck_view x, int branches, const dck_branch *branch, dck_view dx,
                              bool accumulate, int n, void *scratch, int threads);

    /* y = pointwise(depthwise(x, w), v), both of stride 1 or the depthwise strided: what lies between them stays in
     * cache. depthwise.bf16 is the pointwise one's. scratch 0 bytes: too large for that. */
    size_t (*separable_scratch_bytes)(const dck_conv *depthwise, dck_view x, dck_view y, int threads);
    void (*separable_forward)(const dck_conv *depthwise, dck_view x, const float *w, const float *v, dck_view y, int n,
                              dck_moments moments, void *scratch, int threads);

    /* Batch norm over n images. training: batch statistics, running ones updated, saved filled; else running ones.
     * parts: 0, or conv_parts of the convolutions that leave x's moments at the beginning of the scratch. */
    size_t (*norm_scratch_bytes)(dck_view x, int blocks, int parts);
    void (*norm_forward)(const dck_norm *k, dck_view x, dck_view y, int n, bool training, void *scratch, int threads);
    /* dgamma, dbeta NULL: not wanted. dx is zero in lanes past n. */
    void (*norm_backward)(const dck_norm *k, dck_view x, dck_view dy, dck_view dx, bool accumulate, float *dgamma,
                          float *dbeta, int n, void *scratch, int threads);
    /* The same without passing over y or dx: y is x seen through affine [c][2] (dck_view), dx is dy and x seen through
     * factors [c][3] (dck_grad, of which x is the y). */
    void (*norm_measure)(const dck_norm *k, dck_view x, float *affine, int n, bool training, int parts, void *scratch,
                         int threads);
    /* summed: the sums over dy are at the beginning of the scratch (dck_sums); neither x nor dy is read. */
    void (*norm_factors)(const dck_norm *k, dck_view x, dck_view dy, float *factors, float *dgamma, float *dbeta, int n,
                         bool summed, void *scratch, int threads);

    void (*relu_forward)(dck_view x, dck_view y, int blocks, int threads);
    void (*relu_backward)(dck_view y, dck_view dy, dck_view dx, bool accumulate, int blocks, int threads);

    void (*max_pool_forward)(const dck_pool *k, dck_view x, dck_view y, int blocks, int threads);
    /* The gradient goes to the first maximum of a window in row-major order, as PyTorch's. */
    void (*max_pool_backward)(const dck_pool *k, dck_view x, dck_view y, dck_view dy, dck_view dx, bool accumulate,
                              int blocks, int threads);
    void (*avg_pool_forward)(const dck_pool *k, dck_view x, dck_view y, int blocks, int threads);
    void (*avg_pool_backward)(const dck_pool *k, dck_view dy, dck_view dx, bool accumulate, int blocks, int threads);
    void (*global_avg_pool_forward)(dck_view x, dck_view y, int blocks, int threads);
    void (*global_avg_pool_backward)(dck_view dy, dck_view dx, bool accumulate, int blocks, int threads);

    /* y = W x + b over the c*h*w features of x (order C,H,W). */
    void (*linear_forward)(dck_view x, const float *w, const float *b, dck_view y, int blocks, int threads);
    void (*linear_backward)(dck_view x, const float *w, dck_view dy, dck_view dx, bool accumulate, float *dw, float *db,
                            int blocks, int threads);

    /* y = sum_i weight[index[i]] * x[i]; weight NULL: all ones (add). n_x >= 1, all of y's shape. */
    void (*mix_forward)(int n_x, const dck_view *x, const float *weight, const int *index, dck_view y, int blocks,
                        int threads);
    /* Of up to DCK_READERS mixes of the same features: dx[i] (+)= the sum over them of weight[index[i]] * dy;
     * dweight[index[i]] += sum dy * x[i] of each. sums: of each x, or NULL; of one whose dx is not accumulated. */
    size_t (*mix_backward_scratch_bytes)(int n_x, dck_view y, int blocks, int threads);
    void (*mix_backward)(int n_x, const dck_view *x, int readers, const dck_reader *reader, const dck_view *dx,
                         const bool *accumulate, const dck_sums *sums, int blocks, void *scratch, int threads);

    /* y (+)= x: a concat that could not lie in place, and its gradient. */
    void (*copy)(dck_view x, dck_view y, bool accumulate, int blocks, int threads);
    void (*zero)(dck_view y, int blocks, int threads);
    /* y (+)= x * factor[image]: drop-path; factor has 16 * blocks floats. sums: where y is a gradient, of y as it is
     * then and what it is the gradient of; sums.sums NULL: none, and `of` is not read. */
    void (*scale_images)(dck_view x, const float *factor, dck_view y, bool accumulate, dck_view of, dck_sums sums,
                         int blocks, int threads);
    /* y (+)= x * mask / keep; mask bit of image i (global number first + i), element e: Philox(seed, stream, step) */
    void (*dropout)(dck_view x, dck_view y, bool accumulate, float rate, uint64_t seed, uint64_t stream, uint32_t step,
                    uint32_t first_image, int blocks, int threads);

    /* result[4] = mean loss over n, right at top 1, right at top 5, n (ties count against); loss with label smoothing
     * as torch.nn.CrossEntropyLoss. saved: probabilities, 16 * blocks * classes floats. */
    void (*cross_entropy_forward)(dck_view logits, const int32_t *labels, float smoothing, int n, float *saved,
                                  float result[4]);
    void (*cross_entropy_backward)(const float *saved, const int32_t *labels, float smoothing, float weight, int n,
                                   dck_view dlogits, bool accumulate);

    void (*from_nchw)(const float *nchw, int n, dck_view y); /* lanes past n are zero */
    void (*to_nchw)(dck_view x, int n, float *nchw);

    /* Optimizers over one run of floats, as torch.optim.SGD and Adam. */
    void (*sgd)(float *value, const float *grad, float *velocity, size_t count, float learning_rate, float momentum,
                float weight_decay, bool nesterov, float grad_scale, int threads);
    void (*adam)(float *value, const float *grad, float *first, float *second, size_t count, float learning_rate,
                 float beta1, float beta2, float epsilon, float weight_decay, uint32_t step, int threads);
    double (*sum_squares)(const float *x, size_t count, int threads);
    /* y = a x + b y */
    void (*blend)(float *y, const float *x, size_t count, float a, float b, int threads);

    /* Resampling pictures. out[i] = sum over k < taps of weight[k] * rows[k * stride + i], i < n. */
    void (*resample_rows)(const uint8_t *rows, ptrdiff_t stride, int taps, const float *weight, size_t n, float *out);
    /* out[c * plane + x] = nearest byte to the sum over k < taps of weight[x * taps + k] * row[first[x] + k][c], for w
     * pixels of 1 or 3 channels; the row is followed by DCK_PIXEL_SLACK floats that may be read. */
    void (*resample_columns)(const float *row, int channels, const int *first, int taps, const float *weight, int w,
                             uint8_t *out, size_t plane);

    /* Colours, in place. x = (x - centre) * factor + offset, n bytes; planes [3][n], red, green and blue: the sum of
     * their grey; grey + factor * (x - grey); the hue moved by -1/2..1/2 turns. */
    void (*scale_bytes)(uint8_t *x, size_t n, float centre, float factor, float offset);
    uint64_t (*sum_grey)(const uint8_t *planes, size_t n);
    void (*saturate)(uint8_t *planes, size_t n, float factor);
    void (*shift_hue)(uint8_t *planes, size_t n, float turns);

    /* For benchmarks: does nothing but multiply-adds in registers, returns how many floating-point operations. */
    double (*ceiling)(long repeats, int threads);
} dck_kernels;

/* The table of an instruction set, NULL when this machine cannot run it; name NULL: the best that it can. */
const dck_kernels *dck_kernels_for(const char *isa);

#endif
