#include "backend/prepared.h"

#include "base/rng.h"

#include <stdlib.h>
#include <string.h>

static uint64_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static bool has_mask(dc_op op)
{
    return op == DC_OP_DROP_PATH || op == DC_OP_DROPOUT;
}

void dc_kernel_describe(const dc_graph *g, int id, int batch, bool relu_input, dc_kernel *kernel)
{
    const dc_node *node = &g->nodes[id];
    const dc_attr *a = &node->attr;
    const int feature = node->op == DC_OP_MIX ? 1 : 0; /* a mix's first input is the softmax */
    *kernel = (dc_kernel){.op = node->op,
                          .attr = *a,
                          .conv = {.kernel = a->kernel,
                                   .stride = a->stride,
                                   .pad_begin = a->pad_begin,
                                   .pad_end = a->pad_end,
                                   .dilation = a->dilation,
                                   .groups = a->groups,
                                   .relu = relu_input},
                          .pool = {a->kernel, a->stride, a->pad_begin},
                          .stream = has_mask(node->op) ? dc_rng_stream(node->name) : 0,
                          .n_inputs = node->n_inputs,
                          .blocks = (batch + DCK_LANES - 1) / DCK_LANES,
                          .input = node->n_inputs ? g->nodes[node->inputs[feature]].shape : (dc_shape){0, 0, 0},
                          .output = node->shape};
    const dc_kernel *k = kernel;
    kernel->key = (dc_kernel_key){{(uint64_t)node->op,
                                   (uint64_t)a->out_c,
                                   (uint64_t)a->kernel,
                                   (uint64_t)a->stride,
                                   (uint64_t)a->pad_begin,
                                   (uint64_t)a->pad_end,
                                   (uint64_t)a->dilation,
                                   (uint64_t)a->groups,
                                   a->affine,
                                   bits_of(a->rate),
                                   bits_of(a->smoothing),
                                   bits_of(a->weight),
                                   (uint64_t)k->input.c,
                                   (uint64_t)k->input.h,
                                   (uint64_t)k->input.w,
                                   (uint64_t)k->output.c,
                                   (uint64_t)k->output.h,
                                   (uint64_t)k->output.w,
                                   (uint64_t)k->n_inputs,
                                   (uint64_t)batch,
                                   relu_input,
                                   k->stream}};
}

static size_t bucket_of(const dc_kernel_key *key)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (int i = 0; i < DC_KERNEL_KEY_WORDS; i++)
        hash = (hash ^ key->word[i]) * 0x100000001b3u;
    return (size_t)(hash ^ hash >> 32) % DC_KERNEL_BUCKETS;
}

dc_status dc_kernels_prepare(dc_kernels *prepared, const dc_graph *graph, int node, int batch, bool relu_input,
                             dc_kernel **kernel)
{
    dc_kernel wanted;
    dc_kernel_describe(graph, node, batch, relu_input, &wanted);
    dc_kernel **bucket = &prepared->buckets[bucket_of(&wanted.key)];
    for (dc_kernel *k = *bucket; k; k = k->next)
        if (!memcmp(&k->key, &wanted.key, sizeof k->key)) {
            *kernel = k;
            return DC_OK;
        }
    dc_kernel *made = dc_alloc(sizeof *made);
    if (!made)
        return DC_ERR_MEMORY;
    *made = wanted;
    made->next = *bucket;
    *bucket = *kernel = made;
    return DC_OK;
}

void dc_kernels_clear(dc_kernels *prepared)
{
    for (int i = 0; i < DC_KERNEL_BUCKETS; i++)
        for (dc_kernel *k = prepared->buckets[i]; k;) {
            dc_kernel *next = k->next;
            free(k);
            k = next;
        }
    memset(prepared, 0, sizeof *prepared);
}

dck_norm dc_norm_of_args(const dc_kernel *k, const dc_kernel_args *a)
{
    return (dck_norm){.mean = a->params[0],
                      .variance = a->params[1],
                      .gamma = k->attr.affine ? a->params[2] : NULL,
                      .beta = k->attr.affine ? a->params[3] : NULL,
                      .momentum = a->step->momentum,
                      .epsilon = 1e-5f,
                      .saved = a->saved};
}

dck_view dc_range_of(const dc_plan_layout *layout, dc_view whole, const dc_view *parts, int i)
{
    dck_view view = lanes(whole);
    const size_t channel = (size_t)view.h * (size_t)view.w * DCK_LANES;
    for (int j = 0; j < i; j++)
        view.data = dc_element_at(layout, view.data, (size_t)parts[j].shape.c * channel);
    view.c = parts[i].shape.c;
    return view;
}
