/* A plan: what an executor does in a step, in order, and where every byte lies. Made from a graph, a batch size and
 * what the backend can do; it runs nothing itself, so that it also tells the memory of a job before it is queued.
 *
 * Every value, gradient, saved quantity and workspace gets a place in ONE arena by its lifetime over the steps
 * (forward nodes in order, then backward nodes in reverse). Where the backend allows it, four things cost no pass over
 * memory: a relu is folded into the convolutions that read it; the inputs of a concat lie inside its output; a batch
 * norm is deferred: its output is not stored, its readers scale and shift its input on load, and the convolution before
 * it does the same with the gradient; an output that is cheaper to compute again than to keep is recomputed in
 * backward, and need not be stored at all if its reader can compute it on the way. */
#ifndef DC_GRAPH_PLAN_H
#define DC_GRAPH_PLAN_H

#include "graph/graph.h"

enum { DC_MAX_SIBLINGS = 4, DC_MAX_READERS = 4 };

/* Where a node can leave a batch norm's sums: nowhere, where it alone computes the gradient, or where it is the last to
 * add to it. */
typedef enum dc_plan_sums { DC_SUMS_NONE, DC_SUMS_ALONE, DC_SUMS_LAST } dc_plan_sums;

/* What a backend tells the plan. */
typedef struct dc_plan_layout {
    int lane;          /* the batch is rounded up to a multiple of this many images (CPU: 16) */
    bool narrow;       /* values that belong to images, and their gradients, have elements of 2 bytes, else of 4 */
    bool folds_relu;   /* convolutions can apply relu to their input on load */
    bool concat_views; /* a channel range of a tensor is a valid operand */
    /* Whether `node` can apply a batch norm on load to what it reads, of the operations of dc_op_reads_deferred;
     * relu_input: it applies a relu on load, too. NULL: none can. */
    bool (*reads_deferred)(const void *context, const dc_graph *graph, int node, bool relu_input);
    /* Whether the convolution `node` can leave the moments of its output to the batch norm after it, and compute its
     * output's gradient from that of the normalised one. NULL: none can. */
    bool (*takes_norm)(const void *context, const dc_graph *graph, int node);
    /* Whether these convolutions of the same tensor, the first of which runs them all, are cheaper together; at most
     * DC_MAX_SIBLINGS. Each scratch is then what they ask for one by one, added up. NULL: never. */
    bool (*joins)(const void *context, const dc_graph *graph, int n, const int *nodes);
    bool chains_mixes; /* backward of a mix can take what the mixes after it owe to its inputs, too (dc_plan_node) */
    /* Whether backward of `node` can leave a batch norm's sums over the gradient of what it reads (dc_plan_node).
     * NULL: never. */
    dc_plan_sums (*sums_gradient)(const void *context, const dc_graph *graph, int node, bool relu_input);
    /* Whether the output of `node` is to be recomputed in backward instead of kept. NULL: never. */
    /* Backward of its reader must not read it when neither dw nor a relu's mask is wanted: then it is not computed. */
    bool (*recomputes)(const void *context, const dc_graph *graph, int node);
    /* Whether the convolution `node` can compute its input, a convolution that saves nothing, on the way. NULL: none.
     */
    /* Its forward scratch, by `extra`, suffices for both ways. */
    bool (*fuses)(const void *context, const dc_graph *graph, int node);
    /* bytes that the kernel of `node` keeps from forward to backward, and scratch bytes in each direction */
    void (*extra)(const void *context, const dc_graph *graph, int node, int batch, bool relu_input, size_t *saved_bytes,
                  size_t *forward_scratch_bytes, size_t *backward_scratch_bytes);
    const void *context;
} dc_plan_layout;

/* Bytes of an element of a value that belongs to images, and of its gradient. What does not (dc_node's batch_free, a
 * loss) is always float. */
static inline size_t dc_plan_element_bytes(const dc_plan_layout *layout)
{
    return layout->narrow ? 2 : sizeof(float);
}

/* Where a tensor lies: a channel range of a stored tensor in the arena. */
typedef struct dc_place {
    size_t offset_bytes;  /* in the arena; SIZE_MAX: it has no place */
    int storage_channels; /* channels of the stored tensor, >= the tensor's own */
    int first_channel;    /* of the range */
    size_t affine_bytes;  /* in the arena, of the stored tensor's [storage_channels][2] scales and shifts that make the
                             tensor of what is stored; SIZE_MAX: it is what is stored */
} dc_place;

typedef struct dc_plan_node {
    bool active;        /* is computed */
    bool folded;        /* a relu that its readers apply, or a concat whose inputs already lie in place */
    bool relu_input;    /* a convolution that applies the relu before it: reads the relu's input instead */
    bool deferred;      /* a batch norm whose output is its input seen through scales and shifts */
    int norm;           /* a convolution: the deferred batch norm that it leaves moments to and whose output's gradient
                           stands for the gradient of its own; else -1 */
    int norm_channel;   /* the convolution's first channel in that batch norm */
    bool grad_deferred; /* a batch norm whose input's gradient is computed by the convolutions before it */
    int summed_by;      /* such a batch norm: the node that computes its output's gradient, or what is missing of it,
                           and on the way the sums over it that the factors are made of, into the batch norm's backward
                           scratch; else -1 */
    int recomputed;     /* the input that is computed again before this node's backward, or -1 */
    int leader;         /* the convolution that runs this one, in forward and in backward, at its own step: itself where
                           it is alone or leads */
    int next_sibling;   /* that the same one runs, -1: none */
    /* Mixes of which each has all the inputs of the one before it, in its places, and more, as a cell's nodes have with
     * shared operations; at most DC_MAX_READERS. The gradient of an input is computed by the first that reads it, in
     * one pass for all of them: theirs are complete by then. -1: none. */
    int extends, extended_by;
    int n_left;         /* a mix: how many inputs, the first behind the softmax, it leaves to the one that it extends */
    int inner;          /* the input that this convolution's forward computes on the way, or -1 */
    int outer;          /* the convolution that has this one for its inner: not run forward, not stored; or -1 */
    bool needs_grad;    /* training: a gradient of this output is computed: a loss depends on it, and it on
                           a parameter */
    const int *sources; /* n_inputs node ids to really read (a folded relu replaced by its input) */
    dc_place value, grad;
    dc_place again;         /* of a recomputed value, while its reader runs backward */
    const bool *wants;      /* per input: its gradient is computed here */
    const bool *accumulate; /* per input: its gradient has been written by a later node: add to it */
    /* SIZE_MAX: none. A deferred batch norm's forward scratch is there from the first of its convolutions on (moments),
     * what it saved until the last of them has run backward; its backward scratch from the node on that sums its
     * gradient. again_scratch: forward scratch of a recomputation. */
    size_t saved_offset_bytes, forward_scratch_offset_bytes, backward_scratch_offset_bytes, again_scratch_offset_bytes;
} dc_plan_node;

typedef struct dc_plan {
    const dc_graph *graph;
    int batch; /* images in a step, at most; rounded_batch is the storage */
    int rounded_batch;
    bool training;
    dc_plan_node *nodes; /* graph->n_nodes */
    size_t arena_bytes;
    struct dc_plan_storage *storage; /* private */
} dc_plan;

/* training: values are kept for backward, gradients are placed; otherwise a value lives until its last reader, and
 * the loss nodes and the auxiliary head are inactive unless keep_losses.
 * keep: node ids whose values must survive the whole step (logits are always kept), may be NULL. */
typedef struct dc_plan_options {
    int batch;
    bool training;
    bool keep_losses; /* inference: compute the main loss too (evaluation with loss and accuracy) */
    int n_keep;
    const int *keep;
} dc_plan_options;

/* What the backward of an operation may read besides its output's gradient; values that nobody reads are gone by then.
 * (Every operation may also read what its forward left in `saved`.) */
bool dc_op_backward_reads_inputs(dc_op op);
bool dc_op_backward_reads_output(dc_op op);

/* The operations that can read a deferred batch norm, where the layout has it so. */
bool dc_op_reads_deferred(dc_op op);

dc_status dc_plan_create(const dc_graph *graph, const dc_plan_layout *layout, const dc_plan_options *options,
                         dc_plan **plan);
void dc_plan_destroy(dc_plan *plan);

#endif
