/* What every backend keeps of its prepared kernels, of which equal nodes share one, and how a view of the layout that
 * all have, sixteen images innermost, is handed to the kernels of kernels/. */
#ifndef DC_BACKEND_PREPARED_H
#define DC_BACKEND_PREPARED_H

#include "backend/backend.h"
#include "kernels.h"

enum { DC_KERNEL_BUCKETS = 1024, DC_KERNEL_KEY_WORDS = 22 };

/* A kernel's identity: op, attributes, shapes, batch, relu, and the stream of its masks. */
typedef struct dc_kernel_key {
    uint64_t word[DC_KERNEL_KEY_WORDS];
} dc_kernel_key;

struct dc_kernel {
    dc_kernel *next; /* in its bucket */
    dc_kernel_key key;
    dc_op op;
    dc_attr attr;
    dck_conv conv; /* of CONV */
    dck_pool pool; /* of the pools */
    uint64_t stream;
    int n_inputs, blocks;   /* blocks of the planned batch */
    dc_shape input, output; /* of the first feature */
};

/* Every kernel that was ever prepared, by hash of its key; starts as zeros. */
typedef struct dc_kernels {
    dc_kernel *buckets[DC_KERNEL_BUCKETS];
} dc_kernels;

/* The kernel of a node, of its own. */
void dc_kernel_describe(const dc_graph *graph, int node, int batch, bool relu_input, dc_kernel *kernel);

/* The kernel of a node, shared and kept until dc_kernels_clear. */
dc_status dc_kernels_prepare(dc_kernels *prepared, const dc_graph *graph, int node, int batch, bool relu_input,
                             dc_kernel **kernel);
void dc_kernels_clear(dc_kernels *prepared);

static inline bool dc_kernel_is_depthwise(const dc_kernel *k)
{
    return k->conv.groups > 1 && k->conv.groups == k->input.c && k->conv.groups == k->output.c;
}

/* A tensor's view as the kernels take it. */
static inline dck_view lanes(dc_view v)
{
    return (dck_view){
        .data = v.data, .c = v.shape.c, .h = v.shape.h, .w = v.shape.w, .stride = v.stride, .affine = v.affine};
}

/* A tensor of its own, with no memory: what a kernel is asked about its scratch with. */
static inline dck_view shaped(dc_shape s)
{
    return (dck_view){.c = s.c, .h = s.h, .w = s.w, .stride = (size_t)s.c * (size_t)s.h * (size_t)s.w * DCK_LANES};
}

/* Blocks that hold images: those past the last image are neither read nor written. */
static inline int used_blocks(const dc_kernel_args *a)
{
    return (a->step->n_images + DCK_LANES - 1) / DCK_LANES;
}

/* A batch norm's arguments. */
dck_norm dc_norm_of_args(const dc_kernel *k, const dc_kernel_args *a);

/* The channels of the whole that part i of a concat is. */
dck_view dc_range_of(const dc_plan_layout *layout, dc_view whole, const dc_view *parts, int i);

/* So many elements on. */
static inline float *dc_element_at(const dc_plan_layout *layout, float *data, size_t elements)
{
    return (float *)((char *)data + elements * dc_plan_element_bytes(layout));
}

/* What a loss' gradient is multiplied by: the kernels take the mean over this rank's images, the loss is the mean over
 * all ranks'. */
static inline float loss_weight(const dc_kernel *k, const dc_step *step)
{
    return k->attr.weight * (step->n_global ? (float)step->n_images / (float)step->n_global : 1);
}

#endif
