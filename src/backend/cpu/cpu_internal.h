/* What the files of the CPU backend share. */
#ifndef DC_BACKEND_CPU_CPU_INTERNAL_H
#define DC_BACKEND_CPU_CPU_INTERNAL_H

#include "backend/cpu/cpu_backend.h"
#include "backend/prepared.h"

typedef struct dc_cpu_backend {
    dc_backend base; /* first: a dc_backend is one of these */
    const dck_kernels *kernels;
    int threads;
    bool bf16; /* convolutions but depthwise ones multiply bfloat16 numbers */
    dc_kernels prepared;
} dc_cpu_backend;

/* What a node needs beside its operands. */
typedef struct dc_cpu_extra {
    size_t saved_bytes, forward_scratch_bytes, backward_scratch_bytes;
} dc_cpu_extra;

typedef struct dc_cpu_op {
    void (*forward)(const dc_cpu_backend *, const dc_kernel *, const dc_kernel_args *);
    void (*backward)(const dc_cpu_backend *, const dc_kernel *, const dc_kernel_args *);
    void (*extra)(const dc_cpu_backend *, const dc_kernel *, dc_cpu_extra *extra); /* NULL: nothing */
} dc_cpu_op;

/* Whether the convolution leaves moments and takes a dck_grad's factors. */
bool dc_cpu_takes_norm(const dc_cpu_backend *b, const dc_kernel *k);

/* Whether the convolution's backward can leave a batch norm's sums over the gradient of its input. */
bool dc_cpu_sums_gradient(const dc_cpu_backend *b, const dc_kernel *k);

/* Whether the convolutions run together: one x, siblings_* in kernels.h. */
bool dc_cpu_joins(const dc_cpu_backend *b, int n, const dc_kernel *kernels);

/* Scratch of two convolutions that are computed together, the outer one a pointwise one that reads the inner one, which
 * is depthwise; 0: they cannot. */
size_t dc_cpu_fused_scratch_bytes(const dc_cpu_backend *b, const dc_kernel *inner, const dc_kernel *outer);

/* By dc_op. */
extern const dc_cpu_op dc_cpu_ops[DC_OP_COUNT];

#endif
