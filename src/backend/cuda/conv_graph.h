/* A convolution as cuDNN's graph of one operation, made of descriptors. */
#ifndef DC_BACKEND_CUDA_CONV_GRAPH_H
#define DC_BACKEND_CUDA_CONV_GRAPH_H

#include "backend/cuda/conv_plans.h"

#include <cudnn.h>

enum { DC_MAX_DESCRIPTORS = 8, DC_CUDNN_WHY = 400 };

/* Names of operands in a variant pack. */
enum { DC_CONV_UID_X = 'x', DC_CONV_UID_W = 'w', DC_CONV_UID_Y = 'y' };

/* Descriptors that live together. The first error is kept; after it every call does nothing. */
typedef struct dc_descriptors {
    int n;
    cudnnBackendDescriptor_t made[DC_MAX_DESCRIPTORS];
    cudnnStatus_t error;
    char why[DC_CUDNN_WHY]; /* cuDNN's own words, one line */
} dc_descriptors;

cudnnBackendDescriptor_t dc_descriptor_begin(dc_descriptors *all, cudnnBackendDescriptorType_t type);
void dc_descriptor_set(dc_descriptors *all, cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                       cudnnBackendAttributeType_t type, int64_t count, const void *values);
void dc_descriptor_end(dc_descriptors *all, cudnnBackendDescriptor_t descriptor); /* finalizes */
void dc_descriptors_clear(dc_descriptors *all);

/* What cuDNN says of the last failure in this thread, as one line. */
void dc_cudnn_why(cudnnStatus_t status, char why[DC_CUDNN_WHY]);

/* The finalized graph; handle NULL: of no device. Owned by `all`, which says whether it is good. */
cudnnBackendDescriptor_t dc_conv_graph_make(dc_descriptors *all, cudnnHandle_t handle, const dc_conv_shape *shape,
                                            dc_conv_direction direction);

#endif
