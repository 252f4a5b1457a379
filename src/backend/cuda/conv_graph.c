#include "backend/cuda/conv_graph.h"

#include <stdio.h>
#include <string.h>

enum { LANES = 16, MAX_RANK = 5 };

void dc_cudnn_why(cudnnStatus_t status, char why[DC_CUDNN_WHY])
{
    char text[DC_CUDNN_WHY - 64] = "";
    cudnnGetLastErrorString(text, sizeof text);
    text[sizeof text - 1] = '\0';
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < ' ')
            *c = ' ';
    snprintf(why, DC_CUDNN_WHY, "%.50s%s%s", cudnnGetErrorString(status), *text ? ": " : "", text);
}

static bool succeeded(dc_descriptors *all, cudnnStatus_t status)
{
    if (status == CUDNN_STATUS_SUCCESS)
        return true;
    all->error = status;
    dc_cudnn_why(status, all->why);
    return false;
}

cudnnBackendDescriptor_t dc_descriptor_begin(dc_descriptors *all, cudnnBackendDescriptorType_t type)
{
    cudnnBackendDescriptor_t descriptor = NULL;
    if (all->error == CUDNN_STATUS_SUCCESS && all->n == DC_MAX_DESCRIPTORS) {
        all->error = CUDNN_STATUS_INTERNAL_ERROR;
        snprintf(all->why, sizeof all->why, "more than %d descriptors", DC_MAX_DESCRIPTORS);
    }
    if (all->error != CUDNN_STATUS_SUCCESS || !succeeded(all, cudnnBackendCreateDescriptor(type, &descriptor)))
        return NULL;
    all->made[all->n++] = descriptor;
    return descriptor;
}

void dc_descriptor_set(dc_descriptors *all, cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                       cudnnBackendAttributeType_t type, int64_t count, const void *values)
{
    if (all->error == CUDNN_STATUS_SUCCESS)
        succeeded(all, cudnnBackendSetAttribute(descriptor, name, type, count, values));
}

void dc_descriptor_end(dc_descriptors *all, cudnnBackendDescriptor_t descriptor)
{
    if (all->error == CUDNN_STATUS_SUCCESS)
        succeeded(all, cudnnBackendFinalize(descriptor));
}

void dc_descriptors_clear(dc_descriptors *all)
{
    while (all->n > 0)
        cudnnBackendDestroyDescriptor(all->made[--all->n]);
    all->error = CUDNN_STATUS_SUCCESS;
}

/* Packed but for the outermost dimension; stride 0: there, too. */
static cudnnBackendDescriptor_t tensor(dc_descriptors *all, int64_t uid, cudnnDataType_t type, int rank,
                                       const int64_t *extents, int64_t stride)
{
    const int64_t alignment = 16;
    int64_t strides[MAX_RANK];
    strides[rank - 1] = 1;
    for (int i = rank - 2; i >= 0; i--)
        strides[i] = strides[i + 1] * extents[i + 1];
    if (stride)
        strides[0] = stride;
    cudnnBackendDescriptor_t d = dc_descriptor_begin(all, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    dc_descriptor_set(all, d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    dc_descriptor_set(all, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, rank, extents);
    dc_descriptor_set(all, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, rank, strides);
    dc_descriptor_set(all, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid);
    dc_descriptor_set(all, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
    dc_descriptor_end(all, d);
    return d;
}

static cudnnBackendDescriptor_t convolution(dc_descriptors *all, int64_t rank, const dc_conv_shape *s)
{
    const cudnnDataType_t computed = CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    const int64_t before[] = {s->pad_begin, s->pad_begin, 0}, after[] = {s->pad_end, s->pad_end, 0};
    const int64_t strides[] = {s->stride, s->stride, 1}, dilations[] = {s->dilation, s->dilation, 1};
    cudnnBackendDescriptor_t d = dc_descriptor_begin(all, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    dc_descriptor_set(all, d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &computed);
    dc_descriptor_set(all, d, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    dc_descriptor_set(all, d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &rank);
    dc_descriptor_set(all, d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, rank, before);
    dc_descriptor_set(all, d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, rank, after);
    dc_descriptor_set(all, d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, rank, strides);
    dc_descriptor_set(all, d, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, rank, dilations);
    dc_descriptor_end(all, d);
    return d;
}

/* An operation's attributes have names of their own in each direction. */
typedef struct operation_names {
    cudnnBackendDescriptorType_t type;
    cudnnBackendAttributeName_t x, w, y, convolution, alpha, beta;
} operation_names;

static const operation_names names_forward = {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
                                              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                                              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                                              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                                              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                                              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                                              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA};
static const operation_names names_data = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                                           CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                                           CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                                           CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                                           CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                                           CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                                           CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA};
static const operation_names names_weights = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
                                              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                                              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                                              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
                                              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                                              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                                              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA};

cudnnBackendDescriptor_t dc_conv_graph_make(dc_descriptors *all, cudnnHandle_t handle, const dc_conv_shape *s,
                                            dc_conv_direction direction)
{
    const operation_names *names = direction == DC_CONV_FORWARD   ? &names_forward
                                   : direction == DC_CONV_WEIGHTS ? &names_weights
                                                                  : &names_data;
    const cudnnDataType_t type = s->precision == DC_PRECISION_BF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
    const bool pointwise = s->kernel == 1 && s->stride == 1 && !s->pad_begin && !s->pad_end;
    const int rank = pointwise ? 4 : 5;
    const int64_t x2[] = {s->blocks, s->in_c, (int64_t)s->in_h * s->in_w, LANES}, w2[] = {s->out_c, s->in_c, 1, 1};
    const int64_t y2[] = {s->blocks, s->out_c, (int64_t)s->out_h * s->out_w, LANES};
    const int64_t x3[] = {s->blocks, s->in_c, s->in_h, s->in_w, LANES};
    const int64_t w3[] = {s->out_c, s->in_c, s->kernel, s->kernel, 1};
    const int64_t y3[] = {s->blocks, s->out_c, s->out_h, s->out_w, LANES};
    cudnnBackendDescriptor_t x = tensor(all, DC_CONV_UID_X, type, rank, pointwise ? x2 : x3, (int64_t)s->x_stride);
    cudnnBackendDescriptor_t w = tensor(all, DC_CONV_UID_W, type, rank, pointwise ? w2 : w3, 0);
    cudnnBackendDescriptor_t y = tensor(all, DC_CONV_UID_Y, type, rank, pointwise ? y2 : y3, (int64_t)s->y_stride);
    cudnnBackendDescriptor_t how = convolution(all, rank - 2, s);

    const float alpha = 1, beta = direction == DC_CONV_DATA_ADD;
    cudnnBackendDescriptor_t operation = dc_descriptor_begin(all, names->type);
    dc_descriptor_set(all, operation, names->x, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &x);
    dc_descriptor_set(all, operation, names->w, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &w);
    dc_descriptor_set(all, operation, names->y, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &y);
    dc_descriptor_set(all, operation, names->convolution, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &how);
    dc_descriptor_set(all, operation, names->alpha, CUDNN_TYPE_FLOAT, 1, &alpha);
    dc_descriptor_set(all, operation, names->beta, CUDNN_TYPE_FLOAT, 1, &beta);
    dc_descriptor_end(all, operation);

    cudnnBackendDescriptor_t graph = dc_descriptor_begin(all, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    if (handle)
        dc_descriptor_set(all, graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
    dc_descriptor_set(all, graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &operation);
    dc_descriptor_end(all, graph);
    return graph;
}
