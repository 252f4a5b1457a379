#include "tests/support/reference_internal.h"

#include <math.h>

/* One element of image n. */
static float *at(dc_view v, int n, int c, int y, int x)
{
    return v.data + (size_t)n * v.stride + ((size_t)c * (size_t)v.shape.h + (size_t)y) * (size_t)v.shape.w + (size_t)x;
}

/* A walk over the elements (n, c, y, x) of a tensor's first images. */
typedef struct element {
    int n, c, y, x;
    size_t left;
    dc_shape shape;
} element;

static element first_of(dc_view v, int images)
{
    size_t image = (size_t)v.shape.c * (size_t)v.shape.h * (size_t)v.shape.w;
    return (element){.left = (size_t)images * image, .shape = v.shape};
}

static void advance(element *e)
{
    e->left--;
    if (++e->x < e->shape.w)
        return;
    e->x = 0;
    if (++e->y < e->shape.h)
        return;
    e->y = 0;
    if (++e->c < e->shape.c)
        return;
    e->c = 0;
    e->n++;
}

/* The element of a tensor of the walk's shape. */
static float *here(dc_view v, element e)
{
    return at(v, e.n, e.c, e.y, e.x);
}

static void put(float *to, double value, bool accumulate)
{
    *to = accumulate ? (float)((double)*to + value) : (float)value;
}

static bool inside(dc_shape s, int y, int x)
{
    return y >= 0 && y < s.h && x >= 0 && x < s.w;
}

/* ---- convolution ---- */

static double relu_of(const dc_kernel *k, double x)
{
    return k->relu && x < 0 ? 0 : x;
}

static size_t weight_at(const dc_kernel *k, dc_shape input, int o, int i, int ky, int kx)
{
    int per_group = input.c / k->attr.groups, kernel = k->attr.kernel;
    return (((size_t)o * (size_t)per_group + (size_t)i) * (size_t)kernel + (size_t)ky) * (size_t)kernel + (size_t)kx;
}

static int tap(const dc_kernel *k, int out, int position)
{
    return out * k->attr.stride - k->attr.pad_begin + position * k->attr.dilation;
}

static int channel_of(const dc_kernel *k, dc_shape input, dc_shape output, int o, int i)
{
    int group = o / (output.c / k->attr.groups);
    return group * (input.c / k->attr.groups) + i;
}

static double conv_output(const dc_kernel *k, const dc_kernel_args *a, int n, int o, int oy, int ox)
{
    dc_view in = a->inputs[0];
    double sum = 0;
    for (int i = 0; i < in.shape.c / k->attr.groups; i++)
        for (int ky = 0; ky < k->attr.kernel; ky++)
            for (int kx = 0; kx < k->attr.kernel; kx++) {
                int y = tap(k, oy, ky), x = tap(k, ox, kx);
                if (inside(in.shape, y, x))
                    sum += relu_of(k, *at(in, n, channel_of(k, in.shape, a->output.shape, o, i), y, x)) *
                           (double)a->params[0][weight_at(k, in.shape, o, i, ky, kx)];
            }
    return sum;
}

static void conv_forward(const dc_kernel *k, const dc_kernel_args *a)
{
    for (element e = first_of(a->output, a->step->n_images); e.left; advance(&e))
        *here(a->output, e) = (float)conv_output(k, a, e.n, e.c, e.y, e.x);
}

/* The output position whose window holds input position `in` at `position`, or -1. */
static int out_of(const dc_kernel *k, int in, int position, int size)
{
    int shifted = in + k->attr.pad_begin - position * k->attr.dilation;
    return shifted < 0 || shifted % k->attr.stride || shifted / k->attr.stride >= size ? -1 : shifted / k->attr.stride;
}

static double conv_input_gradient(const dc_kernel *k, const dc_kernel_args *a, element e)
{
    dc_view in = a->inputs[0], dy = a->output_grad;
    int per_group = in.shape.c / k->attr.groups, out_per_group = dy.shape.c / k->attr.groups;
    int group = e.c / per_group, i = e.c % per_group;
    double sum = 0;
    for (int o = group * out_per_group; o < (group + 1) * out_per_group; o++)
        for (int ky = 0; ky < k->attr.kernel; ky++)
            for (int kx = 0; kx < k->attr.kernel; kx++) {
                int oy = out_of(k, e.y, ky, dy.shape.h), ox = out_of(k, e.x, kx, dy.shape.w);
                if (oy >= 0 && ox >= 0)
                    sum += (double)*at(dy, e.n, o, oy, ox) * (double)a->params[0][weight_at(k, in.shape, o, i, ky, kx)];
            }
    return k->relu && *here(in, e) <= 0 ? 0 : sum;
}

static void conv_weight_gradient(const dc_kernel *k, const dc_kernel_args *a)
{
    dc_view in = a->inputs[0], dy = a->output_grad;
    int per_group = in.shape.c / k->attr.groups;
    for (int o = 0; o < dy.shape.c; o++)
        for (int i = 0; i < per_group; i++)
            for (int ky = 0; ky < k->attr.kernel; ky++)
                for (int kx = 0; kx < k->attr.kernel; kx++) {
                    double sum = 0;
                    int channel = channel_of(k, in.shape, dy.shape, o, i);
                    for (int n = 0; n < a->step->n_images; n++)
                        for (int oy = 0; oy < dy.shape.h; oy++)
                            for (int ox = 0; ox < dy.shape.w; ox++) {
                                int y = tap(k, oy, ky), x = tap(k, ox, kx);
                                if (inside(in.shape, y, x))
                                    sum += relu_of(k, *at(in, n, channel, y, x)) * (double)*at(dy, n, o, oy, ox);
                            }
                    a->param_grads[0][weight_at(k, in.shape, o, i, ky, kx)] = (float)sum;
                }
}

static void conv_backward(const dc_kernel *k, const dc_kernel_args *a)
{
    dc_view dx = a->input_grads[0];
    if (dx.data)
        for (element e = first_of(dx, a->step->n_images); e.left; advance(&e))
            put(here(dx, e), conv_input_gradient(k, a, e), a->accumulate[0]);
    if (a->param_grads[0])
        conv_weight_gradient(k, a);
}

/* ---- batch norm ---- */

static const double epsilon = 1e-5;

static double channel_mean(dc_view v, int images, int channel)
{
    double sum = 0;
    for (element e = first_of(v, images); e.left; advance(&e))
        if (e.c == channel)
            sum += (double)*here(v, e);
    return sum / ((double)images * v.shape.h * v.shape.w);
}

static double channel_variance(dc_view v, int images, int channel, double mean)
{
    double sum = 0;
    for (element e = first_of(v, images); e.left; advance(&e))
        if (e.c == channel)
            sum += ((double)*here(v, e) - mean) * ((double)*here(v, e) - mean);
    return sum / ((double)images * v.shape.h * v.shape.w);
}

static void norm_forward(const dc_kernel *k, const dc_kernel_args *a)
{
    dc_view in = a->inputs[0];
    int images = a->step->n_images;
    double count = (double)images * in.shape.h * in.shape.w, momentum = (double)a->step->momentum;
    double *saved = a->saved;
    for (int channel = 0; channel < in.shape.c; channel++) {
        double mean = (double)a->params[0][channel], variance = (double)a->params[1][channel];
        if (a->step->training) {
            mean = channel_mean(in, images, channel);
            variance = channel_variance(in, images, channel, mean);
            double unbiased = count > 1 ? variance * count / (count - 1) : variance;
            a->params[0][channel] = (float)((1 - momentum) * (double)a->params[0][channel] + momentum * mean);
            a->params[1][channel] = (float)((1 - momentum) * (double)a->params[1][channel] + momentum * unbiased);
        }
        saved[2 * channel] = mean;
        saved[2 * channel + 1] = 1 / sqrt(variance + epsilon);
    }
    for (element e = first_of(a->output, images); e.left; advance(&e)) {
        double normal = ((double)*here(in, e) - saved[2 * e.c]) * saved[2 * e.c + 1];
        if (k->attr.affine)
            normal = normal * (double)a->params[2][e.c] + (double)a->params[3][e.c];
        *here(a->output, e) = (float)normal;
    }
}

static void norm_backward(const dc_kernel *k, const dc_kernel_args *a)
{
    dc_view in = a->inputs[0], dy = a->output_grad, dx = a->input_grads[0];
    int images = a->step->n_images;
    double count = (double)images * in.shape.h * in.shape.w;
    const double *saved = a->saved;
    for (int channel = 0; channel < in.shape.c; channel++) {
        double sum = 0, product = 0, mean = saved[2 * channel], inverse = saved[2 * channel + 1];
        double gamma = k->attr.affine ? (double)a->params[2][channel] : 1;
        for (element e = first_of(dy, images); e.left; advance(&e))
            if (e.c == channel) {
                sum += (double)*here(dy, e);
                product += (double)*here(dy, e) * ((double)*here(in, e) - mean) * inverse;
            }
        if (k->attr.affine && a->param_grads[2])
            a->param_grads[2][channel] = (float)product;
        if (k->attr.affine && a->param_grads[3])
            a->param_grads[3][channel] = (float)sum;
        if (dx.data)
            for (element e = first_of(dx, images); e.left; advance(&e))
                if (e.c == channel) {
                    double normal = ((double)*here(in, e) - mean) * inverse;
                    put(here(dx, e), gamma * inverse * ((double)*here(dy, e) - sum / count - normal * product / count),
                        a->accumulate[0]);
                }
    }
}

/* ---- relu and pools ---- */

static void relu_forward(const dc_kernel *k, const dc_kernel_args *a)
{
    (void)k;
    for (element e = first_of(a->output, a->step->n_images); e.left; advance(&e)) {
        float v = *here(a->inputs[0], e);
        *here(a->output, e) = v > 0 ? v : 0;
    }
}

static void relu_backward(const dc_kernel *k, const dc_kernel_args *a)
{
    (void)k;
    if (a->input_grads[0].data)
        for (element e = first_of(a->output, a->step->n_images); e.left; advance(&e))
            put(here(a->input_grads[0], e), *here(a->output, e) > 0 ? (double)*here(a->output_grad, e) : 0,
                a->accumulate[0]);
}

static void clear_unless(dc_view v, int images, bool accumulate)
{
    if (!accumulate)
        for (element e = first_of(v, images); e.left; advance(&e))
            *here(v, e) = 0;
}

/* The position of a window's first maximum, row-major; count: how many positions lie inside the image. */
static void inspect_window(const dc_kernel *k, dc_view in, int n, int c, int oy, int ox, int best[2], int *count,
                           double *sum)
{
    *count = 0;
    *sum = 0;
    for (int ky = 0; ky < k->attr.kernel; ky++)
        for (int kx = 0; kx < k->attr.kernel; kx++) {
            int y = oy * k->attr.stride - k->attr.pad_begin + ky, x = ox * k->attr.stride - k->attr.pad_begin + kx;
            if (!inside(in.shape, y, x))
                continue;
            if (in.data) {
                *sum += (double)*at(in, n, c, y, x);
                if (*count == 0 || *at(in, n, c, y, x) > *at(in, n, c, best[0], best[1])) {
                    best[0] = y;
                    best[1] = x;
                }
            }
            ++*count;
        }
}

static void pool_forward(const dc_kernel *k, const dc_kernel_args *a)
{
    for (element e = first_of(a->output, a->step->n_images); e.left; advance(&e)) {
        int best[2] = {0, 0}, count;
        double sum;
        inspect_window(k, a->inputs[0], e.n, e.c, e.y, e.x, best, &count, &sum);
        *here(a->output, e) =
            k->op == DC_OP_MAX_POOL ? *at(a->inputs[0], e.n, e.c, best[0], best[1]) : (float)(sum / count);
    }
}

static void max_pool_backward(const dc_kernel *k, const dc_kernel_args *a)
{
    if (!a->input_grads[0].data)
        return;
    clear_unless(a->input_grads[0], a->step->n_images, a->accumulate[0]);
    for (element e = first_of(a->output_grad, a->step->n_images); e.left; advance(&e)) {
        int best[2] = {0, 0}, count;
        double sum;
        inspect_window(k, a->inputs[0], e.n, e.c, e.y, e.x, best, &count, &sum);
        *at(a->input_grads[0], e.n, e.c, best[0], best[1]) += *here(a->output_grad, e);
    }
}

static void avg_pool_backward(const dc_kernel *k, const dc_kernel_args *a)
{
    dc_view dx = a->input_grads[0], shape_only = {.shape = dx.shape};
    if (!dx.data)
        return;
    clear_unless(dx, a->step->n_images, a->accumulate[0]);
    for (element e = first_of(a->output_grad, a->step->n_images); e.left; advance(&e)) {
        int best[2] = {0, 0}, count;
        double sum;
        inspect_window(k, shape_only, e.n, e.c, e.y, e.x, best, &count, &sum);
        for (int ky = 0; ky < k->attr.kernel; ky++)
            for (int kx = 0; kx < k->attr.kernel; kx++) {
                int to_y = e.y * k->attr.stride - k->attr.pad_begin + ky;
                int to_x = e.x * k->attr.stride - k->attr.pad_begin + kx;
                if (inside(dx.shape, to_y, to_x))
                    *at(dx, e.n, e.c, to_y, to_x) += *here(a->output_grad, e) / (float)count;
            }
    }
}

static void global_avg_pool_forward(const dc_kernel *k, const dc_kernel_args *a)
{
    (void)k;
    for (element e = first_of(a->output, a->step->n_images); e.left; advance(&e)) {
        double sum = 0;
        for (int i = 0; i < a->inputs[0].shape.h; i++)
            for (int j = 0; j < a->inputs[0].shape.w; j++)
                sum += (double)*at(a->inputs[0], e.n, e.c, i, j);
        *here(a->output, e) = (float)(sum / (a->inputs[0].shape.h * a->inputs[0].shape.w));
    }
}

static void global_avg_pool_backward(const dc_kernel *k, const dc_kernel_args *a)
{
    (void)k;
    dc_view dx = a->input_grads[0];
    if (dx.data)
        for (element e = first_of(dx, a->step->n_images); e.left; advance(&e))
            put(here(dx, e), (double)*at(a->output_grad, e.n, e.c, 0, 0) / (dx.shape.h * dx.shape.w), a->accumulate[0]);
}

/* ---- linear ---- */

static void linear_forward(const dc_kernel *k, const dc_kernel_args *a)
{
    (void)k;
    dc_shape s = a->inputs[0].shape;
    int features = s.c * s.h * s.w;
    for (element e = first_of(a->output, a->step->n_images); e.left; advance(&e)) {
        double sum = (double)a->params[1][e.c];
        for (int f = 0; f < features; f++)
            sum += (double)a->params[0][(size_t)e.c * (size_t)features + (size_t)f] *
                   (double)at(a->inputs[0], e.n, 0, 0, 0)[f];
        *here(a->output, e) = (float)sum;
    }
}

static void linear_backward(const dc_kernel *k, const dc_kernel_args *a)
{
    (void)k;
    dc_shape s = a->inputs[0].shape;
    int features = s.c * s.h * s.w, out = a->output_grad.shape.c;
    for (int f = 0; f < features && a->input_grads[0].data; f++)
        for (int n = 0; n < a->step->n_images; n++) {
            double sum = 0;
            for (int o = 0; o < out; o++)
                sum += (double)a->params[0][(size_t)o * (size_t)features + (size_t)f] *
                       (double)*at(a->output_grad, n, o, 0, 0);
            put(at(a->input_grads[0], n, 0, 0, 0) + f, sum, a->accumulate[0]);
        }
    for (int o = 0; o < out; o++) {
        double bias = 0;
        for (int n = 0; n < a->step->n_images; n++)
            bias += (double)*at(a->output_grad, n, o, 0, 0);
        if (a->param_grads[1])
            a->param_grads[1][o] = (float)bias;
        for (int f = 0; f < features && a->param_grads[0]; f++) {
            double sum = 0;
            for (int n = 0; n < a->step->n_images; n++)
                sum += (double)*at(a->output_grad, n, o, 0, 0) * (double)at(a->inputs[0], n, 0, 0, 0)[f];
            a->param_grads[0][(size_t)o * (size_t)features + (size_t)f] = (float)sum;
        }
    }
}

/* ---- add, mix, softmax ---- */

static void sum_forward(const dc_kernel *k, const dc_kernel_args *a)
{
    const int first = k->op == DC_OP_MIX;
    for (element e = first_of(a->output, a->step->n_images); e.left; advance(&e)) {
        double sum = 0;
        for (int i = first; i < a->n_inputs; i++)
            sum += (first ? (double)a->inputs[0].data[a->index[i]] : 1) * (double)*here(a->inputs[i], e);
        *here(a->output, e) = (float)sum;
    }
}

static void sum_backward(const dc_kernel *k, const dc_kernel_args *a)
{
    const int first = k->op == DC_OP_MIX;
    for (int i = first; i < a->n_inputs; i++) {
        double weight = first ? (double)a->inputs[0].data[a->index[i]] : 1, dot = 0;
        for (element e = first_of(a->output_grad, a->step->n_images); e.left; advance(&e)) {
            double d = (double)*here(a->output_grad, e);
            if (a->input_grads[i].data)
                put(here(a->input_grads[i], e), weight * d, a->accumulate[i]);
            if (first && a->input_grads[0].data)
                dot += d * (double)*here(a->inputs[i], e);
        }
        if (first && a->input_grads[0].data)
            a->input_grads[0].data[a->index[i]] += (float)dot;
    }
}

static void softmax_forward(const dc_kernel *k, const dc_kernel_args *a)
{
    (void)k;
    dc_shape s = a->output.shape;
    for (int r = 0; r < s.c; r++) {
        double total = 0;
        for (int c = 0; c < s.w; c++)
            total += exp((double)a->params[0][r * s.w + c]);
        for (int c = 0; c < s.w; c++)
            a->output.data[r * s.w + c] = (float)(exp((double)a->params[0][r * s.w + c]) / total);
    }
}

static void softmax_backward(const dc_kernel *k, const dc_kernel_args *a)
{
    (void)k;
    dc_shape s = a->output.shape;
    const float *p = a->output.data, *dp = a->output_grad.data;
    for (int i = 0; i < s.c * s.w && a->param_grads[0]; i++) {
        double sum = 0;
        for (int j = i / s.w * s.w; j < (i / s.w + 1) * s.w; j++)
            sum += (double)dp[j] * (double)p[j] * ((i == j) - (double)p[i]);
        a->param_grads[0][i] = (float)sum;
    }
}

/* ---- concat, zero, masks ---- */

static void concat_forward(const dc_kernel *k, const dc_kernel_args *a)
{
    (void)k;
    for (int i = 0, first = 0; i < a->n_inputs; first += a->inputs[i++].shape.c)
        for (element e = first_of(a->inputs[i], a->step->n_images); e.left; advance(&e))
            *at(a->output, e.n, first + e.c, e.y, e.x) = *here(a->inputs[i], e);
}

static void concat_backward(const dc_kernel *k, const dc_kernel_args *a)
{
    (void)k;
    for (int i = 0, first = 0; i < a->n_inputs; first += a->inputs[i++].shape.c)
        if (a->input_grads[i].data)
            for (element e = first_of(a->input_grads[i], a->step->n_images); e.left; advance(&e))
                put(here(a->input_grads[i], e), (double)*at(a->output_grad, e.n, first + e.c, e.y, e.x),
                    a->accumulate[i]);
}

static void zero_forward(const dc_kernel *k, const dc_kernel_args *a)
{
    (void)k;
    clear_unless(a->output, a->step->n_images, false);
}

static void zero_backward(const dc_kernel *k, const dc_kernel_args *a)
{
    (void)k;
    if (a->input_grads[0].data)
        clear_unless(a->input_grads[0], a->step->n_images, a->accumulate[0]);
}

/* The factor of one element of image n: drop-path decides per image, dropout per element, four elements to a block. */
static double mask_factor(const dc_kernel *k, const dc_step *step, dc_shape s, int n, int position)
{
    dc_rng_key key = {.seed = step->seed, .stream = k->stream};
    uint64_t image = (uint64_t)step->first_image + (uint64_t)n;
    if (!step->training)
        return 1;
    if (k->op == DC_OP_DROP_PATH) {
        float keep = 1 - step->drop_path_rate;
        return step->drop_path_rate <= 0 ? 1 : dc_rng_uniform(key, step->index, image) < keep ? 1 / (double)keep : 0;
    }
    uint32_t word[4];
    uint64_t blocks = ((uint64_t)s.c * (uint64_t)s.h * (uint64_t)s.w + 3) / 4;
    dc_rng_block(key, step->index, image * blocks + (uint64_t)position / 4, word);
    float uniform = (float)(word[position % 4] >> 8) * 0x1p-24f;
    return uniform < k->attr.rate ? 0 : 1 / (1 - (double)k->attr.rate);
}

static void mask(const dc_kernel *k, const dc_kernel_args *a, dc_view from, dc_view to, bool accumulate)
{
    dc_shape s = to.shape;
    if (to.data)
        for (element e = first_of(to, a->step->n_images); e.left; advance(&e))
            put(here(to, e), (double)*here(from, e) * mask_factor(k, a->step, s, e.n, (e.c * s.h + e.y) * s.w + e.x),
                accumulate);
}

static void mask_forward(const dc_kernel *k, const dc_kernel_args *a)
{
    mask(k, a, a->inputs[0], a->output, false);
}

static void mask_backward(const dc_kernel *k, const dc_kernel_args *a)
{
    mask(k, a, a->output_grad, a->input_grads[0], a->accumulate[0]);
}

/* ---- loss ---- */

static double probability(dc_view logits, int n, int channel)
{
    double total = 0;
    for (int c = 0; c < logits.shape.c; c++)
        total += exp((double)*at(logits, n, c, 0, 0));
    return exp((double)*at(logits, n, channel, 0, 0)) / total;
}

static double target(const dc_kernel *k, const dc_step *step, int classes, int n, int channel)
{
    double s = (double)k->attr.smoothing;
    return s / classes + (step->labels[n] == channel ? 1 - s : 0);
}

/* Probabilities go to `saved`: the logits may be gone in backward. */
static void cross_entropy_forward(const dc_kernel *k, const dc_kernel_args *a)
{
    dc_view logits = a->inputs[0];
    double loss = 0, *saved = a->saved;
    int classes = logits.shape.c, top1 = 0, top5 = 0;
    for (int n = 0; n < a->step->n_images; n++) {
        int against = 0;
        for (int c = 0; c < classes; c++) {
            double p = saved[n * classes + c] = probability(logits, n, c);
            loss -= target(k, a->step, classes, n, c) * log(p);
            against += c != a->step->labels[n] && *at(logits, n, c, 0, 0) >= *at(logits, n, a->step->labels[n], 0, 0);
        }
        top1 += against < 1;
        top5 += against < 5;
    }
    a->output.data[0] = (float)(loss / a->step->n_images);
    a->output.data[1] = (float)top1;
    a->output.data[2] = (float)top5;
    a->output.data[3] = (float)a->step->n_images;
}

static void cross_entropy_backward(const dc_kernel *k, const dc_kernel_args *a)
{
    const double *saved = a->saved;
    dc_view dx = a->input_grads[0];
    int classes = dx.shape.c, images = a->step->n_global ? a->step->n_global : a->step->n_images;
    if (dx.data)
        for (element e = first_of(dx, a->step->n_images); e.left; advance(&e))
            put(here(dx, e),
                (double)k->attr.weight * (saved[e.n * classes + e.c] - target(k, a->step, classes, e.n, e.c)) / images,
                a->accumulate[0]);
}

const dc_reference_call dc_reference_forward[DC_OP_COUNT] = {
    [DC_OP_CONV] = conv_forward,
    [DC_OP_BATCH_NORM] = norm_forward,
    [DC_OP_RELU] = relu_forward,
    [DC_OP_MAX_POOL] = pool_forward,
    [DC_OP_AVG_POOL] = pool_forward,
    [DC_OP_GLOBAL_AVG_POOL] = global_avg_pool_forward,
    [DC_OP_LINEAR] = linear_forward,
    [DC_OP_ADD] = sum_forward,
    [DC_OP_SOFTMAX] = softmax_forward,
    [DC_OP_MIX] = sum_forward,
    [DC_OP_CONCAT] = concat_forward,
    [DC_OP_ZERO] = zero_forward,
    [DC_OP_DROP_PATH] = mask_forward,
    [DC_OP_DROPOUT] = mask_forward,
    [DC_OP_CROSS_ENTROPY] = cross_entropy_forward,
};

const dc_reference_call dc_reference_backward[DC_OP_COUNT] = {
    [DC_OP_CONV] = conv_backward,
    [DC_OP_BATCH_NORM] = norm_backward,
    [DC_OP_RELU] = relu_backward,
    [DC_OP_MAX_POOL] = max_pool_backward,
    [DC_OP_AVG_POOL] = avg_pool_backward,
    [DC_OP_GLOBAL_AVG_POOL] = global_avg_pool_backward,
    [DC_OP_LINEAR] = linear_backward,
    [DC_OP_ADD] = sum_backward,
    [DC_OP_SOFTMAX] = softmax_backward,
    [DC_OP_MIX] = sum_backward,
    [DC_OP_CONCAT] = concat_backward,
    [DC_OP_ZERO] = zero_backward,
    [DC_OP_DROP_PATH] = mask_backward,
    [DC_OP_DROPOUT] = mask_backward,
    [DC_OP_CROSS_ENTROPY] = cross_entropy_backward,
};
