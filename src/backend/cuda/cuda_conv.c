/* Convolutions: depthwise ones by our kernels, dense ones by cuDNN, which reads and writes in place but for a relu of
 * the input and strided or shifted 1x1 ones: those work on a gathered operand in scratch. */
#include "backend/cuda/cuda_internal.h"

/* What cuDNN computes for one group, and whether the positions of a 1x1 convolution have to be gathered for it. */
static bool dense_shape(const dc_kernel *k, dc_conv_shape *dense)
{
    const dck_conv *c = &k->conv;
    const dc_conv_shape shape = {.in_c = k->input.c / c->groups,
                                 .out_c = k->output.c / c->groups,
                                 .in_h = k->input.h,
                                 .in_w = k->input.w,
                                 .out_h = k->output.h,
                                 .out_w = k->output.w,
                                 .kernel = c->kernel,
                                 .stride = c->stride,
                                 .pad_begin = c->pad_begin,
                                 .pad_end = c->pad_end,
                                 .dilation = c->dilation};
    return dc_conv_shape_sampled(&shape, dense);
}

/* Whether cuDNN is given a gathered copy of the input. */
static bool is_sampled(const dc_kernel *k)
{
    dc_conv_shape dense;
    return dense_shape(k, &dense) || k->conv.relu;
}

/* The gathered operand: the positions that a 1x1 convolution reads, or the whole. */
static dck_view sampled_view(const dc_kernel *k, void *memory)
{
    dc_conv_shape dense;
    dense_shape(k, &dense);
    dck_view view = shaped((dc_shape){k->input.c, dense.in_h, dense.in_w});
    view.data = memory;
    return view;
}

static size_t sampled_bytes(const dc_cuda_backend *b, const dc_kernel *k)
{
    const size_t element_bytes = dc_plan_element_bytes(&b->base.layout);
    return is_sampled(k) ? (size_t)k->blocks * sampled_view(k, NULL).stride * element_bytes : 0;
}

static size_t group_weights(const dc_kernel *k)
{
    const dck_conv *c = &k->conv;
    return (size_t)(k->input.c / c->groups) * (size_t)(k->output.c / c->groups) * (size_t)c->kernel * (size_t)c->kernel;
}

/* Group after group, each a range of channels; no network that we build has more than one, but depthwise. A group's
 * weights are copied to where they are aligned as cuDNN wants them, behind what is gathered in scratch. */
static dc_status run_groups(dc_cuda_backend *b, const dc_kernel *k, const dc_kernel_args *a, const dc_conv_plan *plan,
                            dc_conv_direction direction, dck_view x, float *w, dck_view y)
{
    const dc_plan_layout *layout = &b->base.layout;
    const size_t groups = (size_t)k->conv.groups, n = group_weights(k);
    const size_t bytes = n * (direction == DC_CONV_WEIGHTS ? sizeof(float) : dc_plan_element_bytes(layout));
    const size_t x_step = (size_t)x.c / groups * (size_t)x.h * (size_t)x.w * DCK_LANES;
    const size_t y_step = (size_t)y.c / groups * (size_t)y.h * (size_t)y.w * DCK_LANES;
    char *aligned = (char *)a->scratch + sampled_bytes(b, k), *of_group = (char *)w;
    for (size_t g = 0; g < groups; g++, of_group += bytes) {
        if (direction != DC_CONV_WEIGHTS)
            DC_CUDA_TRY(cudaMemcpyAsync(aligned, of_group, bytes, cudaMemcpyDeviceToDevice, b->stream));
        DC_TRY(dc_conv_plan_execute(plan, b->stream, dc_element_at(layout, x.data, g * x_step), aligned,
                                    dc_element_at(layout, y.data, g * y_step), b->workspace, b->workspace_bytes));
        if (direction == DC_CONV_WEIGHTS)
            DC_CUDA_TRY(cudaMemcpyAsync(of_group, aligned, bytes, cudaMemcpyDeviceToDevice, b->stream));
    }
    return DC_OK;
}

static dc_status plan_of(dc_cuda_backend *b, const dc_kernel *k, dc_conv_direction direction, int blocks,
                         size_t x_stride, size_t y_stride, const dc_conv_plan **plan)
{
    dc_conv_shape shape;
    dense_shape(k, &shape);
    shape.blocks = blocks;
    shape.x_stride = x_stride;
    shape.y_stride = y_stride;
    shape.precision = b->precision;
    return dc_conv_plans_get(b->convs, &shape, direction, plan);
}

static dc_status run(dc_cuda_backend *b, const dc_kernel *k, const dc_kernel_args *a, dc_conv_direction direction,
                     dck_view x, float *w, dck_view y)
{
    const dc_conv_plan *plan;
    void *workspace;
    DC_TRY(plan_of(b, k, direction, used_blocks(a), x.stride, y.stride, &plan));
    DC_TRY(dc_cuda_workspace(b, dc_conv_plan_workspace_bytes(plan), &workspace));
    if (k->conv.groups > 1)
        return run_groups(b, k, a, plan, direction, x, w, y);
    return dc_conv_plan_execute(plan, b->stream, x.data, w, y.data, workspace, b->workspace_bytes);
}

/* x as cuDNN is to read it. */
static dc_status gather(dc_cuda_backend *b, const dc_kernel *k, const dc_kernel_args *a, dck_view *x)
{
    *x = lanes(a->inputs[0]);
    if (!is_sampled(k))
        return DC_OK;
    const dck_view sampled = sampled_view(k, a->scratch);
    const bool positions = k->conv.kernel == 1;
    DC_CUDA_TRY(dck_cuda_sample_forward(&b->queue, positions ? k->conv.stride : 1, positions ? k->conv.pad_begin : 0,
                                        k->conv.relu, *x, sampled, a->step->n_images));
    *x = sampled;
    return DC_OK;
}

dc_status dc_cuda_conv_forward(dc_cuda_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    dck_view x = lanes(a->inputs[0]), y = lanes(a->output);
    if (dc_kernel_is_depthwise(k)) {
        DC_CUDA_TRY(dck_cuda_depthwise_forward(&b->queue, &k->conv, x, a->params[0], y, a->step->n_images));
        return DC_OK;
    }
    DC_TRY(dc_cuda_weights_prepare(b, a, (size_t)k->conv.groups * group_weights(k)));
    DC_TRY(gather(b, k, a, &x));
    return run(b, k, a, DC_CONV_FORWARD, x, dc_cuda_weights(b, a), y);
}

static dc_status depthwise_backward(dc_cuda_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    const dck_view x = lanes(a->inputs[0]), dy = lanes(a->output_grad), dx = lanes(a->input_grads[0]);
    const int n = a->step->n_images;
    if (a->param_grads[0])
        DC_CUDA_TRY(dck_cuda_depthwise_backward_weights(&b->queue, &k->conv, x, dy, a->param_grads[0], n, a->scratch));
    if (dx.data)
        DC_CUDA_TRY(
            dck_cuda_depthwise_backward_data(&b->queue, &k->conv, x, a->params[0], dy, dx, a->accumulate[0], n));
    return DC_OK;
}

/* The gradient of what was gathered takes its place in scratch: dw, which reads it, comes first. */
static dc_status dense_backward_data(dc_cuda_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    const dck_view x = lanes(a->inputs[0]), dy = lanes(a->output_grad), dx = lanes(a->input_grads[0]);
    if (!is_sampled(k))
        return run(b, k, a, a->accumulate[0] ? DC_CONV_DATA_ADD : DC_CONV_DATA, dx, dc_cuda_weights(b, a), dy);
    const dck_view sampled = sampled_view(k, a->scratch);
    const bool positions = k->conv.kernel == 1;
    DC_TRY(run(b, k, a, DC_CONV_DATA, sampled, dc_cuda_weights(b, a), dy));
    DC_CUDA_TRY(dck_cuda_sample_backward(&b->queue, positions ? k->conv.stride : 1, positions ? k->conv.pad_begin : 0,
                                         k->conv.relu, x, sampled, dx, a->accumulate[0], a->step->n_images));
    return DC_OK;
}

dc_status dc_cuda_conv_backward(dc_cuda_backend *b, const dc_kernel *k, const dc_kernel_args *a)
{
    if (dc_kernel_is_depthwise(k))
        return depthwise_backward(b, k, a);
    if (a->param_grads[0]) {
        dck_view x;
        DC_TRY(gather(b, k, a, &x));
        DC_TRY(run(b, k, a, DC_CONV_WEIGHTS, x, a->param_grads[0], lanes(a->output_grad)));
    }
    return a->input_grads[0].data ? dense_backward_data(b, k, a) : DC_OK;
}

/* All but those whose input cuDNN reads in place. */
bool dc_cuda_conv_reads_deferred(const dc_kernel *k)
{
    return dc_kernel_is_depthwise(k) || is_sampled(k);
}

void dc_cuda_conv_extra(const dc_cuda_backend *b, const dc_kernel *k, dc_cuda_extra *extra)
{
    if (dc_kernel_is_depthwise(k)) {
        extra->backward_scratch_bytes =
            dck_cuda_depthwise_scratch_bytes(&k->conv, shaped(k->input), shaped(k->output), k->blocks);
    } else {
        const size_t copied = k->conv.groups > 1 ? group_weights(k) * sizeof(float) : 0;
        extra->saved_bytes = dc_cuda_weights_bytes(b, (size_t)k->conv.groups * group_weights(k));
        extra->forward_scratch_bytes = extra->backward_scratch_bytes = sampled_bytes(b, k) + copied;
    }
}

dc_status dc_cuda_conv_workspace(dc_cuda_backend *b, const dc_kernel *k, const dc_cuda_use *use, size_t *bytes)
{
    const bool sampled = is_sampled(k);
    const size_t x = sampled ? sampled_view(k, NULL).stride : use->x_stride;
    const struct {
        bool wanted;
        dc_conv_direction direction;
        size_t x_stride, y_stride;
    } calls[] = {
        {true, DC_CONV_FORWARD, x, use->y_stride},
        {use->training, DC_CONV_WEIGHTS, x, use->dy_stride},
        {use->wants, use->adds && !sampled ? DC_CONV_DATA_ADD : DC_CONV_DATA, sampled ? x : use->dx_stride,
         use->dy_stride},
    };
    *bytes = 0;
    for (size_t i = 0; i < sizeof calls / sizeof *calls && !dc_kernel_is_depthwise(k); i++) {
        const dc_conv_plan *plan;
        if (!calls[i].wanted)
            continue;
        DC_TRY(plan_of(b, k, calls[i].direction, k->blocks, calls[i].x_stride, calls[i].y_stride, &plan));
        const size_t more = dc_conv_plan_workspace_bytes(plan);
        *bytes = more > *bytes ? more : *bytes;
    }
    return DC_OK;
}
