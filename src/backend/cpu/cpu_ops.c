/* One row an operation: how a node's arguments become calls of the lanes kernels. */
#include "backend/cpu/cpu_internal.h"

#include <math.h>

/* ---- convolution, batch norm ---- */

/* What a batch norm saves: mean and 1 / deviation [2][c], and, deferred, the factors of its gradient [c][3]. */
static float *factors_in(void *saved, int channels)
{
    return (float *)saved + 2 * (size_t)channels;
}

static bool is_pointwise(const dck_conv *k)
{
    return k->kernel == 1 && k->stride == 1 && k->groups == 1 && k->pad_begin == 0 && k->pad_end == 0;
}

size_t dc_cpu_fused_scratch_bytes(const dc_cpu_backend *b, const dc_kernel *inner, const dc_kernel *outer)
{
    if (!is_pointwise(&outer->conv) || !dc_kernel_is_depthwise(inner))
        return 0;
    return b->kernels->separable_scratch_bytes(&inner->conv, shaped(inner->input), shaped(outer->output), b->threads);
}

bool dc_cpu_takes_norm(const dc_cpu_backend *b, const dc_kernel *k)
{
    return b->kernels->conv_parts(&k->conv, shaped(k->input), shaped(k->output)) > 0;
}

bool dc_cpu_sums_gradient(const dc_cpu_backend *b, const dc_kernel *k)
{
    return b->kernels->conv_sums(&k->conv, shaped(k->input), shaped(k->output));
}

bool dc_cpu_joins(const dc_cpu_backend *b, int n, const dc_kernel *kernels)
{
    int outputs = 0;
    for (int i = 0; i < n; i++) {
        outputs += kernels[i].output.c;
        if (!is_pointwise(&kernels[i].conv) || !dc_cpu_takes_norm(b, &kernels[i]))
            return false;
    }
    _Static_assert((int)DC_MAX_SIBLINGS <= (int)DCK_BRANCHES, "the kernels run as many as a plan joins");
    return outputs <= DCK_SIBLING_ROWS;
}

/* Where a batch norm saves its mean, it saves it first. */
static dck_sums sums_of(const dc_norm_sums *from)
{
    return (dck_sums){from->saved, from->sums};
}

/* What is a convolution's own, of those that run together. */
static dck_branch branch_of(const dc_kernel_args *a, bool training)
{
    dck_branch branch = {.w = a->params[0],
                         .y = lanes(a->output),
                         .moments = {.channels = a->norm.channels},
                         .dy = {.dz = lanes(a->output_grad)},
                         .dw = a->param_grads[0]};
    if (a->norm.scratch && training)
        branch.moments.sums = (double *)a->norm.scratch + 2 * a->norm.first_channel;
    if (a->norm.saved) {
        branch.dy.y = branch.y;
        branch.dy.factors = factors_in(a->norm.saved, a->norm.channels) + 3 * a->norm.first_channel;
    }
    return branch;
}

static int branches_of(const dc_kernel_args *a, dck_branch *branch)
{
    branch[0] = branch_of(a, a->step->training);
    for (int i = 0; i < a->n_followers; i++)
        branch[i + 1] = branch_of(a->followers[i], a->step->training);
    return a->n_followers + 1;
}

static void conv_forward(const dc_cpu_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    dck_branch branch[DCK_BRANCHES];
    const int n = branches_of(a, branch);
    const dck_view x = lanes(a->inputs[0]);
    if (a->inner)
        b->kernels->separable_forward(&a->inner_kernel->conv, lanes(a->inner->inputs[0]), a->inner->params[0],
                                      branch->w, branch->y, a->step->n_images, branch->moments, a->scratch, b->threads);
    else if (n > 1)
        b->kernels->siblings_forward(&k->conv, x, n, branch, a->step->n_images, a->scratch, b->threads);
    else
        b->kernels->conv_forward(&k->conv, x, branch->w, branch->y, a->step->n_images, branch->moments, a->scratch,
                                 b->threads);
}

static void conv_backward(const dc_cpu_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    dck_branch branch[DCK_BRANCHES];
    const int n = branches_of(a, branch);
    const dck_view x = lanes(a->inputs[0]), dx = lanes(a->input_grads[0]);
    if (n > 1)
        b->kernels->siblings_backward(&k->conv, x, n, branch, dx, a->accumulate[0], a->step->n_images, a->scratch,
                                      b->threads);
    else
        b->kernels->conv_backward(&k->conv, x, branch->w, branch->dy, dx, a->accumulate[0], branch->dw,
                                  sums_of(a->norm_sums), a->step->n_images, a->scratch, b->threads);
}

static void conv_extra(const dc_cpu_backend *b, const dc_kernel *k, dc_cpu_extra *extra)
{
    dck_view x = shaped(k->input), y = shaped(k->output);
    extra->forward_scratch_bytes = b->kernels->conv_forward_scratch_bytes(&k->conv, x, y, k->blocks, b->threads);
    extra->backward_scratch_bytes = b->kernels->conv_backward_scratch_bytes(&k->conv, x, y, k->blocks, b->threads);
}

/* Moments of how many parts of a block the convolutions before a batch norm leave: those that can leave any agree. */
static int moment_parts(const dc_cpu_backend *b, const dc_kernel *k)
{
    const dck_conv pointwise = {.kernel = 1, .stride = 1, .dilation = 1, .groups = 1};
    dck_view y = shaped(k->output), x = y;
    x.c = 2; /* not depthwise */
    return b->kernels->conv_parts(&pointwise, x, y);
}

static void norm_forward(const dc_cpu_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    dck_norm norm = dc_norm_of_args(k, a);
    if (a->deferred)
        b->kernels->norm_measure(&norm, lanes(a->inputs[0]), (float *)a->output.affine, a->step->n_images,
                                 a->step->training, a->grad_deferred ? moment_parts(b, k) : 0, a->scratch, b->threads);
    else
        b->kernels->norm_forward(&norm, lanes(a->inputs[0]), lanes(a->output), a->step->n_images, a->step->training,
                                 a->scratch, b->threads);
}

static void norm_backward(const dc_cpu_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    dck_norm norm = dc_norm_of_args(k, a);
    dck_view x = lanes(a->inputs[0]), dy = lanes(a->output_grad);
    float *dgamma = k->attr.affine ? a->param_grads[2] : NULL, *dbeta = k->attr.affine ? a->param_grads[3] : NULL;
    if (a->grad_deferred)
        b->kernels->norm_factors(&norm, x, dy, factors_in(a->saved, x.c), dgamma, dbeta, a->step->n_images, a->summed,
                                 a->scratch, b->threads);
    else
        b->kernels->norm_backward(&norm, x, dy, lanes(a->input_grads[0]), a->accumulate[0], dgamma, dbeta,
                                  a->step->n_images, a->scratch, b->threads);
}

static void norm_extra(const dc_cpu_backend *b, const dc_kernel *k, dc_cpu_extra *extra)
{
    extra->saved_bytes = 5 * (size_t)k->input.c * sizeof(float);
    extra->forward_scratch_bytes = b->kernels->norm_scratch_bytes(shaped(k->input), k->blocks, moment_parts(b, k));
    extra->backward_scratch_bytes = b->kernels->norm_scratch_bytes(shaped(k->input), k->blocks, 0);
}

/* ---- relu and pools ---- */

static void relu_forward(const dc_cpu_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    (void)k;
    b->kernels->relu_forward(lanes(a->inputs[0]), lanes(a->output), used_blocks(a), b->threads);
}

static void relu_backward(const dc_cpu_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    (void)k;
    if (a->input_grads[0].data)
        b->kernels->relu_backward(lanes(a->output), lanes(a->output_grad), lanes(a->input_grads[0]), a->accumulate[0],
                                  used_blocks(a), b->threads);
}

static void max_pool_forward(const dc_cpu_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    b->kernels->max_pool_forward(&k->pool, lanes(a->inputs[0]), lanes(a->output), used_blocks(a), b->threads);
}

static void max_pool_backward(const dc_cpu_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    if (a->input_grads[0].data)
        b->kernels->max_pool_backward(&k->pool, lanes(a->inputs[0]), lanes(a->output), lanes(a->output_grad),
                                      lanes(a->input_grads[0]), a->accumulate[0], used_blocks(a), b->threads);
}

static void avg_pool_forward(const dc_cpu_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    b->kernels->avg_pool_forward(&k->pool, lanes(a->inputs[0]), lanes(a->output), used_blocks(a), b->threads);
}

static void avg_pool_backward(const dc_cpu_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    if (a->input_grads[0].data)
        b->kernels->avg_pool_backward(&k->pool, lanes(a->output_grad), lanes(a->input_grads[0]), a->accumulate[0],
                                      used_blocks(a), b->threads);
}

static void global_avg_pool_forward(const dc_cpu_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    (void)k;
    b->kernels->global_avg_pool_forward(lanes(a->inputs[0]), lanes(a->output), used_blocks(a), b->threads);
}

static void global_avg_pool_backward(const dc_cpu_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    (void)k;
    if (a->input_grads[0].data)
        b->kernels->global_avg_pool_backward(lanes(a->output_grad), lanes(a->input_grads[0]), a->accumulate[0],
                                             used_blocks(a), b->threads);
}

/* ---- linear ---- */

static void linear_forward(const dc_cpu_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    (void)k;
    b->kernels->linear_forward(lanes(a->inputs[0]), a->params[0], a->params[1], lanes(a->output), used_blocks(a),
                               b->threads);
}

static void linear_backward(const dc_cpu_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    (void)k;
    b->kernels->linear_backward(lanes(a->inputs[0]), a->params[0], lanes(a->output_grad), lanes(a->input_grads[0]),
                                a->accumulate[0], a->param_grads[0], a->param_grads[1], used_blocks(a), b->threads);
}

/* ---- add and mix: the kernel wants views of its own type, which are made in scratch ---- */

static size_t views_bytes(int n)
{
    return ((size_t)n * sizeof(dck_view) + 63) / 64 * 64;
}

static dck_view *views_in(void *memory, int n, const dc_view *from)
{
    dck_view *to = memory;
    for (int i = 0; i < n; i++)
        to[i] = lanes(from[i]);
    return to;
}

static void sum_forward(const dc_cpu_backend *b, const dc_kernel_args *a, int first, const float *weight,
                        const int *index)
{
    int n = a->n_inputs - first;
    const dck_view *x = views_in(a->scratch, n, a->inputs + first);
    b->kernels->mix_forward(n, x, weight, index, lanes(a->output), used_blocks(a), b->threads);
}

static size_t sums_bytes(int n)
{
    return ((size_t)n * sizeof(dck_sums) + 63) / 64 * 64;
}

/* NULL: of none. */
static const dck_sums *sums_in(void *memory, int n, const dc_norm_sums *from)
{
    dck_sums *to = memory;
    bool any = false;
    for (int i = 0; i < n; i++) {
        to[i] = sums_of(&from[i]);
        any |= to[i].sums != NULL;
    }
    return any ? to : NULL;
}

/* Of the inputs from `first` on, for all that read them. */
static void sum_backward(const dc_cpu_backend *b, const dc_kernel_args *a, int first, int readers,
                         const dck_reader *reader)
{
    int n = a->n_inputs - first;
    char *scratch = a->scratch;
    const dck_view *x = views_in(scratch, n, a->inputs + first);
    const dck_view *dx = views_in(scratch + views_bytes(n), n, a->input_grads + first);
    const dck_sums *sums = sums_in(scratch + 2 * views_bytes(n), n, a->norm_sums + first);
    b->kernels->mix_backward(n, x, readers, reader, dx, a->accumulate + first, sums, used_blocks(a),
                             scratch + 2 * views_bytes(n) + sums_bytes(n), b->threads);
}

static void sum_extra(const dc_cpu_backend *b, const dc_kernel *k, dc_cpu_extra *extra)
{
    int n = k->n_inputs; /* one too many for a mix, whose first input is the softmax */
    extra->forward_scratch_bytes = views_bytes(n);
    extra->backward_scratch_bytes = 2 * views_bytes(n) + sums_bytes(n) +
                                    b->kernels->mix_backward_scratch_bytes(n, shaped(k->output), k->blocks, b->threads);
}

static void add_forward(const dc_cpu_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    (void)k;
    sum_forward(b, a, 0, NULL, NULL);
}

static void add_backward(const dc_cpu_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    (void)k;
    const dck_reader all_ones = {.dy = lanes(a->output_grad)};
    sum_backward(b, a, 0, 1, &all_ones);
}

static void mix_forward(const dc_cpu_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    (void)k;
    sum_forward(b, a, 1, a->inputs[0].data, a->index + 1);
}

static void mix_backward(const dc_cpu_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    (void)k;
    const int first = 1 + a->n_left;
    dck_reader reader[DCK_READERS];
    _Static_assert((int)DC_MAX_READERS <= (int)DCK_READERS, "the kernels take as many as a plan chains");
    for (int i = 0; i <= a->n_followers; i++) {
        const dc_kernel_args *by = i == 0 ? a : a->followers[i - 1];
        reader[i] = (dck_reader){.dy = lanes(by->output_grad),
                                 .weight = by->inputs[0].data,
                                 .index = by->index + first,
                                 .dweight = by->input_grads[0].data};
    }
    sum_backward(b, a, first, a->n_followers + 1, reader);
}

/* ---- softmax of alpha: a few numbers ---- */

static void softmax_forward(const dc_cpu_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    (void)b;
    const int columns = k->output.w;
    for (int r = 0; r < k->output.c; r++) {
        const float *alpha = a->params[0] + (size_t)r * (size_t)columns;
        float *p = a->output.data + (size_t)r * (size_t)columns, highest = alpha[0];
        double total = 0;
        for (int c = 1; c < columns; c++)
            highest = alpha[c] > highest ? alpha[c] : highest;
        for (int c = 0; c < columns; c++) {
            p[c] = expf(alpha[c] - highest);
            total += (double)p[c];
        }
        for (int c = 0; c < columns; c++)
            p[c] = (float)((double)p[c] / total);
    }
}

static void softmax_backward(const dc_cpu_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    (void)b;
    const int columns = k->output.w;
    if (!a->param_grads[0])
        return;
    for (int r = 0; r < k->output.c; r++) {
        const size_t row = (size_t)r * (size_t)columns;
        const float *p = a->output.data + row, *dp = a->output_grad.data + row;
        double mean = 0;
        for (int c = 0; c < columns; c++)
            mean += (double)p[c] * (double)dp[c];
        for (int c = 0; c < columns; c++)
            a->param_grads[0][row + (size_t)c] = (float)((double)p[c] * ((double)dp[c] - mean));
    }
}

/* ---- concat that could not lie in place ---- */

static void concat_forward(const dc_cpu_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    (void)k;
    for (int i = 0; i < a->n_inputs; i++)
        b->kernels->copy(lanes(a->inputs[i]), dc_range_of(&b->base.layout, a->output, a->inputs, i), false,
                         used_blocks(a), b->threads);
}

static void concat_backward(const dc_cpu_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    (void)k;
    for (int i = 0; i < a->n_inputs; i++)
        if (a->input_grads[i].data)
            b->kernels->copy(dc_range_of(&b->base.layout, a->output_grad, a->inputs, i), lanes(a->input_grads[i]),
                             a->accumulate[i], used_blocks(a), b->threads);
}

/* ---- the 'none' operation ---- */

static void zero_forward(const dc_cpu_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    (void)k;
    b->kernels->zero(lanes(a->output), used_blocks(a), b->threads);
}

static void zero_backward(const dc_cpu_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    (void)k;
    if (a->input_grads[0].data && !a->accumulate[0])
        b->kernels->zero(lanes(a->input_grads[0]), used_blocks(a), b->threads);
}

/* ---- random masks ---- */

/* Both directions of drop-path are y (+)= x * mask / keep with the same mask. sums: of y, the gradient of the input. */
static void drop_images(const dc_cpu_backend *b, const dc_kernel *k, const dc_kernel_args *a, dc_view x, dc_view y,
                        bool accumulate, dck_sums sums)
{
    const dc_step *step = a->step;
    const int blocks = used_blocks(a);
    const bool drops = step->training && step->drop_path_rate > 0;
    const float keep = drops ? 1 - step->drop_path_rate : 1;
    const dc_rng_key key = {.seed = step->seed, .stream = k->stream};
    float *factor = a->scratch;
    if (!drops && !sums.sums) {
        b->kernels->copy(lanes(x), lanes(y), accumulate, blocks, b->threads);
        return;
    }
    for (int i = 0; i < blocks * DCK_LANES; i++)
        factor[i] =
            !drops || dc_rng_uniform(key, step->index, (uint64_t)step->first_image + (uint64_t)i) < keep ? 1 / keep : 0;
    b->kernels->scale_images(lanes(x), factor, lanes(y), accumulate, lanes(a->inputs[0]), sums, blocks, b->threads);
}

static void drop_path_forward(const dc_cpu_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    drop_images(b, k, a, a->inputs[0], a->output, false, (dck_sums){0});
}

static void drop_path_backward(const dc_cpu_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    if (a->input_grads[0].data)
        drop_images(b, k, a, a->output_grad, a->input_grads[0], a->accumulate[0], sums_of(a->norm_sums));
}

static void drop_path_extra(const dc_cpu_backend *b, const dc_kernel *k, dc_cpu_extra *extra)
{
    (void)b;
    extra->forward_scratch_bytes = extra->backward_scratch_bytes = (size_t)k->blocks * DCK_LANES * sizeof(float);
}

static void drop_elements(const dc_cpu_backend *b, const dc_kernel *k, const dc_kernel_args *a, dc_view x, dc_view y,
                          bool accumulate)
{
    const dc_step *step = a->step;
    if (!step->training || k->attr.rate <= 0)
        b->kernels->copy(lanes(x), lanes(y), accumulate, used_blocks(a), b->threads);
    else
        b->kernels->dropout(lanes(x), lanes(y), accumulate, k->attr.rate, step->seed, k->stream, step->index,
                            step->first_image, used_blocks(a), b->threads);
}

static void dropout_forward(const dc_cpu_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    drop_elements(b, k, a, a->inputs[0], a->output, false);
}

static void dropout_backward(const dc_cpu_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    if (a->input_grads[0].data)
        drop_elements(b, k, a, a->output_grad, a->input_grads[0], a->accumulate[0]);
}

/* ---- loss ---- */

static void cross_entropy_forward(const dc_cpu_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    b->kernels->cross_entropy_forward(lanes(a->inputs[0]), a->step->labels, k->attr.smoothing, a->step->n_images,
                                      a->saved, a->output.data);
}

static void cross_entropy_backward(const dc_cpu_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    const dc_step *step = a->step;
    if (a->input_grads[0].data)
        b->kernels->cross_entropy_backward(a->saved, step->labels, k->attr.smoothing, loss_weight(k, step),
                                           step->n_images, lanes(a->input_grads[0]), a->accumulate[0]);
}

static void cross_entropy_extra(const dc_cpu_backend *b, const dc_kernel *k, dc_cpu_extra *extra)
{
    (void)b;
    extra->saved_bytes = (size_t)k->blocks * DCK_LANES * (size_t)k->input.c * sizeof(float);
}

const dc_cpu_op dc_cpu_ops[DC_OP_COUNT] = {
    [DC_OP_CONV] = {conv_forward, conv_backward, conv_extra},
    [DC_OP_BATCH_NORM] = {norm_forward, norm_backward, norm_extra},
    [DC_OP_RELU] = {relu_forward, relu_backward, NULL},
    [DC_OP_MAX_POOL] = {max_pool_forward, max_pool_backward, NULL},
    [DC_OP_AVG_POOL] = {avg_pool_forward, avg_pool_backward, NULL},
    [DC_OP_GLOBAL_AVG_POOL] = {global_avg_pool_forward, global_avg_pool_backward, NULL},
    [DC_OP_LINEAR] = {linear_forward, linear_backward, NULL},
    [DC_OP_ADD] = {add_forward, add_backward, sum_extra},
    [DC_OP_SOFTMAX] = {softmax_forward, softmax_backward, NULL},
    [DC_OP_MIX] = {mix_forward, mix_backward, sum_extra},
    [DC_OP_CONCAT] = {concat_forward, concat_backward, NULL},
    [DC_OP_ZERO] = {zero_forward, zero_backward, NULL},
    [DC_OP_DROP_PATH] = {drop_path_forward, drop_path_backward, drop_path_extra},
    [DC_OP_DROPOUT] = {dropout_forward, dropout_backward, NULL},
    [DC_OP_CROSS_ENTROPY] = {cross_entropy_forward, cross_entropy_backward, cross_entropy_extra},
};
