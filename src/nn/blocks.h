/* The building blocks of the DARTS networks (Liu et al. 2019), appended to a graph.
 *
 * All take and return node ids; after an error in the graph they return -1 and do nothing, as graph.h's builders.
 * `name` is the prefix of the names of all nodes and parameters of the block, listed with each. affine: batch norms
 * have gamma and beta (target networks) or not (search).
 *
 * A relu is appended once for each tensor, however many blocks read it, and is named after the tensor. */
#ifndef DC_NN_BLOCKS_H
#define DC_NN_BLOCKS_H

#include "graph/graph.h"

/* The two families of networks in DARTS: they differ in stem and auxiliary head. */
typedef enum dc_network_kind { DC_NETWORK_CIFAR, DC_NETWORK_IMAGENET } dc_network_kind;

/* A name made in an expression: dc_graph_relu(g, dc_name_of("%s.relu", name).text, x). */
typedef struct dc_name {
    char text[DC_NAME_CHARS];
} dc_name;

dc_name dc_name_of(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The shape of node x, 1x1x1 for -1. */
dc_shape dc_block_shape(const dc_graph *g, int x);

/* kxk convolution (padding k/2) and batch norm: (C,H,W) -> (out_c, H/stride, W/stride). name.conv, name.bn */
int dc_block_conv_bn(dc_graph *g, const char *name, int x, int out_c, int kernel, int stride, bool affine);

/* relu, 1x1 convolution, batch norm: (C,H,W) -> (out_c,H,W). name.conv, name.bn */
int dc_block_relu_conv_bn(dc_graph *g, const char *name, int x, int out_c, bool affine);

/* relu; two 1x1 convolutions of stride 2, of out_c/2 and out_c - out_c/2 channels, the second one reading one row and
 * one column further (past an odd edge: zeros); concat; batch norm: (C,H,W) -> (out_c, ceil H/2, ceil W/2).
 * name.conv1, name.conv2, name.concat, name.bn */
int dc_block_factorized_reduce(dc_graph *g, const char *name, int x, int out_c, bool affine);

/* Twice (relu, depthwise kxk, 1x1, batch norm), the first one with the stride. name.depthwise1, .pointwise1, .bn1,
 * .depthwise2, .pointwise2, .bn2 */
int dc_block_sep_conv(dc_graph *g, const char *name, int x, int kernel, int stride, bool affine);

/* relu, depthwise kxk of dilation 2, 1x1, batch norm. name.depthwise, .pointwise, .bn */
int dc_block_dil_conv(dc_graph *g, const char *name, int x, int kernel, int stride, bool affine);

/* 3x3 pooling (op: DC_OP_MAX_POOL or DC_OP_AVG_POOL), padding 1, and in search a batch norm without affine.
 * name.pool, name.bn */
int dc_block_pool(dc_graph *g, const char *name, int x, dc_op op, int stride, bool batch_norm);

/* The stem: the inputs of the first cell, affine always. `stem` receives the two outputs.
 * CIFAR: 3x3 convolution to 3*channels and batch norm; both outputs are this one. stem.conv, stem.bn
 * ImageNet: three 3x3 convolutions of stride 2: (3,224,224) -> stem[0] (channels,56,56) -> stem[1] (channels,28,28).
 * stem0.conv1, .bn1, .conv2, .bn2, stem1.conv, .bn */
void dc_block_stem(dc_graph *g, dc_network_kind kind, int x, int channels, int stem[2]);

/* Global average pooling, dropout (none for a rate of 0), linear: (C,H,W) -> (classes,1,1), set as the graph's logits.
 * global_pool, dropout, classifier */
int dc_block_classifier(dc_graph *g, int x, int classes, float dropout);

/* The auxiliary head: relu, average pool, 1x1 convolution to 128, batch norm, relu, 2x2 convolution to 768, batch norm
 * (CIFAR only: DARTS' ImageNet head has none there, and the published sizes lack it), relu, linear -> (classes,1,1).
 * The pool is DARTS' (5x5, stride 3 for CIFAR, 2 for ImageNet) where that leaves 2x2, as it does on 8x8 (CIFAR,
 * 32x32 images) and 7x7 (ImageNet, 224x224). On any other map, for instance 7x7 from 28x28 images, it is the pool
 * with the least overlap that leaves 2x2 (of the shorter side), so that the head's parameters do not depend on the
 * images' size. Maps below 2x2 are an error. All its nodes and parameters are marked auxiliary.
 * auxiliary.pool, .conv1, .bn1, .conv2, .bn2, .classifier */
int dc_block_auxiliary_head(dc_graph *g, dc_network_kind kind, int x, int classes);

#endif
