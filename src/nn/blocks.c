#include "nn/blocks.h"

#include <stdarg.h>
#include <stdio.h>

enum { AUXILIARY_HIDDEN = 128, AUXILIARY_FEATURES = 768, STEM_MULTIPLIER = 3 };

#define PART(part) (dc_name_of("%s." part, name).text)

dc_name dc_name_of(const char *format, ...)
{
    dc_name name;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name.text, sizeof name.text, format, arguments);
    va_end(arguments);
    return name;
}

dc_shape dc_block_shape(const dc_graph *g, int x)
{
    return x < 0 ? (dc_shape){1, 1, 1} : g->nodes[x].shape;
}

/* The relu of x: the one that is there already, or a new one. The auxiliary head is left out of inference, so the rest
 * of the network must not read its relu. */
static int relu_of(dc_graph *g, int x)
{
    if (x < 0)
        return -1;
    for (int i = g->n_nodes - 1; i > x; i--) {
        const dc_node *node = &g->nodes[i];
        if (node->op == DC_OP_RELU && node->inputs[0] == x && node->auxiliary == g->building_auxiliary)
            return i;
    }
    return dc_graph_relu(g, dc_name_of("%s.relu", g->nodes[x].name).text, x);
}

/* A convolution with the padding that keeps the resolution at stride 1 (kernel odd). */
static int same_conv(dc_graph *g, const char *name, int x, int out_c, int kernel, int stride, int dilation, int groups)
{
    int pad = dilation * (kernel / 2);
    return dc_graph_conv(g, name, x, out_c, kernel, stride, pad, pad, dilation, groups);
}

static int pointwise(dc_graph *g, const char *name, int x, int out_c)
{
    return same_conv(g, name, x, out_c, 1, 1, 1, 1);
}

static int depthwise(dc_graph *g, const char *name, int x, int kernel, int stride, int dilation)
{
    int channels = dc_block_shape(g, x).c;
    return same_conv(g, name, x, channels, kernel, stride, dilation, channels);
}

int dc_block_conv_bn(dc_graph *g, const char *name, int x, int out_c, int kernel, int stride, bool affine)
{
    int y = same_conv(g, PART("conv"), x, out_c, kernel, stride, 1, 1);
    return dc_graph_batch_norm(g, PART("bn"), y, affine);
}

int dc_block_relu_conv_bn(dc_graph *g, const char *name, int x, int out_c, bool affine)
{
    return dc_block_conv_bn(g, name, relu_of(g, x), out_c, 1, 1, affine);
}

int dc_block_factorized_reduce(dc_graph *g, const char *name, int x, int out_c, bool affine)
{
    int y = relu_of(g, x), halves[2];
    halves[0] = dc_graph_conv(g, PART("conv1"), y, out_c / 2, 1, 2, 0, 0, 1, 1);
    halves[1] = dc_graph_conv(g, PART("conv2"), y, out_c - out_c / 2, 1, 2, -1, 1, 1, 1);
    return dc_graph_batch_norm(g, PART("bn"), dc_graph_concat(g, PART("concat"), 2, halves), affine);
}

int dc_block_sep_conv(dc_graph *g, const char *name, int x, int kernel, int stride, bool affine)
{
    int channels = dc_block_shape(g, x).c;
    int y = depthwise(g, PART("depthwise1"), relu_of(g, x), kernel, stride, 1);
    y = dc_graph_batch_norm(g, PART("bn1"), pointwise(g, PART("pointwise1"), y, channels), affine);
    y = depthwise(g, PART("depthwise2"), relu_of(g, y), kernel, 1, 1);
    return dc_graph_batch_norm(g, PART("bn2"), pointwise(g, PART("pointwise2"), y, channels), affine);
}

int dc_block_dil_conv(dc_graph *g, const char *name, int x, int kernel, int stride, bool affine)
{
    int channels = dc_block_shape(g, x).c;
    int y = depthwise(g, PART("depthwise"), relu_of(g, x), kernel, stride, 2);
    return dc_graph_batch_norm(g, PART("bn"), pointwise(g, PART("pointwise"), y, channels), affine);
}

int dc_block_pool(dc_graph *g, const char *name, int x, dc_op op, int stride, bool batch_norm)
{
    int y = op == DC_OP_MAX_POOL ? dc_graph_max_pool(g, PART("pool"), x, 3, stride, 1)
                                 : dc_graph_avg_pool(g, PART("pool"), x, 3, stride, 1);
    return batch_norm ? dc_graph_batch_norm(g, PART("bn"), y, false) : y;
}

void dc_block_stem(dc_graph *g, dc_network_kind kind, int x, int channels, int stem[2])
{
    if (kind == DC_NETWORK_CIFAR) {
        stem[0] = stem[1] = dc_block_conv_bn(g, "stem", x, STEM_MULTIPLIER * channels, 3, 1, true);
        return;
    }
    int y = same_conv(g, "stem0.conv1", x, channels / 2, 3, 2, 1, 1);
    y = relu_of(g, dc_graph_batch_norm(g, "stem0.bn1", y, true));
    y = same_conv(g, "stem0.conv2", y, channels, 3, 2, 1, 1);
    stem[0] = dc_graph_batch_norm(g, "stem0.bn2", y, true);
    stem[1] = dc_block_conv_bn(g, "stem1", relu_of(g, stem[0]), channels, 3, 2, true);
}

int dc_block_classifier(dc_graph *g, int x, int classes, float dropout)
{
    int y = dc_graph_global_avg_pool(g, "global_pool", x);
    if (dropout != 0)
        y = dc_graph_dropout(g, "dropout", y, dropout);
    g->logits = dc_graph_linear(g, "classifier", y, classes);
    return g->logits;
}

/* The auxiliary head's average pool, which leaves 2x2 for the 2x2 convolution (see the header). */
static int auxiliary_pool(dc_graph *g, dc_network_kind kind, int x)
{
    dc_shape shape = dc_block_shape(g, x);
    int side = shape.h < shape.w ? shape.h : shape.w;
    int kernel = 5, stride = kind == DC_NETWORK_CIFAR ? 3 : 2;
    bool leaves_2x2 = side >= kernel && (side - kernel) / stride + 1 == 2;
    if (!leaves_2x2) {
        stride = side / 2;
        kernel = side - stride;
    }
    if (x >= 0 && stride < 1)
        return dc_graph_fail(g,
                             "auxiliary head: the input %dx%d leaves a map of %dx%d where it starts, at least 2x2 is "
                             "needed: turn it off or use larger images",
                             g->nodes[g->input].shape.h, g->nodes[g->input].shape.w, shape.h, shape.w);
    return dc_graph_avg_pool(g, "auxiliary.pool", x, kernel, stride, 0);
}

int dc_block_auxiliary_head(dc_graph *g, dc_network_kind kind, int x, int classes)
{
    bool outer = g->building_auxiliary;
    g->building_auxiliary = true;
    int y = auxiliary_pool(g, kind, relu_of(g, x));
    y = pointwise(g, "auxiliary.conv1", y, AUXILIARY_HIDDEN);
    y = relu_of(g, dc_graph_batch_norm(g, "auxiliary.bn1", y, true));
    y = dc_graph_conv(g, "auxiliary.conv2", y, AUXILIARY_FEATURES, 2, 1, 0, 0, 1, 1);
    if (kind == DC_NETWORK_CIFAR)
        y = dc_graph_batch_norm(g, "auxiliary.bn2", y, true);
    y = dc_graph_linear(g, "auxiliary.classifier", relu_of(g, y), classes);
    g->building_auxiliary = outer;
    return y;
}
