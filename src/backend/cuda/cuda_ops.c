/* One row an operation: how a node's arguments become launches of the GPU's kernels. */
#include "backend/cuda/cuda_internal.h"

/* ---- weights of products ---- */

size_t dc_cuda_weights_bytes(const dc_cuda_backend *b, size_t count)
{
    return b->base.layout.narrow ? count * dc_plan_element_bytes(&b->base.layout) : 0;
}

dc_status dc_cuda_weights_prepare(dc_cuda_backend *b, const dc_kernel_args *a, size_t count)
{
    if (b->base.layout.narrow)
        DC_CUDA_TRY(dck_cuda_cast(&b->queue, a->params[0], a->saved, count));
    return DC_OK;
}

/* ---- batch norm ---- */

static dc_status norm_forward(dc_cuda_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    const dck_norm norm = dc_norm_of_args(k, a);
    const dck_view x = lanes(a->inputs[0]);
    if (a->deferred)
        DC_CUDA_TRY(dck_cuda_norm_measure(&b->queue, &norm, x, (float *)a->output.affine, a->step->n_images,
                                          a->step->training, a->scratch));
    else
        DC_CUDA_TRY(dck_cuda_norm_forward(&b->queue, &norm, x, lanes(a->output), a->step->n_images, a->step->training,
                                          a->scratch));
    return DC_OK;
}

static dc_status norm_backward(dc_cuda_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    const dck_norm norm = dc_norm_of_args(k, a);
    float *dgamma = k->attr.affine ? a->param_grads[2] : NULL, *dbeta = k->attr.affine ? a->param_grads[3] : NULL;
    DC_CUDA_TRY(dck_cuda_norm_backward(&b->queue, &norm, lanes(a->inputs[0]), lanes(a->output_grad),
                                       lanes(a->input_grads[0]), a->accumulate[0], dgamma, dbeta, a->step->n_images,
                                       a->scratch));
    return DC_OK;
}

static void norm_extra(const dc_cuda_backend *b, const dc_kernel *k, dc_cuda_extra *extra)
{
    (void)b;
    extra->saved_bytes = 2 * (size_t)k->input.c * sizeof(float);
    extra->forward_scratch_bytes = dck_cuda_norm_scratch_bytes(shaped(k->input), k->blocks);
    extra->backward_scratch_bytes = extra->forward_scratch_bytes;
}

/* ---- relu and pools ---- */

static dc_status relu_forward(dc_cuda_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    (void)k;
    DC_CUDA_TRY(dck_cuda_relu_forward(&b->queue, lanes(a->inputs[0]), lanes(a->output), a->step->n_images));
    return DC_OK;
}

static dc_status relu_backward(dc_cuda_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    (void)k;
    if (a->input_grads[0].data)
        DC_CUDA_TRY(dck_cuda_relu_backward(&b->queue, lanes(a->output), lanes(a->output_grad), lanes(a->input_grads[0]),
                                           a->accumulate[0], a->step->n_images));
    return DC_OK;
}

static dc_status max_pool_forward(dc_cuda_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    DC_CUDA_TRY(
        dck_cuda_max_pool_forward(&b->queue, &k->pool, lanes(a->inputs[0]), lanes(a->output), a->step->n_images));
    return DC_OK;
}

static dc_status max_pool_backward(dc_cuda_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    if (a->input_grads[0].data)
        DC_CUDA_TRY(dck_cuda_max_pool_backward(&b->queue, &k->pool, lanes(a->inputs[0]), lanes(a->output),
                                               lanes(a->output_grad), lanes(a->input_grads[0]), a->accumulate[0],
                                               a->step->n_images));
    return DC_OK;
}

static dc_status avg_pool_forward(dc_cuda_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    DC_CUDA_TRY(
        dck_cuda_avg_pool_forward(&b->queue, &k->pool, lanes(a->inputs[0]), lanes(a->output), a->step->n_images));
    return DC_OK;
}

static dc_status avg_pool_backward(dc_cuda_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    if (a->input_grads[0].data)
        DC_CUDA_TRY(dck_cuda_avg_pool_backward(&b->queue, &k->pool, lanes(a->output_grad), lanes(a->input_grads[0]),
                                               a->accumulate[0], a->step->n_images));
    return DC_OK;
}

static dc_status global_avg_pool_forward(dc_cuda_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    (void)k;
    DC_CUDA_TRY(dck_cuda_global_avg_pool_forward(&b->queue, lanes(a->inputs[0]), lanes(a->output), a->step->n_images));
    return DC_OK;
}

static dc_status global_avg_pool_backward(dc_cuda_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    (void)k;
    if (a->input_grads[0].data)
        DC_CUDA_TRY(dck_cuda_global_avg_pool_backward(&b->queue, lanes(a->output_grad), lanes(a->input_grads[0]),
                                                      a->accumulate[0], a->step->n_images));
    return DC_OK;
}

/* ---- add and mix ---- */

/* Operands first..n_inputs as the kernels take them, so many at a time as a launch takes. */
static dc_status sum_forward(dc_cuda_backend *b, const dc_kernel_args *a, int first, const float *weight,
                             const int *index)
{
    for (int from = first; from < a->n_inputs; from += DCK_MIX_INPUTS) {
        dck_view x[DCK_MIX_INPUTS];
        const int n = a->n_inputs - from < DCK_MIX_INPUTS ? a->n_inputs - from : DCK_MIX_INPUTS;
        for (int i = 0; i < n; i++)
            x[i] = lanes(a->inputs[from + i]);
        DC_CUDA_TRY(dck_cuda_mix_forward(&b->queue, n, x, weight, index ? index + from : NULL, lanes(a->output),
                                         from > first, a->step->n_images));
    }
    return DC_OK;
}

static dc_status sum_backward(dc_cuda_backend *b, const dc_kernel_args *a, int first, const float *weight,
                              const int *index, float *dweight)
{
    for (int from = first; from < a->n_inputs; from += DCK_MIX_INPUTS) {
        dck_view x[DCK_MIX_INPUTS], dx[DCK_MIX_INPUTS];
        const int n = a->n_inputs - from < DCK_MIX_INPUTS ? a->n_inputs - from : DCK_MIX_INPUTS;
        for (int i = 0; i < n; i++) {
            x[i] = lanes(a->inputs[from + i]);
            dx[i] = lanes(a->input_grads[from + i]);
        }
        DC_CUDA_TRY(dck_cuda_mix_backward(&b->queue, n, x, weight, index ? index + from : NULL, lanes(a->output_grad),
                                          dx, a->accumulate + from, dweight, a->step->n_images, a->scratch));
    }
    return DC_OK;
}

static void sum_extra(const dc_cuda_backend *b, const dc_kernel *k, dc_cuda_extra *extra)
{
    (void)b;
    const int n = k->n_inputs < DCK_MIX_INPUTS ? k->n_inputs : DCK_MIX_INPUTS;
    extra->backward_scratch_bytes = dck_cuda_mix_backward_scratch_bytes(n, shaped(k->output), k->blocks);
}

static dc_status add_forward(dc_cuda_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    (void)k;
    return sum_forward(b, a, 0, NULL, NULL);
}

static dc_status add_backward(dc_cuda_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    (void)k;
    return sum_backward(b, a, 0, NULL, NULL, NULL);
}

static dc_status mix_forward(dc_cuda_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    (void)k;
    return sum_forward(b, a, 1, a->inputs[0].data, a->index);
}

static dc_status mix_backward(dc_cuda_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    (void)k;
    return sum_backward(b, a, 1, a->inputs[0].data, a->index, a->input_grads[0].data);
}

static dc_status softmax_forward(dc_cuda_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    DC_CUDA_TRY(dck_cuda_softmax_forward(&b->queue, a->params[0], a->output.data, k->output.c, k->output.w));
    return DC_OK;
}

static dc_status softmax_backward(dc_cuda_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    if (a->param_grads[0])
        DC_CUDA_TRY(dck_cuda_softmax_backward(&b->queue, a->output.data, a->output_grad.data, a->param_grads[0],
                                              k->output.c, k->output.w));
    return DC_OK;
}

/* ---- concat that could not lie in place, and the 'none' operation ---- */

static dc_status concat_forward(dc_cuda_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    (void)k;
    for (int i = 0; i < a->n_inputs; i++)
        DC_CUDA_TRY(dck_cuda_copy(&b->queue, lanes(a->inputs[i]), dc_range_of(&b->base.layout, a->output, a->inputs, i),
                                  false, a->step->n_images));
    return DC_OK;
}

static dc_status concat_backward(dc_cuda_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    (void)k;
    for (int i = 0; i < a->n_inputs; i++)
        if (a->input_grads[i].data)
            DC_CUDA_TRY(dck_cuda_copy(&b->queue, dc_range_of(&b->base.layout, a->output_grad, a->inputs, i),
                                      lanes(a->input_grads[i]), a->accumulate[i], a->step->n_images));
    return DC_OK;
}

static dc_status zero_forward(dc_cuda_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    (void)k;
    DC_CUDA_TRY(dck_cuda_zero(&b->queue, lanes(a->output), a->step->n_images));
    return DC_OK;
}

static dc_status zero_backward(dc_cuda_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    (void)k;
    if (a->input_grads[0].data && !a->accumulate[0])
        DC_CUDA_TRY(dck_cuda_zero(&b->queue, lanes(a->input_grads[0]), a->step->n_images));
    return DC_OK;
}

/* ---- random masks: both directions of each are y (+)= x * mask / keep with the same mask ---- */

static dc_status drop(dc_cuda_backend *b, const dc_kernel *k, const dc_kernel_args *a, dc_view x, dc_view y,
                      bool accumulate)
{
    const dc_step *step = a->step;
    if (!step->training)
        DC_CUDA_TRY(dck_cuda_copy(&b->queue, lanes(x), lanes(y), accumulate, step->n_images));
    else if (k->op == DC_OP_DROP_PATH)
        DC_CUDA_TRY(dck_cuda_drop_path(&b->queue, lanes(x), lanes(y), accumulate, b->moment, step->seed, k->stream,
                                       step->n_images));
    else if (k->attr.rate > 0)
        DC_CUDA_TRY(dck_cuda_dropout(&b->queue, lanes(x), lanes(y), accumulate, k->attr.rate, b->moment, step->seed,
                                     k->stream, step->n_images));
    else
        DC_CUDA_TRY(dck_cuda_copy(&b->queue, lanes(x), lanes(y), accumulate, step->n_images));
    return DC_OK;
}

static dc_status drop_forward(dc_cuda_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    return drop(b, k, a, a->inputs[0], a->output, false);
}

static dc_status drop_backward(dc_cuda_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    return a->input_grads[0].data ? drop(b, k, a, a->output_grad, a->input_grads[0], a->accumulate[0]) : DC_OK;
}

/* ---- linear ---- */

static size_t linear_weights(const dc_kernel *k)
{
    return (size_t)k->input.c * (size_t)k->input.h * (size_t)k->input.w * (size_t)k->output.c;
}

static dc_status linear_run(dc_cuda_backend *b, const dc_kernel *k, const dc_kernel_args *a,
                            dc_linear_direction direction, dc_view x, float *w, dc_view y)
{
    const dc_linear_shape shape = {.features = k->input.c * k->input.h * k->input.w,
                                   .out = k->output.c,
                                   .blocks = used_blocks(a),
                                   .x_stride = x.stride,
                                   .y_stride = y.stride,
                                   .precision = b->precision};
    const dc_linear_plan *plan;
    void *workspace;
    DC_TRY(dc_linear_plans_get(b->linears, &shape, direction, &plan));
    DC_TRY(dc_cuda_workspace(b, dc_linear_plan_workspace_bytes(plan), &workspace));
    return dc_linear_plan_execute(plan, b->stream, x.data, w, y.data, workspace, b->workspace_bytes);
}

static dc_status linear_forward(dc_cuda_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    DC_TRY(dc_cuda_weights_prepare(b, a, linear_weights(k)));
    DC_TRY(linear_run(b, k, a, DC_LINEAR_FORWARD, a->inputs[0], dc_cuda_weights(b, a), a->output));
    DC_CUDA_TRY(dck_cuda_linear_bias(&b->queue, a->params[1], lanes(a->output), a->step->n_images));
    return DC_OK;
}

static dc_status linear_backward(dc_cuda_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    const dc_view dy = a->output_grad, dx = a->input_grads[0];
    if (a->param_grads[0])
        DC_TRY(linear_run(b, k, a, DC_LINEAR_WEIGHTS, a->inputs[0], a->param_grads[0], dy));
    if (a->param_grads[1])
        DC_CUDA_TRY(dck_cuda_linear_backward_bias(&b->queue, lanes(dy), a->param_grads[1], a->step->n_images));
    if (dx.data)
        DC_TRY(
            linear_run(b, k, a, a->accumulate[0] ? DC_LINEAR_DATA_ADD : DC_LINEAR_DATA, dx, dc_cuda_weights(b, a), dy));
    return DC_OK;
}

static void linear_extra(const dc_cuda_backend *b, const dc_kernel *k, dc_cuda_extra *extra)
{
    extra->saved_bytes = dc_cuda_weights_bytes(b, linear_weights(k));
}

/* ---- loss ---- */

static dc_status cross_entropy_forward(dc_cuda_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    DC_CUDA_TRY(dck_cuda_cross_entropy_forward(&b->queue, lanes(a->inputs[0]), a->step->labels, k->attr.smoothing,
                                               a->step->n_images, a->saved, a->output.data, a->scratch));
    return DC_OK;
}

static dc_status cross_entropy_backward(dc_cuda_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    const dc_step *step = a->step;
    if (a->input_grads[0].data)
        DC_CUDA_TRY(dck_cuda_cross_entropy_backward(&b->queue, a->saved, step->labels, k->attr.smoothing,
                                                    loss_weight(k, step), step->n_images, lanes(a->input_grads[0]),
                                                    a->accumulate[0]));
    return DC_OK;
}

static void cross_entropy_extra(const dc_cuda_backend *b, const dc_kernel *k, dc_cuda_extra *extra)
{
    (void)b;
    const size_t images = (size_t)k->blocks * DCK_LANES;
    extra->saved_bytes = images * (size_t)k->input.c * sizeof(float);
    extra->forward_scratch_bytes = 4 * images * sizeof(float);
}

const dc_cuda_op dc_cuda_ops[DC_OP_COUNT] = {
    [DC_OP_CONV] = {dc_cuda_conv_forward, dc_cuda_conv_backward, dc_cuda_conv_extra},
    [DC_OP_BATCH_NORM] = {norm_forward, norm_backward, norm_extra},
    [DC_OP_RELU] = {relu_forward, relu_backward, NULL},
    [DC_OP_MAX_POOL] = {max_pool_forward, max_pool_backward, NULL},
    [DC_OP_AVG_POOL] = {avg_pool_forward, avg_pool_backward, NULL},
    [DC_OP_GLOBAL_AVG_POOL] = {global_avg_pool_forward, global_avg_pool_backward, NULL},
    [DC_OP_LINEAR] = {linear_forward, linear_backward, linear_extra},
    [DC_OP_ADD] = {add_forward, add_backward, sum_extra},
    [DC_OP_SOFTMAX] = {softmax_forward, softmax_backward, NULL},
    [DC_OP_MIX] = {mix_forward, mix_backward, sum_extra},
    [DC_OP_CONCAT] = {concat_forward, concat_backward, NULL},
    [DC_OP_ZERO] = {zero_forward, zero_backward, NULL},
    [DC_OP_DROP_PATH] = {drop_forward, drop_backward, NULL},
    [DC_OP_DROPOUT] = {drop_forward, drop_backward, NULL},
    [DC_OP_CROSS_ENTROPY] = {cross_entropy_forward, cross_entropy_backward, cross_entropy_extra},
};
